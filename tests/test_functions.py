"""Values, gradients and Lipschitz constants against plain numpy; losses on difficult data."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxns.functions import (
    L1,
    Box,
    ElasticNet,
    LeastSquares,
    Logistic,
    NonNegative,
    Quadratic,
    Simplex,
    Smooth,
    SquaredL2,
    Zero,
)
from jaxns.functions.design import EXACT_SIZE

random = np.random.RandomState(0)
N, P = 7, 4
A, A_WIDE = random.randn(N, P), random.randn(3, P)
B, B_WIDE, B_MATRIX = random.randn(N), random.randn(3), random.randn(N, 2)
LABELS = np.where(random.randn(N) > 0, 1.0, -1.0)
WEIGHTS = np.array([0.0, 0.5, 1.0, 2.0, 1.5, 0.25, 3.0])
Q = A.T @ A
PENALTIES = np.array([0.0, 0.5, 1.0, 2.0])
X = np.array([1.5, -0.5, 0.25, -2.0])
X_MATRIX = random.randn(P, 2)


def squares(A, b, w, n):
    return lambda x: 0.5 * np.sum(w * ((A @ x - b) ** 2).T) / n


def logistic(A, y, w, n):
    return lambda x: np.sum(w * np.log(1 + np.exp(-y * (A @ x)))) / n


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of jaxns, its formula in numpy, a point, and the matrix M whose largest eigenvalue
    is the Lipschitz constant of the gradient (None: it is not smooth)."""

    ours: Any
    formula: Callable[[np.ndarray], float]
    x: np.ndarray = dataclasses.field(default_factory=lambda: X)
    hessian_bound: np.ndarray | None = None


