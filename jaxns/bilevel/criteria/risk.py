"""Criteria that need no held-out sample: residuals, corrected for what the fit could adapt to.

What corrects them are derivatives of the predictions ŷ in the targets y: the trace of ∂ŷ/∂y, the
degrees of freedom, or its diagonal. Of a linear smoother ŷ = S y they are read from S; of any other
fit the trace is estimated by finite differences in random directions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import tree, validate
from jaxns.bilevel.criteria.held_out import Fit
from jaxns.bilevel.criteria.losses import linear
from jaxns.bilevel.levels import Bilevel
from jaxns.struct import seal, struct
from jaxns.tree import Tree


@struct
class LeaveOneOut:
    """(x, θ) ↦ 1/n Σᵢ ((yᵢ − ŷᵢ) / (1 − Sᵢᵢ))²."""

    fit: Any

    def __call__(self, x: Tree, theta: Tree) -> Array:
        leverage = jnp.diag(smoother(self.fit, theta))
        return jnp.mean(((self.fit.y - self.fit.X @ x) / (1 - leverage)) ** 2)


@struct
class GeneralisedCrossValidation:
    """(x, θ) ↦ 1/n Σᵢ (yᵢ − ŷᵢ)² / (1 − df/n)²."""

    fit: Any
    predict: Any
    probes: Any = None

    def __call__(self, x: Tree, theta: Tree) -> Array:
        y = self.fit.y
        if self.probes is None:
            t, freedom = self.predict(self.fit.X, x), jnp.trace(smoother(self.fit, theta))
        else:
            t, freedom = self.probes.of(self.fit, self.predict, x)
        return jnp.mean((y - t) ** 2) / (1 - freedom / y.size) ** 2


@struct
class Stein:
    """(x, θ) ↦ ‖y − ŷ‖² − n sigma² + 2 sigma² df."""

    fit: Any
    predict: Any
    sigma: Any
    probes: Any

    def __call__(self, x: Tree, theta: Tree) -> Array:
        t, freedom = self.probes.of(self.fit, self.predict, x)
        misfit = jnp.sum((self.fit.y - t) ** 2)
        return misfit + self.sigma**2 * (2 * freedom - self.fit.y.size)


@struct
class Probes:
    """df ≈ mean over δ of ⟨ŷ(y + εδ) − ŷ(y), δ⟩ / ε (Deledalle et al., arXiv 1405.1164).

    directions: δ, standard normal, (m, *y.shape).   step: ε.
    """

    directions: Array
    step: Any

    def targets(self, y: Array) -> Array:
        """y and the y + εδ, (1 + m, *y.shape)."""
        return y + self.step * jnp.concatenate([0 * y[None], self.directions])

    def of(self, fit: Fit, predict: Callable, x: Tree) -> tuple[Array, Array]:
        """ŷ(y), and its degrees of freedom, from the solutions for `targets`."""
        t = jax.vmap(lambda x: predict(fit.X, x))(x)
        slopes = (t[1:] - t[0]) / self.step
        return t[0], jnp.sum(slopes * self.directions) / len(slopes)


def leave_one_out(model: Callable, X: Any, y: Any) -> Bilevel:
    """The mean squared error at each sample of the fit to the others, for a linear smoother.

    One fit gives all n: the residual of the fit without sample i is (yᵢ − ŷᵢ)/(1 − Sᵢᵢ), ŷ = S y,
    where the data term is a sum over samples and the penalty does not depend on their number (for
    a builder whose loss is a mean over n, such as `ridge`, the fit to the others is that with
    weight 0 on sample i, still divided by n).

    model: (X, y, θ) -> a quadratic problem, such as `ridge` or Tikhonov's
        `Composite(LeastSquares(X, y), SquaredL2(θ), K)`. S comes from a factorisation, (p, p).
    X: (n, p).   y: (n,).
    """
    fit = _fit(model, X, y, 1)
    return seal(Bilevel(LeaveOneOut(fit), fit))


def gcv(
    model: Callable,
    X: Any,
    y: Any,
    key: Array | None = None,
    *,
    probes: int = 1,
    step: Any = None,
    predict: Callable = linear,
) -> Bilevel:
    """Generalised cross-validation, mean (yᵢ − ŷᵢ)² / (1 − df/n)² (Craven and Wahba 1979).

    key: without one df is the trace of S, and the model must be as for `leave_one_out`. With one
        df is estimated as for `sure`, by `probes` directions and finite differences of `step`, by
        default 10⁻³ of the standard deviation of y.
    """
    fit = _fit(model, X, y)
    if key is None:
        return seal(Bilevel(GeneralisedCrossValidation(fit, predict), fit))
    step = 1e-3 * jnp.std(fit.y) if step is None else step
    drawn = _probes(key, fit.y, probes, step)
    outer = GeneralisedCrossValidation(fit, predict, drawn)
    return seal(Bilevel(outer, fit, {"y": drawn.targets(fit.y)}))


def sure(
    model: Callable,
    X: Any,
    y: Any,
    sigma: Any,
    key: Array,
    *,
    probes: int = 1,
    step: Any = None,
    predict: Callable = linear,
) -> Bilevel:
    """Stein's unbiased risk estimate, ‖y − ŷ‖² − n sigma² + 2 sigma² df.

    Its mean is E‖ŷ − E y‖² for y = E y + sigma · standard normal noise. The degrees of freedom are
    estimated by finite differences in random directions, so that the gradient of the estimate is
    that of the risk's (SUGAR, Deledalle, Vaiter, Fadili and Peyré 2014, arXiv 1405.1164).

    model: (X, y, θ) -> problem.   X, y: as for `holdout`.   sigma: a number > 0.
    key: of `jax.random`, for the directions.   probes: their number, each an inner problem more.
    step: ε of the finite differences, by default theirs, 2 sigma / n^0.3.
    """
    fit = _fit(model, X, y)
    sigma = validate.positive("sigma", validate.scalar("sigma", sigma))
    step = 2 * sigma / fit.y.size**0.3 if step is None else step
    drawn = _probes(key, fit.y, probes, step)
    return seal(Bilevel(Stein(fit, predict, sigma, drawn), fit, {"y": drawn.targets(fit.y)}))


def smoother(fit: Fit, theta: Tree) -> Array:
    """S with Xx(θ) = S y for a quadratic problem: −X (∇²ₓ)⁻¹ ∂_y∇ₓ, (n, n)."""
    problem = fit(theta)
    parts = [getattr(problem, name, None) for name in ("f", "g", "h")]
    if not all(getattr(part, "quadratic", False) for part in parts if part is not None):
        raise TypeError(
            "model must be a linear smoother, of quadratic functions such as LeastSquares and "
            "SquaredL2; for another one use cross_validation, or gcv and sure with a key"
        )
    origin = tree.zeros_like(problem.start())

    def slope(y):
        return jax.grad(fit.model(fit.X, y, theta))(origin)

    H, B = jax.hessian(problem)(origin), jax.jacobian(slope)(fit.y)
    return -fit.X @ jnp.linalg.solve(H, B)


def _fit(model: Callable, X: Any, y: Any, ndim: Any = (1, 2)) -> Fit:
    X, y = validate.matrix("X", X), validate.array("y", y, ndim)
    validate.same_length("y", y, "X", X.shape[0])
    return Fit(model, X, y)


def _probes(key: Array, y: Array, count: Any, step: Any) -> Probes:
    validate.positive("probes", validate.integer("probes", count))
    step = validate.positive("step", validate.scalar("step", step))
    return Probes(jax.random.normal(key, (count, *y.shape), y.dtype), step)
