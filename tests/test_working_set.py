"""Working sets against independent solvers, and what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.linear_model
from cases import central_difference
from jax.experimental import sparse

import jaxns
from jaxns.functions import (
    L1,
    Box,
    ElasticNet,
    GroupL2,
    Huber,
    LeastSquares,
    Logistic,
    Nuclear,
    Quadratic,
    Smooth,
    SparseGroup,
)

N, P = 60, 200
_rng = np.random.default_rng(0)
A = _rng.normal(size=(N, P))
b = A[:, :8] @ _rng.normal(size=8) + 0.1 * _rng.normal(size=N)
labels, groups = np.sign(b), np.arange(P) // 4
Q = A.T @ A / N + 0.1 * np.eye(P)
STRICT = jaxns.Stop(tol=1e-14)
SMALL = jaxns.WorkingSet(sizes=(16, 128))

PROBLEMS = {
    "lasso": lambda t: jaxns.Composite(LeastSquares(A, b), L1(6 * t)),
    "one free": lambda t: jaxns.Composite(
        LeastSquares(A, b), L1(t * jnp.where(jnp.arange(P) == 3, 0, 6.0))
    ),
    "elastic net": lambda t: jaxns.Composite(LeastSquares(A, b), ElasticNet(6 * t, t)),
    "logistic": lambda t: jaxns.Composite(Logistic(A, labels), L1(2 * t)),
    "huber": lambda t: jaxns.Composite(Huber(A, b), L1(3 * t)),
    "box": lambda t: jaxns.Composite(Quadratic(Q, -t * b @ A / N), Box(-0.05, 0.1)),
    "groups": lambda t: jaxns.Composite(LeastSquares(A, b), GroupL2(8 * t, groups)),
    "sparse groups": lambda t: jaxns.Composite(LeastSquares(A, b), SparseGroup(t, 5 * t, groups)),
}
QUICK = ("lasso", "groups")
EACH = pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PROBLEMS],
)


def value(t, name, solver=SMALL, **options):
    x = jaxns.solve(PROBLEMS[name](t), solver, stop=STRICT, **options).x
    return jnp.sum(jnp.sin(x))


@EACH
def test_a_solution_meets_its_optimality_condition(name):
    problem = PROBLEMS[name](1.0)
    sol = jaxns.solve(problem, SMALL, stop=STRICT)
    step = 1 / np.linalg.norm(A, 2) ** 2
    moved = problem.g.prox(sol.x - step * problem.f.gradient(sol.x), step) - sol.x
    assert jnp.max(jnp.abs(moved)) / step < 1e-11
    assert 0 < jnp.sum(sol.x != 0) < P or name == "box"


MODES = {"implicit": jaxns.Implicit(), "piggyback": jaxns.Piggyback()}
MARKS = {
    ("implicit", "lasso"): (),
    **{
        (mode, name): pytest.mark.slow
        for mode, name in (("piggyback", "lasso"), ("implicit", "groups"))
    },
}


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        pytest.param(
            mode, name, marks=MARKS.get((mode, name), (pytest.mark.slow, pytest.mark.long))
        )
        for mode in MODES
        for name in PROBLEMS
    ],
)
def test_derivatives_against_differences(mode, name):
    slope = jax.grad(lambda t: value(t, name, mode=MODES[mode]))(1.0)
    expected = central_difference(lambda t: value(t, name), 1.0)
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


def test_agrees_with_scikit_learn():
    lasso = sklearn.linear_model.Lasso(0.1, fit_intercept=False, tol=1e-14, max_iter=100_000)
    problem = jaxns.problems.lasso(A, b, 0.1)
    np.testing.assert_allclose(
        jaxns.solve(problem, SMALL, stop=STRICT).x, lasso.fit(A, b).coef_, atol=1e-9
    )


def test_few_looks_at_the_whole_problem():
    """Where forward-backward steps need hundreds of products with the data."""
    build = PROBLEMS["lasso"]
    assert jaxns.solve(build(0.1), SMALL).steps <= 12
    assert jaxns.solve(build(0.1), jaxns.ForwardBackward()).steps > 100


def test_a_support_beyond_every_working_set():
    build = PROBLEMS["lasso"]
    few = jaxns.solve(build(0.1), jaxns.WorkingSet(sizes=(16,)))
    all_ = jaxns.solve(build(0.1), SMALL)
    assert jnp.sum(all_.x != 0) > 16
    np.testing.assert_allclose(few.x, all_.x, atol=1e-9)


def test_one_size_that_is_little_smaller_than_the_problem():
    build = PROBLEMS["lasso"]
    sol, all_ = (jaxns.solve(build(0.1), s) for s in (jaxns.WorkingSet(sizes=(180,)), SMALL))
    np.testing.assert_allclose(sol.x, all_.x, atol=1e-9)


def test_a_penalty_above_its_maximum():
    problem = PROBLEMS["lasso"](1e3)
    sol = jaxns.solve(problem, SMALL)
    assert sol.status.ok
    assert not jnp.any(sol.x)
    assert jax.grad(value)(1e3, "lasso") == 0


def test_equal_columns():
    """No unique solution: one is found, and predictions are those of the single column."""
    twice = np.concatenate([A, A[:, :4]], axis=1)
    x = jaxns.solve(jaxns.Composite(LeastSquares(twice, b), L1(6.0)), SMALL).x
    alone = jaxns.solve(PROBLEMS["lasso"](1.0), SMALL).x
    np.testing.assert_allclose(twice @ x, A @ alone, atol=1e-8)


def test_what_comes_next_is_in_the_working_set():
    """So few looks at all of the data find 45 of 600 coordinates of which neighbours resemble."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(100, 600))
    X = noise.copy()
    for j in range(1, 600):
        X[:, j] = 0.6 * X[:, j - 1] + 0.8 * noise[:, j]
    y = X[:, ::20] @ rng.normal(size=30) + 0.1 * rng.normal(size=100)
    problem = jaxns.Composite(LeastSquares(X, y), L1(np.max(np.abs(X.T @ y)) / 10))
    sol = jaxns.solve(problem, jaxns.WorkingSet(sizes=(56, 120)))
    assert jnp.sum(sol.x != 0) == 45
    assert sol.steps <= 4


