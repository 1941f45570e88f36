"""Solution and hypergradient to the last digits, and the proof: optimality conditions.

x* is first found by some solver, with the manifold on which it lies (a support, active bounds, …).
On it the problem is smooth, so Newton's method ends at rounding level, and the implicit function
theorem is a linear system of the size of the manifold:

    ∇_u φ(u*, θ) = 0,   dC/dθ = ∂_θC(x*) − (∂_θ ∇_u φ)ᵀ (∇²_u φ)⁻¹ ∂_uC(x*),   x* = E(u*, θ)

That u* solves the whole problem is what `gap` then measures, off the manifold too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.method import Task


class Truth(NamedTuple):
    """gap: of x, by the optimality conditions.   size: unknowns on the manifold."""

    x: np.ndarray
    gradient: np.ndarray
    gap: float
    size: int
    condition: float


def certified(task: Task, x: np.ndarray, steps: int = 30) -> Truth:
    u, objective, embed, hessian = task.reduced(np.asarray(x))
    theta = jnp.asarray(task.theta)
    slope, hessian = jax.jit(jax.grad(objective)), jax.jit(hessian or jax.hessian(objective))
    best, least = u, np.inf
    for _ in range(steps):
        g = np.asarray(slope(u, theta))
        if not np.linalg.norm(g) < least:
            break
        best, least = u, np.linalg.norm(g)
        u = u - np.linalg.solve(np.asarray(hessian(u, theta)), g)
    H = np.asarray(hessian(best, theta))
    x, pull = jax.vjp(embed, jnp.asarray(best), theta)
    along, direct = pull(jax.grad(task.criterion, 1)(task.data, x))
    w = jnp.asarray(np.linalg.solve(H, np.asarray(along)))
    _, across = jax.vjp(lambda t: jax.grad(objective)(jnp.asarray(best), t), theta)
    x, gradient = np.asarray(x), np.asarray(direct - across(w)[0])
    return Truth(x, gradient, task.gap(x), len(best), float(np.linalg.cond(H)))
