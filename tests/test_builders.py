"""Named problems against scikit-learn, cvxpy, or the conditions that make a point optimal.

The linear regressions and classifiers with a plain penalty are in test_problems.py.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference
from sklearn import linear_model
from sklearn.covariance import graphical_lasso
from sklearn.decomposition import NMF
from sklearn.svm import SVC, SVR
from test_problems import CASES as PLAIN

import jaxns
from jaxns import problems
from jaxns.functions import Differences, ImageGradient

random = np.random.RandomState(0)
N, P, K = 30, 6, 3
X = random.randn(N, P)
Y = X @ np.array([1.0, 0, -2, 0, 0.5, 1]) + 0.3 * random.randn(N)
TARGETS = np.stack([Y, random.randn(N) - Y], 1)
LABELS = np.where(Y + random.randn(N) > 0, 1.0, -1.0)
CLASSES = np.digitize(Y, [-1, 1])
WEIGHTS = random.rand(N) + 0.1
GROUPS = [0, 1, 2, 2, 1, 0]
SIGNAL = np.repeat([0.0, 1.0, -0.5], 8) + 0.1 * random.randn(24)
IMAGE = random.rand(5, 6) + np.pad(np.ones((2, 2)), [(1, 2), (2, 2)])
S = np.cov(X.T)
PRECISE = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-14) | {
    "iterative_refinement_abstol": 1e-15,
    "iterative_refinement_reltol": 1e-15,
    "iterative_refinement_max_iter": 30,
    "static_regularization_constant": 1e-12,
    "tol_ktratio": 1e-10,
    "max_iter": 500,
}
TIGHT = {"fit_intercept": False, "tol": 1e-14, "max_iter": 1_000_000}


def minimise(objective: Callable, *shape: int, **options: Any) -> np.ndarray:
    x = cp.Variable(shape, **options)
    problem = cp.Problem(cp.Minimize(objective(x)))
    problem.solve("CLARABEL", **PRECISE)
    return x.value


def mean_squares(b):
    return cp.sum_squares(Y - X @ b) / (2 * N)


def log_loss(b):
    return cp.sum(cp.logistic(-cp.multiply(LABELS, X @ b))) / N


def multinomial_loss(b, weights=np.ones(N)):
    t = X @ b
    own = cp.sum(cp.multiply(np.eye(K)[CLASSES], t), axis=1)
    return cp.sum(cp.multiply(weights, cp.log_sum_exp(t, axis=1) - own)) / N


def pinball(b, level):
    r = Y - X @ b
    return cp.sum(cp.maximum(level * r, (level - 1) * r)) / N


def gradient_lengths(x, isotropic):
    down = cp.vstack([cp.diff(x, axis=0), np.zeros((1, x.shape[1]))])
    right = cp.hstack([cp.diff(x, axis=1), np.zeros((x.shape[0], 1))])
    both = cp.vstack([cp.vec(down, order="C"), cp.vec(right, order="C")])
    return cp.sum(cp.norm(both, axis=0)) if isotropic else cp.sum(cp.abs(both))


def signal_objective(order):
    return lambda x: 0.5 * cp.sum_squares(x - SIGNAL) + 0.3 * cp.norm1(cp.diff(x, order))


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem, and its objective for cvxpy with the shape of the unknown."""

    problem: Any
    objective: Callable[[Any], Any]
    shape: tuple[int, ...] = (P,)
    options: dict = dataclasses.field(default_factory=dict)
    atol: float = 1e-8


