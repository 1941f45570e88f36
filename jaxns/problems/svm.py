"""Support vector machines, through their duals; in scikit-learn's scaling, with a sum of losses."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.functions import Box, BoxSection, Gram, Quadratic
from jaxns.functions.losses import signs
from jaxns.problems.composite import Composite
from jaxns.problems.samples import samples, weights
from jaxns.struct import static, struct
from jaxns.validate import array, nonnegative, positive, scalar


class Machine(NamedTuple):
    """What solving an SVM gives.

    dual: a number for each sample: αᵢ ≥ 0 for `svm` and `kernel_svm`, αᵢ − αᵢ* for `svr`.
    weights: those of the linear predictor xᵀweights + intercept; None for a kernel, whose
        predictor is Σᵢ yᵢ dualᵢ k(xᵢ, x) + intercept.
    intercept: 0 if none was asked for.
    """

    dual: Array
    weights: Array | None
    intercept: Array


@struct
class Dual(Composite):
    """min_a ½ ‖Σᵢ sᵢ aᵢ xᵢ‖² + qᵀa subject to 0 ≤ a ≤ C, and sᵀa = 0 with an intercept.

    Of a classifier s are the labels; of a regression the samples come twice, with s = 1 and −1.
    Solvers see the dual; `jaxns.solve(…).x` is a `Machine`.

    s: (m,).   C: (m,).   X: (n, p), m = n or 2n; None for a kernel.
    """

    s: Any = None
    C: Any = None
    X: Any = None
    intercept: bool = static(default=True)

    def answer(self, a: Array) -> Machine:
        signed = self.s * a
        if self.X is None:
            return Machine(a, None, self._offset(a))
        n = self.X.shape[0]
        signed = signed.reshape(-1, n).sum(0)
        return Machine(a if a.shape[0] == n else signed, signed @ self.X, self._offset(a))

    def _offset(self, a: Array) -> Array:
        """The intercept: what makes every sample whose a is between its bounds sit on its margin.

        That is a mean over these; where there are none, the middle of what the others allow.
        """
        if not self.intercept:
            return jnp.zeros((), a.dtype)
        slope = self.f.gradient(a)
        wanted, counts = -self.s * slope, self.C > 0
        # A step of projected gradient meets the bounds where a solver has only come close to them.
        step = 1 / jnp.maximum(self.f.lipschitz(), tree.eps(a))
        settled = lax.stop_gradient(self.g.prox(a - step * slope, step))
        rounding = 1e2 * tree.eps(a) * jnp.sum(a)  # of the projection, which meets sᵀa = 0
        low, high = (settled <= rounding) & counts, (settled >= self.C - rounding) & counts
        free = ~low & ~high & counts
        number = jnp.sum(free)
        at_least = jnp.where(self.s > 0, low, high)
        at_most = jnp.where(self.s > 0, high, low)
        floor = jnp.max(jnp.where(at_least, wanted, -jnp.inf))
        ceiling = jnp.min(jnp.where(at_most, wanted, jnp.inf))
        floor = jnp.where(jnp.isinf(floor), ceiling, floor)
        ceiling = jnp.where(jnp.isinf(ceiling), floor, ceiling)
        mean = jnp.sum(jnp.where(free, wanted, 0)) / jnp.maximum(number, 1)
        return jnp.where(number > 0, mean, (floor + ceiling) / 2)


def svm(
    X: Any, y: Any, C: Any = 1.0, intercept: bool = True, sample_weight: Array | None = None
) -> Dual:
    """½ ‖w‖² + C Σᵢ max(0, 1 − yᵢ (xᵢᵀw + b)), y in {−1, 1}: `sklearn.svm.SVC(kernel="linear")`.

    The dual is solved, ½ ‖Σᵢ yᵢ αᵢ xᵢ‖² − Σᵢ αᵢ subject to 0 ≤ αᵢ ≤ C, and Σᵢ yᵢ αᵢ = 0 with an
    intercept (without: b = 0). The solution's `x` is a `Machine`: dual, weights, intercept.

    C: a number > 0.   sample_weight: (n,) ≥ 0, factors of C.
    """
    X, y, checked = samples(X, y, sample_weight)
    y = signs("y", y)
    C = _ceiling(C, y, checked)
    return Dual(
        Gram((y[:, None] * X).T, -jnp.ones_like(y)),
        _cut(C, y, intercept),
        None,
        None,
        y,
        C,
        X,
        intercept,
    )


def kernel_svm(
    K: Any, y: Any, C: Any = 1.0, intercept: bool = True, sample_weight: Array | None = None
) -> Dual:
    """`svm` for a kernel, known by K with Kᵢⱼ = k(xᵢ, xⱼ): `sklearn.svm.SVC(kernel="precomputed")`.

    K: (n, n), symmetric positive semidefinite.
    """
    K, y = array("K", K, 2), signs("y", array("y", y, 1))
    if K.shape != (y.shape[0],) * 2:
        raise ValueError(f"K must have shape {(y.shape[0],) * 2}, got {K.shape}")
    C = _ceiling(C, y, weights(sample_weight, y.shape[0]))
    f = Quadratic(y[:, None] * K * y, -jnp.ones_like(y))
    return Dual(f, _cut(C, y, intercept), s=y, C=C, intercept=intercept)


def svr(
    X: Any,
    y: Any,
    C: Any = 1.0,
    epsilon: Any = 0.1,
    intercept: bool = True,
    sample_weight: Array | None = None,
) -> Dual:
    """½ ‖w‖² + C Σᵢ max(0, |yᵢ − xᵢᵀw − b| − epsilon): `sklearn.svm.SVR(kernel="linear")`.

    The dual is solved, in (α, α*) between 0 and C:
    ½ ‖Σᵢ (αᵢ − αᵢ*) xᵢ‖² + epsilon Σᵢ (αᵢ + αᵢ*) − Σᵢ yᵢ (αᵢ − αᵢ*), Σᵢ (αᵢ − αᵢ*) = 0.
    The solution's `x` is a `Machine`.   C, sample_weight: as for `svm`.   epsilon: a number ≥ 0.
    """
    X, y, checked = samples(X, y, sample_weight)
    epsilon = nonnegative("epsilon", scalar("epsilon", epsilon))
    C = jnp.tile(_ceiling(C, y, checked), 2)
    s = jnp.concatenate([jnp.ones_like(y), -jnp.ones_like(y)])
    f = Gram((s[:, None] * _twice(X)).T, epsilon - s * jnp.tile(y, 2))
    return Dual(f, _cut(C, s, intercept), s=s, C=C, X=X, intercept=intercept)


def _twice(X: Any) -> Any:
    if not hasattr(X, "todense"):
        return jnp.concatenate([X, X])
    from jax.experimental.sparse import bcoo_concatenate

    return bcoo_concatenate([X, X], dimension=0)


def _ceiling(C: Any, y: Array, sample_weight: Any) -> Array:
    C = positive("C", scalar("C", C)) * jnp.ones_like(y)
    return C if sample_weight is None else C * sample_weight


def _cut(C: Array, s: Array, intercept: bool) -> Any:
    return BoxSection(0.0, C, s, 0.0) if intercept else Box(0.0, C)
