"""Newton's family: solutions, kinks and singular systems; why one step's derivative suffices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import STRICT, central_difference

import jaxns
from jaxns.functions import (
    L1,
    Box,
    BoxSection,
    ElasticNet,
    GroupL2,
    LeastSquares,
    Logistic,
    NonNegative,
    Quadratic,
    Smooth,
    SquaredL2,
)

ANYWAY = jaxns.Stop(on_failure="ignore")
NEWTON = jaxns.Newton()
ONE_STEP, IMPLICIT = jaxns.OneStep(), jaxns.Implicit()


def correlated(n, p, rho=0.9, seed=0):
    """Rows of an autoregressive process, a target with five nonzeros, and its signs as labels."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, p))
    X = np.empty((n, p))
    X[:, 0] = noise[:, 0]
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * noise[:, j]
    y = X[:, : 5 * (p // 8) : p // 8] @ rng.normal(size=5) + 0.5 * rng.normal(size=n)
    return jnp.asarray(X), jnp.asarray(y), jnp.asarray(np.sign(y))


X, y, labels = correlated(40, 120)
LARGEST = float(np.abs(X.T @ y).max()) / len(y)


def lasso(penalty, A=X, b=y, solver=NEWTON, **options):
    return jaxns.solve(jaxns.problems.lasso(A, b, penalty), solver, **options)


def violation(beta, penalty, A=X, b=y):
    """Of the optimality conditions of the lasso, relative to its penalty."""
    correlation = A.T @ (b - A @ beta) / len(b)
    on = jnp.where(beta != 0, jnp.abs(correlation - penalty * jnp.sign(beta)), 0)
    return float(jnp.maximum(on, jnp.abs(correlation) - penalty).max() / penalty)


@pytest.mark.parametrize("linear", ["auto", pytest.param("krylov", marks=pytest.mark.slow)])
def test_lasso_with_more_correlated_features_than_samples(linear):
    """From a solution that is zero to one with nearly as many nonzeros as samples."""
    sizes = []
    for fraction in (1.1, 0.3, 0.03, 0.003):
        sol = lasso(fraction * LARGEST, solver=jaxns.Newton(linear))
        assert violation(sol.x, fraction * LARGEST) < 1e-9
        sizes.append(int(jnp.sum(sol.x != 0)))
    assert sizes[0] == 0
    assert sizes[-1] > 32  # more than the smallest buffer holds


@pytest.mark.slow
def test_penalties_at_once_have_their_own_supports():
    penalties = LARGEST * jnp.array([1.1, 0.3, 0.03])
    batch = jax.vmap(lambda p: lasso(p).x)(penalties)
    np.testing.assert_allclose(batch, jnp.stack([lasso(p).x for p in penalties]), atol=1e-12)


@pytest.mark.slow
def test_duplicated_columns():
    """Predictions are unique and have derivatives; coefficients are not, and say so."""
    A = jnp.hstack([X[:, :110], X[:, :10]])
    penalty = 0.1 * LARGEST
    sol = lasso(penalty, A)
    assert violation(sol.x, penalty, A) < 1e-9
    np.testing.assert_allclose(A @ sol.x, X[:, :110] @ lasso(penalty, X[:, :110]).x, atol=1e-10)

    @jax.jit
    def derivative(p, weights):
        return jax.grad(lambda p: jnp.vdot(weights, lasso(p, A).x))(p)

    prediction = A.T @ jnp.cos(jnp.arange(40.0))
    expected = central_difference(lambda p: jnp.vdot(prediction, lasso(p, A).x), penalty)
    np.testing.assert_allclose(derivative(penalty, prediction), expected, rtol=1e-7)
    first = jnp.zeros(120).at[jnp.argmax(jnp.abs(sol.x[:10]))].set(1)
    assert jnp.isnan(derivative(penalty, first))


TRACES = []


def counted(x, A):
    TRACES.append(None)
    return jnp.sum(jnp.sqrt(1 + (A @ x - 1) ** 2))


def test_nothing_is_traced_again():
    counts = []
    for penalty in (0.1, 0.2, 0.3):
        problem = jaxns.Composite(Smooth(counted, X[:, :3]), L1(penalty))
        jaxns.solve(problem, jaxns.Newton(), jnp.zeros(3))
        counts.append(len(TRACES))
    assert counts[0] == counts[1] == counts[2] > 0


REFERENCES = {
    "box": lambda x, cp: (cp.sum_squares(X[:, :30] @ x - y) / 2, [x >= -0.2, x <= 0.3]),
    "nonnegative": lambda x, cp: (cp.sum_squares(X[:, :30] @ x - y) / 2, [x >= 0]),
    "svm": lambda x, cp: (cp.sum_squares(_signed().T @ x) / 2 - cp.sum(x), [x >= 0, x <= 0.1]),
    "svm with intercept": lambda x, cp: (
        cp.sum_squares(_signed().T @ x) / 2 - cp.sum(x), [x >= 0, x <= 0.1, labels @ x == 0],
    ),
    "group lasso": lambda x, cp: (
        cp.sum_squares(X[:, :30] @ x - y) / 2
        + 12 * cp.sum(cp.norm(cp.reshape(x, (10, 3), order="C"), 2, axis=1)), [],
    ),
    "elastic net": lambda x, cp: (
        cp.sum_squares(X[:, :30] @ x - y) / 2 + 9 * cp.norm1(x) + 2 * cp.sum_squares(x), [],
    ),
    "sparse logistic": lambda x, cp: (
        cp.sum(cp.logistic(-cp.multiply(labels, X[:, :30] @ x))) + 2 * cp.norm1(x), [],
    ),
}  # fmt: skip
OURS = {
    "box": lambda: jaxns.Composite(LeastSquares(X[:, :30], y), Box(-0.2, 0.3)),
    "nonnegative": lambda: jaxns.Composite(LeastSquares(X[:, :30], y), NonNegative()),
    "svm": lambda: jaxns.Composite(Quadratic(_signed() @ _signed().T, -jnp.ones(40)), Box(0, 0.1)),
    "svm with intercept": lambda: jaxns.Composite(
        Quadratic(_signed() @ _signed().T, -jnp.ones(40)), BoxSection(0, 0.1, labels, 0.0)
    ),
    "group lasso": lambda: jaxns.Composite(
        LeastSquares(X[:, :30], y), GroupL2(12.0, np.arange(30) // 3)
    ),
    "elastic net": lambda: jaxns.Composite(LeastSquares(X[:, :30], y), ElasticNet(9.0, 4.0)),
    "sparse logistic": lambda: jaxns.Composite(Logistic(X[:, :30], labels), L1(2.0)),
}


def _signed():
    return labels[:, None] * X[:, :60]


def _slow(names, quick):
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("solver", _slow(["Newton", "ProximalNewton"], ["Newton"]))
@pytest.mark.parametrize("name", _slow(REFERENCES, ["svm", "sparse logistic"]))
def test_against_cvxpy(name, solver):
    """An interior-point method's answer, to its accuracy."""
    cp = pytest.importorskip("cvxpy")
    problem = OURS[name]()
    sol = jaxns.solve(problem, getattr(jaxns, solver)())
    x = cp.Variable(len(sol.x))
    value, constraints = REFERENCES[name](x, cp)
    tight = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
    cp.Problem(cp.Minimize(value), constraints).solve(solver=cp.CLARABEL, **tight)
    np.testing.assert_allclose(sol.x, x.value, atol=1e-6)
    assert problem(sol.x) <= value.value + 1e-9


@pytest.mark.slow
def test_against_scikit_learn():
    from sklearn.linear_model import ElasticNet as SkElasticNet
    from sklearn.linear_model import Lasso, LogisticRegression

    strict = {"fit_intercept": False, "tol": 1e-14, "max_iter": 1_000_000}
    penalty = 0.1 * LARGEST
    expected = Lasso(alpha=penalty, **strict).fit(X, y).coef_
    np.testing.assert_allclose(lasso(penalty).x, expected, atol=1e-8)
    net = jaxns.problems.elastic_net(X, y, penalty, 0.7)
    expected = SkElasticNet(alpha=penalty, l1_ratio=0.7, **strict).fit(X, y).coef_
    np.testing.assert_allclose(jaxns.solve(net, NEWTON).x, expected, atol=1e-8)
    model = LogisticRegression(C=1 / (40 * 0.01), solver="newton-cholesky", **strict)
    logistic = jaxns.problems.logistic_regression(X, labels, 0.01)
    expected = model.fit(X, labels).coef_[0]
    np.testing.assert_allclose(jaxns.solve(logistic, NEWTON).x, expected, atol=1e-8)


# --- one step is as good as implicit (arXiv 2305.13768) ---

DESIGN, TARGET, SIGNS = (a[:, :6] if a.ndim == 2 else a for a in correlated(30, 24, 0.3, 1))
SMALL = {
    "lasso": (lambda t: jaxns.problems.lasso(DESIGN, t[1] * TARGET, t[0]), (0.1, 1.2)),
    "logistic": (
        lambda t: jaxns.problems.logistic_regression(t[1] * DESIGN, SIGNS, t[0]), (0.1, 1.2),
    ),
    "sparse logistic": (
        lambda t: jaxns.Composite(Logistic(t[1] * DESIGN, SIGNS, scale="mean"), L1(t[0])),
        (0.05, 1.2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _slow(SMALL, ["lasso", "logistic"]))
def test_one_step_is_as_good_as_implicit(name):
    """Equal at the solution; in between, its error is that of the point where the step starts."""
    build, theta = SMALL[name]
    theta = jnp.asarray(theta)

    def solution(theta, mode=IMPLICIT):
        return jaxns.solve(build(theta), NEWTON, mode=mode, stop=STRICT).x

    exact = jax.jacrev(solution)(theta)
    one_step = jax.jacrev(lambda t: solution(t, ONE_STEP))(theta)
    assert np.linalg.norm(one_step - exact) < 1e-11
    np.testing.assert_allclose(one_step, central_difference(solution, theta), atol=1e-9)

    x = solution(theta)
    prepared = NEWTON.prepare(build(theta), x)
    direction = jnp.where(x != 0, jnp.asarray(np.random.default_rng(0).normal(size=6)), 0)
    direction = direction / jnp.linalg.norm(direction) * jnp.linalg.norm(x)
    derivative = jax.jit(jax.jacrev(lambda t, x: prepared.step(build(t), x)))
    moved = 10.0 ** -np.arange(1, 7)
    errors = [np.linalg.norm(derivative(theta, x + t * direction) - exact) for t in moved]
    if name == "lasso":  # quadratic on its face: a step from anywhere on it ends at the solution
        assert max(errors[3:]) < 1e-11
    else:
        slope = np.polyfit(np.log(moved[1:]), np.log(errors[1:]), 1)[0]
        assert slope == pytest.approx(1, abs=0.05)


def weighted_logistic(n, p, seed=0):
    """The data of experiment B1: two shifted Gaussian classes, standardised, and an intercept."""
    rng = np.random.default_rng(seed)
    signs = np.repeat([1.0, -1.0], n // 2)
    X = rng.normal(size=(n, p - 1)) - signs[:, None] / np.sqrt(p - 1)
    X = np.column_stack([np.ones(n), (X - X.mean(0)) / X.std(0)])
    return jnp.asarray(X), jnp.asarray(signs), jnp.zeros(p).at[0].set(0.5)


@pytest.mark.slow
def test_errors_along_newtons_iteration():
    """Experiment B1: automatic errors are quadratic, those of one step are one step behind."""
    A, signs, x = weighted_logistic(100, 50)
    w = jnp.full(100, 0.01)

    def build(w):
        return jaxns.Composite(Logistic(A, signs, weights=w), SquaredL2(np.exp(-5.0)))

    def gradient(w, x):
        return build(w).f.gradient(x) + build(w).g.gradient(x)

    @jax.jit
    def at(x):
        """One step from x and its Jacobian; both ways to differentiate implicitly at x."""
        M, H = jax.jacfwd(gradient, (0, 1))(w, x)
        B, A = jax.jacrev(lambda w, x: NEWTON.step(build(w), x), (0, 1))(w, x)
        implicit = jnp.linalg.solve(jnp.eye(50) - A, B)
        return NEWTON.step(build(w), x), (B, -jnp.linalg.solve(H, M), implicit)

    found = []
    for _ in range(12):
        following, jacobians = at(x)
        found.append(jacobians)
        x = following
    exact = found[-1][1]
    path = jaxns.derivative_path(build, w, 11, solver=NEWTON, x0=jnp.zeros(50).at[0].set(0.5))
    np.testing.assert_allclose(path.x[-1], x, atol=1e-14)

    def errors(jacobians):
        return [np.linalg.norm(J - exact) / np.linalg.norm(exact) for J in jacobians]

    one_step, classical, implicit = map(errors, zip(*found, strict=True))
    automatic = errors(path.jacobian)
    assert one_step[-1] < 1e-11
    assert automatic[-1] < 1e-11
    # A step from iterate k: what the paper counts as k + 1, hence "within 3 of ID(k − 1)".
    regular = [k for k in range(4, 11) if one_step[k] > 1e-11]
    assert len(regular) >= 3
    for k in regular:
        assert classical[k] / 3 < one_step[k] < 3 * classical[k]
        assert automatic[k + 1] < max(3 * automatic[k] ** 2, 1e-12)
        assert implicit[k] < max(3 * one_step[k] ** 2, 1e-12)  # of the map: even this is quadratic


def test_no_derivative_passes_through_a_factorisation():
    """The pullback of a step holds the factorisations of the step, and solves with them."""
    build, theta = SMALL["sparse logistic"]
    prepared = NEWTON.prepare(build(theta), jnp.ones(6))
    step = lambda t, x: prepared.step(build(t), x)  # noqa: E731
    forward = jax.make_jaxpr(step)(jnp.asarray(theta), jnp.ones(6))
    pullback = jax.make_jaxpr(jax.jacrev(step))(jnp.asarray(theta), jnp.ones(6))
    assert _count(forward.jaxpr, "cholesky") == _count(pullback.jaxpr, "cholesky") == 1


def _count(jaxpr, name):
    """Equations of a primitive, in a jaxpr and all that it calls."""
    total = 0
    for equation in jaxpr.eqns:
        total += equation.primitive.name == name
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda v: hasattr(v, "jaxpr") or hasattr(v, "eqns")
        ):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                total += _count(getattr(inner, "jaxpr", inner), name)
    return total


@pytest.mark.slow
def test_memory_of_one_step_does_not_grow():
    """Experiment B1: storing an unrolled run takes memory linear in its length."""
    A, signs, start = weighted_logistic(100, 50)
    penalty = SquaredL2(np.exp(-5.0))

    def unrolled(w, steps):
        problem = jaxns.Composite(Logistic(A, signs, weights=w), penalty)
        step = lambda x, _: (NEWTON.step(problem, x), None)  # noqa: E731
        return jnp.sum(jax.lax.scan(step, start, length=steps)[0] ** 2)

    def one_step(w, steps):
        problem = jaxns.Composite(Logistic(A, signs, weights=w), penalty)
        stop = jaxns.Stop(tol=None, max_steps=steps)
        return jnp.sum(jaxns.solve(problem, NEWTON, start, mode=ONE_STEP, stop=stop).x ** 2)

    def memory(loss, steps):
        compiled = jax.jit(jax.grad(lambda w: loss(w, steps))).lower(jnp.ones(100)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    ten, twenty, forty = (memory(unrolled, k) for k in (10, 20, 40))
    assert 1.8 < (forty - twenty) / (twenty - ten) < 2.2
    assert memory(one_step, 10) == memory(one_step, 40)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [ONE_STEP, IMPLICIT])
@pytest.mark.parametrize("name", ["lasso", "sparse logistic"])
def test_second_derivatives(name, mode):
    build, theta = SMALL[name]

    def loss(theta):
        return jnp.sum(jnp.sin(jaxns.solve(build(theta), NEWTON, mode=mode, stop=STRICT).x))

    theta = jnp.asarray(theta)
    expected = central_difference(jax.jit(jax.grad(loss)), theta, h=1e-4)
    np.testing.assert_allclose(jax.hessian(loss)(theta), expected, atol=1e-7)


# --- equations ---


def linear(x, A, b):
    return A @ x - b


def mixed(x, t):
    """Three equations in two arrays, with a Jacobian that is not symmetric."""
    level = jnp.sum(x["a"]) + x["b"] ** 3 - 2 * t
    return [jnp.exp(x["a"]) * x["b"] - jnp.array([1.0, 2.0]) * t, level]


@pytest.mark.slow
def test_equations_in_pytrees():
    x0 = {"a": jnp.full(2, 0.1), "b": jnp.ones(())}

    def root(t):
        return jaxns.solve(jaxns.Root(mixed, t), x0=x0, stop=STRICT)

    sol = root(1.3)
    assert sol.status == jaxns.Status.CONVERGED
    for equations in mixed(sol.x, 1.3):
        np.testing.assert_allclose(equations, 0, atol=1e-14)
    found = jax.jacrev(lambda t: root(t).x)(1.3)
    expected = central_difference(lambda t: root(t).x["a"], 1.3)
    np.testing.assert_allclose(found["a"], expected, atol=1e-9)


@pytest.mark.slow
def test_equations_that_close_over_data():
    def root(k):
        return jaxns.solve(jaxns.Root(lambda x: x**2 - k), x0=jnp.array(1.0)).x

    np.testing.assert_allclose(root(2.0), np.sqrt(2), rtol=1e-14)
    np.testing.assert_allclose(jax.grad(root)(2.0), 0.5 / np.sqrt(2), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(jax.grad(root))(2.0), -0.25 / 2**1.5, rtol=1e-12)


def test_singular_equations_are_told():
    A, solvable, not_solvable = jnp.array([[1.0, 1.0], [2.0, 2.0]]), [1.0, 2.0], [1.0, 5.0]

    def solve(b, stop=ANYWAY):
        return jaxns.solve(jaxns.Root(linear, A, jnp.asarray(b)), x0=jnp.zeros(2), stop=stop)

    assert solve(not_solvable).status == jaxns.Status.INFEASIBLE
    with pytest.raises(jaxns.ConvergenceError, match="cannot be met"):
        solve(not_solvable, jaxns.Stop())
    sol = solve(solvable)  # of all solutions, the nearest to the start
    assert sol.status.ok
    np.testing.assert_allclose(sol.x, 0.5, atol=1e-14)
    with pytest.raises(jaxns.ConvergenceError, match="is the solution unique"):
        jax.grad(lambda b: solve(b).x[0])(jnp.asarray(solvable))
    square = jaxns.Root(lambda x: x**2 + 1)
    statuses = [jaxns.solve(square, x0=jnp.array(x0), stop=ANYWAY).status for x0 in (1.0, 0.7, 0.0)]
    assert all(status == jaxns.Status.INFEASIBLE for status in statuses)
    with pytest.raises(ValueError, match="as many equations as x has unknowns, 3; it gives 2"):
        jaxns.solve(jaxns.Root(lambda x: x[:2]), x0=jnp.zeros(3))


def banana(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


@pytest.mark.parametrize("linear", ["auto", "krylov"])
def test_objectives_that_are_not_convex(linear):
    sol = jaxns.solve(jaxns.Composite(Smooth(banana)), jaxns.Newton(linear), jnp.array([-1.2, 1]))
    np.testing.assert_allclose(sol.x, 1, atol=1e-12)


def test_objectives_without_curvature_or_with_many_minima():
    flat = jaxns.Composite(Smooth(jnp.sum))
    stop = jaxns.Stop(max_steps=50, on_failure="ignore")
    assert not jaxns.solve(flat, NEWTON, jnp.zeros(4), stop=stop).status.ok
    sol = jaxns.solve(jaxns.Composite(LeastSquares(X, y)), NEWTON)
    np.testing.assert_allclose(X @ sol.x, y, atol=1e-10)


def test_what_it_cannot_solve_is_said():
    with pytest.raises(ValueError, match="linear must be one of"):
        jaxns.Newton(linear="choleski")
    composite = jaxns.Composite(LeastSquares(X, y), L1(1.0), jnp.eye(120))
    with pytest.raises(TypeError, match="without K"):
        jaxns.solve(composite, NEWTON)

    @jaxns.struct
    class Clip:
        def __call__(self, x):
            return 0.0 * jnp.sum(x)

        def prox(self, x, step):
            return jnp.clip(x, -1, 1)

    with pytest.raises(TypeError, match="Newton needs support on g; Clip has none; use Forward"):
        jaxns.solve(jaxns.Composite(LeastSquares(X, y), Clip()), NEWTON)
    f = LeastSquares(X, jnp.stack([y, y], 1))
    with pytest.raises(TypeError, match="an unknown that is a vector with Simplex"):
        jaxns.solve(jaxns.Composite(f, jaxns.functions.Simplex()), NEWTON)
