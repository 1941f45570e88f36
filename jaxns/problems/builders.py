"""Named problems, in scikit-learn's scaling: the data term is a mean over the n samples.

X: (n, p) features.   y: (n,) targets, or labels −1 and 1.
sample_weight: (n,) ≥ 0, or None. The weighted sum is still divided by n, whatever the weights:
    `Lasso` and `ElasticNet` rescale theirs to sum to n, so pass n * w / sum(w) to agree with them;
    `Ridge` and `LogisticRegression` take w as it is.
There is no intercept: centre X and y, or add a column of ones and a zero in a per-coordinate
penalty. `penalty` is scikit-learn's `alpha` for `Lasso` and `ElasticNet`; see each for the others.
"""

from typing import Any

from jax import Array

from jaxns import tree
from jaxns.functions import L1, ElasticNet, LeastSquares, Logistic, NonNegative, SquaredL2
from jaxns.problems.composite import Composite
from jaxns.validate import array, coefficients, is_known, nonnegative, same_length, scalar


def lasso(X: Any, y: Any, penalty: Any, sample_weight: Array | None = None) -> Composite:
    """1/(2n) ‖y − Xβ‖² + penalty ‖β‖₁, `sklearn.linear_model.Lasso(alpha=penalty)`.

    penalty: a number, or one per coordinate (weighted lasso).
    """
    return Composite(_mean_squares(X, y, sample_weight), L1(penalty))


def elastic_net(
    X: Any, y: Any, penalty: Any, l1_ratio: Any = 0.5, sample_weight: Array | None = None
) -> Composite:
    """1/(2n) ‖y − Xβ‖² + penalty (l1_ratio ‖β‖₁ + (1 − l1_ratio)/2 ‖β‖²).

    `sklearn.linear_model.ElasticNet(alpha=penalty, l1_ratio=l1_ratio)`; for independent weights use
    `Composite(LeastSquares(X, y, scale="mean"), ElasticNet(l1, l2))`.
    """
    penalty = coefficients("penalty", penalty)
    ratio = scalar("l1_ratio", l1_ratio)
    if is_known(ratio) and not 0 <= float(ratio) <= 1:
        raise ValueError(f"l1_ratio must lie in [0, 1], got {ratio}")
    l1, l2 = tree.scale(ratio, penalty), tree.scale(1 - ratio, penalty)
    return Composite(_mean_squares(X, y, sample_weight), ElasticNet(l1, l2))


def ridge(X: Any, y: Any, penalty: Any, sample_weight: Array | None = None) -> Composite:
    """1/(2n) ‖y − Xβ‖² + penalty/2 ‖β‖²: `sklearn.linear_model.Ridge(alpha=n * penalty)`."""
    return Composite(_mean_squares(X, y, sample_weight), SquaredL2(penalty))


def logistic_regression(
    X: Any, y: Any, penalty: Any, sample_weight: Array | None = None
) -> Composite:
    """1/n Σᵢ log(1 + exp(−yᵢ xᵢᵀβ)) + penalty/2 ‖β‖², y in {−1, 1}.

    `sklearn.linear_model.LogisticRegression(C=1 / (n * penalty), fit_intercept=False)`.
    """
    X, y, weights = _data(X, y, sample_weight)
    return Composite(Logistic(X, y, scale="mean", weights=weights), SquaredL2(penalty))


def nonnegative_least_squares(X: Any, y: Any, sample_weight: Array | None = None) -> Composite:
    """1/(2n) ‖y − Xβ‖² subject to β ≥ 0: `sklearn.linear_model.LinearRegression(positive=True)`."""
    return Composite(_mean_squares(X, y, sample_weight), NonNegative())


def _data(X: Any, y: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Checked under the names they have here."""
    X, y = array("X", X, 2), array("y", y, (1, 2))
    same_length("y", y, "X", X.shape[0])
    if weights is not None:
        weights = nonnegative("sample_weight", array("sample_weight", weights, 1))
        same_length("sample_weight", weights, "X", X.shape[0])
    return X, y, weights


def _mean_squares(X: Any, y: Any, sample_weight: Any) -> LeastSquares:
    X, y, weights = _data(X, y, sample_weight)
    return LeastSquares(X, y, scale="mean", weights=weights)