CASES = {
    "group_lasso": Case(
        problems.group_lasso(X, Y, [0.3, 0.9, 0.6], GROUPS),
        lambda b: (
            mean_squares(b)
            + 0.3 * (cp.norm2(b[[0, 5]]) + 3 * cp.norm2(b[[1, 4]]) + 2 * cp.norm2(b[2:4]))
        ),
        atol=3e-8,  # a cone program, to the root of its duality gap; see below for more digits
    ),
    "fused_lasso": Case(
        problems.fused_lasso(X, Y, 0.1, 0.2),
        lambda b: mean_squares(b) + 0.1 * cp.norm1(b) + 0.2 * cp.norm1(cp.diff(b)),
    ),
    "sparse_logistic": Case(
        problems.sparse_logistic(X, LABELS, 0.05), lambda b: log_loss(b) + 0.05 * cp.norm1(b)
    ),
    "sparse_multinomial": Case(
        problems.sparse_multinomial(X, CLASSES, 0.03),
        lambda b: multinomial_loss(b) + 0.03 * cp.sum(cp.abs(b)),
        (P, K),
    ),
    "multinomial-weights": Case(
        problems.multinomial(X, np.eye(K)[CLASSES], 0.03, WEIGHTS),
        lambda b: multinomial_loss(b, WEIGHTS) + 0.015 * cp.sum_squares(b),
        (P, K),
    ),
    "quantile_regression": Case(
        problems.quantile_regression(X, Y, 0.3, 0.05),
        lambda b: pinball(b, 0.3) + 0.05 * cp.norm1(b),
    ),
    "trend_filtering": Case(problems.trend_filtering(SIGNAL, 0.3), signal_objective(1), (24,)),
    "trend_filtering-2": Case(problems.trend_filtering(SIGNAL, 0.3, 2), signal_objective(2), (24,)),
    "total_variation": Case(
        problems.total_variation(IMAGE, 0.2),
        lambda x: 0.5 * cp.sum_squares(x - IMAGE) + 0.2 * gradient_lengths(x, True),
        IMAGE.shape,
    ),
    "total_variation-anisotropic": Case(
        problems.total_variation(IMAGE, 0.2, isotropic=False),
        lambda x: 0.5 * cp.sum_squares(x - IMAGE) + 0.2 * gradient_lengths(x, False),
        IMAGE.shape,
    ),
    "sparse_inverse_covariance": Case(
        problems.sparse_inverse_covariance(S, 0.2),
        lambda x: cp.trace(S @ x) - cp.log_det(x) + 0.2 * cp.sum(cp.abs(x)),
        (P, P),
        {"symmetric": True},
    ),
}
SLOW = {
    "sparse_logistic",
    "multinomial-weights",
    "trend_filtering-2",
    "total_variation-anisotropic",
    "total_variation",
    "quantile_regression",
    "fused_lasso",
    "sparse_multinomial",
    "sparse_inverse_covariance",
}


def rows(table, slow):
    """Its entries by name, some for the slow tests only."""
    marks = {True: pytest.mark.slow, False: ()}
    return [pytest.param(row, marks=marks[name in slow], id=name) for name, row in table.items()]


OTHERS = {"kernel_svm", "multitask_lasso", "nonnegative_matrix_factorisation", "svm", "svr"}


def test_every_builder_is_tested():
    builders = {name for name in problems.__all__ if name.islower()} - {"gaussian_features"}
    tested = {name.split("-")[0] for name in [*CASES, *PLAIN]}
    assert builders == tested | OTHERS


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # it asks for 1e-14
@pytest.mark.parametrize("case", rows(CASES, SLOW))
def test_minimiser_is_that_of_cvxpy(case):
    found = jaxns.solve(case.problem)
    assert found.status == jaxns.Status.CONVERGED
    expected = minimise(case.objective, *case.shape, **case.options)
    np.testing.assert_allclose(found.x, expected, atol=case.atol)
    np.testing.assert_allclose(
        case.problem(found.x), case.objective(np.asarray(found.x)).value, rtol=1e-12
    )


