"""Quantile regression."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns.functions import L1, Pinball
from jaxns.problems.composite import Composite
from jaxns.problems.samples import samples


def quantile_regression(
    X: Any, y: Any, level: Any = 0.5, penalty: Any = 0.0, sample_weight: Array | None = None
) -> Composite:
    """1/n Σᵢ max(level rᵢ, (level − 1) rᵢ) + penalty ‖β‖₁,  r = y − Xβ (Koenker and Bassett 1978).

    `sklearn.linear_model.QuantileRegressor(quantile=level, alpha=penalty, fit_intercept=False)`.
    The loss is a function of Xβ: Composite(f, g, K) with K = X, for the solvers that split.

    level: in (0, 1).   penalty: a number, or one per coordinate.
    """
    X, y, weights = samples(X, y, sample_weight)
    n = y.shape[0]
    shares = jnp.full_like(y, 1 / n) if weights is None else weights / n
    return Composite(L1(penalty), Pinball(y, level, shares), X)
