"""Coordinate descent against independent solvers, with working sets and without."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.linear_model
from cases import central_difference

import jaxns
from jaxns.functions import (
    L1,
    Box,
    ElasticNet,
    GroupL2,
    LeastSquares,
    Logistic,
    NonNegative,
    Poisson,
    Quadratic,
    Simplex,
    Smooth,
    SparseGroup,
    SquaredL2,
    Zero,
)

N, P = 40, 100  # more than 64 coordinates, so that there are working sets
_rng = np.random.default_rng(3)
X = _rng.normal(size=(N, P)) + 0.5 * _rng.normal(size=(N, 1))
y = X[:, ::20] @ np.array([3.0, -2.0, 1.5, 1.0, -1.0]) + 0.3 * _rng.normal(size=N)
labels = np.sign(y)
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-13)
STRICT = jaxns.Stop(tol=1e-14)
PLAIN = jaxns.CoordinateDescent(working_sets=False)
BOTH = pytest.mark.parametrize(
    "solver", [jaxns.CoordinateDescent(), PLAIN], ids=["working sets", "plain"]
)


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


def x_of(f, g, solver=jaxns.CoordinateDescent(), stop=STRICT, **options):
    return jaxns.solve(jaxns.Composite(f, g), solver, stop=stop, **options).x


def optimality(f, g, x):
    """The change of x by a small proximal gradient step, per unit of its length."""
    step = 0.1 / f.lipschitz()
    return np.max(np.abs(g.prox(x - step * f.gradient(x), step) - x)) / step


@BOTH
def test_agrees_with_scikit_learn(solver):
    lasso = sklearn.linear_model.Lasso(0.2, fit_intercept=False, tol=1e-14, max_iter=100_000)
    f = LeastSquares(X, y, scale="mean")
    np.testing.assert_allclose(x_of(f, L1(0.2), solver), lasso.fit(X, y).coef_, atol=1e-8)
    elastic = sklearn.linear_model.ElasticNet(
        0.4, l1_ratio=0.5, fit_intercept=False, tol=1e-14, max_iter=100_000
    )
    expected = elastic.fit(X, y).coef_
    np.testing.assert_allclose(x_of(f, ElasticNet(0.2, 0.2), solver), expected, atol=1e-8)


@BOTH
def test_sparse_logistic_regression(solver):
    f, penalty = Logistic(X, labels), 4.0
    v = cp.Variable(P)
    charges = cp.logistic(-cp.multiply(labels, X @ v))
    cp.Problem(cp.Minimize(cp.sum(charges) + penalty * cp.norm1(v))).solve(cp.CLARABEL, **TIGHT)
    found = x_of(f, L1(penalty), solver)
    np.testing.assert_allclose(found, v.value, atol=1e-8)
    assert 3 < np.sum(found != 0) < 20


def svm(C, kernel):
    """The dual of a support vector machine without intercept: a quadratic on a box."""
    return Quadratic(kernel, -np.ones(P)), Box(0.0, C)


def kernel_of(width):
    points = X.T[:, :3] / width
    squared = ((points[:, None] - points) ** 2).sum(-1)
    return jnp.outer(signs, signs) * jnp.exp(-squared) + 1e-2 * jnp.eye(P)


signs = np.sign(_rng.normal(size=P))


@BOTH
def test_svm_dual(solver):
    Q, C = np.asarray(kernel_of(1.0)), 0.8
    v = cp.Variable(P)
    objective = cp.Minimize(0.5 * cp.quad_form(v, cp.psd_wrap(Q)) - cp.sum(v))
    cp.Problem(objective, [v >= 0, v <= C]).solve(cp.CLARABEL, **TIGHT)
    found = x_of(*svm(C, Q), solver)
    np.testing.assert_allclose(found, v.value, atol=1e-8)
    assert np.any(found == 0)
    assert np.any(found == C)
    assert np.any((found > 0) & (found < C))


DIFFERENTIABLE = {
    "lasso": lambda t: (LeastSquares(X, t[1] * y, scale="mean"), L1(t[0])),
    "svm": lambda t: svm(4 * t[0], kernel_of(t[1])),
}


MODES = {
    "implicit": jaxns.Implicit(),
    "piggyback": jaxns.Piggyback(),
    "piggyback, both": jaxns.Piggyback(direction="both"),
}
EVERY_MODE = pytest.mark.parametrize(
    "mode", ["implicit", slow("piggyback"), slow("piggyback, both")]
)


@EVERY_MODE
@pytest.mark.parametrize("name", ["lasso", slow("svm")])
def test_derivatives_with_working_sets(name, mode):
    theta = jnp.array([0.2, 1.1])

    def x(theta, mode=MODES[mode]):
        return x_of(*DIFFERENTIABLE[name](theta), mode=mode)

    expected = central_difference(x, theta)
    np.testing.assert_allclose(jax.jacrev(x)(theta), expected, atol=1e-7)
    if MODES[mode].direction == "both":
        np.testing.assert_allclose(jax.jacfwd(x)(theta), expected, atol=1e-7)


def test_working_sets_keep_the_residual_of_an_epoch():
    """image = F(z), and the next point is better: fewer epochs to the same solution."""
    problem = jaxns.Composite(LeastSquares(X, y, scale="mean"), L1(0.05))
    solver = jaxns.CoordinateDescent().prepare(problem, jnp.zeros(P))
    x = jaxns.solve(problem, PLAIN, stop=jaxns.Stop(tol=None, max_steps=3)).x
    after, control = jax.jit(solver.advance)(problem, x, solver.control(problem, x))
    np.testing.assert_allclose(control.image, jax.jit(solver.step)(problem, x), atol=1e-15)
    assert problem(after) < problem(control.image) < problem(x)
    plain, sets = (jaxns.solve(problem, s, stop=STRICT) for s in (PLAIN, jaxns.CoordinateDescent()))
    np.testing.assert_allclose(sets.x, plain.x, atol=1e-11)
    assert sets.steps < 0.5 * plain.steps


def zero_column(X):
    return np.where(np.arange(P) == 20, 0, X)


def duplicated(X):
    return np.where(np.arange(P) == 20, X[:, :1], X)


@BOTH
@pytest.mark.parametrize("change", [zero_column, duplicated], ids=["zero", "duplicated"])
def test_degenerate_columns(solver, change):
    f = LeastSquares(change(X), y, scale="mean")
    for penalty in (0.1, 10 * float(np.max(np.abs(X.T @ y)))):
        x = x_of(f, L1(penalty), solver)
        assert optimality(f, L1(penalty), x) < 1e-10
        assert np.any(x != 0) == (penalty < 1)


def test_a_zero_column_leaves_its_own_penalty():
    f = LeastSquares(zero_column(X), y)
    assert x_of(f, Box(0.5, 2.0))[20] == 0.5
    assert x_of(f, SquaredL2(3.0))[20] == 0


def test_penalty_above_the_largest_useful_one():
    """Zero, and all derivatives of it."""
    theta = jnp.array([1.1 * np.max(np.abs(X.T @ y)) / N, 1.0])
    for mode in (jaxns.Implicit(), jaxns.Piggyback()):
        x, pull = jax.vjp(lambda t, m=mode: x_of(*DIFFERENTIABLE["lasso"](t), mode=m), theta)
        np.testing.assert_array_equal(x, 0)
        np.testing.assert_array_equal(pull(jnp.ones(P))[0], 0)


@pytest.mark.parametrize(("n", "penalty"), [(1, L1(0.05)), (3, NonNegative())])
def test_few_samples(n, penalty):
    """n ≪ p: the solution need not be unique, but is one."""
    f, g = LeastSquares(X[:n], y[:n], scale="mean"), penalty
    assert optimality(f, g, x_of(f, g, stop=jaxns.Stop())) < 1e-9


def test_other_penalties_and_weights():
    """Smooth and free: closed forms; one penalty per coordinate, and weighted samples."""
    few, weights = X[:, :5], np.linspace(0, 2, N)
    f = LeastSquares(few, y, weights=weights)
    W = few.T * weights
    np.testing.assert_allclose(x_of(f, Zero()), np.linalg.solve(W @ few, W @ y), atol=1e-10)
    penalty = np.linspace(0, 4, 5)
    expected = np.linalg.solve(W @ few + np.diag(penalty), W @ y)
    np.testing.assert_allclose(x_of(f, SquaredL2(penalty)), expected, atol=1e-10)


def test_several_targets():
    """(p, k) unknowns: rows are coordinates, columns separate problems."""
    Y = np.stack([y, 2 * y[::-1]], axis=1)
    penalty = np.full((P, 2), 0.2)
    together = x_of(LeastSquares(X, Y, scale="mean"), L1(penalty))
    apart = [x_of(LeastSquares(X, column, scale="mean"), L1(0.2)) for column in Y.T]
    np.testing.assert_allclose(together, np.stack(apart, axis=1), atol=1e-10)


def test_batches_and_float32():
    """Lanes share the size of the working set, and nothing else."""
    f = LeastSquares(X, y, scale="mean")
    penalties = jnp.array([0.02, 0.2, 2.0, 100.0])
    found = jax.vmap(lambda t: x_of(f, L1(t)))(penalties)
    np.testing.assert_allclose(found, [x_of(f, L1(t)) for t in penalties], atol=1e-10)
    single = LeastSquares(X.astype(np.float32), y.astype(np.float32), scale="mean")
    sol = jaxns.solve(jaxns.Composite(single, L1(0.2)), jaxns.CoordinateDescent())
    assert sol.x.dtype == jnp.float32
    assert sol.status.ok
    np.testing.assert_allclose(sol.x, found[1], atol=1e-4)


@pytest.mark.slow
def test_batches_of_derivatives():
    def weighted(theta):
        return jnp.sum(x_of(*DIFFERENTIABLE["lasso"](theta), mode=jaxns.Piggyback()))

    thetas = jnp.array([[0.2, 1.1], [2.0, 1.0], [0.1, 0.9]])
    batched = jax.vmap(jax.grad(weighted))(thetas)
    np.testing.assert_allclose(batched, [jax.grad(weighted)(t) for t in thetas], atol=1e-9)


# Blocks ------------------------------------------------------------------------------------------

SIZES = np.array([1, 2, 3, 4, 5] * 6 + [6])  # of the groups; the last four coordinates are in none
LABELS = np.concatenate([np.repeat(np.arange(31), SIZES), np.full(4, -1)])


def group_problem(theta):
    return LeastSquares(X, theta[1] * y, scale="mean"), GroupL2(theta[0] * jnp.sqrt(SIZES), LABELS)


@BOTH
def test_group_lasso(solver):
    """Groups of several sizes and a few coordinates in none."""
    v = cp.Variable(P)
    norms = [np.sqrt(s) * cp.norm2(v[g == LABELS]) for g, s in enumerate(SIZES)]
    loss = cp.sum_squares(X @ v - 1.1 * y) / (2 * N)
    tight = dict.fromkeys(TIGHT, 1e-11)
    cp.Problem(cp.Minimize(loss + 0.15 * sum(norms))).solve(cp.CLARABEL, **tight)
    f, g = group_problem(jnp.array([0.15, 1.1]))
    x = x_of(f, g, solver)
    np.testing.assert_allclose(x, v.value, atol=1e-6)  # what a cone program can do
    assert optimality(f, g, x) < 1e-10
    assert np.any(np.bincount(LABELS[:-4], x[:-4] != 0) == 0)


@EVERY_MODE
def test_group_lasso_derivative(mode):
    def x(theta, mode=MODES[mode]):
        return x_of(*group_problem(theta), mode=mode)

    theta = jnp.array([0.15, 1.1])
    np.testing.assert_allclose(jax.jacrev(x)(theta), central_difference(x, theta), atol=1e-7)


def test_rows_as_blocks():
    """The multitask lasso."""
    Y = np.stack([y, y[::-1]], axis=1)
    model = sklearn.linear_model.MultiTaskLasso(0.4, fit_intercept=False, tol=1e-14)
    expected = model.set_params(max_iter=100_000).fit(X, Y).coef_.T
    found = x_of(LeastSquares(X, Y, scale="mean"), GroupL2(0.4))
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_sparse_groups_and_a_quadratic_on_blocks():
    f, g = LeastSquares(X, y, scale="mean"), SparseGroup(0.05, 0.1, LABELS)
    assert optimality(f, g, x_of(f, g)) < 1e-10
    Q = Quadratic(X.T @ X / N, -X.T @ y / N)
    np.testing.assert_allclose(x_of(Q, g), x_of(f, g), atol=1e-10)


def test_what_cannot_be_right_is_said():
    f, solver = LeastSquares(X, y), jaxns.CoordinateDescent()
    with pytest.raises(TypeError, match="needs a Lipschitz constant of the gradient of f; Poisson"):
        x_of(Poisson(X, np.ones(N)), L1(1.0))
    with pytest.raises(TypeError, match="separate on g; Simplex has none; it is no sum"):
        x_of(f, Simplex())
    with pytest.raises(TypeError, match="CoordinateDescent needs partial on f; Smooth has none"):
        jaxns.solve(jaxns.Composite(Smooth(jnp.sum), L1(1.0)), solver, X[0])
    with pytest.raises(TypeError, match="without K; use PrimalDual"):
        jaxns.solve(jaxns.Composite(f, L1(1.0), np.eye(P)), solver)


def test_a_reverse_pass_keeps_a_fraction_of_the_data():
    """Not the predictor at every coordinate, which would be as much as A."""
    n, p = 200, 800
    problem = jaxns.Composite(LeastSquares(np.ones((n, p)), np.ones(n)), L1(1.0))
    x = jnp.zeros(p)

    def pulled(solver, problem, x):
        return jax.vjp(lambda x: solver.step(problem, x), x)[1](x)

    memory = jax.jit(pulled).lower(PLAIN.prepare(problem, x), problem, x).compile()
    assert memory.memory_analysis().temp_size_in_bytes < 0.25 * n * p * 8
