"""Quadratic functions: their prox is a linear system, which `factor(step)` factors once."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import cho_solve

from jaxns import tree, validate
from jaxns.functions.design import EXACT_SIZE, LinearModel
from jaxns.functions.margins import NoKinks
from jaxns.struct import replace, settle, static, struct


class QuadraticForm(NoKinks):
    """½ xᵀQx + qᵀx + constant, Q ⪰ 0. For functions to inherit that know `gradient`, `start` and

    multiply(u): Qu.   cholesky(step): the factor of I + step Q, or of what stands in for it.
    inverse(root, step, r): (I + step Q)⁻¹ r by that factor.
    """

    quadratic = True

    def prox(self: Any, x: Array, step: Array | float) -> Array:
        """(I + step Q)⁻¹ (x − step q)."""
        constant, fixed = lax.stop_gradient((self, step))
        root = constant.cholesky(fixed)
        return _solve(
            self, step, x - step * self.slope_at_zero(), lambda r: constant.inverse(root, fixed, r)
        )

    def factor(self: Any, step: Array | float) -> "Factored":
        """The same function, with what its prox at this step needs computed once."""
        constant, fixed = lax.stop_gradient((self, step))
        return Factored(self, fixed, self.slope_at_zero(), constant.cholesky(fixed))

    def slope_at_zero(self: Any) -> Array:
        """q."""
        return self.gradient(jnp.zeros_like(self.start()))


@struct
class Factored(NoKinks):
    """A quadratic function, with the Cholesky factor of its prox at one step.

    Made by `factor(step)`. The prox at another step factors anew. The factor is a constant: the
    derivatives of the prox, of every order, are those of the equation that it solves.
    """

    function: Any
    step: Any
    linear: Array
    root: Array

    def prox(self, x: Array, step: Array | float) -> Array:
        constant, fixed = lax.stop_gradient((self, step))
        function = constant.function
        rounding = 4 * tree.eps(self.root) * jnp.abs(constant.step)
        moved = ~(jnp.abs(fixed - constant.step) <= rounding)

        def inverse(r):
            return lax.cond(
                tree.any_lane(moved),
                lambda r: function.inverse(function.cholesky(fixed), fixed, r),
                lambda r: function.inverse(constant.root, fixed, r),
                r,
            )

        return _solve(self.function, step, x - step * self.linear, inverse)

    def factor(self, step: Array | float) -> "Factored":
        return self.function.factor(step)

    def __call__(self, x: Array) -> Array:
        return self.function(x)

    def gradient(self, x: Array) -> Array:
        return self.function.gradient(x)

    def hessian(self, x: Array, index: Array | None = None) -> Array:
        return self.function.hessian(x, index)

    def lipschitz(self) -> Array:
        return self.function.lipschitz()

    def start(self) -> Array:
        return self.function.start()


def _solve(form: Any, step: Any, rhs: Array, inverse: Callable[[Array], Array]) -> Array:
    """u with u + step Qu = rhs, differentiable in Q, step and rhs; `inverse` is not looked into."""
    return lax.custom_linear_solve(
        lambda u: u + step * form.multiply(u), rhs, lambda _, r: inverse(r), symmetric=True
    )


class _Squares(QuadraticForm, LinearModel):
    """Quadratic in the predictor: Q = AᵀWA, solved for on the short side of A."""

    def bend(self, t: Array) -> Array:
        return jnp.ones_like(t)

    def strong_convexity(self) -> Array | float | None:
        """The smallest eigenvalue of Q; None where that is much work."""
        n, p = self.A.shape
        if p > min(n, EXACT_SIZE):
            return 0.0 if p > n else None
        return jnp.maximum(jnp.linalg.eigvalsh(self.short_gram())[0], 0)

    def cholesky(self, step: Array | float) -> Array:
        gram = self.short_gram()
        return jnp.linalg.cholesky(jnp.eye(gram.shape[0], dtype=gram.dtype) + step * gram)

    def inverse(self, root: Array, step: Array | float, r: Array) -> Array:
        n, p = self.A.shape
        if p <= n:
            return cho_solve((root, True), r)
        # (I + s BᵀB)⁻¹ = I − s Bᵀ (I + s BBᵀ)⁻¹ B with B = W^½ A.
        inner = cho_solve((root, True), self.half_weighted(self.A @ r))
        return r - step * self.adjoint(self.half_weighted(inner))


@struct
class LeastSquares(_Squares):
    r"""½ Σᵢ wᵢ (aᵢᵀx − bᵢ)², divided by n when `scale="mean"`.

    A: (n, p), dense or sparse.   b: (n,), or (n, k) for an unknown of shape (p, k).
    scale: "sum" or "mean" (over the n rows, whatever the weights).   weights: (n,) ≥ 0, or None.
    """

    A: Array
    b: Array
    scale: str = static(default="sum")
    weights: Array | None = None

    def __post_init__(self) -> None:
        self._check("b", (1, 2))

    @property
    def target(self) -> Array:
        return self.b

    def charge(self, t: Array) -> Array:
        return 0.5 * (t - self.b) ** 2

    def slope(self, t: Array) -> Array:
        return t - self.b


@struct
class Quadratic(QuadraticForm):
    """½ xᵀQx + qᵀx with Q symmetric positive semidefinite.   Q: (p, p).   q: (p,)."""

    Q: Array
    q: Array

    def __post_init__(self) -> None:
        settle(self, "Q", validate.array("Q", self.Q, 2))
        settle(self, "q", validate.array("q", self.q, 1))
        if self.Q.shape != (self.q.shape[0],) * 2:
            raise ValueError(f"Q must have shape {(self.q.shape[0],) * 2}, got {self.Q.shape}")

    def __call__(self, x: Array) -> Array:
        return 0.5 * jnp.vdot(x, self.Q @ x) + jnp.vdot(self.q, x)

    def gradient(self, x: Array) -> Array:
        return self.multiply(x) + self.q

    def hessian(self, x: Array, index: Array | None = None) -> Array:
        """Q, or its rows and columns in `index`."""
        Q = self._symmetric()
        return Q if index is None else Q[index][:, index]

    def lipschitz(self) -> Array:
        return jnp.linalg.eigvalsh(self._symmetric())[-1]

    def strong_convexity(self) -> Array:
        return jnp.maximum(jnp.linalg.eigvalsh(self._symmetric())[0], 0)

    def start(self) -> Array:
        return jnp.zeros_like(self.q)

    def slope_at_zero(self) -> Array:
        return self.q

    def multiply(self, u: Array) -> Array:
        return 0.5 * (self.Q @ u + self.Q.T @ u)

    def cholesky(self, step: Array | float) -> Array:
        return jnp.linalg.cholesky(jnp.eye(self.q.shape[0], dtype=self.Q.dtype) + step * self.Q)

    def inverse(self, root: Array, step: Array | float, r: Array) -> Array:
        return cho_solve((root, True), r)

    def features(self) -> Array:
        """Row j is how t = Qx changes with xⱼ."""
        return self._symmetric()

    def predictor(self, x: Array) -> Array:
        """t = Qx, which is all that coordinate methods remember of x."""
        return self.multiply(x)

    def partial(self, feature: Array, j: Any, t: Array) -> Array:
        """∂f/∂xⱼ from t = Qx, for one coordinate j or several; 0 for those that are not there."""
        return there(t, j) + there(self.q, j)

    def block(self, feature: Array, j: Any) -> Array:
        """The Hessian in one coordinate, or in several: () or (m, m)."""
        return there(feature.T, j)

    def _symmetric(self) -> Array:
        return 0.5 * (self.Q + self.Q.T)


@struct
class Gram(_Squares):
    r"""½ ‖Ax‖² + qᵀx: a quadratic known by a factor of its matrix AᵀA.   A: (n, p).   q: (p,)."""

    A: Array
    q: Array
    scale = "sum"
    weights = None

    def __post_init__(self) -> None:
        settle(self, "A", validate.matrix("A", self.A))
        settle(self, "q", validate.array("q", self.q, 1))
        if self.q.shape[0] != self.A.shape[1]:
            raise ValueError(
                f"q must have one entry per column of A, {self.A.shape[1]}, got {self.q.shape}"
            )

    def __call__(self, x: Array) -> Array:
        return 0.5 * jnp.sum((self.A @ x) ** 2) + jnp.vdot(self.q, x)

    def gradient(self, x: Array) -> Array:
        return self.multiply(x) + self.q

    def start(self) -> Array:
        return jnp.zeros_like(self.q)

    def partial(self, feature: Array, j: Any, t: Array) -> Array:
        return feature @ t + there(self.q, j)

    def rows(self, index: Array) -> "Gram":
        return replace(self, A=(self.A.shape[0] / index.size) ** 0.5 * self.A[index])

    def slope_at_zero(self) -> Array:
        return self.q


@struct
class SquaredDistance(NoKinks):
    """½ Σᵢ wᵢ (xᵢ − bᵢ)² for an array x of any shape.

    b: an array.   weights: ≥ 0, of the shape of b (0 where b is not known), or None.
    """

    b: Array
    weights: Array | None = None
    quadratic = True

    def __post_init__(self) -> None:
        settle(self, "b", validate.array("b", self.b))
        if self.weights is not None:
            weights = validate.nonnegative("weights", validate.array("weights", self.weights))
            if weights.shape != self.b.shape:
                raise ValueError(
                    f"weights must have the shape of b, {self.b.shape}, got {weights.shape}"
                )
            settle(self, "weights", weights)

    def __call__(self, x: Array) -> Array:
        return 0.5 * jnp.sum(self._weighted((x - self.b) ** 2))

    def gradient(self, x: Array) -> Array:
        return self._weighted(x - self.b)

    def prox(self, x: Array, step: Array | float) -> Array:
        """The mean of x and b, weighing 1 and step·w."""
        weight = step if self.weights is None else step * self.weights
        return ((x + weight * self.b) / (1 + weight)).astype(x.dtype)

    def lipschitz(self) -> Array | float:
        return 1.0 if self.weights is None else jnp.max(self.weights)

    def strong_convexity(self) -> Array | float:
        return 1.0 if self.weights is None else jnp.min(self.weights)

    def start(self) -> Array:
        return jnp.zeros_like(self.b)

    def _weighted(self, r: Array) -> Array:
        return r if self.weights is None else self.weights * r


def there(a: Array, index: Any) -> Array:
    """a[index], 0 where the index is past the end."""
    return a.at[index].get(mode="fill", fill_value=0)
