"""The builders against scikit-learn: same objective, same minimiser."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn import linear_model

import jaxns
from jaxns import problems
from jaxns.functions import Zero

random = np.random.RandomState(0)
N, P = 30, 6
X = random.randn(N, P) * np.array([1.0, 2.0, 0.5, 1.0, 3.0, 0.1])
Y = X @ np.array([1.0, 0.0, -2.0, 0.0, 0.5, 1.0]) + 0.3 * random.randn(N)
Y_MATRIX = np.stack([Y, -Y + random.randn(N)], axis=1)
LABELS = np.where(Y + random.randn(N) > 0, 1.0, -1.0)
WEIGHTS = random.rand(N) + 0.1
WEIGHTS[3] = 0
MEAN_ONE = N * WEIGHTS / WEIGHTS.sum()
TIGHT = {"fit_intercept": False, "tol": 1e-14, "max_iter": 1_000_000}


def squares(x, w=1.0):
    """1/(2n) ‖y − Xβ‖², as in the documentation of Lasso and ElasticNet."""
    return np.sum(w * (Y - X @ x) ** 2) / (2 * N)


def log_loss(x, w=1.0):
    return np.sum(w * np.log1p(np.exp(-LABELS * (X @ x)))) / N


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem, its documented objective in numpy, and scikit-learn's estimator of the same.

    weights: as scikit-learn takes them.
    """

    problem: Any
    objective: Callable[[np.ndarray], float]
    estimator: Any
    y: np.ndarray = dataclasses.field(default_factory=lambda: Y)
    weights: np.ndarray | None = None

    def reference(self):
        return self.estimator.fit(X, self.y, sample_weight=self.weights).coef_.reshape(P)


def logistic(penalty):
    return linear_model.LogisticRegression(C=1 / (N * penalty), solver="newton-cholesky", **TIGHT)


