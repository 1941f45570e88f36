"""Functions of eigenvalues and of singular values, with derivatives that see no ties.

A derivative through eigenvectors divides by the gaps between eigenvalues. That of a spectral
function does not need to: it is a Hadamard product with divided differences (Daleckii and Krein
1965; Bhatia, Matrix Analysis, theorem V.3.3), which stay finite where eigenvalues meet.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import tree, validate
from jaxns.closure import hoist
from jaxns.functions.margins import from_threshold, nearest
from jaxns.functions.norms import per_leaf, soft_threshold, weighted_sum
from jaxns.struct import settle, struct
from jaxns.tree import Tree


@struct
class Nuclear:
    """penalty · Σᵢ σᵢ(x), the singular values of the matrices on the last two axes of each leaf.

    penalty: a number ≥ 0, one for each matrix, or a pytree of these matching the structure of x.
    """

    penalty: Any

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))

    def __call__(self, x: Tree) -> Array:
        norms = jax.tree.map(lambda xi: jnp.sum(jnp.linalg.svd(xi, compute_uv=False), axis=-1), x)
        return weighted_sum(self._per_matrix(x), norms)

    def prox(self, x: Tree, step: Any) -> Tree:
        """Soft-threshold the singular values."""

        def threshold(p, xi):
            t = (step * p)[..., None]
            return singular_map(xi, lambda s: soft_threshold(s, t))

        return jax.tree.map(threshold, self._per_matrix(x), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """To the nearest matrix with a singular value at the threshold (Mirsky 1960)."""

        def gaps(p, xi):
            values = jnp.linalg.svd(xi, compute_uv=False)
            return from_threshold(values, (step * p)[..., None])

        return nearest(jax.tree.map(gaps, self._per_matrix(x), x))

    def _per_matrix(self, x: Tree) -> Tree:
        for leaf in jax.tree.leaves(x):
            if leaf.ndim < 2:
                raise ValueError(f"x must hold matrices on its last two axes, got {leaf.shape}")
        one_each = jax.tree.map(lambda xi: jnp.sum(xi, axis=(-2, -1)), x)
        penalty = per_leaf("penalty", self.penalty, one_each, "the norms of x")
        return jax.tree.map(lambda p, n: jnp.broadcast_to(p, n.shape), penalty, one_each)


def spectral_map(X: Array, fun: Callable[[Array], Array]) -> Array:
    """U diag(fun(w)) Uᵀ for the symmetric X = U diag(w) Uᵀ; X is (…, n, n), and symmetrised.

    fun: elementwise on the eigenvalues, (…, n) -> (…, n). Arrays it closes over (a stepsize, a
        penalty) are differentiated too, tracers included.

    The derivative is right wherever fun is differentiable at the eigenvalues, repeated or not; at a
    kink of fun it follows fun's own. A second derivative goes through `jnp.linalg.eigh` and needs
    distinct eigenvalues.
    """
    X = (X + X.mT) / 2
    explicit, arrays = hoist(fun, _like_values(X))
    return _spectral_map(explicit, arrays, X)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _spectral_map(fun: Callable, arrays: list[Array], X: Array) -> Array:
    w, U = jnp.linalg.eigh(X, symmetrize_input=False)
    return (U * fun(arrays, w)[..., None, :]) @ U.mT


@_spectral_map.defjvp
def _(fun: Callable, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """dF = U (L ∘ UᵀdXU + diag(∂fun)) Uᵀ, Lᵢⱼ the divided difference of fun at wᵢ, wⱼ."""
    (arrays, X), (d_arrays, dX) = primals, tangents
    w, U = jnp.linalg.eigh(X, symmetrize_input=False)
    f, slope, moved = _along_and_across(fun, arrays, d_arrays, w)
    L = divided_difference(*_pairs(w), *_pairs(f), *_pairs(slope))
    inner = L * (U.mT @ dX @ U) + _diagonal(moved)
    return (U * f[..., None, :]) @ U.mT, U @ inner @ U.mT


def singular_map(X: Array, fun: Callable[[Array], Array]) -> Array:
    """U diag(fun(σ)) Vᵀ for X = U diag(σ) Vᵀ, X of shape (…, m, n), with fun(0) = 0.

    fun, derivatives: as for `spectral_map`; fun is continued as an odd function, whose derivative
    at 0 counts for the singular values that are 0.
    """
    if X.shape[-2] < X.shape[-1]:
        return singular_map(X.mT, fun).mT
    explicit, arrays = hoist(fun, _like_values(X))
    return _singular_map(explicit, arrays, X)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _singular_map(fun: Callable, arrays: list[Array], X: Array) -> Array:
    U, s, Vt = jnp.linalg.svd(X, full_matrices=False)
    return (U * fun(arrays, s)[..., None, :]) @ Vt


@_singular_map.defjvp
def _(fun: Callable, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """With E = UᵀdXV: the symmetric part of E meets the differences at (σᵢ, σⱼ), the antisymmetric
    part those at (σᵢ, −σⱼ), and what of dX lies outside the range of U those at (σⱼ, 0)."""
    (arrays, X), (d_arrays, dX) = primals, tangents
    U, s, Vt = jnp.linalg.svd(X, full_matrices=False)
    f, slope, moved = _along_and_across(fun, arrays, d_arrays, s)
    (si, sj), (fi, fj), (di, dj) = _pairs(s), _pairs(f), _pairs(slope)
    zero = jnp.zeros_like(s)
    at_zero = _along_and_across(fun, arrays, d_arrays, zero)[1]
    even = divided_difference(si, sj, fi, fj, di, dj)
    odd = divided_difference(si, -sj, fi, -fj, di, dj)
    outer = divided_difference(s, zero, f, zero, slope, at_zero)[..., None, :]
    dXV = dX @ Vt.mT
    E = U.mT @ dXV
    inner = even * (E + E.mT) / 2 + odd * (E - E.mT) / 2 + _diagonal(moved)
    dF = (U @ inner + outer * (dXV - U @ E)) @ Vt
    return (U * f[..., None, :]) @ Vt, dF


def divided_difference(a: Array, b: Array, fa: Array, fb: Array, da: Array, db: Array) -> Array:
    """(f(a) − f(b)) / (a − b), continued by f′ where a = b; da, db are f′(a), f′(b).

    Where a and b are so close that the quotient loses more digits than the mean of the slopes
    differs from it (second order in the gap), the mean is taken; but not across a kink of f, where
    the slopes differ and the quotient is well conditioned.
    """
    gap, unit = a - b, jnp.cbrt(tree.eps(a)).astype(a.dtype)
    near = jnp.abs(gap) <= unit * (jnp.abs(a) + jnp.abs(b) + jnp.abs(fa) + jnp.abs(fb))
    smooth = jnp.abs(da - db) <= 0.01 * (jnp.abs(da) + jnp.abs(db))
    mean = (near & smooth) | (gap == 0)
    return jnp.where(mean, (da + db) / 2, (fa - fb) / jnp.where(mean, 1, gap))


def _along_and_across(
    fun: Callable, arrays: list[Array], d_arrays: Any, w: Array
) -> tuple[Array, Array, Array]:
    """fun, its slope in w, and its derivative along d_arrays, elementwise."""
    f, slope = jax.jvp(lambda w: fun(arrays, w), (w,), (jnp.ones_like(w),))
    moved = jax.jvp(lambda arrays: fun(arrays, w), (arrays,), (d_arrays,))[1]
    return f, slope, moved


def _like_values(X: Array) -> Array:
    """Of the shape and type of the eigenvalues or singular values."""
    return jax.lax.stop_gradient(jnp.diagonal(X, axis1=-2, axis2=-1))


def _pairs(w: Array) -> tuple[Array, Array]:
    return w[..., :, None], w[..., None, :]


def _diagonal(w: Array) -> Array:
    return w[..., None] * jnp.eye(w.shape[-1], dtype=w.dtype)
