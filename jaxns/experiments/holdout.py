"""The bilevel problem: the validation error of a penalised regression, as a function of penalties.

    min over t of  C(t) = mean (X_val x(t) − y_val)²,   x(t) = argmin_x 1/(2n) ‖y − X x‖² + g_t(x)

with t the logarithms of the penalties: g_t = e^t ‖x‖₁ (lasso), or e^{t₁} ‖x‖₁ + e^{t₂}/2 ‖x‖²
(elastic net). Every solve starts from zero, so that counts of inner iterations can be compared and
piggyback's derivative runs as long as the iteration does.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxns
from jaxns.experiments import closed_form, config
from jaxns.experiments.data import Split
from jaxns.functions import ElasticNet, LeastSquares

logger = logging.getLogger(__name__)

Jacobian = Callable[[np.ndarray, float, int], np.ndarray]
"""(log penalties, tol, max_steps) -> ∂x/∂t."""

PENALTIES = {"lasso": ("penalty",), "elastic_net": ("l1 penalty", "l2 penalty")}


@dataclasses.dataclass(frozen=True, eq=False)
class HoldOut:
    """The inner problem and how it is solved."""

    model: str
    split: Split
    stop: jaxns.Stop

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        split = self.split
        X, y, X_val, y_val = map(jnp.asarray, (split.X, split.y, split.X_val, split.y_val))
        return X, y, X_val, y_val

    @property
    def penalties(self) -> tuple[str, ...]:
        return PENALTIES[self.model]

    def problem(self, t: Array, X: Array, y: Array) -> jaxns.Composite:
        penalty = jnp.exp(t)
        if self.model == "lasso":
            return jaxns.problems.lasso(X, y, penalty[0])
        return jaxns.Composite(LeastSquares(X, y, scale="mean"), ElasticNet(*penalty))

    def solve(self, t: Array, X: Array, y: Array, mode: Any, stop: Any = None) -> jaxns.Solution:
        return jaxns.solve(self.problem(t, X, y), mode=mode, stop=stop or self.stop)

    def validation_error(self, t: Array, arrays: Any, mode: Any) -> tuple[Array, tuple]:
        """C(t), and beside it the inner iterations it took and the solution."""
        X, y, X_val, y_val = arrays
        solution = self.solve(t, X, y, mode)
        return jnp.mean((X_val @ solution.x - y_val) ** 2), (solution.steps, solution.x)

    @functools.cached_property
    def evaluate(self) -> Callable[[Array, Any], tuple[Array, Array, Array]]:
        """(t, arrays) -> C(t), inner iterations, solution; compiled once."""

        def evaluate(t, arrays):
            error, (steps, x) = self.validation_error(t, arrays, jaxns.Implicit())
            return error, steps, x

        return jax.jit(evaluate)

    def jacobian(self, mode: config.Mode) -> Jacobian:
        """∂x/∂t by `mode`, in reverse as the outer loop has it, after a solve stopped as asked."""
        rule = make_mode(mode)

        @jax.jit
        def jacobian(t, tol, max_steps, X, y):
            stop = jaxns.Stop(tol=tol, max_steps=max_steps, on_failure="ignore")
            x, pull = jax.vjp(lambda t: self.solve(t, X, y, rule, stop).x, t)
            rows = jnp.eye(x.size, dtype=x.dtype)
            return jax.lax.map(lambda row: pull(row)[0], rows)  # less work than batched

        X, y = self.arrays[:2]
        return lambda t, tol, max_steps: np.asarray(jacobian(jnp.asarray(t), tol, max_steps, X, y))

    def reference(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        """x(t) and ∂x/∂t, one column per penalty, in closed form on the support (in float64)."""
        X, y = self.split.X, self.split.y
        guess = self.evaluate(jnp.asarray(t), self.arrays)[2]
        penalty = np.exp(np.asarray(t, np.float64))
        l1, l2 = penalty if len(penalty) == 2 else (penalty[0], 0.0)
        n = len(y)
        exact = closed_form.reference(X.T @ X / n, X.T @ y / n, l1, l2, np.asarray(guess))
        if exact.violation > 1e3 * jnp.finfo(guess.dtype).eps:
            logger.warning(
                "the closed form at penalties %s violates optimality by %.1e: the solve found "
                "another support; lower inner.tol",
                penalty,
                exact.violation,
            )
        columns = (l1 * exact.d_l1, l2 * exact.d_l2)[: len(penalty)]
        return exact.x, np.stack(columns, axis=1)


def make_mode(mode: config.Mode) -> Any:
    """The library's mode for a mode in a config."""
    match mode.name:
        case "implicit":
            return jaxns.Implicit()
        case "piggyback":
            return jaxns.Piggyback()
        case "one_step":
            return jaxns.OneStep(steps=mode.steps or 1)


def relative_error(x: Any, exact: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(x) - exact) / np.linalg.norm(exact))