CASES = {
    "squares": Case(LeastSquares(A, B), squares(A, B, 1, 1), X, A.T @ A),
    "squares-mean": Case(LeastSquares(A, B, scale="mean"), squares(A, B, 1, N), X, A.T @ A / N),
    "squares-weights": Case(
        LeastSquares(A, B, weights=WEIGHTS),
        squares(A, B, WEIGHTS, 1),
        X,
        A.T @ np.diag(WEIGHTS) @ A,
    ),
    "squares-weighted-mean": Case(
        LeastSquares(A, B, "mean", WEIGHTS),
        squares(A, B, WEIGHTS, N),
        X,
        A.T @ np.diag(WEIGHTS) @ A / N,
    ),
    "squares-wide": Case(
        LeastSquares(A_WIDE, B_WIDE, "mean", WEIGHTS[1:4]),
        squares(A_WIDE, B_WIDE, WEIGHTS[1:4], 3),
        X,
        A_WIDE.T @ np.diag(WEIGHTS[1:4]) @ A_WIDE / 3,
    ),
    "squares-wide-sum": Case(
        LeastSquares(A_WIDE, B_WIDE), squares(A_WIDE, B_WIDE, 1, 1), X, A_WIDE.T @ A_WIDE
    ),
    "squares-matrix": Case(
        LeastSquares(A, B_MATRIX, "mean", WEIGHTS),
        squares(A, B_MATRIX, WEIGHTS, N),
        X_MATRIX,
        A.T @ np.diag(WEIGHTS) @ A / N,
    ),
    "logistic": Case(Logistic(A, LABELS), logistic(A, LABELS, 1, 1), X, A.T @ A / 4),
    "logistic-weighted-mean": Case(
        Logistic(A, LABELS, "mean", WEIGHTS),
        logistic(A, LABELS, WEIGHTS, N),
        X,
        A.T @ np.diag(WEIGHTS) @ A / (4 * N),
    ),
    "quadratic": Case(Quadratic(Q, X), lambda x: 0.5 * x @ Q @ x + X @ x, A[0], Q),
    "quadratic-not-symmetric": Case(
        Quadratic(Q + np.triu(Q, 1) - np.tril(Q, -1), X),
        lambda x: 0.5 * x @ Q @ x + X @ x,
        A[0],
        Q,
    ),
    "smooth": Case(
        Smooth(lambda x, c, k: jnp.sum(c * x**2) + k * x[0], X**2, 3.0, lipschitz=2 * 4.0),
        lambda x: np.sum(X**2 * x**2) + 3 * x[0],
        A[1],
        np.diag(2 * X**2),
    ),
    "squared-l2": Case(
        SquaredL2(0.7), lambda x: 0.35 * np.sum(x**2), hessian_bound=0.7 * np.eye(P)
    ),
    "squared-l2-per-coordinate": Case(
        SquaredL2(PENALTIES),
        lambda x: 0.5 * np.sum(PENALTIES * x**2),
        hessian_bound=np.diag(PENALTIES),
    ),
    "zero": Case(Zero(), lambda x: 0.0, hessian_bound=np.zeros((P, P))),
    "l1": Case(L1(0.7), lambda x: 0.7 * np.sum(np.abs(x))),
    "l1-per-coordinate": Case(L1(PENALTIES), lambda x: np.sum(PENALTIES * np.abs(x))),
    "elastic-net": Case(
        ElasticNet(0.7, PENALTIES),
        lambda x: 0.7 * np.sum(np.abs(x)) + 0.5 * np.sum(PENALTIES * x**2),
    ),
    "inside": Case(Box(-2.0, np.array([2.0, 0.0, 0.25, 0.0])), lambda x: 0.0),
    "outside": Case(Box(-1.0, 2.0), lambda x: np.inf),
    "negative": Case(NonNegative(), lambda x: np.inf),
    "nonnegative": Case(NonNegative(), lambda x: 0.0, X**2),
    "off-simplex": Case(Simplex(), lambda x: np.inf, X**2),
    "on-simplex": Case(Simplex(2.0), lambda x: 0.0, np.array([1.5, 0.5, 0.0, 0.0])),
}
smooth = pytest.mark.parametrize(
    "name", [k for k, c in CASES.items() if hasattr(c.ours, "gradient")]
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_value_is_the_formula(case):
    np.testing.assert_allclose(case.ours(case.x), case.formula(case.x), rtol=1e-14)
    assert case.ours(case.x).shape == ()


@smooth
def test_gradient_agrees_with_differences_and_autodiff(name):
    case, h = CASES[name], 1e-5
    found = np.asarray(case.ours.gradient(case.x))
    expected = np.zeros_like(case.x)
    for index in np.ndindex(case.x.shape):
        e = np.zeros_like(case.x)
        e[index] = h
        expected[index] = (case.formula(case.x + e) - case.formula(case.x - e)) / (2 * h)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    np.testing.assert_allclose(found, jax.grad(case.ours)(case.x), rtol=1e-12, atol=1e-14)


@smooth
def test_lipschitz_is_the_largest_eigenvalue(name):
    case = CASES[name]
    expected = np.linalg.eigvalsh(case.hessian_bound)[-1]
    np.testing.assert_allclose(case.ours.lipschitz(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", [k for k, c in CASES.items() if hasattr(c.ours, "start")])
def test_start_has_the_shape_and_type_of_the_unknown(name):
    case = CASES[name]
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), case.ours)
    for f, dtype in ((case.ours, jnp.float64), (single, jnp.float32)):
        start = f.start()
        assert (start.shape, start.dtype) == (case.x.shape, dtype)
        assert not start.any()


@smooth
def test_float32_stays_float32(name):
    case = CASES[name]
    f = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), case.ours)
    x = case.x.astype(np.float32)
    assert f(x).dtype == f.gradient(x).dtype == jnp.float32
    np.testing.assert_allclose(f.gradient(x), case.ours.gradient(case.x), rtol=1e-4, atol=1e-5)


# The Lipschitz constant of large data -----------------------------------------------------------

M = EXACT_SIZE + 30
LEFT, RIGHT = (np.linalg.qr(random.randn(size, M))[0] for size in (M, M + 50))


def with_spectrum(singular_values):
    return (LEFT * singular_values) @ RIGHT.T


