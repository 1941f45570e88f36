"""Linear systems solved with a factor that derivatives do not see.

x = M⁻¹ b by `lax.custom_linear_solve`: its derivatives are again solves with M, at every order, so
that nothing ever passes through a factorisation: M enters through the differentiable `matvec`, and
the matrix that is factorised is taken as a constant. Where the matrix is singular to working
precision a pseudo-inverse of the matrix takes the place of the factor: where the system has
solutions it gives one, and no number comes out large because a pivot was small.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, tree

Matvec = Callable[[Array], Array]


def symmetric(matvec: Matvec, b: Array, matrix: Array, convex: bool = False) -> Array:
    """M⁻¹ b for a symmetric M, by Cholesky after scaling M to a unit diagonal.

    convex: replace each eigenvalue by its absolute value where M is not positive definite, so that
        the answer makes an acute angle with b.
    """
    matrix = lax.stop_gradient(matrix)
    diagonal = jnp.abs(jnp.diagonal(matrix))
    unit = jnp.where(diagonal > 0, lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    scaled = unit[:, None] * matrix * unit
    lower = jnp.linalg.cholesky(scaled)
    sound = jnp.all(jnp.diagonal(lower) ** 2 > b.size * tree.eps(b))  # not so for NaN

    def inverted():
        values, vectors = jnp.linalg.eigh(jnp.where(sound, jnp.eye(b.size, dtype=b.dtype), scaled))
        size = jnp.abs(values)
        kept = size > b.size * tree.eps(b) * jnp.max(size, initial=0)
        inverse = jnp.where(kept, 1 / jnp.where(kept, size if convex else values, 1), 0)
        return (vectors * inverse) @ vectors.T

    inverse = _where_unsound(sound, inverted, lower)

    def solve(_, b):
        answer = jax.scipy.linalg.cho_solve((lower, True), unit * b)
        return unit * jnp.where(sound, answer, inverse @ (unit * b))

    return lax.custom_linear_solve(matvec, b, solve, symmetric=True)


def positive(matvec: Matvec, b: Array, matrix: Array) -> tuple[Array, Array]:
    """M⁻¹ b for M ≻ 0, by Cholesky after scaling M to a unit diagonal, and whether M is that.

    Zero where it is not, or is singular to working precision.
    """
    matrix = lax.stop_gradient(matrix)
    eye = jnp.eye(b.size, dtype=bool)
    diagonal = jnp.sum(jnp.where(eye, matrix, 0), axis=1)
    unit = jnp.where(diagonal > 0, lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    lower = lax.linalg.cholesky(unit[:, None] * matrix * unit, symmetrize_input=False)
    sound = jnp.all(~eye | (lower**2 > b.size * tree.eps(b)))  # not so for NaN, unlike a minimum

    def solve(_, b):
        return jnp.where(sound, unit * jax.scipy.linalg.cho_solve((lower, True), unit * b), 0)

    return lax.custom_linear_solve(matvec, b, solve, symmetric=True), sound


def general(matvec: Matvec, b: Array, matrix: Array) -> Array:
    """M⁻¹ b for any square M, by LU after scaling each row to a largest entry of 1."""
    matrix = lax.stop_gradient(matrix)
    largest = jnp.max(jnp.abs(matrix), axis=1, initial=0)
    unit = 1 / jnp.where(largest > 0, largest, 1)
    scaled = unit[:, None] * matrix
    factors = jax.scipy.linalg.lu_factor(scaled)
    pivots = jnp.abs(jnp.diagonal(factors[0]))
    least = b.size * tree.eps(b) * jnp.max(pivots, initial=0)
    sound = jnp.all(pivots > least)

    def inverted():
        return jnp.linalg.pinv(jnp.where(sound, jnp.eye(b.size, dtype=b.dtype), matrix))

    inverse = _where_unsound(sound, inverted, matrix)

    def solve(_, b):
        return jnp.where(sound, jax.scipy.linalg.lu_solve(factors, unit * b), inverse @ b)

    def transpose_solve(_, b):
        answer = unit * jax.scipy.linalg.lu_solve(factors, b, trans=1)
        return jnp.where(sound, answer, b @ inverse)

    return lax.custom_linear_solve(matvec, b, solve, transpose_solve)


def floored(D: Array, B: Array) -> Array:
    """D ≥ 0 with those entries raised that would be lost beside BᵀB, or are 0."""
    least = tree.eps(B) ** 0.5 * (jnp.mean(jnp.sum(B**2, 0)) + jnp.max(D, initial=0))
    return jnp.maximum(D, jnp.where(least > 0, least, 1))


def low_rank(D: Array, B: Array, on: Array) -> Matvec:
    r"""r ↦ (D_SS + B_SᵀB_S)⁻¹ r_S by a factorisation of the size of the rows of B (Woodbury),

        D⁻¹ (r − Bᵀ (I + B D⁻¹ Bᵀ)⁻¹ B D⁻¹ r),

    S where `on`; the identity beyond. D > 0: see `floored`.
    """
    D, B = jnp.where(on, D, 1), jnp.where(on, B, 0)
    lower = jnp.linalg.cholesky(jnp.eye(len(B), dtype=B.dtype) + (B / D) @ B.T)

    def inverse(r):
        return (r - jax.scipy.linalg.cho_solve((lower, True), B @ (r / D)) @ B) / D

    return inverse


def krylov(
    matvec: Matvec,
    b: Array,
    tol: Any = None,
    method: str = "cg",
    precondition: Matvec | None = None,
) -> Array:
    """M⁻¹ b without a matrix, to the relative residual `tol`.

    By default to rounding level, and then NaN where that is not reached: the system is singular.
    """

    def solve(matvec, b):
        target = 0.0 if tol is None else tol
        x, report = linear.solve(
            method, matvec, b, target, 10 * b.size + 100, precondition=precondition
        )
        return x if tol is not None else jnp.where(report.converged, x, jnp.nan)

    if method == "cg":
        return lax.custom_linear_solve(matvec, b, solve, symmetric=True)
    return lax.custom_linear_solve(matvec, b, solve, transpose_solve=solve)


def _where_unsound(sound: Array, inverted: Callable[[], Array], like: Array) -> Array:
    # Decided for all lanes together: under vmap both branches would run.
    return lax.cond(tree.any_lane(~sound), inverted, lambda: jnp.zeros_like(like))
