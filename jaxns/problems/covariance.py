"""Sparse inverse covariance: the graph of a Gaussian."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns.functions import L1, LogDet
from jaxns.problems.composite import Composite
from jaxns.problems.max_penalty import smallest
from jaxns.struct import struct
from jaxns.validate import coefficients


@struct
class SparseInverseCovariance(Composite):
    """See `sparse_inverse_covariance`."""

    def answer(self, X: Array) -> Array:
        """The symmetric part: what f and the penalty on two entries of one sign leave free."""
        return (X + X.mT) / 2

    def max_penalty(self) -> Array:
        """The smallest penalty whose solution is diagonal: the largest |Sᵢⱼ|, i ≠ j."""
        S = self.f.S
        return smallest(self.g, jnp.where(jnp.eye(S.shape[0], dtype=bool), 0, S))

    def start(self) -> Array:
        return jnp.eye(self.f.S.shape[0], dtype=self.f.S.dtype) / self._size()

    def default_solver(self) -> Any:
        """With a stepsize in the units of X²."""
        from jaxns.solvers import DouglasRachford

        return DouglasRachford(1 / self._size() ** 2)

    def _size(self) -> Array:
        """Of X⁻¹, whose diagonal is that of S + penalty: a constant."""
        S, penalty = lax.stop_gradient((self.f.S, self.g.penalty))
        size = jnp.mean(jnp.diagonal(S + penalty))
        return jnp.where(size > 0, size, 1)


def sparse_inverse_covariance(
    S: Any, penalty: Any, diagonal: bool = True
) -> SparseInverseCovariance:
    """tr(SX) − log det X + penalty Σᵢⱼ |Xᵢⱼ| over symmetric positive definite X.

    Friedman, Hastie and Tibshirani 2008; all entries are penalised. With `diagonal=False` those on
    the diagonal are not: `sklearn.covariance.graphical_lasso(S, penalty)`.

    S: (p, p), an empirical covariance.   penalty: a number, or one for each entry (symmetric).
    """
    f, penalty = LogDet(S), coefficients("penalty", penalty)
    if not diagonal:
        penalty = penalty * (1 - jnp.eye(f.S.shape[0], dtype=f.S.dtype))
    return SparseInverseCovariance(f, L1(penalty))
