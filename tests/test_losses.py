"""Losses against their formulas in numpy: values, gradients, Hessians, constants, awkward data."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference
from scipy.special import logsumexp

import jaxns
from jaxns.functions import (
    L1,
    Gram,
    Hinge,
    Huber,
    LeastSquares,
    LogDet,
    Logistic,
    Multinomial,
    Pinball,
    Poisson,
    SquaredDistance,
    SquaredHinge,
)

random = np.random.RandomState(0)
N, P = 9, 4
A, B = random.randn(N, P), random.randn(N)
LABELS = np.where(random.randn(N) > 0, 1.0, -1.0)
COUNTS = np.arange(9.0) % 4
CLASSES = np.array([0, 1, 2, 2, 1, 0, 0, 2, 1])
ONE_HOT = np.eye(3)[CLASSES]
WEIGHTS = np.array([0.0, 0.5, 1.0, 2.0, 1.5, 0.25, 3.0, 1.0, 0.75])
X = np.array([0.75, -0.5, 0.25, -1.0])
X_MATRIX = random.randn(P, 3)
PER_PIXEL = np.array([[1.0, 0.0], [2.0, 0.5]])


def huber(r, delta):
    return np.where(np.abs(r) < delta, r**2 / 2, delta * np.abs(r) - delta**2 / 2)


@dataclasses.dataclass(frozen=True)
class Case:
    """A loss, its formula in numpy, and where it is looked at."""

    ours: Any
    formula: Callable[[np.ndarray], float]
    x: np.ndarray = dataclasses.field(default_factory=lambda: X)


CASES = {
    "huber": Case(Huber(A, B, 0.8), lambda x: huber(A @ x - B, 0.8).sum()),
    "huber-mean-weights": Case(
        Huber(A, B, 0.8, "mean", WEIGHTS), lambda x: (WEIGHTS * huber(A @ x - B, 0.8)).sum() / N
    ),
    "huber-targets": Case(
        Huber(A, ONE_HOT, 0.8, "mean", WEIGHTS),
        lambda x: (WEIGHTS @ huber(A @ x - ONE_HOT, 0.8)).sum() / N,
        X_MATRIX,
    ),
    "poisson": Case(
        Poisson(A, COUNTS, "mean", WEIGHTS),
        lambda x: (WEIGHTS * (np.exp(A @ x) - COUNTS * (A @ x))).sum() / N,
    ),
    "logistic": Case(
        Logistic(A, LABELS, "mean", WEIGHTS),
        lambda x: (WEIGHTS * np.log1p(np.exp(-LABELS * (A @ x)))).sum() / N,
    ),
    "squared-hinge": Case(
        SquaredHinge(A, LABELS, "mean", WEIGHTS),
        lambda x: (WEIGHTS * np.maximum(0, 1 - LABELS * (A @ x)) ** 2).sum() / N,
    ),
    "multinomial": Case(
        Multinomial(A, CLASSES, weights=WEIGHTS),
        lambda x: WEIGHTS @ (logsumexp(A @ x, axis=1) - (A @ x)[np.arange(N), CLASSES]),
        X_MATRIX,
    ),
    "multinomial-soft": Case(
        Multinomial(A, 0.5 * ONE_HOT + 0.5 / 3, "mean"),
        lambda x: np.mean(
            logsumexp(A @ x, axis=1) - np.sum((0.5 * ONE_HOT + 0.5 / 3) * (A @ x), 1)
        ),
        X_MATRIX,
    ),
    "gram": Case(Gram(A, X), lambda x: 0.5 * np.sum((A @ x) ** 2) + X @ x, A[0]),
    "gram-wide": Case(Gram(A.T, B), lambda x: 0.5 * np.sum((A.T @ x) ** 2) + B @ x, WEIGHTS),
    "distance": Case(SquaredDistance(B), lambda x: 0.5 * np.sum((x - B) ** 2), WEIGHTS),
    "distance-image": Case(
        SquaredDistance(A[:2, :2], PER_PIXEL),
        lambda x: 0.5 * np.sum(PER_PIXEL * (x - A[:2, :2]) ** 2),
        A[2:4, :2],
    ),
    "log-det": Case(
        LogDet(A.T @ A),
        lambda x: np.trace(A.T @ A @ x) - np.linalg.slogdet((x + x.T) / 2)[1],
        np.eye(P) + 0.1 * (A[:4] + A[:4].T),
    ),
    "pinball": Case(
        Pinball(B, 0.25, WEIGHTS),
        lambda t: np.sum(WEIGHTS * np.maximum(0.25 * (B - t), -0.75 * (B - t))),
        A[:, 0],
    ),
    "hinge": Case(
        Hinge(LABELS, WEIGHTS),
        lambda t: np.sum(WEIGHTS * np.maximum(0, 1 - LABELS * t)),
        A[:, 0],
    ),
}
with_gradient = pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if hasattr(case.ours, "gradient")]
)
with_hessian = pytest.mark.parametrize(
    "name",  # many targets at once have none
    [k for k, c in CASES.items() if hasattr(c.ours, "hessian") and k != "huber-targets"],
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_value_is_the_formula(case):
    np.testing.assert_allclose(case.ours(case.x), case.formula(case.x), rtol=1e-13)
    assert case.ours(case.x).shape == ()


@with_gradient
def test_gradient_agrees_with_differences_and_autodiff(name):
    case = CASES[name]
    expected = central_difference(lambda x: case.formula(np.asarray(x)), case.x)
    found = case.ours.gradient(case.x)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    np.testing.assert_allclose(found, jax.grad(case.ours)(case.x), rtol=1e-12, atol=1e-13)


@with_hessian
def test_hessian_is_the_derivative_of_the_gradient(name):
    """As a matrix over x.ravel(), or some of its rows and columns."""
    case = CASES[name]
    size = case.x.size
    expected = jax.jacobian(case.ours.gradient)(case.x).reshape(size, size)
    np.testing.assert_allclose(case.ours.hessian(case.x), expected, atol=1e-12)
    index = np.array([3, 0, 2])
    found = jax.jit(lambda f, x, index: f.hessian(x, index))(case.ours, case.x, index)
    np.testing.assert_allclose(found, expected[index][:, index], atol=1e-12)


@with_gradient
def test_lipschitz_bounds_the_change_of_the_gradient(name):
    """And is reached, where it is that of a quadratic or at a point of largest curvature."""
    case = CASES[name]
    L = case.ours.lipschitz() if hasattr(case.ours, "lipschitz") else None
    if name in ("poisson", "log-det"):
        assert L is None
        return
    gradient = jax.jit(case.ours.gradient)
    for seed in range(20):
        x, y = np.random.RandomState(seed).randn(2, *case.x.shape) * 10.0 ** (seed % 4 - 2)
        change = np.linalg.norm(gradient(x) - gradient(y))
        assert change <= L * np.linalg.norm(x - y) * (1 + 1e-12)


STEEPEST = {
    "huber": (Huber(A, B, 1e3), 1.0),
    "squared-hinge": (SquaredHinge(A, LABELS), 2.0),
    "gram": (Gram(A, X), 1.0),
}


@pytest.mark.parametrize("name", STEEPEST)
def test_lipschitz_is_the_smallest_constant(name):
    """At a point where every sample is in its steepest part."""
    loss, steepest = STEEPEST[name]
    np.testing.assert_allclose(
        loss.lipschitz(), steepest * np.linalg.eigvalsh(A.T @ A)[-1], rtol=1e-12
    )
    curvature = np.linalg.eigvalsh(jax.jacobian(loss.gradient)(np.zeros(P)))[-1]
    np.testing.assert_allclose(loss.lipschitz(), curvature, rtol=1e-12)


def test_multinomial_with_two_classes_has_twice_the_logistic_curvature():
    """½ λmax is reached by two classes of equal probability."""
    f = Multinomial(A, (LABELS > 0).astype(int))
    curvature = np.linalg.eigvalsh(f.hessian(np.zeros((P, 2))))[-1]
    np.testing.assert_allclose(f.lipschitz(), curvature, rtol=1e-12)


@pytest.mark.parametrize("name", [k for k, c in CASES.items() if hasattr(c.ours, "start")])
def test_start_and_types(name):
    case = CASES[name]
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), case.ours)
    for f, dtype in ((case.ours, jnp.float64), (single, jnp.float32)):
        start = f.start()
        assert (start.shape, start.dtype) == (case.x.shape, dtype)
        np.testing.assert_array_equal(start, np.eye(P) if name == "log-det" else 0)
    x = case.x.astype(np.float32)
    assert single(x).dtype == single.gradient(x).dtype == jnp.float32
    np.testing.assert_allclose(single.gradient(x), case.ours.gradient(case.x), rtol=1e-4, atol=1e-4)


ONE_TARGET = {
    "huber": lambda A, t, w=None: Huber(A, t, 0.8, weights=w),
    "poisson": lambda A, t, w=None: Poisson(A, np.abs(t), weights=w),
    "squared-hinge": lambda A, t, w=None: SquaredHinge(A, np.sign(t), weights=w),
    "multinomial": lambda A, t, w=None: Multinomial(A, np.eye(2)[(t > 0).astype(int)], weights=w),
}


@pytest.mark.parametrize("loss", ONE_TARGET.values(), ids=ONE_TARGET.keys())
def test_weights_count_rows_and_zero_leaves_one_out(loss):
    rows = [1, 1, *range(2, N)]
    weighted, repeated = loss(A, B, np.array([0.0, 2, *[1] * (N - 2)])), loss(A[rows], B[rows])
    x = np.ones(weighted.start().shape) * X.reshape(P, *[1] * (weighted.start().ndim - 1))
    np.testing.assert_allclose(weighted(x), repeated(x), rtol=1e-13)
    np.testing.assert_allclose(weighted.gradient(x), repeated.gradient(x), atol=1e-13)
    if weighted.lipschitz() is not None:
        np.testing.assert_allclose(weighted.lipschitz(), repeated.lipschitz(), rtol=1e-12)


@pytest.mark.parametrize("loss", ONE_TARGET.values(), ids=ONE_TARGET.keys())
def test_nan_in_the_design_is_not_hidden(loss):
    broken = A.copy()
    broken[2, 1] = np.nan
    f = loss(broken, B)
    x = jnp.ones(f.start().shape)
    assert np.isnan(f(x))
    assert np.isnan(f.gradient(x)).any()


def test_nan_in_a_target_is_not_hidden():
    B_nan = np.where(np.arange(N) == 3, np.nan, B)
    for f in (Huber(A, B_nan), Pinball(B_nan), Poisson(A, np.abs(B_nan))):
        point = X if hasattr(f, "A") else A[:, 0]
        assert np.isnan(f(point))


def test_kinks_of_the_slope_count_as_flat():
    """Huber at |r| = delta and the squared hinge at its margin: curvature 0, in every program."""
    one = np.ones((1, 1))
    for f, at in ((Huber(one, np.zeros(1), 0.5), 0.5), (SquaredHinge(one, np.ones(1)), 1.0)):
        x = np.array([at])
        assert f.hessian(x) == jax.jacobian(f.gradient)(x) == 0


@pytest.mark.parametrize("t", [500.0, -500.0])
def test_multinomial_is_stable_at_any_margin(t):
    f, x = Multinomial(np.ones((1, 1)), np.array([[1.0, 0.0]])), np.array([[t, -t]])
    np.testing.assert_allclose(f(x), max(0.0, -2 * t))
    np.testing.assert_allclose(f.gradient(x), [[-1.0, 1.0]] if t < 0 else [[0.0, 0.0]], atol=1e-15)


# The log-determinant ----------------------------------------------------------------------------

S = A.T @ A / N
SYMMETRIC = np.array([[0, 1, 2, 0], [1, -3, 0, 1], [2, 0, 0.5, 0], [0, 1, 0, 1]])


def test_log_det_prox_is_optimal_and_has_its_derivative():
    """S − U⁻¹ + (U − V)/step = 0; at tied eigenvalues too."""

    @jax.jit
    def prox(S, V, step):
        return LogDet(S).prox(V, step)

    for V in (SYMMETRIC, np.zeros((P, P)), np.eye(P), 1e6 * SYMMETRIC):
        for step in (0.3, 2.0):
            U = np.asarray(prox(S, V, step))
            assert np.linalg.eigvalsh(U)[0] > 0
            slack = 1e-12 * (1 + np.abs(V).max()) * np.linalg.cond(U)
            np.testing.assert_allclose(U @ (step * S + U - V), step * np.eye(P), atol=slack)

    derivatives = jax.jit(jax.jacobian(prox, (0, 1, 2)))
    # V = S: eigenvalues of V − step S that are all zero.
    for V in (SYMMETRIC, S):
        found = derivatives(S, V, 1.0)
        parts = ((prox, 0, S), (prox, 1, V), (prox, 2, 1.0))
        for derivative, (_, i, at) in zip(found, parts, strict=True):

            def moved(value, i=i, V=V):
                return prox(*[value if j == i else p for j, p in enumerate((S, V, 1.0))])

            np.testing.assert_allclose(derivative, central_difference(moved, at), atol=1e-8)


def test_log_det_outside_its_domain():
    f = LogDet(S)
    for X in (np.zeros((P, P)), -np.eye(P), np.diag([1.0, 1.0, 1.0, 0.0])):
        assert f(X) == np.inf
        assert np.isnan(f.gradient(X)).any()
    assert np.isnan(f(np.eye(P) * np.nan))


# What cannot be right ---------------------------------------------------------------------------

WRONG = {
    "labels": (lambda: SquaredHinge(A, B), ValueError, "y must hold the labels"),
    "hinge labels": (lambda: Hinge(B), ValueError, "y must hold the labels"),
    "negative counts": (lambda: Poisson(A, B), ValueError, "y must be nonnegative"),
    "rows": (lambda: Huber(A, B[1:]), ValueError, "b must have one entry per row of A"),
    "delta": (lambda: Huber(A, B, 0.0), ValueError, "delta must be positive"),
    "level": (lambda: Pinball(B, 1.0), ValueError, "level must lie in"),
    "level 0": (lambda: Pinball(B, 0.0), ValueError, "level must be positive"),
    "weights": (lambda: Pinball(B, 0.5, WEIGHTS[1:]), ValueError, "weights must have the shape"),
    "negative weights": (lambda: SquaredDistance(B, -WEIGHTS), ValueError, "weights must be"),
    "real classes": (lambda: Multinomial(A, B), TypeError, "y must hold integer labels"),
    "class -1": (lambda: Multinomial(A, LABELS.astype(int)), ValueError, "y must hold labels"),
    "probabilities": (lambda: Multinomial(A, 2 * ONE_HOT), ValueError, "y must have rows"),
    "classes in jit": (
        lambda: jax.jit(lambda y: Multinomial(A, y)(X_MATRIX))(CLASSES),
        TypeError,
        "one column per class",
    ),
    "square": (lambda: LogDet(A), ValueError, "S must be a square matrix"),
    "columns": (lambda: Gram(A, B), ValueError, "q must have one entry per column of A"),
}


@pytest.mark.parametrize(("make", "error", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()


# Solved -----------------------------------------------------------------------------------------


def huber_lasso(delta, target):
    return jaxns.Composite(Huber(A, target, delta, "mean", WEIGHTS), L1(0.05))


def poisson_lasso(scale, target):
    return jaxns.Composite(Poisson(scale * A, target, "mean", WEIGHTS), L1(0.05))


def squared_hinge_lasso(scale, weights):
    return jaxns.Composite(SquaredHinge(scale * A, LABELS, "mean", weights), L1(0.05))


@pytest.mark.parametrize(
    ("build", "theta"),
    [
        (huber_lasso, (0.5, B)),
        pytest.param(poisson_lasso, (0.9, COUNTS), marks=pytest.mark.slow),
        pytest.param(squared_hinge_lasso, (0.9, WEIGHTS + 0.1), marks=pytest.mark.slow),
    ],
)
def test_solutions_have_derivatives_in_parameters_and_data(build, theta):
    @jax.jit
    def solution(first, second):
        return jaxns.solve(build(first, second), stop=jaxns.Stop(tol=1e-14)).x

    found = jax.jacobian(solution, (0, 1))(*theta)
    for i, derivative in enumerate(found):

        def moved(value, i=i):
            return solution(*[value if i == j else t for j, t in enumerate(theta)])

        np.testing.assert_allclose(derivative, central_difference(moved, theta[i], 1e-4), atol=1e-7)


def test_least_squares_is_what_huber_is_for_large_delta():
    x = random.randn(P)
    f, g = Huber(A, B, 1e3, "mean", WEIGHTS), LeastSquares(A, B, "mean", WEIGHTS)
    np.testing.assert_allclose(f(x), g(x), rtol=1e-13)
    np.testing.assert_allclose(f.gradient(x), g.gradient(x), rtol=1e-13)
