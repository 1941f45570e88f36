"""Sets of points with given inner products: half-space, hyperplane, affine set; and ⟨c, x⟩."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxns import tree, validate
from jaxns.functions.margins import NoKinks, SmoothProx, nearest
from jaxns.functions.sets import indicator
from jaxns.struct import settle, struct
from jaxns.tree import Tree


@struct
class Linear(NoKinks):
    """⟨c, x⟩.   c: an array or pytree in the shape of x."""

    c: Any

    def __post_init__(self) -> None:
        settle(self, "c", jax.tree.map(lambda c: validate.array("c", c), self.c))

    def __call__(self, x: Tree) -> Array:
        return tree.vdot(self._like(x), x)

    def gradient(self, x: Tree) -> Tree:
        return self._like(x)

    def lipschitz(self) -> float:
        return 0.0

    def prox(self, x: Tree, step: Any) -> Tree:
        return jax.tree.map(lambda xi, c: (xi - step * c).astype(xi.dtype), x, self._like(x))

    def start(self) -> Tree:
        return tree.zeros_like(self.c)

    def _like(self, x: Tree) -> Tree:
        return jax.tree.map(lambda xi, c: jnp.asarray(c, xi.dtype), x, self.c)


@struct
class HalfSpace:
    """{x : aᵀx ≤ b}.

    a: (p,), not zero, for x of shape (…, p); for an array of more dimensions, the last ones of x.
    b: a number.
    """

    a: Array
    b: float | Array

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, x: Array) -> Array:
        a, b = _like(self, x)
        return indicator(jnp.all(_dot(a, x) - b <= _rounding(a, b, x)), x)

    def prox(self, x: Array, step: Any) -> Array:
        """x − max(aᵀx − b, 0) a/‖a‖²; on the boundary it moves with b, as outside."""
        a, b = _like(self, x)
        excess = _dot(a, x) - b
        return jnp.where(excess < 0, x, x - excess / jnp.sum(a**2) * a)

    def prox_margin(self, x: Array, step: Any) -> Array:
        a, b = _like(self, x)
        return nearest(jnp.abs(_dot(a, x) - b) / tree.norm(a))


@struct
class Hyperplane(SmoothProx):
    """{x : aᵀx = b}.   a, b: as for `HalfSpace`."""

    a: Array
    b: float | Array

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, x: Array) -> Array:
        a, b = _like(self, x)
        return indicator(jnp.all(jnp.abs(_dot(a, x) - b) <= _rounding(a, b, x)), x)

    def prox(self, x: Array, step: Any) -> Array:
        """x − (aᵀx − b) a/‖a‖²."""
        a, b = _like(self, x)
        return x - (_dot(a, x) - b) / jnp.sum(a**2) * a


@struct
class AffineSet(SmoothProx):
    """{x : Ax = b} for x of shape (…, p).   A: (m, p), of any rank.   b: (m,).

    Where no x satisfies the equations the projection is NaN. Derivatives in A are those along
    changes that leave its rank as it is.
    """

    A: Array
    b: Array

    def __post_init__(self) -> None:
        check_rows(self, "A", "b")

    def __call__(self, x: Array) -> Array:
        A, b = jnp.asarray(self.A, x.dtype), jnp.asarray(self.b, x.dtype)
        size = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return indicator(jnp.all(jnp.abs(x @ A.T - b) <= rounding(A, b, size)), x)

    def prox(self, x: Array, step: Any) -> Array:
        """x − A⁺(Ax − b)."""
        return onto_affine(x, jnp.asarray(self.A, x.dtype), jnp.asarray(self.b, x.dtype))


def onto_affine(x: Array, A: Array, b: Array) -> Array:
    """The projection on {Ax = b}, NaN if that is empty. Rows of A may repeat, or vanish."""
    U, s, _ = jnp.linalg.svd(lax.stop_gradient(A), full_matrices=False)
    kept = s > rank_tolerance(A) * s[0]
    whiten = jnp.where(kept, 1 / jnp.where(kept, s, 1), 0)[:, None] * U.T
    N, c = whiten @ A, whiten @ b  # the same set, by orthonormal rows

    def gram(multiplier):
        return (multiplier @ N) @ N.T

    def solve(gram, r):  # the identity, up to rounding
        return r + (r - gram(r))

    u = x - lax.custom_linear_solve(gram, x @ N.T - c, solve, symmetric=True) @ N
    size = jnp.linalg.norm(x, axis=-1, keepdims=True) + jnp.linalg.norm(u, axis=-1, keepdims=True)
    loose = rounding(A, b, size) / tree.eps(x) ** 0.5  # A may be ill-conditioned
    solved = jnp.all(jnp.abs(u @ A.T - b) <= loose, axis=-1, keepdims=True)
    return jnp.where(solved, u, jnp.nan)


def rounding(A: Array, b: Array, size: Array) -> Array:
    """How far Ax = b may be off, row by row, for x of that size."""
    return 1e2 * tree.eps(A) * (size * jnp.linalg.norm(A, axis=-1) + jnp.abs(b))


def rank_tolerance(A: Array) -> float:
    """Singular values of A count as zero up to this fraction of the largest."""
    return max(A.shape) * tree.eps(A)


def check_rows(obj: Any, matrix: str, vector: str) -> None:
    """Of the constraints `matrix` x = `vector`, or ≤."""
    A = validate.array(matrix, getattr(obj, matrix), 2)
    b = validate.array(vector, getattr(obj, vector), 1)
    validate.same_length(vector, b, matrix, A.shape[0])
    settle(obj, matrix, A)
    settle(obj, vector, b)


def _check(obj: Any) -> None:
    a = validate.array("a", obj.a)
    if not a.ndim:
        raise ValueError("a must have at least one dimension, got a scalar")
    if validate.is_known(a) and not np.any(np.asarray(a)):
        raise ValueError("a must not be zero")
    settle(obj, "a", a)
    settle(obj, "b", validate.scalar("b", obj.b))


def _like(obj: Any, x: Array) -> tuple[Array, Array]:
    if x.shape[max(x.ndim - obj.a.ndim, 0) :] != obj.a.shape:
        raise ValueError(f"x must end in the shape of a, {obj.a.shape}, got {x.shape}")
    return jnp.asarray(obj.a, x.dtype), jnp.asarray(obj.b, x.dtype)


def _dot(a: Array, x: Array) -> Array:
    return jnp.sum(a * x, axis=tuple(range(-a.ndim, 0)), keepdims=True)


def _rounding(a: Array, b: Array, x: Array) -> Array:
    return 1e2 * tree.eps(x) * (_dot(jnp.abs(a), jnp.abs(x)) + jnp.abs(b))
