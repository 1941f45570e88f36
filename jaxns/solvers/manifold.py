"""The smooth piece on which a composite problem is solved: Newton's step there.

A partly smooth g says at a point p which coordinates can move, `support(p)` (E embeds them), how it
curves along them, `curvature(p, v)` = Cv, and, where there is one, to which vector every move must
be orthogonal, `normal(p)`. Along this manifold f + g is twice differentiable.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.solvers import frozen
from jaxns.solvers.chosen import marked
from jaxns.tree import Tree

SIZES = (32, 128, 512, 2048)  # of the buffers that a support is gathered to
BATCH = 64  # columns of a matrix that are computed together, where each is a product

Matvec = Callable[[Array], Array]


def newton_step(
    problem: Any, p: Tree, slope: Tree, linear: str, ridge: Array | float = 0.0
) -> Tree:
    """E s with (H_SS + C_SS + ridge I) s = −Eᵀ slope, H = ∇²f(p): see `reduced`."""
    return reduced(problem, p, p, tree.scale(-1, slope), linear, ridge)[0]


def reduced(
    problem: Any,
    x: Tree,
    p: Tree,
    right: Tree,
    linear: str = "auto",
    ridge: Array | float = 0.0,
    sizes: tuple[int, ...] = SIZES,
    push: bool = False,
) -> tuple[Tree, Tree]:
    """E s with (H_SS + C_SS + ridge I) s = Eᵀ right, H = ∇²f(x), of the size of the support of p.

    And H E s, if `push`, from the columns gathered where f has `hessian_product`; else zeros.

    The support is gathered to the smallest buffer of `sizes` that holds it, so that the cost
    follows it. One that fits none, or whose matrix is not positive definite, is left in place, and
    solved for by conjugate gradients; if f knows D and B with H = Diag(D) + BᵀB, `low_rank(x)`, B
    with fewer rows than columns, those are preconditioned by a system of the size of the rows.
    Derivatives are exact to all orders, and never pass through a factorisation.
    """
    flat, unravel = ravel_pytree(p)
    at, _ = ravel_pytree(x)
    support, _ = ravel_pytree(support_of(problem.g, lax.stop_gradient(p)))
    b = jnp.where(support, ravel_pytree(right)[0], 0)
    normal = None
    if hasattr(problem.g, "normal"):
        normal = jnp.where(support, ravel_pytree(problem.g.normal(p))[0], 0)

    def curved(v):
        return ravel_pytree(curvature(problem.g, p, unravel(v)))[0]

    def gradient(v):
        return ravel_pytree(problem.f.gradient(unravel(v)))[0]

    def hessian(v):
        return jax.jvp(gradient, (at,), (v,))[1]

    def product(v):
        return hessian(v) + curved(v)

    count = jnp.sum(support)

    def gathered(size, inverse=frozen.positive):
        """Solve with a matrix of `size` rows; those beyond the support are the identity's."""
        index = marked(support, size)
        used = index < flat.size

        def restrict(v):
            return v.at[index].get(mode="fill", fill_value=0)

        def embed(s):
            return jnp.zeros_like(flat).at[index].add(s, mode="drop")

        def matvec(s):
            return restrict(product(embed(s))) + jnp.where(used, ridge, 1) * s

        def matrix():
            columns = curved if _has_hessian(problem.f, x) else product
            diagonal = jnp.where(used, ridge, 1).astype(flat.dtype)
            if columns is curved and _is_separable(problem.g, p):
                M, diagonal = 0.0, diagonal + restrict(curved(embed(jnp.ones_like(diagonal))))
            else:
                eye = jnp.eye(size, dtype=flat.dtype)
                M = _each(lambda e: restrict(columns(embed(e))), eye)
            if columns is curved:
                M = M + problem.f.hessian(x, jnp.minimum(index, flat.size - 1))
            return jnp.where(used[:, None] & used, M, 0) + jnp.diag(diagonal)

        n = None if normal is None else restrict(normal)
        matvec, M, rhs = _tangent(n, matvec, lax.stop_gradient(matrix()), restrict(b))
        s, sound = inverse(matvec, rhs, M)
        if not push:
            return embed(s), jnp.zeros_like(flat), sound
        if _has_hessian(problem.f, x) and hasattr(problem.f, "hessian_product"):
            inside = jnp.minimum(index, flat.size - 1)
            return embed(s), problem.f.hessian_product(x, inside, jnp.where(used, s, 0)), sound
        return embed(s), hessian(embed(s)), sound

    def in_place(precondition=None):
        def matvec(v):
            return jnp.where(support, product(jnp.where(support, v, 0)) + ridge * v, v)

        along, _, rhs = _tangent(normal, matvec, None, b)
        v = frozen.krylov(along, rhs, precondition=precondition)
        return v, hessian(v) if push else jnp.zeros_like(flat)

    def by_rows():
        D, B = lax.stop_gradient(problem.f).low_rank(lax.stop_gradient(x))
        inverse = frozen.low_rank(frozen.floored(D + ridge, B), B, support)
        return in_place(lambda r: jnp.where(many, inverse(r), r))

    few = linear == "auto" and normal is None and has_few_rows(problem.f, x)
    most = rows(problem.f, x) if few else flat.size
    whole = linear == "direct" or (linear == "auto" and flat.size <= SIZES[-1])
    buffers = [] if linear == "krylov" else [size for size in sizes if size < most]
    if whole and not few:
        buffers.append(flat.size)
    if buffers == [flat.size]:  # nothing to choose
        moved, pushed, _ = gathered(flat.size, lambda *system: (frozen.symmetric(*system), True))
        return unravel(moved), unravel(pushed)
    # Decided for all lanes together: under vmap every branch would run.
    bucket = jnp.sum(tree.over_lanes(count) > jnp.asarray(buffers, count.dtype))
    many = count > max(buffers, default=0)
    none = jnp.zeros_like(flat)
    nowhere = none, none, jnp.zeros((), bool)
    ways = [*(partial(gathered, size) for size in buffers), lambda: nowhere]
    moved, pushed, sound = lax.switch(bucket, ways)
    moved, pushed = lax.cond(
        tree.any_lane(~sound),
        lambda: tree.where(sound, (moved, pushed), (by_rows if few else in_place)()),
        lambda: (moved, pushed),
    )
    return unravel(moved), unravel(pushed)