CASES = {
    "lasso": Case(
        problems.lasso(X, Y, 0.1),
        lambda x: squares(x) + 0.1 * np.abs(x).sum(),
        linear_model.Lasso(alpha=0.1, **TIGHT),
    ),
    "lasso-weights": Case(
        problems.lasso(X, Y, 0.1, sample_weight=MEAN_ONE),
        lambda x: squares(x, MEAN_ONE) + 0.1 * np.abs(x).sum(),
        linear_model.Lasso(alpha=0.1, **TIGHT),
        weights=WEIGHTS,  # which Lasso rescales to sum to n
    ),
    "elastic_net": Case(
        problems.elastic_net(X, Y, 0.2, 0.3),
        lambda x: squares(x) + 0.2 * (0.3 * np.abs(x).sum() + 0.35 * x @ x),
        linear_model.ElasticNet(alpha=0.2, l1_ratio=0.3, **TIGHT),
    ),
    "elastic_net-default-ratio": Case(
        problems.elastic_net(X, Y, 0.2),
        lambda x: squares(x) + 0.2 * (0.5 * np.abs(x).sum() + 0.25 * x @ x),
        linear_model.ElasticNet(alpha=0.2, **TIGHT),
    ),
    "elastic_net-weights": Case(
        problems.elastic_net(X, Y, 0.2, 0.3, MEAN_ONE),
        lambda x: squares(x, MEAN_ONE) + 0.2 * (0.3 * np.abs(x).sum() + 0.35 * x @ x),
        linear_model.ElasticNet(alpha=0.2, l1_ratio=0.3, **TIGHT),
        weights=WEIGHTS,
    ),
    "ridge": Case(
        problems.ridge(X, Y, 0.2),
        lambda x: squares(x) + 0.1 * x @ x,
        linear_model.Ridge(alpha=N * 0.2, fit_intercept=False),
    ),
    "ridge-weights": Case(
        problems.ridge(X, Y, 0.2, WEIGHTS),
        lambda x: squares(x, WEIGHTS) + 0.1 * x @ x,
        linear_model.Ridge(alpha=N * 0.2, fit_intercept=False),
        weights=WEIGHTS,
    ),
    "logistic_regression": Case(
        problems.logistic_regression(X, LABELS, 0.05),
        lambda x: log_loss(x) + 0.025 * x @ x,
        logistic(0.05),
        LABELS,
    ),
    "logistic_regression-weights": Case(
        problems.logistic_regression(X, LABELS, 0.05, WEIGHTS),
        lambda x: log_loss(x, WEIGHTS) + 0.025 * x @ x,
        logistic(0.05),
        LABELS,
        WEIGHTS,
    ),
    "nonnegative_least_squares": Case(
        problems.nonnegative_least_squares(X, Y),
        lambda x: squares(x) + (0 if (x >= 0).all() else np.inf),
        linear_model.LinearRegression(positive=True, fit_intercept=False),
    ),
    "nonnegative_least_squares-weights": Case(
        problems.nonnegative_least_squares(X, Y, WEIGHTS),
        lambda x: squares(x, WEIGHTS) + (0 if (x >= 0).all() else np.inf),
        linear_model.LinearRegression(positive=True, fit_intercept=False),
        weights=WEIGHTS,
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@every_case
def test_objective_is_the_documented_one(case):
    for x in (np.zeros(P), random.randn(P), np.abs(random.randn(P))):
        np.testing.assert_allclose(case.problem(x), case.objective(x), rtol=1e-13)


@every_case
def test_minimiser_is_that_of_scikit_learn(case):
    """To 1e-8: what scikit-learn's own tolerances leave."""
    found = jaxns.solve(case.problem)
    assert found.status == jaxns.Status.CONVERGED
    np.testing.assert_allclose(found.x, case.reference(), atol=1e-8)


def test_nonnegative_least_squares_against_scipy():
    reference, _ = nnls(X, Y)
    assert (reference == 0).any()
    found = jaxns.solve(problems.nonnegative_least_squares(X, Y)).x
    np.testing.assert_allclose(found, reference, atol=1e-11)
    np.testing.assert_array_equal(found == 0, reference == 0)  # exact zeros, not small numbers


def test_lasso_zeros_are_exact():
    found = np.asarray(jaxns.solve(CASES["lasso"].problem).x)
    np.testing.assert_array_equal(found == 0, CASES["lasso"].reference() == 0)
    assert (found == 0).any()


def test_per_coordinate_penalty_is_a_rescaled_lasso():
    """penaltyⱼ |βⱼ| is a plain lasso in penaltyⱼ βⱼ; an infinite price is a column left out."""
    penalties = np.array([0.1, 0.2, 0.05, 0.1, 0.4, 0.01])
    plain = linear_model.Lasso(alpha=1.0, **TIGHT).fit(X / penalties, Y).coef_ / penalties
    found = jaxns.solve(problems.lasso(X, Y, penalties)).x
    np.testing.assert_allclose(found, plain, atol=1e-7)


def test_free_intercept_through_a_column_of_ones():
    """A zero in a per-coordinate penalty leaves that coordinate free, derivatives included: where
    the intercept is exactly 0 too, since a penalty of 0 has no kink there."""

    @jax.jit
    def intercept(target):
        features = np.array([[1.0, 1.0], [1.0, -1.0]])
        return jaxns.solve(problems.lasso(features, target, np.array([0.0, 0.1]))).x[0]

    for target in (np.zeros(2), np.array([1.0, 2.0])):
        np.testing.assert_allclose(intercept(target), target.mean(), atol=1e-12)
        np.testing.assert_allclose(jax.grad(intercept)(target), [0.5, 0.5], rtol=1e-12)


def test_many_targets_are_solved_side_by_side():
    found = jaxns.solve(problems.ridge(X, Y_MATRIX, 0.2)).x
    reference = linear_model.Ridge(alpha=N * 0.2, fit_intercept=False).fit(X, Y_MATRIX).coef_.T
    np.testing.assert_allclose(found, reference, atol=1e-10)


def test_composite_adds_its_functions_and_defaults_to_no_penalty():
    problem = CASES["lasso"].problem
    x = random.randn(P)
    np.testing.assert_allclose(problem(x), problem.f(x) + problem.g(x))
    plain = jaxns.Composite(problem.f)
    assert plain.g == Zero()
    np.testing.assert_allclose(
        jaxns.solve(plain).x, np.linalg.lstsq(X, Y, rcond=None)[0], atol=1e-10
    )


def test_parameters_may_be_tracers():
    """Validation lets through what cannot be seen."""

    @jax.jit
    def objective(penalty, ratio, x):
        return problems.elastic_net(X, Y, penalty, ratio)(x)

    x = random.randn(P)
    np.testing.assert_allclose(objective(0.2, 0.3, x), CASES["elastic_net"].objective(x))


@pytest.mark.parametrize("mode", [jaxns.Implicit(), jaxns.Piggyback(), jaxns.OneStep()])
def test_the_example_of_the_page_on_kinks(mode):
    """min ½(x − 1)² + θ|x| at θ = 1, its kink: 0 for every stepsize and mode (docs/kinks.md)."""

    @jax.jit
    @jax.value_and_grad
    def solution(theta, stepsize):
        problem = problems.lasso(np.ones((1, 1)), np.ones(1), theta)
        return jaxns.solve(problem, jaxns.ForwardBackward(stepsize), mode=mode).x[0]

    for stepsize in (0.5, 0.3):
        assert solution(1.0, stepsize) == (0, 0)
