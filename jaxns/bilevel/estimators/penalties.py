"""The penalised problems of the estimators, in the coordinates of a `Design`.

weights: what a unit of penalty on a feature is on its column of Z; 0 for the intercept.
"""

from typing import Any

from jax import Array

from jaxns.functions import L1, ElasticNet, GroupL2, Logistic, SquaredHinge, SquaredL2
from jaxns.problems import Composite
from jaxns.problems.samples import mean_squares
from jaxns.struct import static, struct


@struct
class Lasso:
    """1/(2n) ‖y − Zx‖² + Σⱼ θ weightsⱼ |xⱼ|; with θ one number, or one for each column."""

    weights: Any

    def __call__(self, Z: Any, y: Any, theta: Any, sample_weight: Array) -> Composite:
        return Composite(mean_squares(Z, y, sample_weight), L1(theta * self.weights))


@struct
class Net:
    """1/(2n) ‖y − Zx‖² + Σⱼ l1 weightsⱼ |xⱼ| + ½ Σⱼ l2 weightsⱼ² xⱼ²."""

    weights: Any

    def __call__(self, Z: Any, y: Any, theta: dict, sample_weight: Array) -> Composite:
        penalty = ElasticNet(theta["l1"] * self.weights, theta["l2"] * self.weights**2)
        return Composite(mean_squares(Z, y, sample_weight), penalty)


@struct
class Grouped:
    """1/(2n) ‖y − Zx‖² + Σ_g θ weights_g ‖x_g‖₂."""

    weights: Any
    groups: Any = static()

    def __call__(self, Z: Any, y: Any, theta: Any, sample_weight: Array) -> Composite:
        penalty = GroupL2(theta * self.weights, self.groups)
        return Composite(mean_squares(Z, y, sample_weight), penalty)


@struct
class SparseLogistic:
    """1/n Σᵢ log(1 + exp(−yᵢ zᵢᵀx)) + Σⱼ θ weightsⱼ |xⱼ|."""

    weights: Any

    def __call__(self, Z: Any, y: Any, theta: Any, sample_weight: Array) -> Composite:
        loss = Logistic(Z, y, scale="mean", weights=sample_weight)
        return Composite(loss, L1(theta * self.weights))


@struct
class Machine:
    """½ Σⱼ weightsⱼ xⱼ² + θ Σᵢ max(0, 1 − yᵢ zᵢᵀx)²."""

    weights: Any

    def __call__(self, Z: Any, y: Any, theta: Any, sample_weight: Array) -> Composite:
        loss = SquaredHinge(Z, y, weights=theta * sample_weight)
        return Composite(loss, SquaredL2(self.weights))