def is_partly_smooth(g: Any, x: Tree) -> bool:
    """Whether g says what is asked of it here; one normal is enough if the unknown is a vector."""
    known = hasattr(g, "support") and hasattr(g, "curvature")
    return known and (not hasattr(g, "normal") or (isinstance(x, jax.Array) and x.ndim == 1))


def support_of(g: Any, p: Tree) -> Tree:
    """Which coordinates can move; all of them where g is smooth."""
    if hasattr(g, "support"):
        return g.support(p)
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), p)


def curvature(g: Any, p: Tree, v: Tree) -> Tree:
    """Cv, or ∇²g(p) v where g is smooth."""
    if hasattr(g, "curvature"):
        return g.curvature(p, v)
    return jax.jvp(g.gradient, (p,), (v,))[1]


def rows(f: Any, x: Tree) -> int:
    """How many rows the B of `low_rank` has."""
    return jax.eval_shape(f.low_rank, x)[1].shape[0]


def has_few_rows(f: Any, x: Tree) -> bool:
    """Whether f knows such a B, of fewer rows than columns."""
    return getattr(f, "low_rank", None) is not None and rows(f, x) < tree.size(x)


def _each(function: Matvec, rows: Array) -> Array:
    if len(rows) <= BATCH:
        return jax.vmap(function)(rows)
    return lax.map(function, rows, batch_size=BATCH)


def _has_hessian(f: Any, p: Tree) -> bool:
    """Whether f knows its second derivatives in the coordinates of p.ravel()."""
    known = getattr(f, "hessian", None) is not None and isinstance(p, jax.Array)
    return known and (p.ndim == 1 or getattr(f, "any_shape", False))


def has_blocks(g: Any, p: Tree) -> bool:
    """Whether g is known to be a sum over blocks of coordinates."""
    return _separates(g, p) and g.separate(p)[0] is not None


def _is_separable(g: Any, p: Tree) -> bool:
    """Whether g is known to be a sum over coordinates."""
    return _separates(g, p) and g.separate(p)[0] is None


def _separates(g: Any, p: Tree) -> bool:
    return isinstance(p, jax.Array) and p.ndim == 1 and hasattr(g, "separate")


def _tangent(normal: Array | None, matvec: Matvec, matrix: Any, b: Array) -> tuple:
    """The same system with every move kept orthogonal to `normal`: P M P + τ uuᵀ, P = I − uuᵀ."""
    if normal is None:
        return matvec, matrix, b
    squared = normal @ normal
    u = normal / jnp.sqrt(jnp.where(squared > 0, squared, 1))
    tau = lax.stop_gradient(tree.norm(matvec(u)))
    tau = jnp.where(tau > 0, tau, 1)

    def P(v):
        return v - u * (u @ v)

    def along(v):
        return P(matvec(P(v))) + tau * u * (u @ v)

    if matrix is not None:
        v = lax.stop_gradient(u)
        Mv = matrix @ v
        matrix = matrix - jnp.outer(v, Mv) - jnp.outer(Mv, v) + (v @ Mv + tau) * jnp.outer(v, v)
    return along, matrix, P(b)
