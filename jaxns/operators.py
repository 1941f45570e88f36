"""Linear maps as problems hold them: None (the identity), a number (a multiple of it), a matrix
(dense or sparse), or an operator K with `K(x)` and an adjoint `K.T(u)`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.tree import Tree

KRYLOV_SIZE = 24  # dimension of the Krylov space from which an eigenvalue is bounded


def is_multiple(K: Any) -> bool:
    """Whether K is the identity or a number times it."""
    return K is None or (not callable(K) and jnp.ndim(K) == 0)


def apply(K: Any, x: Tree) -> Tree:
    """Kx."""
    if is_multiple(K):
        return x if K is None else tree.scale(K, x)
    return K(x) if callable(K) else K @ x


def adjoint(K: Any, u: Tree) -> Tree:
    """Kᵀu; by a matrix as uᵀK, which on a CPU is more than twice as fast."""
    if is_multiple(K):
        return u if K is None else tree.scale(K, u)
    if callable(K):
        return K.T(u)  # pyright: ignore[reportFunctionMemberAccess]
    return u @ K if u.ndim == 1 else (u.T @ K).T


def norm(K: Any, like: Tree) -> Array:
    """‖K‖, or slightly more, for K acting on trees like `like`. No derivative flows through it."""
    K, like = lax.stop_gradient((K, like))
    if is_multiple(K):
        return jnp.asarray(1.0 if K is None else jnp.abs(K), tree.dtype(like))
    flat, unravel = ravel_pytree(like)

    def square(v: Array) -> Array:
        return ravel_pytree(adjoint(K, apply(K, unravel(v))))[0]

    start = jnp.sin(1 + jnp.arange(flat.size, dtype=flat.dtype))
    block = jax.vmap(square, in_axes=1, out_axes=1)
    return jnp.sqrt(krylov_bound(lambda v: square(v) if v.ndim == 1 else block(v), start))


def krylov_bound(M: Callable[[Array], Array], start: Array) -> Array:
    """At least the largest eigenvalue of M ⪰ 0, unless `start` misses its eigenvector.

    θ + ‖Mu − θu‖ for the largest Ritz pair (θ, u) of the Krylov space of `start`: the bound of
    Zhou and Li 2011 (Linear Algebra and its Applications 435), orthogonalised in full.
    """

    def unit(v, least=0.0):
        length = jnp.linalg.norm(v)
        return v / jnp.where(length > least, length, jnp.inf)

    def widen(i, basis):
        v = unit(M(basis[i - 1]))
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        return basis.at[i].set(unit(v, least=1e2 * tree.eps(v)))  # else: the space is invariant

    basis = jnp.zeros((KRYLOV_SIZE, start.size), start.dtype).at[0].set(unit(start))
    basis = jax.lax.fori_loop(1, KRYLOV_SIZE, widen, basis)
    image = M(basis.T)
    values, vectors = jnp.linalg.eigh(basis @ image)
    theta, u = values[-1], vectors[:, -1]
    return theta + jnp.linalg.norm(image @ u - theta * (basis.T @ u))