def test_group_lasso_is_optimal():
    """0 ∈ ∇f(β) + penalty ∂‖β_g‖, to rounding; f is strongly convex."""
    found = np.asarray(jaxns.solve(CASES["group_lasso"].problem).x)
    slope, active = X.T @ (X @ found - Y) / N, 0
    for g, penalty in enumerate([0.3, 0.9, 0.6]):
        group = np.array(GROUPS) == g
        size = np.linalg.norm(found[group])
        active += size > 0
        if size > 0:
            np.testing.assert_allclose(slope[group], -penalty * found[group] / size, atol=1e-11)
        else:
            assert np.linalg.norm(slope[group]) < penalty
    assert 0 < active < 3


@pytest.mark.slow
def test_multinomial_is_that_of_scikit_learn():
    found = jaxns.solve(problems.multinomial(X, CLASSES, 0.03)).x
    estimator = linear_model.LogisticRegression(C=1 / (N * 0.03), solver="newton-cholesky", **TIGHT)
    np.testing.assert_allclose(found, estimator.fit(X, CLASSES).coef_.T, atol=1e-8)


def test_multitask_lasso_is_that_of_scikit_learn():
    found = jaxns.solve(problems.multitask_lasso(X, TARGETS, 0.3)).x
    reference = linear_model.MultiTaskLasso(alpha=0.3, **TIGHT).fit(X, TARGETS).coef_.T
    np.testing.assert_allclose(found, reference, atol=1e-8)
    assert (np.asarray(found) == 0).all(1).any()


@pytest.mark.slow
def test_quantile_regression_is_that_of_scikit_learn():
    """A linear program: the simplex method ends at a vertex, exactly."""
    found = jaxns.solve(problems.quantile_regression(X, Y, 0.5, sample_weight=WEIGHTS)).x
    estimator = linear_model.QuantileRegressor(quantile=0.5, alpha=0.0, fit_intercept=False)
    np.testing.assert_allclose(found, estimator.fit(X, Y, WEIGHTS).coef_, atol=1e-8)


@pytest.mark.slow
def test_covariance_with_a_free_diagonal_is_that_of_scikit_learn():
    found = jaxns.solve(problems.sparse_inverse_covariance(S, 0.2, diagonal=False)).x
    _, reference = graphical_lasso(S, 0.2, tol=1e-12, enet_tol=1e-12, max_iter=1000)
    np.testing.assert_allclose(found, reference, atol=1e-8)


@pytest.mark.slow
def test_nonnegative_matrix_factorisation():
    """It reaches what scikit-learn reaches, at a point where the conditions of optimality hold."""
    data = np.abs(random.randn(8, 3)) @ np.abs(random.randn(3, 7)) + 0.1 * random.rand(8, 7)
    problem = problems.nonnegative_matrix_factorisation(data, 3)
    W, H = (np.asarray(part) for part in jaxns.solve(problem, stop=jaxns.Stop(tol=1e-9)).x)
    model = NMF(3, init="nndsvda", tol=1e-12, max_iter=100_000).fit(data)
    ours, theirs = np.linalg.norm(data - W @ H), model.reconstruction_err_
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    residual = W @ H - data
    for part, slope in ((W, residual @ H.T), (H, W.T @ residual)):
        assert (part >= 0).all()
        assert np.abs(np.where(part > 0, slope, np.minimum(slope, 0))).max() < 1e-6


@pytest.mark.slow
def test_regularised_factorisation_has_derivatives():
    """The penalty fixes the scale, so that the minimum is isolated."""
    data = np.array([[1.0, 2.0, 0.5], [2.0, 3.9, 1.2], [0.1, 0.3, 2.0]])

    @jax.jit
    def product(penalty):
        problem = problems.nonnegative_matrix_factorisation(data, 2, penalty)
        x = jaxns.solve(problem, stop=jaxns.Stop(tol=1e-14)).x
        return x.W @ x.H

    found = jax.jacobian(product)(0.1)
    np.testing.assert_allclose(found, central_difference(product, 0.1, 1e-4), atol=1e-7)


# Support vector machines ------------------------------------------------------------------------


def kernel(a, b):
    return np.exp(-0.1 * ((a[:, None] - b) ** 2).sum(-1))


