"""Hypergradients of ordinary and of hard problems: right, or refused.

In float64, at default settings unless said. References are computed by numpy from solutions whose
optimality conditions are certified (kkt_reference.py).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import kkt_reference as truth
import numpy as np
import pytest
from sklearn.linear_model import Lasso

import jaxns
from jaxns import problems
from jaxns.functions import Box, ElasticNet, LeastSquares, Nuclear, Quadratic

# A lasso with more features than samples --------------------------------------------------------

N, P = 200, 1000


def regression(correlation: float) -> tuple[np.ndarray, ...]:
    """X, y and as many held-out ones; neighbouring features have this correlation."""
    random = np.random.default_rng(0)
    X = random.normal(size=(2 * N, P))
    for j in range(1, P):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    beta = np.zeros(P)
    beta[:: P // 20] = np.where(np.arange(20) % 2, -1, 1) * (1 + random.random(20))
    y = X @ beta + random.normal(size=2 * N)
    return X[:N], y[:N], X[N:], y[N:]


TWIN, OF = 7, 50  # a feature that is not selected becomes a copy of one that is


def replaced(data: tuple, copy: bool) -> tuple:
    X, y, X_val, y_val = data
    X, X_val = X.copy(), X_val.copy()
    for A in (X, X_val):
        A[:, TWIN] = A[:, OF] if copy else 0
    return X, y, X_val, y_val


BASE = regression(0.5)
LASSOS = {
    "plain": BASE,
    "X*100": (100 * BASE[0], BASE[1], 100 * BASE[2], BASE[3]),
    "X*0.01": (0.01 * BASE[0], BASE[1], 0.01 * BASE[2], BASE[3]),
    "y*0.001": (BASE[0], 1e-3 * BASE[1], BASE[2], 1e-3 * BASE[3]),
    "zero column": replaced(BASE, copy=False),
    "duplicated column": replaced(BASE, copy=True),
    "correlation 0.95": regression(0.95),
}


def penalty_of(X: np.ndarray, y: np.ndarray) -> float:
    return np.abs(X.T @ y).max() / len(y) / 10


@dataclasses.dataclass
class Exact:
    """beta on its support; d: its derivative in log penalty.   slope: of the held-out loss.

    gain: relative error of the slope per relative error of beta.   condition: L/μ on the support.
    """

    support: np.ndarray
    beta: np.ndarray
    d: np.ndarray
    slope: float
    gain: float
    condition: float


def exact_lasso(X, y, X_val, y_val, l2=0.0, penalty=None) -> Exact:
    """The closed form on the support that scikit-learn finds, where the KKT conditions hold."""
    penalty = penalty_of(X, y) if penalty is None else penalty
    n, scale = len(y), np.abs(X).max()  # scikit-learn's tolerances know units
    A, b = X / scale, y / (scale * penalty)
    n, ridge = len(y), l2 / scale**2
    augmented = np.vstack([A, np.sqrt(n * ridge) * np.eye(X.shape[1])]) if l2 else A
    target = np.append(b, np.zeros(X.shape[1])) if l2 else b
    model = Lasso(n / len(augmented) / scale**2, fit_intercept=False, tol=1e-12, max_iter=10**6)
    first = model.fit(augmented, target).coef_
    S = np.flatnonzero(first)
    A, s = X[:, S], np.sign(first[S])
    H = A.T @ A / n + l2 * np.eye(len(S))
    beta = np.linalg.solve(H, A.T @ y / n - penalty * s)
    beta += np.linalg.solve(H, A.T @ (y - A @ beta) / n - l2 * beta - penalty * s)
    multiplier = X.T @ (y - A @ beta) / n / penalty
    multiplier[S] -= l2 * beta / penalty
    assert (np.sign(beta) == s).all()
    assert np.abs(multiplier[S] - s).max() <= 1e-12
    assert np.abs(np.delete(multiplier, S)).max() < 1 - 1e-5
    d = -penalty * np.linalg.solve(H, s)
    V = X_val[:, S]
    slope = (V @ beta - y_val) @ (V @ d) / len(y_val)
    gain = np.linalg.norm(V.T @ (V @ d)) / len(y_val) * np.linalg.norm(beta) / abs(slope)
    values = np.linalg.eigvalsh(H)
    condition = (np.linalg.norm(X, 2) ** 2 / n + l2) / values[0]
    return Exact(S, beta, d, slope, gain, condition)


def held_out(log_penalty, X, y, X_val, y_val, l2, solver, mode, stop):
    penalty = jnp.exp(log_penalty)
    if l2 is None:
        problem = problems.lasso(X, y, penalty)
    else:
        problem = jaxns.Composite(LeastSquares(X, y, scale="mean"), ElasticNet(penalty, l2))
    solution = jaxns.solve(problem, solver, mode=mode, stop=stop)
    return 0.5 * jnp.mean((X_val @ solution.x - y_val) ** 2), solution.x


_compiled = jax.jit(jax.value_and_grad(held_out, has_aux=True))


def hypergradient(
    data, solver=None, mode=jaxns.Implicit(), stop=jaxns.Stop(), l2=None, penalty=None
):
    """Of the held-out loss in log penalty, from a cold start: beta and the derivative."""
    penalty = penalty_of(*data[:2]) if penalty is None else penalty
    (_, beta), slope = _compiled(jnp.log(penalty), *data, l2, solver, mode, stop)
    return np.asarray(beta), np.asarray(slope)


WAYS = {
    "Implicit": (None, jaxns.Implicit()),
    "Newton, OneStep": (jaxns.Newton(), jaxns.OneStep()),
    "CoordinateDescent, Implicit": (jaxns.CoordinateDescent(), jaxns.Implicit()),
    "Newton, Implicit": (jaxns.Newton(), jaxns.Implicit()),
}


def lassos(ways, slow):
    return [
        pytest.param(way, name, marks=pytest.mark.slow if way in slow else (), id=f"{way}-{name}")
        for way in ways
        for name in LASSOS
    ]


@pytest.mark.parametrize(
    ("way", "name"), lassos(WAYS, {"CoordinateDescent, Implicit", "Newton, Implicit"})
)
def test_lasso(way, name):
    """Right to 1e-8, whatever the units of the data and however its features are correlated.

    A residual of tol leaves an error of up to tol·L/μ in beta, and with features as correlated as
    0.95 L/μ is 1e4: forward-backward and Newton correct it, coordinate descent needs the default.
    """
    data = LASSOS[name]
    solver, mode = WAYS[way]
    exact = exact_lasso(*(replaced(data, copy=False) if "dupl" in name else data))
    for tol in (1e-10, 1e-12):
        allowed = 1e-8
        if tol == 1e-10 and "CoordinateDescent" in way:
            allowed = max(1e-8, exact.gain * exact.condition * tol)
            assert allowed < 1e-5
        beta, slope = hypergradient(data, solver, mode, jaxns.Stop(tol=tol))
        np.testing.assert_allclose(slope, exact.slope, rtol=allowed)
        found = beta.copy()
        if "dupl" in name:
            found[OF], found[TWIN] = beta[OF] + beta[TWIN], 0
        np.testing.assert_array_equal(np.flatnonzero(found), exact.support)


def test_copies_of_a_feature_share_its_coefficient():
    """Any split gives the same predictions; from zero, both halves take the same steps."""
    beta, _ = hypergradient(LASSOS["duplicated column"])
    assert beta[OF] != 0
    np.testing.assert_allclose(beta[TWIN], beta[OF], rtol=1e-10)


@pytest.mark.slow
def test_what_the_copies_do_not_determine_is_refused():
    X, y, *_ = LASSOS["duplicated column"]

    def coefficient(penalty):
        return jaxns.solve(problems.lasso(X, y, penalty)).x[OF]

    with pytest.raises(jaxns.ConvergenceError, match="unique"):
        jax.grad(coefficient)(penalty_of(X, y))


@pytest.mark.slow
@pytest.mark.parametrize("name", LASSOS)
def test_lasso_with_piggyback(name):
    """Its derivatives follow the iterates and lag behind: from the last change of the support on,
    which comes late here, they need as many steps as the iterates would from a start as far."""
    exact = exact_lasso(*(replaced(BASE, copy=False) if "dupl" in name else LASSOS[name]))
    mode = jaxns.Piggyback()
    _, slope = hypergradient(LASSOS[name], mode=mode)
    np.testing.assert_allclose(slope, exact.slope, rtol=1e-5)
    _, slope = hypergradient(LASSOS[name], mode=mode, stop=jaxns.Stop(tol=None, max_steps=3000))
    np.testing.assert_allclose(slope, exact.slope, rtol=1e-8)


@pytest.mark.parametrize("steps", [3, 5, 8, 10, 15])
def test_a_lasso_stopped_early_is_refused(steps):
    X, y, *_ = BASE
    penalty = penalty_of(X, y)
    with pytest.raises(jaxns.ConvergenceError, match="reached max_steps"):
        jaxns.solve(problems.lasso(X, y, penalty), stop=jaxns.Stop(max_steps=steps))
    beta, slope = hypergradient(BASE, stop=jaxns.Stop(max_steps=steps))
    assert np.isnan(beta).all()
    assert np.isnan(slope)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 5, 8, 10, 15])
def test_a_lasso_stopped_early_gives_what_its_user_asked_for(steps):
    _, slope = hypergradient(BASE, stop=jaxns.Stop(max_steps=steps, on_failure="nan"))
    assert np.isnan(slope)
    mode = jaxns.Implicit(on_failure="ignore")
    stop = jaxns.Stop(max_steps=steps, on_failure="ignore")
    _, slope = hypergradient(BASE, mode=mode, stop=stop)
    assert np.isfinite(slope)


def test_the_penalty_at_its_maximum_and_above():
    """beta is zero, and so is its derivative: at the maximum itself, the convention of kinks."""
    largest = 10 * penalty_of(*BASE[:2])
    for factor in (1.0, 1.01, 100.0):
        beta, slope = hypergradient(BASE, penalty=factor * largest)
        np.testing.assert_array_equal(beta, 0)
        assert slope == 0
    below = (1 - 1e-3) * largest
    _, slope = hypergradient(BASE, penalty=below)
    np.testing.assert_allclose(slope, exact_lasso(*BASE, penalty=below).slope, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("l2", [None, pytest.param(0.1, marks=pytest.mark.slow)])
def test_the_error_is_proportional_to_that_of_the_solution(l2):
    """Once the support is found. The error is that of the derivative in every feature's penalty:
    the norm of a vector, which does not change its sign."""
    exact = exact_lasso(*BASE, l2=l2 or 0.0)
    X, y, X_val, y_val = BASE
    S, n = exact.support, len(y)
    H = X[:, S].T @ X[:, S] / n + (l2 or 0.0) * np.eye(len(S))

    def slopes(beta):
        r = X_val[:, S] @ beta - y_val
        return -penalty * np.linalg.solve(H, X_val[:, S].T @ r / n) * np.sign(exact.beta)

    penalty = penalty_of(X, y)
    errors = []
    for tol in 10 ** np.linspace(-3, -9, 13):
        beta, found = hypergradient(
            BASE, stop=jaxns.Stop(tol=tol), l2=l2, penalty=np.full(P, penalty)
        )
        if np.array_equal(np.flatnonzero(beta), S):
            distance = np.linalg.norm(beta[S] - exact.beta)
            errors.append((distance, np.linalg.norm(found[S] - slopes(exact.beta))))
    assert len(errors) >= 6
    assert errors[0][0] > 1e3 * errors[-1][0]
    rate, _ = np.polyfit(*np.log(errors).T, 1)
    assert abs(rate - 1) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), [(3.0, 0.7), (1e4, 1.0), (1.0, 1e-5), (1e-3, 1e3)])
def test_units_do_not_matter(a, b):
    """X ← aX, y ← by, penalty ← ab·penalty: beta ← b/a·beta, and the loss ← b²·loss."""
    beta, slope = hypergradient(BASE)
    X, y, X_val, y_val = BASE
    scaled, found = hypergradient((a * X, b * y, a * X_val, b * y_val))
    np.testing.assert_allclose(found, b**2 * slope, rtol=1e-8)
    np.testing.assert_allclose(scaled, b / a * beta, rtol=1e-7, atol=1e-9 * np.abs(scaled).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "times"),
    [
        ("Implicit", 1.05),
        pytest.param("CoordinateDescent, Implicit", 1.0, marks=pytest.mark.slow),
        pytest.param("Newton, OneStep", 1.0, marks=pytest.mark.slow),
    ],
)
def test_a_lasso_in_float32(way, times):
    """At times 1 a feature misses selection by 1e-4 of the penalty, and ten units of float32's
    rounding, at which a solve has converged, are not enough for `ForwardBackward` to tell."""
    penalty = times * penalty_of(*BASE[:2])
    data = tuple(jnp.asarray(part, jnp.float32) for part in BASE)
    beta, slope = hypergradient(data, *WAYS[way], penalty=jnp.float32(penalty))
    exact = exact_lasso(*BASE, penalty=penalty)
    assert beta.dtype == slope.dtype == np.float32
    np.testing.assert_array_equal(np.flatnonzero(beta), exact.support)
    np.testing.assert_allclose(slope, exact.slope, rtol=1e-3)


@pytest.mark.parametrize("where", [0, 1], ids=["X", "y"])
def test_nan_in_the_data_is_refused(where):
    data = [part.copy() for part in BASE]
    data[where].flat[3] = np.nan
    with pytest.raises(jaxns.ConvergenceError, match="NaN"):
        jaxns.solve(problems.lasso(*data[:2], 0.1))
    _, slope = hypergradient(data, penalty=penalty_of(*BASE[:2]))
    assert np.isnan(slope)


# 1/(2n) Σ wᵢ (yᵢ − xᵢᵀβ)² + penalty ‖β‖₁: X, y, w, penalty, and by hand β and dβ/dpenalty.
ONE, TWO = np.ones((1, 1)), np.array([[1.0], [2.0]])
TINY = {
    "n = p = 1": (ONE, [3.0], [1.0], 1.0, [2.0], [-1.0]),
    "at its kink": (ONE, [1.0], [1.0], 1.0, [0.0], [0.0]),
    "weight 0": (ONE, [1.0], [0.0], 1.0, [0.0], [0.0]),
    "feature 0": (0 * ONE, [1.0], [1.0], 1.0, [0.0], [0.0]),
    "p = 1": (TWO, [1.0, 2.0], [1.0, 1.0], 0.5, [0.8], [-0.4]),
    "one sample counts": (TWO, [9.0, 2.0], [0.0, 1.0], 0.5, [0.75], [-0.5]),
    "n = 1": (TWO.T, [2.0], [1.0], 1.0, [0.0, 0.75], [0.0, -0.25]),
}


@jax.jit
def _tiny(X, y, weights, penalty):
    def solution(penalty):
        return jaxns.solve(problems.lasso(X, y, penalty, weights)).x

    return solution(penalty), jax.jacrev(solution)(penalty)


@pytest.mark.parametrize("name", TINY)
def test_a_lasso_by_hand(name):
    *given, beta, slope = TINY[name]
    found = _tiny(*(np.asarray(part, float) for part in given))
    np.testing.assert_allclose(found[0], beta, atol=1e-11)
    np.testing.assert_allclose(found[1], slope, atol=1e-11)


# Every kind of problem --------------------------------------------------------------------------

random = np.random.RandomState(0)
X = random.randn(30, 10)
Y = X @ np.array([1.0, 1.0, 1.2, 0, 0, -2, -2, 0, 0.5, 0]) + 0.5 * random.randn(30)
LABELS = np.where(Y + random.randn(30) > 0, 1.0, -1.0)
WEIGHTS = np.where(np.arange(30) % 5, 0.5 + random.rand(30), 0.0)  # some samples weigh nothing
SIGNAL = np.repeat([0.0, 1.0, -0.5, 0.2], 6) + 0.1 * random.randn(24)
IMAGE = 0.3 * random.rand(5, 6) + np.pad(np.ones((2, 3)), [(1, 2), (2, 1)])
COVARIANCE = np.cov(X[:, :6].T)
DEAD = np.where(np.isin(np.arange(10), [3, 4]), 0, X)  # a group without data
TASKS = X[:, :4] @ random.randn(4, 1) @ random.randn(1, 5) + 0.3 * random.randn(30, 5)
ROOT = random.randn(8, 8)
Q, LINEAR = ROOT @ ROOT.T + np.eye(8), 10 * random.randn(8)
GROUPS = [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
EDGES = random.randn(14, 6)
COST = random.rand(6, 7)
MASSES = [(lambda m: m / m.sum())(1 + random.rand(k)) for k in (6, 7)]
TILTS = [(lambda v: v - v.mean())(0.1 * random.randn(k)) for k in (6, 7)]
COST_TILT = random.randn(6, 7)


def scalar(x):
    """A smooth function of a solution, for numpy and JAX, real and complex."""
    return np.cos(np.arange(x.shape[0])) @ x + 0.5 * (x @ x)


def squares(A, y):
    return lambda x, t: A.T @ (A @ x - y) / len(y)


def logistic(A, y):
    return lambda x, t: A.T @ (-y / (1 + np.exp(y * (A @ x)))) / len(y)


def constants(*sizes):
    """θ -> its entries, each repeated for so many terms."""
    return lambda t: np.concatenate([np.full(k, ti) for k, ti in zip(sizes, t, strict=False)])


def blocks(groups):
    return [np.eye(len(groups))[np.array(groups) == g] for g in sorted(set(groups))]


def differences(n, order):
    return truth.rows_of(np.diff(np.eye(n), order, axis=0))


def gradients(m, n):
    """Of an m × n image: at each pixel the differences (down, right), 0 beyond the border."""
    units = np.eye(m * n).reshape(-1, m, n)
    down = np.concatenate([np.diff(units, axis=1), np.zeros((m * n, 1, n))], 1)
    right = np.concatenate([np.diff(units, axis=2), np.zeros((m * n, m, 1))], 2)
    pairs = np.stack([down, right]).reshape(2, m * n, m * n)
    return [pairs[:, :, pixel] for pixel in range(m * n)]


def svm_reference(intercept, y=LABELS, A=X):
    signed = y[:, None] * A
    n = len(y)
    equation = (y[None], np.zeros(1)) if intercept else (np.zeros((0, n)), np.zeros(0))
    bounds = np.vstack([-np.eye(n), np.eye(n)])

    def data(t):
        h = np.concatenate([np.zeros(n, np.asarray(t).dtype), np.full(n, t[0])])
        return signed @ signed.T, -np.ones(n), *equation, bounds, h

    def read(a, b, t):
        return np.concatenate([a, a @ signed, b])

    reference = truth.quadratic_program(data, read)
    return lambda x, t: reference(x[:n], t)


def machine(intercept):
    def read(x):
        offset = x.intercept[None] if intercept else jnp.zeros(0)
        return jnp.concatenate([x.dual, x.weights, offset])

    return read


SIDES = np.repeat([[-1.0, 0], [0, 1]], 8, axis=1)  # t₀ < x < t₁, as Gx ≤ (t₀, t₁)·SIDES


def box_program(t):
    """t₃ is the unit of the objective."""
    none = np.zeros((0, 8)), np.zeros(0)
    rows = np.vstack([-np.eye(8), np.eye(8)])
    return t[3] * Q, t[2] * t[3] * LINEAR, *none, rows, t[:2] @ SIDES


def linear_program(t):
    """A vertex of a polytope around 0, cut by one equation."""
    equation = np.ones((1, 6)), t[:1]
    return np.zeros((6, 6)), t[2] * np.arange(1.0, 7), *equation, EDGES, t[1] * np.ones(14)


def plans(t):
    return COST + t[1] * COST_TILT, MASSES[0] + t[2] * TILTS[0], MASSES[1] + t[3] * TILTS[1], t[0]


@dataclasses.dataclass(frozen=True)
class Row:
    """θ -> a problem, where it is asked for, and the reference (answer, θ) -> `truth.Piece`."""

    build: Callable[[Any], Any]
    thetas: tuple[tuple[float, ...], ...]
    reference: Callable
    read: Callable[[Any], Any] = jnp.ravel


UNITS = tuple((-0.2, 0.3, 1.1, unit) for unit in (1.0, 1e4, 1e-4))
ROWS = {
    "weighted lasso, zero weights": Row(
        lambda t: problems.lasso(X, Y, t[0], t[1] * WEIGHTS),
        ((0.2, 1.3),),
        truth.penalised(
            lambda x, t: X.T @ (t[1] * WEIGHTS * (X @ x - Y)) / 30,
            truth.rows_of(np.eye(10)),
            constants(10),
        ),
    ),
    "elastic net": Row(
        lambda t: problems.elastic_net(X, Y, t[0], t[1]),
        ((0.4, 0.6),),
        truth.penalised(
            lambda x, t: squares(X, Y)(x, t) + t[0] * (1 - t[1]) * x,
            truth.rows_of(np.eye(10)),
            lambda t: np.full(10, t[0] * t[1]),
        ),
    ),
    "group lasso, dead group": Row(
        lambda t: problems.group_lasso(DEAD, Y, t[0], GROUPS),
        ((0.4,),),
        truth.penalised(squares(DEAD, Y), blocks(GROUPS), constants(4)),
    ),
    "sparse logistic": Row(
        lambda t: problems.sparse_logistic(X, LABELS, t[0]),
        ((0.05,),),
        truth.penalised(logistic(X, LABELS), truth.rows_of(np.eye(10)), constants(10)),
    ),
    "svm": Row(
        lambda t: problems.svm(X, LABELS, t[0]),
        ((0.1,), (3.0,)),
        svm_reference(True),
        machine(True),
    ),
    "svm, no intercept": Row(
        lambda t: problems.svm(X, LABELS, t[0], intercept=False),
        ((0.1,), (1e-3,)),  # then all support vectors are at their bounds
        svm_reference(False),
        machine(False),
    ),
    "box": Row(
        lambda t: jaxns.Composite(Quadratic(t[3] * Q, t[2] * t[3] * LINEAR), Box(t[0], t[1])),
        UNITS,
        truth.quadratic_program(box_program),
    ),
    "box, as a program": Row(
        lambda t: jaxns.QuadraticProgram(*box_program(t)),
        UNITS,
        truth.quadratic_program(box_program),
        lambda x: x.x,
    ),
    "linear program": Row(
        lambda t: jaxns.QuadraticProgram(*linear_program(t)),
        ((0.3, 1.2, 0.9),),
        truth.quadratic_program(linear_program),
        lambda x: x.x,
    ),
    "trend filtering": Row(
        lambda t: problems.trend_filtering(t[1] * SIGNAL, t[0]),
        ((0.3, 1.1),),
        truth.penalised(lambda x, t: x - t[1] * SIGNAL, differences(24, 1), constants(23)),
    ),
    "trend filtering, order 2": Row(
        lambda t: problems.trend_filtering(t[1] * SIGNAL, t[0], 2),
        ((0.3, 1.1),),
        truth.penalised(lambda x, t: x - t[1] * SIGNAL, differences(24, 2), constants(22)),
    ),
    "fused lasso": Row(
        lambda t: problems.fused_lasso(X, Y, t[0], t[1]),
        ((0.1, 0.2),),
        truth.penalised(
            squares(X, Y), truth.rows_of(np.eye(10)) + differences(10, 1), constants(10, 9)
        ),
    ),
    "sparse inverse covariance": Row(
        lambda t: problems.sparse_inverse_covariance(t[1] * COVARIANCE, t[0]),
        ((0.1, 1.0), (100.0, 1e3), (1e-4, 1e-3)),
        truth.penalised(
            lambda x, t: (t[1] * COVARIANCE - np.linalg.inv(x.reshape(6, 6))).ravel(),
            truth.rows_of(np.eye(36)),
            constants(36),
        ),
    ),
    "total variation": Row(
        lambda t: problems.total_variation(t[1] * IMAGE, t[0]),
        ((0.1, 1.1),),
        truth.penalised(lambda x, t: x - t[1] * IMAGE.ravel(), gradients(5, 6), constants(30)),
    ),
    "nuclear norm": Row(
        lambda t: jaxns.Composite(LeastSquares(X, t[1] * TASKS, scale="mean"), Nuclear(t[0])),
        ((0.4, 1.1),),
        truth.low_rank(lambda x, t: X.T @ (X @ x - t[1] * TASKS) / 30, (10, 5), lambda t: t[0]),
    ),
    "transport": Row(
        lambda t: jaxns.Transport(*plans(t)),
        ((0.2, 0.0, 0.0, 0.0),),
        truth.transport(plans),
        lambda x: x.plan.ravel(),
    ),
}


SLOW = {
    "elastic net",
    "transport",
    "nuclear norm",
    "trend filtering, order 2",
    "fused lasso",
    "total variation",
    "svm, no intercept",
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in ROWS]
)
def test_every_kind_of_problem(name):
    """The derivative of a smooth function of the solution, to 1e-8 of its largest entry."""
    row = ROWS[name]

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def value(theta):
        x = row.read(jaxns.solve(row.build(theta)).x)
        return jnp.cos(jnp.arange(x.size)) @ x + 0.5 * (x @ x), x

    for theta in np.array(row.thetas):
        (_, x), found = value(theta)
        expected = truth.gradient(row.reference(np.asarray(x), theta), theta, scalar)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.slow
def test_a_machine_whose_support_vectors_are_all_at_their_bounds():
    """The dual is C and the weights are linear in it; the intercept is the middle of an interval
    whose ends are those of two samples."""
    y = np.where(np.arange(30) % 2, 1.0, -1.0)
    w = y @ X  # over C
    allowed = y - 1e-3 * X @ w
    ends = np.where(y < 0, allowed, -np.inf).argmax(), np.where(y > 0, allowed, np.inf).argmin()

    def solution(C):
        x = jaxns.solve(problems.svm(X, y, C)).x
        return jnp.concatenate([x.dual, x.weights, x.intercept[None]])

    found = jax.jit(jax.jacrev(solution))(1e-3)
    expected = np.concatenate([np.ones(30), w, [-np.mean(X[list(ends)] @ w)]])
    np.testing.assert_allclose(found, expected, atol=1e-9)
