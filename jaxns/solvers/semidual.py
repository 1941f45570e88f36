"""The semi-dual of entropic transport, and how far to go along a direction that raises it.

S(f) = max_g of the dual is concave. With P1 = a·R at (f, g(f)), its gradient is

    ∇S(f) = a e^(−f/ρ) − a R,   R = exp((f − F(f)/τ)/ε)       (a − a R in the balanced case)

where F is Sinkhorn's map (Cuturi and Peyré 2018, "Semidual regularized optimal transport").
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.solvers.annealing import sweep

SAFE = 0.1  # moves of a potential, in units of ε, along which S is as good as quadratic
LONGEST = 16.0  # … and beyond which its quadratic model means nothing
OVERSHOOT = 0.1  # slope, relative to the first, downwards past the top that is put up with


def ascent(problem: Any, f: Array, residual: Array, direction: Array) -> Array:
    """⟨∇S(f), direction⟩, from residual = F(f) − f. No derivative."""
    problem, f, residual, direction = lax.stop_gradient((problem, f, residual, direction))
    epsilon, tau = problem.epsilon, problem.tau
    R = jnp.exp((f - (f + residual) / tau) / epsilon)
    return jnp.vdot(problem.a * R * jnp.expm1(residual / (tau * epsilon)), direction)


def length(problem: Any, f: Array, residual: Array, direction: Array) -> Array:
    """1, or the first of its halves at which S does not yet fall. No derivative.

    Newton's step assumes that marginals answer linearly; they do so exponentially, and a whole step
    may go far past the top.
    """
    problem, f, direction = lax.stop_gradient((problem, f, direction))
    first = ascent(problem, f, residual, direction)
    furthest = jnp.max(jnp.abs(direction), initial=0) / problem.epsilon
    start = jnp.minimum(1, LONGEST / jnp.maximum(furthest, LONGEST)).astype(f.dtype)

    def body(carry):
        t, _ = carry
        moved = f + t * direction
        slope = ascent(problem, moved, sweep(problem, moved) - moved, direction)
        fine = (slope >= -OVERSHOOT * first) | ~(t * furthest > SAFE)
        return jnp.where(fine, t, 0.5 * t), fine

    t, _ = tree.while_loop(lambda carry: ~carry[1], body, (start, ~(furthest > SAFE)))
    return t
