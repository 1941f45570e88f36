"""The linear systems behind implicit derivatives: structure, methods, probes, warm starts."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns.functions import (
    L1,
    Box,
    ElasticNet,
    GroupL2,
    Huber,
    LeastSquares,
    Logistic,
    NonNegative,
    SquaredL2,
)

N, P = 60, 300  # more unknowns than are factorised without looking for structure
random = np.random.RandomState(0)
X = jnp.asarray(random.randn(N, P) / np.sqrt(N))
y = jnp.asarray(X[:, :5] @ random.randn(5) + 0.1 * random.randn(N))
labels = jnp.sign(y)
weights = jnp.asarray(random.randn(P))
TALL = jnp.asarray(random.randn(400, P) / 20)  # for constraints that leave many coordinates free
z = jnp.asarray(random.randn(400))
TIGHT = jaxns.Stop(tol=1e-14, max_steps=200_000)

LARGEST = float(jnp.abs(X.T @ y).max())
PROBLEMS = {
    "lasso": lambda t: jaxns.Composite(LeastSquares(X, y), L1(0.1 * LARGEST * t)),
    "group lasso": lambda t: jaxns.Composite(
        LeastSquares(X, y), GroupL2(0.2 * LARGEST * t, np.arange(P) // 3)
    ),
    "sparse logistic": lambda t: jaxns.Composite(Logistic(X, labels), L1(0.1 * LARGEST * t)),
    "nonnegative": lambda t: jaxns.Composite(LeastSquares(TALL, t * z), NonNegative()),
    "box": lambda t: jaxns.Composite(LeastSquares(TALL, z), Box(-0.05 * t, 0.1 * t)),
    "ridge": lambda t: jaxns.Composite(LeastSquares(X, y), SquaredL2(0.1 * t)),
}
SOLVERS = {
    "ForwardBackward": (jaxns.ForwardBackward(), tuple(PROBLEMS)),
    "DouglasRachford": (jaxns.DouglasRachford(), ("lasso", "group lasso", "ridge")),
    "GradientDescent": (jaxns.GradientDescent(), ("ridge",)),
}
ROWS = [(solver, problem) for solver, (_, problems) in SOLVERS.items() for problem in problems]
QUICK = {("ForwardBackward", "lasso")}


def loss(t, build, solver, mode=jaxns.Implicit(), stop=TIGHT):
    x = jaxns.solve(build(t), solver, mode=mode, stop=stop).x
    return jnp.vdot(weights, x) + jnp.vdot(x, x)


@pytest.mark.parametrize(
    ("solver", "problem"),
    [row if row in QUICK else pytest.param(*row, marks=pytest.mark.slow) for row in ROWS],
)
def test_structure_gives_the_same_as_the_whole_matrix(solver, problem):
    """At first order in both directions; in a few applications of ∂F, where Krylov needs tens."""
    solver, build = SOLVERS[solver][0], PROBLEMS[problem]

    def derivative(method, **options):
        mode = jaxns.Implicit(method=method, probe=jaxns.Probe(), **options)
        run = lambda t, mode: loss(t, build, solver, mode)  # noqa: E731
        return jax.jit(jax.grad(run, argnums=(0, 1), allow_int=True))(1.0, mode)

    expected, _ = derivative("dense")
    assert jnp.isfinite(expected)
    for method in ("structured", "auto"):
        found, report = derivative(method)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert report.probe.converged == 1
        assert report.probe.steps <= 3
    both = jaxns.Implicit(method="structured", direction="both")
    forward = jax.jit(jax.jacfwd(lambda t: loss(t, build, solver, both)))(1.0)
    np.testing.assert_allclose(forward, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("solver", "l2"), [(jaxns.ForwardBackward, 0.0), (jaxns.DouglasRachford, 0.5)]
)
def test_structure_where_a_derivative_at_a_kink_is_chosen(solver, l2):
    """Three coordinates exactly at their kink, in whole numbers; P = ∂prox with s there, and

    dx = P (dx − α ∇²f dx + α Aᵀ db − α sign(v) dl1).
    """
    alpha, signs = 2.0**-8, np.zeros(P)
    x = np.zeros(P)
    x[:6] = 1, -2, 1, 3, -1, 2
    signs[:9] = *np.sign(x[:6]), 1, -1, 1
    design = np.random.RandomState(2).randint(-1, 2, size=(40, P)).astype(float)
    design[0], design[1] = signs, x  # so that Aᵀ(b − A x) = sign + l2 x
    b = design @ x + np.eye(40)[0] + l2 * np.eye(40)[1]
    v = x - alpha * design.T @ (design @ x - b)
    s = np.where(x != 0, 0.7, 0.3)
    s[6:9] = 0.25, 0.5, 1.0
    assert np.sum(np.abs(v) == alpha) == 3

    def run(b, l1):
        g = ElasticNet(l1, l2, at_kink=s) if l2 else L1(l1, at_kink=s)
        problem = jaxns.Composite(LeastSquares(jnp.asarray(design), b), g)
        mode, here = jaxns.Implicit(method="structured"), jaxns.Stop(tol=None, max_steps=0)
        z = x if solver is jaxns.ForwardBackward else v
        return jnp.vdot(weights, jaxns.solve(problem, solver(alpha), z, mode=mode, stop=here).x)

    found = jax.grad(run, argnums=(0, 1))(jnp.asarray(b), 1.0)
    prox = np.diag(np.where(x != 0, 1, s * (signs != 0)) / (1 + alpha * l2))
    gradient_step = np.eye(P) - alpha * design.T @ design
    inverse = np.linalg.inv(np.eye(P) - prox @ gradient_step)
    w = alpha * (inverse @ prox).T @ np.asarray(weights)
    np.testing.assert_allclose(found[0], design @ w, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], -signs @ w, rtol=1e-9)


@pytest.mark.slow
def test_second_derivatives_with_structure():
    build, solver = PROBLEMS["sparse logistic"], jaxns.ForwardBackward()
    run = lambda t, m: loss(t, build, solver, jaxns.Implicit(method=m))  # noqa: E731
    second = jax.jit(jax.hessian(run), static_argnums=1)
    np.testing.assert_allclose(second(1.0, "structured"), second(1.0, "dense"), rtol=1e-8)


@pytest.mark.slow
def test_lanes_with_supports_of_their_own():
    build, solver = PROBLEMS["lasso"], jaxns.ForwardBackward()
    t = jnp.array([0.1, 1.0, 5.0, 20.0])  # up to more nonzeros than the smallest buffer, and none
    alone = [jax.grad(loss)(ti, build, solver) for ti in t]
    together = jax.jit(jax.vmap(lambda t: jax.grad(loss)(t, build, solver)))(t)
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_a_structure_that_is_wrong_is_found_out():
    """What a solver claims is checked, and a general method used instead."""

    @jaxns.struct
    class Boastful:
        def init(self, problem, x0):
            return x0

        def step(self, problem, x):
            return 0.5 * problem.residual(x)

        def solution(self, problem, x):
            return x

        def linearisation(self, problem, x):
            return lambda b: 3.0 * b, lambda b: 3.0 * b

    M = jnp.asarray(random.randn(P, P) / (2 * np.sqrt(P)))

    def run(c, method="auto"):
        root = jaxns.Root(lambda x: M @ x + c)
        mode = jaxns.Implicit(method=method)
        return jnp.vdot(weights, jaxns.solve(root, Boastful(), jnp.zeros(P), mode=mode).x)

    c = jnp.asarray(random.randn(P))
    expected = 0.5 * jnp.linalg.solve(jnp.eye(P) - 0.5 * M.T, weights)
    np.testing.assert_allclose(jax.grad(run)(c), expected, rtol=1e-9)
    with pytest.raises(jaxns.ConvergenceError, match="linear system"):
        jax.grad(lambda c: run(c, "structured"))(c)


@jaxns.struct
class Frozen:
    """Forward-backward steps that no derivative passes through."""

    def init(self, problem, x0):
        return x0

    def step(self, problem, x):
        return jax.lax.stop_gradient(self.stationary(problem).step(problem, x))

    def solution(self, problem, x):
        return x

    def stationary(self, problem):
        return jaxns.ForwardBackward(1 / problem.f.lipschitz())


def test_a_fixed_point_is_differentiated_by_the_map_that_the_solver_names():
    """… and not by the one that ran, where only the fixed point counts."""
    box = jnp.array([-1.0, 0.5])

    def solution(center, mode):
        f = LeastSquares(jnp.diag(jnp.array([1.0, 2.0, 3.0])), center)
        stop = jaxns.Stop(max_steps=2000)
        return jaxns.solve(jaxns.Composite(f, Box(*box)), Frozen(), mode=mode, stop=stop).x

    center = jnp.array([0.3, 0.6, 9.0])  # x = c/d, but at most ½
    expected = np.diag([1.0, 0.5, 0.0])
    for mode, derivative in (
        (jaxns.Implicit(), jax.jacrev),
        (jaxns.Implicit(direction="both"), jax.jacfwd),
        (jaxns.Implicit(method="structured"), jax.jacrev),
    ):
        found = derivative(lambda c, mode=mode: solution(c, mode))(center)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    of_the_map = jax.jacrev(lambda c: solution(c, jaxns.OneStep()))(center)
    np.testing.assert_array_equal(of_the_map, 0)


def test_structure_that_there_is_not():
    with pytest.raises(TypeError, match="linearisation"):
        jax.grad(
            lambda t: jaxns.fixed_point(
                lambda x: 0.5 * x + t, jnp.zeros(3), mode=jaxns.Implicit(method="structured")
            ).x.sum()
        )(1.0)


def contraction(size, radius=0.9):
    Q, _ = np.linalg.qr(np.random.RandomState(1).randn(size, size))
    return jnp.asarray(Q * np.linspace(0, radius, size) @ Q.T)


A = contraction(20)


@pytest.mark.parametrize("method", ["cg", "bicgstab", "gmres", "neumann", "anderson", "dense"])
def test_methods_preconditioner_and_probe(method):
    """Every method is told the inverse, and then needs next to no steps."""

    def F(x, c):
        return A @ x + c

    def inverse(v):
        return jnp.linalg.solve(jnp.eye(20) - A, v)

    def run(c, mode):
        return jnp.vdot(jnp.sin(jnp.arange(20.0)), jaxns.fixed_point(F, c, c, mode=mode).x)

    expected = inverse(jnp.sin(jnp.arange(20.0)))
    steps = {}
    for precondition in (None, inverse):
        if method == "dense" and precondition is not None:
            continue
        mode = jaxns.Implicit(method=method, precondition=precondition, probe=jaxns.Probe())
        found, report = jax.grad(run, argnums=(0, 1), allow_int=True)(jnp.zeros(20), mode)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert report.probe.converged == 1
        assert report.probe.residual < 1e-11
        steps[precondition is None] = int(report.probe.steps)
    if method not in ("dense", "gmres"):  # which makes a whole cycle
        assert steps[False] <= 5 < steps[True]


def test_a_warm_start_saves_the_steps():
    """The adjoint of one outer step starts that of the next."""

    def run(c, probe, start):
        mode = jaxns.Implicit(method="neumann", probe=probe, start=start)
        x = jaxns.fixed_point(lambda x: jnp.tanh(A @ x + c), jnp.zeros(20), mode=mode).x
        return jnp.vdot(x, x)

    grad = jax.jit(jax.grad(run, argnums=(0, 1)))
    c, probe = jnp.ones(20), jaxns.Probe(adjoint=jnp.zeros(20))
    cold, report = grad(c, probe, jnp.zeros(20))
    again, warm = grad(c, probe, report.adjoint)
    np.testing.assert_allclose(again, cold, rtol=1e-10)
    assert warm.steps <= 2 < 15 < report.steps
    near, warm = grad(c + 1e-6, probe, report.adjoint)
    assert warm.steps < 0.7 * report.steps
    np.testing.assert_allclose(near, grad(c + 1e-6, probe, jnp.zeros(20))[0], rtol=1e-9)


def test_probe_of_one_step_and_of_lanes():
    """‖(Aᵀ)^K z̄‖ / ‖z̄‖, for each lane its own."""

    def run(c, probe):
        mode = jaxns.OneStep(3, probe=probe)
        x = jaxns.fixed_point(lambda x: A @ x + c, jnp.zeros(20), mode=mode).x
        return jnp.vdot(jnp.ones(20), x)

    left = jnp.linalg.norm(jnp.linalg.matrix_power(A, 3) @ jnp.ones(20)) / jnp.sqrt(20.0)
    lanes = jaxns.Probe(jnp.zeros(4), jnp.zeros(4), jnp.zeros(4))
    reports = jax.vmap(jax.grad(run, argnums=1))(jnp.ones((4, 20)), lanes)
    np.testing.assert_allclose(reports.residual, jnp.full(4, left), rtol=1e-12)
    np.testing.assert_array_equal(reports.steps, 3)


def test_many_cotangents_factorise_once():
    """`jacrev` batches right-hand sides, not matrices."""

    def run(c):
        return jaxns.fixed_point(lambda x: jnp.tanh(A @ x + c), jnp.zeros(20)).x

    text = str(jax.make_jaxpr(jax.jacrev(run))(jnp.ones(20)))
    assert set(re.findall(r"(f64\[[\d,]*\]) \S+ \S+ = lu\b", text)) == {"f64[20,20]"}


def test_more_free_coordinates_than_rows():
    """X x = t y: the matrix of the free coordinates is singular, and the fit has a derivative."""

    def fit(t):
        problem = jaxns.Composite(LeastSquares(X, t * y), Box(-10.0, 10.0))
        mode = jaxns.Implicit(method="structured")
        return jnp.sum((X @ jaxns.solve(problem, mode=mode, stop=TIGHT).x) ** 2)

    np.testing.assert_allclose(jax.grad(fit)(2.0), 4 * y @ y, rtol=1e-9)


@pytest.mark.slow
def test_least_norm_where_the_solution_is_not_unique():
    """Duplicated columns: predictions have derivatives; single coefficients have none."""
    twice = jnp.hstack([X, X])

    def prediction(t, A, direction):
        problem = jaxns.Composite(LeastSquares(A, y), L1(0.1 * LARGEST * t))
        return jnp.vdot(direction, jaxns.solve(problem, stop=TIGHT).x)

    v = X.T @ jnp.cos(jnp.arange(N * 1.0))
    grad = jax.jit(jax.grad(prediction))
    expected = grad(1.0, X, v)
    np.testing.assert_allclose(grad(1.0, twice, jnp.hstack([v, v])), expected, rtol=1e-8)
    assert jnp.isnan(grad(1.0, twice, jnp.hstack([v, 0 * v])))


def test_bad_arguments():
    with pytest.raises(TypeError, match="probe must be"):
        jaxns.Implicit(probe=3.0)
    with pytest.raises(ValueError, match="direction='reverse'"):
        jaxns.OneStep(direction="both", probe=jaxns.Probe())
    with pytest.raises(TypeError, match="precondition must be a function"):
        jaxns.Implicit(precondition=2.0)
    with pytest.raises(ValueError, match="restart"):
        jaxns.Implicit(restart=0)


@pytest.mark.slow
def test_kinks_of_the_gradient_are_no_obstacle():
    """A Hessian that is only piecewise constant serves as well."""
    build = lambda t: jaxns.Composite(Huber(X, y, 0.05), L1(0.05 * LARGEST * t))  # noqa: E731
    grads = [
        jax.grad(lambda t, m=m: loss(t, build, None, jaxns.Implicit(method=m)))(1.0)
        for m in ("structured", "dense")
    ]
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-8)
