"""Linear classifiers, in scikit-learn's scaling: the loss is a mean over the n samples.

X, sample_weight: as in `regression`; there is no intercept.
"""

from typing import Any

import numpy as np
from jax import Array

from jaxns.functions import L1, Logistic, Multinomial, SquaredL2
from jaxns.problems.composite import Composite
from jaxns.problems.samples import samples, weights
from jaxns.validate import matrix


def logistic_regression(
    X: Any, y: Any, penalty: Any, sample_weight: Array | None = None
) -> Composite:
    """1/n Σᵢ log(1 + exp(−yᵢ xᵢᵀβ)) + penalty/2 ‖β‖², y in {−1, 1}.

    `sklearn.linear_model.LogisticRegression(C=1 / (n * penalty), fit_intercept=False)`.
    """
    return Composite(_log_loss(X, y, sample_weight), SquaredL2(penalty))


def sparse_logistic(X: Any, y: Any, penalty: Any, sample_weight: Array | None = None) -> Composite:
    """1/n Σᵢ log(1 + exp(−yᵢ xᵢᵀβ)) + penalty ‖β‖₁, y in {−1, 1}.

    `LogisticRegression(penalty="l1", C=1 / (n * penalty), fit_intercept=False)`.
    penalty: a number, or one per coordinate.
    """
    return Composite(_log_loss(X, y, sample_weight), L1(penalty))


def multinomial(X: Any, y: Any, penalty: Any, sample_weight: Array | None = None) -> Composite:
    """1/n Σᵢ (log Σ_c exp(xᵢᵀβ_c) − xᵢᵀβ_{yᵢ}) + penalty/2 ‖β‖², β of shape (p, classes).

    `LogisticRegression(C=1 / (n * penalty), fit_intercept=False)` with three classes or more.
    y: integer labels 0, 1, …, or class probabilities as rows (n, classes).
    """
    return Composite(_multinomial_loss(X, y, sample_weight), SquaredL2(penalty))


def sparse_multinomial(
    X: Any, y: Any, penalty: Any, sample_weight: Array | None = None
) -> Composite:
    """1/n Σᵢ (log Σ_c exp(xᵢᵀβ_c) − xᵢᵀβ_{yᵢ}) + penalty Σ |β|.   y: as for `multinomial`."""
    return Composite(_multinomial_loss(X, y, sample_weight), L1(penalty))


def _log_loss(X: Any, y: Any, sample_weight: Any) -> Logistic:
    X, y, checked = samples(X, y, sample_weight)
    return Logistic(X, y, scale="mean", weights=checked)


def _multinomial_loss(X: Any, y: Any, sample_weight: Any) -> Multinomial:
    X = matrix("X", X)
    if np.shape(y)[:1] != X.shape[:1]:
        raise ValueError(
            f"y must have one entry per row of X: expected {X.shape[0]}, got shape {np.shape(y)}"
        )
    return Multinomial(X, y, scale="mean", weights=weights(sample_weight, X.shape[0]))