def test_a_sparse_design():
    thin = np.where(np.abs(A) > 1, A, 0)

    def slope(design):
        def total(t):
            problem = jaxns.Composite(LeastSquares(design, b), L1(4 * t))
            return jnp.sum(jaxns.solve(problem, SMALL, stop=STRICT).x ** 2)

        return jax.grad(total)(1.0)

    np.testing.assert_allclose(slope(sparse.BCOO.fromdense(thin)), slope(thin), rtol=1e-8)


def test_float32_and_lanes():
    f = LeastSquares(A.astype(np.float32), b.astype(np.float32))
    penalties = jnp.array([2.0, 6.0, 20.0], jnp.float32)
    x = jax.vmap(
        lambda t: jaxns.solve(jaxns.Composite(f, L1(t)), SMALL, stop=jaxns.Stop(tol=1e-6)).x
    )(penalties)
    assert x.dtype == jnp.float32
    for lane, penalty in zip(x, (2.0, 6.0, 20.0), strict=True):
        alone = jaxns.solve(PROBLEMS["lasso"](penalty / 6), SMALL).x
        np.testing.assert_allclose(lane, alone, atol=2e-5)


def test_a_tiny_scale_is_no_smaller_problem():
    """Units of 1e-18 in float32, whose squares are zero."""
    unit = jnp.float32(1e-18)
    f = LeastSquares(A.astype(np.float32), b.astype(np.float32) * unit)
    x = jaxns.solve(jaxns.Composite(f, L1(6 * unit)), SMALL, stop=jaxns.Stop(tol=1e-5)).x / unit
    np.testing.assert_allclose(x, jaxns.solve(PROBLEMS["lasso"](1.0), SMALL).x, atol=1e-4)


def test_data_that_is_not_a_number():
    broken = jnp.asarray(A).at[3, 5].set(jnp.nan)
    stop = jaxns.Stop(on_failure="nan")
    sol = jaxns.solve(jaxns.Composite(LeastSquares(broken, b), L1(6.0)), SMALL, stop=stop)
    assert not sol.status.ok
    assert jnp.all(jnp.isnan(sol.x))


@pytest.mark.parametrize(
    ("problem", "x0", "message"),
    [
        (
            jaxns.Composite(Smooth(jnp.sum), L1(1.0)),
            jnp.zeros(3),
            "needs hessian on f; Smooth has none",
        ),
        (jaxns.Composite(Quadratic(Q, b @ A), Nuclear(1.0)), None, "needs separate on g"),
        (jaxns.Composite(LeastSquares(A, np.stack([b, b], 1)), L1(1.0)), None, "a vector"),
    ],
)
def test_what_it_cannot_solve_is_said(problem, x0, message):
    with pytest.raises(TypeError, match=message):
        jaxns.solve(problem, SMALL, x0)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="sizes must be positive and increasing"):
        jaxns.WorkingSet(sizes=(256, 128))


def test_only_sizes_that_are_of_use_are_compiled():
    """400 samples: up to the first size that holds 800 coordinates; 2000 entries: 504."""
    X, sizes = np.ones((400, 2000)), (504, 1000, 1500)
    thin = sparse.BCOO.fromdense(np.where(np.arange(2000) % 400 == 0, X, 0))
    for design, kept in ((X, sizes[:2]), (thin, sizes[:1])):
        problem = jaxns.Composite(LeastSquares(design, np.ones(400)), L1(1.0))
        solver = jaxns.WorkingSet(sizes=sizes)
        text = str(jax.make_jaxpr(lambda p, s=solver: jaxns.solve(p, s).x)(problem))
        assert [f"f64[{s},{s}]" in text for s in sizes] == [s in kept for s in sizes]


def test_more_coordinates_than_samples_can_move():
    """An elastic net of equal neighbours: 150 of 400 for 40 samples, still a few steps."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(40, 80)), 5, axis=1) + 0.01 * rng.normal(size=(40, 400))
    y = X @ np.where(np.arange(400) < 150, 1.0, 0) / 10
    problem = jaxns.Composite(LeastSquares(X, y), ElasticNet(0.5, 0.1))
    sol = jaxns.solve(problem, jaxns.WorkingSet())
    assert jnp.sum(sol.x != 0) > 120
    assert sol.steps < 12
    expected = jaxns.solve(problem, jaxns.ForwardBackward()).x
    np.testing.assert_allclose(sol.x, expected, atol=1e-9)