SPECTRA = {
    "gaussian": random.randn(M, M + 50),
    "gaussian-tall": random.randn(2 * M, M),
    "columns-badly-scaled": random.randn(M, M) * np.logspace(-3, 3, M),
    "identity": np.eye(M),
    "zero": np.zeros((M, M)),
    "rank-one": with_spectrum(1.0 * (np.arange(M) == 0)),
    "geometric": with_spectrum(0.9 ** np.arange(M)),
    "even": with_spectrum(np.linspace(0, 1, M)),
    # Badly separated: 50 steps of power iteration stop 3 % short on "one-above".
    "one-above": with_spectrum(np.where(np.arange(M) == 0, 1.02, 1.0)),
    "cluster": with_spectrum(np.linspace(0.99, 1, M)),
    "dense-at-the-top": with_spectrum(np.sqrt(1 - np.linspace(0, 1, M) ** 2)),
}


@jax.jit
def lipschitz(loss):
    return loss.lipschitz()


@pytest.mark.parametrize("A", SPECTRA.values(), ids=SPECTRA.keys())
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_lipschitz_is_bounded_tightly_from_above(A, dtype):
    """Beyond EXACT_SIZE; a few spacings of rounding are allowed below, as they are below it."""
    true = np.linalg.norm(A.astype(dtype).astype(float), 2) ** 2
    found = lipschitz(LeastSquares(A.astype(dtype), np.zeros(A.shape[0], dtype)))
    assert found.dtype == dtype
    assert true * (1 - 20 * np.finfo(dtype).eps) <= found <= 1.1 * true


@pytest.mark.parametrize("loss", [LeastSquares, Logistic])
def test_large_lipschitz_sees_weights_and_mean(loss):
    A, weights = SPECTRA["gaussian"], np.linspace(0, 3, M)
    bound = 1 if loss is LeastSquares else 4
    true = np.linalg.norm(np.sqrt(weights)[:, None] * A, 2) ** 2 / M / bound
    found = lipschitz(loss(A, np.ones(M), "mean", weights))
    assert true * (1 - 1e-14) <= found <= 1.1 * true


# Losses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [1000.0, -1000.0, 0.0, 40.0, -40.0])
@pytest.mark.parametrize("label", [1.0, -1.0])
def test_logistic_is_stable_at_any_margin(margin, label):
    """log(1 + exp(−m)) = max(−m, 0) + log1p(exp(−|m|)) without overflow, derivatives included."""
    f, x = Logistic(np.array([[label]]), np.array([label])), np.array([margin])
    small = np.exp(-np.abs(margin))
    expected = np.maximum(-margin, 0) + np.log1p(small)
    slope = -(small if margin > 0 else 1) / (1 + small)
    np.testing.assert_allclose(f(x), expected, rtol=1e-15)
    np.testing.assert_allclose(f.gradient(x)[0], slope, rtol=1e-14)
    np.testing.assert_allclose(jax.grad(f)(x)[0], slope, rtol=1e-14)
    curvature = jax.jacobian(f.gradient)(x)[0, 0]
    # s(1 − s) with s rounded near 1
    np.testing.assert_allclose(curvature, small / (1 + small) ** 2, rtol=1e-14, atol=2e-16)


def test_weights_count_rows_and_zero_leaves_one_out():
    """Weight 2 is the row twice, weight 0 is the row removed, in a sum."""
    for loss, target in ((LeastSquares, B), (Logistic, LABELS)):
        weighted = loss(A, target, weights=np.array([0.0, 2, 1, 1, 1, 1, 1]))
        rows = [1, 1, 2, 3, 4, 5, 6]
        repeated = loss(A[rows], target[rows])
        np.testing.assert_allclose(weighted(X), repeated(X), rtol=1e-14)
        np.testing.assert_allclose(weighted.gradient(X), repeated.gradient(X), rtol=1e-13)
        np.testing.assert_allclose(weighted.lipschitz(), repeated.lipschitz(), rtol=1e-13)


