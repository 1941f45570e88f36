"""The likelihood of a Gaussian in its inverse covariance."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve

from jaxns import validate
from jaxns.functions.margins import SmoothProx, nearest
from jaxns.functions.spectral import spectral_map
from jaxns.struct import settle, struct


@struct
class LogDet(SmoothProx):
    """tr(SX) − log det X for X symmetric positive definite, infinity elsewhere.

    S: (p, p), symmetric, such as an empirical covariance. S and X are symmetrised.
    """

    S: Array
    any_shape: ClassVar[bool] = True  # of X: `hessian` is in the coordinates of X.ravel()

    def __post_init__(self) -> None:
        settle(self, "S", validate.array("S", self.S, 2))
        if self.S.shape[0] != self.S.shape[1]:
            raise ValueError(f"S must be a square matrix, got shape {self.S.shape}")

    def __call__(self, X: Array) -> Array:
        diagonal = jnp.diagonal(jnp.linalg.cholesky(X))
        inside = jnp.isfinite(diagonal).all()  # else the factor is NaN
        value = jnp.vdot(_symmetric(self.S), X) - 2 * jnp.sum(
            jnp.log(jnp.where(inside, diagonal, 1))
        )
        return jnp.where(inside | jnp.isnan(value), value, jnp.inf)

    def gradient(self, X: Array) -> Array:
        """S − X⁻¹; NaN where X is not positive definite."""
        return _symmetric(self.S) - _inverse(X)

    def hessian(self, X: Array, index: Array | None = None) -> Array:
        """V ↦ X⁻¹ V X⁻¹, V symmetrised, in the coordinates of X.ravel(), or in those in `index`."""
        i, j = jnp.divmod(jnp.arange(X.size) if index is None else index, X.shape[1])
        inverse = _inverse(X)

        def among(rows, columns):
            return inverse[rows[:, None], columns]

        return (among(i, i) * among(j, j) + among(i, j) * among(j, i)) / 2

    def gradient_margin(self, X: Array) -> Array:
        """To the boundary of the domain, beyond which there is no gradient."""
        return nearest(jnp.linalg.eigvalsh(X))

    def prox(self, X: Array, step: Any) -> Array:
        """U − step U⁻¹ = X − step S, in the eigenvectors of the right side."""

        def positive_root(w):  # of u − step/u = w; the larger of the two in size loses no digits
            size = jnp.where(w > 0, w, -w)
            larger = (size + jnp.sqrt(w**2 + 4 * step)) / 2
            return jnp.where(w > 0, larger, step / larger).astype(w.dtype)

        return spectral_map(X - step * self.S, positive_root)

    def start(self) -> Array:
        """The identity: zero has no logarithm."""
        return jnp.eye(self.S.shape[0], dtype=self.S.dtype)


def _inverse(X: Array) -> Array:
    return cho_solve((jnp.linalg.cholesky(X), True), jnp.eye(len(X), dtype=X.dtype))


def _symmetric(S: Array) -> Array:
    return (S + S.T) / 2
