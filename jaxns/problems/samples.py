"""Samples as the builders take them: checked under the names they have there."""

from typing import Any

from jaxns.functions import LeastSquares
from jaxns.validate import array, matrix, nonnegative, same_length


def samples(X: Any, y: Any, sample_weight: Any, ndim: Any = 1, name: str = "y") -> tuple:
    """X, y (of that many dimensions) and the weights, of one length."""
    X, y = matrix("X", X), array(name, y, ndim)
    same_length(name, y, "X", X.shape[0])
    return X, y, weights(sample_weight, X.shape[0])


def weights(sample_weight: Any, n: int) -> Any:
    if sample_weight is None:
        return None
    sample_weight = nonnegative("sample_weight", array("sample_weight", sample_weight, 1))
    same_length("sample_weight", sample_weight, "X", n)
    return sample_weight


def mean_squares(
    X: Any, y: Any, sample_weight: Any, ndim: Any = (1, 2), name: str = "y"
) -> LeastSquares:
    """1/(2n) Σᵢ wᵢ (yᵢ − xᵢᵀβ)²."""
    X, y, checked = samples(X, y, sample_weight, ndim, name)
    return LeastSquares(X, y, scale="mean", weights=checked)
