"""The fixed-point equation of a splitting, reduced to the system on the support.

With H = ∇²f(x) and P = ∂prox_{αg} = E (I + αC)⁻¹ Eᵀ, where E embeds the coordinates S that can
move and C is the curvature of g along them (jaxns.solvers.manifold), I − ∂F comes down to

    R r = E (H_SS + C_SS)⁻¹ Eᵀ r,

symmetric, and of the size of the support (arXiv 2105.01637). Each function here returns the pair
b ↦ (I − ∂F)⁻¹ b and b ↦ (I − ∂F)⁻ᵀ b, or None where f or g do not say enough, or α is None: a
stepsize that is found anew at every point.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxns import linear, tree
from jaxns.solvers.manifold import (
    curvature,
    has_blocks,
    is_partly_smooth,
    reduced,
    support_of,
)
from jaxns.struct import replace
from jaxns.tree import Tree

SIZES = (32, 128, 384, 1024)  # of the buffers for a support: each is compiled
LARGEST = 2048  # … of blocks, of which a solution may have as many as there are samples
CORRECTION = 1e-8  # of its right-hand side: what conjugate gradients may leave


class Inverse(NamedTuple):
    solve: Callable[[Tree], Tree]
    transpose: Callable[[Tree], Tree]


def forward_backward(problem: Any, x: Tree, p: Tree, alpha: Any) -> Inverse | None:
    """F(x) = prox_{αg}(x − α∇f(x)) = p: ∂F = P (I − αH)."""
    if alpha is None or not _reduces(problem, x):
        return None
    problem = _selected(problem, tree.axpy(-alpha, problem.f.gradient(x), x), alpha)

    def solve(b):  # u = b + q with q = P (I − αH) u
        return tree.add(b, _reduced(problem, x, p, _gradient_step(problem.f, x, alpha, b)))

    def transpose(v):  # w = v + (I − αH) q with q = P w
        right = tree.scale(1 / alpha, v)
        q, Hq = reduced(problem, x, p, right, sizes=_sizes(problem.g, x), push=True)
        return tree.add(v, tree.axpy(-alpha, Hq, q))

    return Inverse(solve, transpose)


def correction(
    problem: Any, x: Tree, p: Tree, alpha: Any, gap: Tree, max_steps: Any
) -> Tree | None:
    """d with (I − ∂F(x)) d ≈ gap for that F: by conjugate gradients, nothing factorised.

    d is gap off the support S of p, and (H_SS + C_SS) d_S = gap_S/α + C_SS gap_S on it.
    """
    g = problem.g
    if alpha is None or not _reduces(problem, x) or hasattr(g, "normal"):
        return None
    support, _ = ravel_pytree(support_of(g, p))
    r, unravel = ravel_pytree(gap)
    _, hessian = jax.linearize(problem.f.gradient, x)

    def curved(v):
        return ravel_pytree(curvature(g, p, unravel(jnp.where(support, v, 0))))[0]

    def product(v):
        inside = jnp.where(support, v, 0)
        return jnp.where(support, ravel_pytree(hessian(unravel(inside)))[0] + curved(v), v)

    b = jnp.where(support, r / alpha + curved(r), 0)
    return unravel(jnp.where(support, _conjugate_gradients(product, b, max_steps), r))


def _conjugate_gradients(product: Callable[[Array], Array], b: Array, max_steps: Any) -> Array:
    """s with product(s) ≈ b, at least roughly: the correction is tried before it is taken.

    `linear.cg`, which keeps its best iterate, takes twice as long to compile, in every solve.
    """

    def body(state):
        *iterate, k = state
        return *linear.cg_step(product, *iterate), k + 1

    def going(state):
        *_, rr, k = state
        return (rr > CORRECTION**2) & (k < max_steps)  # not so for NaN

    size = tree.norm(b)
    unit = jnp.where(size > 0, size, 1)
    b = b / unit
    start = (jnp.zeros_like(b), b, b, b @ b, jnp.zeros((), jnp.int32))
    return unit * tree.while_loop(going, body, start)[0]


def gradient_descent(problem: Any, x: Tree, alpha: Any) -> Inverse | None:
    """F(x) = x − α∇(f + g)(x): I − ∂F = α (H + C)."""
    if alpha is None:
        return None

    def solve(b):
        return _reduced(problem, x, x, tree.scale(1 / alpha, b))

    return Inverse(solve, solve)


def douglas_rachford(
    problem: Any, V: Tree, Y: Tree, X: Tree, alpha: Any, relaxation: Any
) -> Inverse | None:
    """F(V) = V + λ (X − Y), Y = prox_{αg}(V), X = prox_{αf}(2Y − V): ∂X = (I + αH)⁻¹ at X."""
    if not _reduces(problem, V):
        return None
    problem, f = _selected(problem, V, alpha), problem.f

    def plus(u):  # (I + αH) u
        return tree.axpy(alpha, _hessian(f, X, u), u)

    def solve(b):  # with y = P u:  (I + αH)(y − b) = 2y − u
        b = tree.scale(1 / relaxation, b)
        y = _reduced(problem, X, Y, tree.scale(1 / alpha, plus(b)))
        return tree.sub(tree.scale(2, y), plus(tree.sub(y, b)))

    def transpose(v):  # w = (I + αH) q with q = v − y, y = P (w − 2q)
        v = tree.scale(1 / relaxation, v)
        y = _reduced(problem, X, Y, tree.scale(-1.0, _gradient_step(f, X, alpha, v)))
        return plus(tree.sub(v, y))

    return Inverse(solve, transpose)


def _reduced(problem: Any, x: Tree, p: Tree, right: Tree) -> Tree:
    return reduced(problem, x, p, right, sizes=_sizes(problem.g, x))[0]


def _sizes(g: Any, x: Tree) -> tuple[int, ...]:
    return (*SIZES, LARGEST) if has_blocks(g, x) else SIZES


def _gradient_step(f: Any, x: Tree, alpha: Any, u: Tree) -> Tree:
    """(u/α − H u)."""
    return tree.axpy(-1.0, _hessian(f, x, u), tree.scale(1 / alpha, u))


def _hessian(f: Any, x: Tree, u: Tree) -> Tree:
    return jax.jvp(f.gradient, (x,), (u,))[1]


def _selected(problem: Any, v: Tree, alpha: Any) -> Any:
    """With the derivative that prox_{αg} has at v, where g lets one choose it at a kink."""
    g = problem.g
    return replace(problem, g=g.selected(v, alpha)) if hasattr(g, "selected") else problem


def _reduces(problem: Any, x: Tree) -> bool:
    g = problem.g
    smooth = hasattr(g, "gradient") and not hasattr(g, "support")
    return hasattr(problem.f, "gradient") and (smooth or is_partly_smooth(g, x))
