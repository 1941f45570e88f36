"""Linear regressions, in scikit-learn's scaling: the data term is a mean over the n samples.

X: (n, p) features, dense or sparse (`jax.experimental.sparse`).   y: (n,) targets.
sample_weight: (n,) ≥ 0, or None. The weighted sum is still divided by n, whatever the weights:
    `Lasso` and `ElasticNet` rescale theirs to sum to n, so pass n * w / sum(w) to agree with them;
    `Ridge` takes w as it is, and so does `LogisticRegression`.
There is no intercept: centre X and y, or add a column of ones and a zero in a per-coordinate
penalty. `penalty` is scikit-learn's `alpha` for `Lasso` and `ElasticNet`; see each for the others.
"""

from typing import Any

from jax import Array

from jaxns import tree
from jaxns.functions import L1, ElasticNet, NonNegative, SquaredL2
from jaxns.problems.composite import Composite
from jaxns.problems.samples import mean_squares
from jaxns.validate import coefficients, is_known, scalar


def lasso(X: Any, y: Any, penalty: Any, sample_weight: Array | None = None) -> Composite:
    """1/(2n) ‖y − Xβ‖² + penalty ‖β‖₁, `sklearn.linear_model.Lasso(alpha=penalty)`.

    penalty: a number, or one per coordinate (weighted lasso).
    """
    return Composite(mean_squares(X, y, sample_weight), L1(penalty))


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
    return Composite(mean_squares(X, y, sample_weight), ElasticNet(l1, l2))


def ridge(X: Any, y: Any, penalty: Any, sample_weight: Array | None = None) -> Composite:
    """1/(2n) ‖y − Xβ‖² + penalty/2 ‖β‖²: `sklearn.linear_model.Ridge(alpha=n * penalty)`."""
    return Composite(mean_squares(X, y, sample_weight), SquaredL2(penalty))


def nonnegative_least_squares(X: Any, y: Any, sample_weight: Array | None = None) -> Composite:
    """1/(2n) ‖y − Xβ‖² subject to β ≥ 0: `sklearn.linear_model.LinearRegression(positive=True)`."""
    return Composite(mean_squares(X, y, sample_weight), NonNegative())
