"""`jaxopt.objective`: means of losses of a linear model, data = (X, y). Natively `jaxns.problems`.

The column-wise Lipschitz constants are those of the means, 1/n times what JAXopt says, and for the
dual of the SVM 1/l2reg times that.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns.compat.jaxopt import loss
from jaxns.compat.jaxopt.composite_linear import CompositeLinearFunction, LinearOperator


class MeanLoss(CompositeLinearFunction):
    """(1/n) Σᵢ ℓ(yᵢ, (X w)ᵢ), for subclasses that say what ℓ is."""

    curvature: float  # the Lipschitz constant of the derivative of ℓ in the prediction

    def loss(self, y: Array, predictions: Array) -> Array:
        raise NotImplementedError

    def __call__(self, params: Array, data: Any) -> Array:
        return super().__call__(params, data)

    def subfun(self, predictions: Array, data: Any) -> Array:
        return jnp.mean(self.loss(data[1], predictions))

    def make_linop(self, data: Any) -> LinearOperator:
        return LinearOperator(data[0])

    def columnwise_lipschitz_const(self, data: Any) -> Array:
        """curvature · ‖Xⱼ‖²/n."""
        squares = self.make_linop(data).column_l2_norms(squared=True)
        return self.curvature * squares / data[0].shape[0]


class LeastSquares(MeanLoss):
    """½ mean (X w − y)², over all entries of y."""

    curvature = 1.0

    def loss(self, y: Array, predictions: Array) -> Array:
        return (predictions - y) ** 2 / 2

    def columnwise_lipschitz_const(self, data: Any) -> Array:
        return super().columnwise_lipschitz_const(data) / (jnp.size(data[1]) / len(data[1]))


class BinaryLogreg(MeanLoss):
    """The mean of `jaxopt.loss.binary_logistic_loss`; labels 0 or 1."""

    curvature = 0.25

    def loss(self, y: Array, predictions: Array) -> Array:
        return loss.binary_logistic_loss(jnp.asarray(y), predictions)


class MulticlassLogreg(MeanLoss):
    """The mean of `jaxopt.loss.multiclass_logistic_loss`; W of shape (features, classes)."""

    curvature = 0.5

    def loss(self, y: Array, predictions: Array) -> Array:
        return jax.vmap(loss.multiclass_logistic_loss)(jnp.asarray(y), predictions)


class MulticlassLinearSvmDual(CompositeLinearFunction):
    """‖Xᵀ(Y − β)‖²/(2 l2reg) − ⟨β, 1 − Y⟩, to minimise over β with rows in the simplex.

    data: (X, Y), Y of shape (n, classes) with a 1 for the label. The weights are Xᵀ(Y − β)/l2reg.
    """

    def __call__(self, params: Array, l2reg: Any, data: Any) -> Array:
        return super().__call__(params, l2reg, data)

    def subfun(self, predictions: Array, l2reg: Any, data: Any) -> Array:
        X, Y = data
        V = X.T @ Y - predictions
        return jnp.vdot(V, V) / (2 * l2reg)

    def make_linop(self, l2reg: Any, data: Any) -> LinearOperator:
        return LinearOperator(data[0].T)

    def columnwise_lipschitz_const(self, l2reg: Any, data: Any) -> Array:
        return self.make_linop(l2reg, data).column_l2_norms(squared=True) / l2reg

    def b(self, l2reg: Any, data: Any) -> Array:
        return data[1] - 1


least_squares = LeastSquares()
binary_logreg = BinaryLogreg()
multiclass_logreg = MulticlassLogreg()
multiclass_linear_svm_dual = MulticlassLinearSvmDual()


def ridge_regression(params: Array, l2reg: Any, data: Any) -> Array:
    """least_squares(params, data) + l2reg/2 ‖params‖²."""
    return least_squares(params, data) + _ridge(l2reg, params)


def multiclass_logreg_with_intercept(params: Any, data: Any) -> Array:
    """The mean logistic loss of X W + b.   params: (W, b)."""
    (W, b), (X, y) = params, data
    return multiclass_logreg.subfun(X @ W + b, (X, y))


def l2_multiclass_logreg(W: Array, l2reg: Any, data: Any) -> Array:
    """multiclass_logreg(W, data) + l2reg/2 ‖W‖²."""
    return multiclass_logreg(W, data) + _ridge(l2reg, W)


def l2_multiclass_logreg_with_intercept(params: Any, l2reg: Any, data: Any) -> Array:
    """multiclass_logreg_with_intercept(params, data) + l2reg/2 ‖W‖², without the intercept."""
    return multiclass_logreg_with_intercept(params, data) + _ridge(l2reg, params[0])


def _ridge(l2reg: Any, W: Array) -> Array:
    return l2reg / 2 * jnp.sum(jnp.asarray(W) ** 2)