@pytest.mark.parametrize(
    ("C", "weights"), [(0.1, WEIGHTS), pytest.param(1.0, None, marks=pytest.mark.slow)]
)
def test_svm_is_that_of_scikit_learn(C, weights):
    found = jaxns.solve(problems.svm(X, LABELS, C, sample_weight=weights)).x
    model = SVC(kernel="linear", C=C, tol=1e-14).fit(X, LABELS, weights)
    np.testing.assert_allclose(found.weights, model.coef_[0], atol=1e-6)
    np.testing.assert_allclose(found.intercept, model.intercept_[0], atol=1e-6)
    dual = np.zeros(N)
    dual[model.support_] = np.abs(model.dual_coef_[0])
    np.testing.assert_allclose(found.dual, dual, atol=1e-6)


def primal_svm(C, intercept):
    w, b = cp.Variable(P), cp.Variable()
    margins = cp.multiply(LABELS, X @ w + (b if intercept else 0))
    objective = 0.5 * cp.sum_squares(w) + C * cp.sum(cp.pos(1 - margins))
    cp.Problem(cp.Minimize(objective)).solve("CLARABEL", **PRECISE)
    return w.value, b.value if intercept else 0.0


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("intercept", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_svm_solves_its_primal(intercept):
    found = jaxns.solve(problems.svm(X, LABELS, 0.3, intercept)).x
    weights, offset = primal_svm(0.3, intercept)
    np.testing.assert_allclose(found.weights, weights, atol=1e-8)
    np.testing.assert_allclose(found.intercept, offset, atol=1e-8)


def test_kernel_svm_is_that_of_scikit_learn():
    gram = kernel(X, X)
    found = jaxns.solve(problems.kernel_svm(gram, LABELS, 0.7)).x
    model = SVC(kernel="precomputed", C=0.7, tol=1e-14).fit(gram, LABELS)
    assert found.weights is None
    predicted = gram @ (LABELS * found.dual) + found.intercept
    np.testing.assert_allclose(predicted, model.decision_function(gram), atol=1e-6)


@pytest.mark.parametrize("weights", [WEIGHTS, pytest.param(None, marks=pytest.mark.slow)])
def test_svr_is_that_of_scikit_learn(weights):
    found = jaxns.solve(problems.svr(X, Y, 0.5, 0.2, sample_weight=weights)).x
    model = SVR(kernel="linear", C=0.5, epsilon=0.2, tol=1e-14).fit(X, Y, weights)
    np.testing.assert_allclose(found.weights, model.coef_[0], atol=1e-6)
    np.testing.assert_allclose(found.intercept, model.intercept_[0], atol=1e-6)
    dual = np.zeros(N)
    dual[model.support_] = model.dual_coef_[0]
    np.testing.assert_allclose(found.dual, dual, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("intercept", [True, False])
def test_svm_has_derivatives(intercept):
    """Of weights and intercept, in C and in the features of a sample."""
    labels = np.where(np.arange(12) == 4, -1, 1) * LABELS[:12]  # one is on the wrong side

    @jax.jit
    def solution(C, row):
        features = jnp.asarray(X[:12]).at[4].set(row)
        problem = problems.svm(features, labels, C, intercept)
        x = jaxns.solve(problem, stop=jaxns.Stop(tol=1e-14)).x
        return jnp.append(x.weights, x.intercept)

    at = (0.2, X[4])
    found = jax.jit(jax.jacobian(solution, (0, 1)))(*at)
    in_C = central_difference(lambda C: solution(C, X[4]), 0.2, 1e-4)
    in_row = central_difference(lambda row: solution(0.2, row), X[4], 1e-4)
    assert np.abs(in_C).max() > 0.1
    assert np.abs(in_row).max() > 0.01
    np.testing.assert_allclose(found[0], in_C, atol=1e-7)
    np.testing.assert_allclose(found[1], in_row, atol=1e-7)


def test_intercept_without_free_support_vectors_is_in_the_middle():
    """Two samples at ±1 and a small C: both are at the bound, and b ∈ [w − 1, 1 − w]."""
    features, labels = np.array([[1.0], [-1.0], [1.5]]), np.array([1.0, -1.0, 1.0])
    weights = np.array([1.0, 1.0, 0.0])  # the third says nothing
    found = jaxns.solve(problems.svm(features, labels, 0.1, sample_weight=weights)).x
    np.testing.assert_allclose(found.dual, [0.1, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.intercept, 0.0, atol=1e-12)


# The largest penalty ----------------------------------------------------------------------------

VECTOR = np.array([0.5, 1.0, 2.0, 0.1, 1.0, 0.3])
LARGEST = {
    "lasso": lambda c: problems.lasso(X, Y, c, WEIGHTS),
    "lasso-weighted": lambda c: problems.lasso(X, Y, c * VECTOR),
    "elastic_net": lambda c: problems.elastic_net(X, Y, c, 0.3),
    "elastic_net-weighted": lambda c: problems.elastic_net(X, Y, c * VECTOR, 0.3),
    "group_lasso": lambda c: problems.group_lasso(X, Y, c, GROUPS),
    "group_lasso-weighted": lambda c: problems.group_lasso(X, Y, c * VECTOR[:3], GROUPS),
    "multitask_lasso": lambda c: problems.multitask_lasso(X, TARGETS, c),
    "sparse_logistic": lambda c: problems.sparse_logistic(X, LABELS, c),
    "sparse_multinomial": lambda c: problems.sparse_multinomial(X, CLASSES, c),
    "fused_lasso": lambda c: problems.fused_lasso(X, Y, c, 0.1),
}


FAST = {"lasso-weighted", "group_lasso", "fused_lasso"}


@pytest.mark.parametrize("name", rows({name: name for name in LARGEST}, LARGEST.keys() - FAST))
def test_largest_penalty_is_where_the_solution_becomes_zero(name):
    solve = jax.jit(lambda c: jaxns.solve(LARGEST[name](c)).x)
    largest = jax.jit(lambda c: LARGEST[name](c).max_penalty())
    c = largest(1.0)
    assert not np.any(solve(1.0001 * c))
    assert np.any(solve(0.999 * c))
    # One number is itself what is asked for, and one per coordinate what multiplies it.
    factor = 2 if name.endswith("weighted") else 1
    np.testing.assert_allclose(factor * largest(2.0), c, rtol=1e-14)


def test_largest_penalty_has_a_derivative():
    found = jax.grad(lambda y: problems.lasso(X, y, 1.0).max_penalty())(Y)
    worst = np.argmax(np.abs(X.T @ Y))
    np.testing.assert_allclose(found, np.sign(X[:, worst] @ Y) * X[:, worst] / N, atol=1e-14)


def test_a_free_coordinate_needs_an_infinite_penalty():
    penalties = np.array([0.0, 1, 1, 1, 1, 1])
    assert problems.lasso(X, Y, penalties).max_penalty() == np.inf
    blind = X * (penalties > 0)  # to the free coordinate, which then need not move
    worst = np.abs(blind.T @ Y).max() / N
    np.testing.assert_allclose(problems.lasso(blind, Y, penalties).max_penalty(), worst)


@pytest.mark.parametrize("order", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_largest_penalty_of_trend_filtering_leaves_a_polynomial(order):
    c = problems.trend_filtering(SIGNAL, 1.0, order).max_penalty()
    fit = np.polynomial.Polynomial.fit(np.arange(24), SIGNAL, order - 1)(np.arange(24))
    solve = jax.jit(lambda c: jaxns.solve(problems.trend_filtering(SIGNAL, c, order)).x)
    np.testing.assert_allclose(solve(1.0001 * c), fit, atol=1e-9)
    assert np.abs(np.diff(solve(0.99 * c), order)).max() > 1e-6


@pytest.mark.slow
def test_largest_penalty_of_a_covariance_leaves_a_diagonal():
    for diagonal in (True, False):
        build = lambda c, d=diagonal: problems.sparse_inverse_covariance(S, c, d)  # noqa: E731
        c = build(1.0).max_penalty()
        np.testing.assert_allclose(c, np.abs(S - np.diag(np.diag(S))).max(), rtol=1e-14)
        off = ~np.eye(P, dtype=bool)
        assert not np.any(np.asarray(jaxns.solve(build(1.0001 * c)).x)[off])
        assert np.any(np.asarray(jaxns.solve(build(0.999 * c)).x)[off])


def test_largest_penalty_where_none_is_known():
    with pytest.raises(TypeError, match="SquaredL2"):
        problems.ridge(X, Y, 1.0).max_penalty()
    with pytest.raises(TypeError, match="max_penalty needs a problem"):
        problems.quantile_regression(X, Y).max_penalty()


# Operators --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "shape"),
    [(Differences(), (7,)), (Differences(2), (7,)), (Differences(3), (2, 7)),
     (ImageGradient(), (4, 5)), (ImageGradient(), (1, 3))],
)  # fmt: skip
def test_adjoints(operator, shape):
    x = random.randn(*shape)
    image = operator(x)
    u = random.randn(*image.shape)
    np.testing.assert_allclose(np.vdot(image, u), np.vdot(x, operator.T(u)), atol=1e-12)


def test_differences_are_those_of_numpy():
    np.testing.assert_allclose(Differences(2)(SIGNAL), np.diff(SIGNAL, 2), atol=1e-15)
    down, right = ImageGradient()(IMAGE)
    np.testing.assert_allclose(down[:-1], np.diff(IMAGE, axis=0), atol=1e-15)
    np.testing.assert_allclose(right[:, :-1], np.diff(IMAGE, axis=1), atol=1e-15)
    assert not down[-1].any()
    assert not right[:, -1].any()


# What cannot be right ---------------------------------------------------------------------------

WRONG = {
    "labels": (lambda: problems.svm(X, Y), ValueError, "y must hold the labels -1 and 1"),
    "rows": (lambda: problems.svm(X, LABELS[1:]), ValueError, "y must have one entry per row of X"),
    "C": (lambda: problems.svm(X, LABELS, 0.0), ValueError, "C must be positive"),
    "kernel": (lambda: problems.kernel_svm(X, LABELS), ValueError, "K must have shape"),
    "epsilon": (lambda: problems.svr(X, Y, 1.0, -0.1), ValueError, "epsilon must be nonnegative"),
    "weights": (
        lambda: problems.svm(X, LABELS, sample_weight=WEIGHTS[1:]),
        ValueError,
        "sample_weight must have one entry per row of X",
    ),
    "order": (lambda: problems.trend_filtering(Y, 1.0, 0), ValueError, "order must be a positive"),
    "short": (lambda: problems.trend_filtering(Y[:2], 1.0, 2), ValueError, "y must have more than"),
    "image": (lambda: problems.total_variation(Y, 1.0), ValueError, "image must have 2 dim"),
    "tasks": (lambda: problems.multitask_lasso(X, Y, 1.0), ValueError, "Y must have 2 dim"),
    "classes": (
        lambda: problems.multinomial(X, CLASSES[1:], 1.0),
        ValueError,
        "y must have one entry per row of X",
    ),
    "level": (lambda: problems.quantile_regression(X, Y, 2.0), ValueError, "level must lie in"),
    "rank": (
        lambda: problems.nonnegative_matrix_factorisation(np.ones((2, 3)), 3),
        ValueError,
        "rank must be an integer between 1 and 2",
    ),
    "negative": (
        lambda: problems.nonnegative_matrix_factorisation(-np.ones((2, 3)), 1),
        ValueError,
        "X must be nonnegative",
    ),
}


@pytest.mark.parametrize(("make", "error", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()