def test_nan_in_the_data_is_not_hidden():
    A_nan = A.copy()
    A_nan[2, 1] = np.nan
    for f in (LeastSquares(A_nan, B), Logistic(A_nan, LABELS), LeastSquares(A, B * np.nan)):
        assert np.isnan(f(X))
        assert np.isnan(f.gradient(X)).any()


# Smooth -----------------------------------------------------------------------------------------


def parabola(x, centre):
    return 0.5 * jnp.sum((x - centre) ** 2)


def test_smooth_takes_pytrees_of_unknowns_and_data():
    x = {"a": np.ones(2), "b": (np.ones(3),)}
    f = Smooth(lambda x, c: jnp.sum(x["a"]) * jnp.sum(x["b"][0] * c["k"]), {"k": 2.0})
    assert f(x) == 12
    np.testing.assert_array_equal(f.gradient(x)["a"], [6, 6])
    np.testing.assert_array_equal(f.gradient(x)["b"][0], [4, 4, 4])


def test_smooth_is_differentiable_in_its_data():
    slope = jax.grad(lambda f: jnp.sum(f.gradient(X) ** 2))(Smooth(parabola, np.ones(P)))
    np.testing.assert_allclose(slope.data[0], -2 * (X - 1))


def test_smooth_without_a_constant_says_so():
    assert Smooth(parabola, 0.0).lipschitz() is None
    assert Smooth(parabola, 0.0, lipschitz=1).lipschitz() == 1.0


def test_smooth_instances_of_one_function_share_a_trace():
    traces = []

    @jax.jit
    def gradient(f, x):
        traces.append(1)
        return f.gradient(x)

    for centre in (0.0, 1.0, 2.0):
        np.testing.assert_array_equal(gradient(Smooth(parabola, centre), X), X - centre)
    assert len(traces) == 1


def test_hoist_keeps_a_function_that_closes_over_nothing():
    f = Smooth(parabola, 1.0)
    assert f.hoist(X) is f


def test_hoist_finds_arrays_in_the_closure():
    centre, scale = jnp.asarray(X), 3.0
    f = Smooth(lambda x, c: scale * jnp.sum((x - centre) ** 2) * c, 0.5, lipschitz=3.0)
    explicit = f.hoist(X)
    arrays, *data = explicit.data
    assert data == [0.5]
    assert any(a is centre or np.array_equal(a, centre) for a in arrays)
    np.testing.assert_allclose(explicit(A[0]), f(A[0]), rtol=1e-15)
    np.testing.assert_allclose(explicit.gradient(A[0]), f.gradient(A[0]), rtol=1e-15)
    assert explicit.lipschitz() == 3.0
    # what was closed over has become data: it can be replaced and differentiated
    moved = Smooth(explicit.fun, [a + 1 for a in arrays], *data)
    np.testing.assert_allclose(moved(A[0] + 1), f(A[0]), rtol=1e-14)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_hoist_finds_tracers_in_the_closure(transform):
    def at_hoisted(c):
        f = Smooth(lambda x: jnp.sum((x - c) ** 2)).hoist(X)
        (arrays,) = f.data
        assert any(isinstance(a, jax.core.Tracer) for a in arrays)
        return f(X)

    slope = transform(jax.grad(at_hoisted))(1.0)
    np.testing.assert_allclose(slope, np.sum(-2 * (X - 1)), rtol=1e-14)
    values = transform(jax.vmap(at_hoisted))(np.array([0.0, 1.0]))
    np.testing.assert_allclose(values, [np.sum(X**2), np.sum((X - 1) ** 2)], rtol=1e-14)


def test_hoist_of_one_function_gives_equal_structures():
    """So that a second solve with the same function is not traced again."""
    centre = jnp.asarray(X)

    def fun(x):
        return jnp.sum((x - centre) ** 2)

    first, second = Smooth(fun).hoist(X), Smooth(fun).hoist(X)
    assert jax.tree.structure(first) == jax.tree.structure(second)
