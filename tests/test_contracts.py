"""Every solver through every contract of the library; the table is in cases.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    ELSEWHERE,
    PAIRS,
    PROBLEMS,
    SLOW_PAIRS,
    SOLVERS,
    STRICT,
    P,
    X,
    central_difference,
    solution,
    start,
    y,
)

import jaxns
from jaxns.functions import L1, Smooth

MODES = {
    "implicit": jaxns.Implicit(),
    "piggyback": jaxns.Piggyback(),
    "one step": jaxns.OneStep(steps=400),
}


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


def test_every_solver_has_a_case():
    names = {type(case.solver).__name__ for case in SOLVERS.values()}
    assert names | set(ELSEWHERE) == set(jaxns.solvers.__all__)
    assert all((Path(__file__).parent / file).is_file() for file in ELSEWHERE.values())


@pytest.fixture(scope="module")
def reference():
    """The derivative of each problem's solution by central differences, computed once."""
    known = {}

    def derivative(problem):
        if problem not in known:
            build, theta = PROBLEMS[problem]
            stepsize = 0.8 * len(y) / np.linalg.norm(X, 2) ** 2  # the losses' curvature is ≤ 1

            def x(theta):
                composite = isinstance(build(theta), jaxns.Composite)
                given = start(problem) is not None and composite
                solver = jaxns.ForwardBackward(stepsize) if given else None
                found = jaxns.solve(build(theta), solver, start(problem), stop=STRICT).x
                return getattr(found, "x", found)

            known[problem] = x(theta), central_difference(x, theta)
        return known[problem]

    return derivative


every_pair = pytest.mark.parametrize(
    ("solver", "problem"),
    [pytest.param(*p, marks=pytest.mark.slow if p in SLOW_PAIRS else ()) for p in PAIRS],
)


@every_pair
def test_solution_and_every_mode(solver, problem, reference):
    """x to 1e-9 and its Jacobian to 1e-7, in every mode, against central differences."""
    x, jacobian = reference(problem)
    theta = PROBLEMS[problem][1]
    np.testing.assert_allclose(solution(solver, problem, theta), x, rtol=0, atol=1e-9)
    for name, mode in MODES.items():
        found = jax.jacrev(lambda t, m=mode: solution(solver, problem, t, mode=m))(theta)
        np.testing.assert_allclose(found, jacobian, rtol=0, atol=1e-7, err_msg=name)


@every_pair
def test_step_keeps_its_shape_and_x0_is_untouched(solver, problem):
    build, theta = PROBLEMS[problem]
    how, what = SOLVERS[solver].solver, build(theta)
    x0 = np.full(P, 0.25)
    kept = x0.copy()
    sol = jaxns.solve(what, how, jnp.asarray(x0), stop=jaxns.Stop(tol=None, max_steps=2))
    np.testing.assert_array_equal(x0, kept)
    assert jax.tree.structure(how.init(what, x0)) == jax.tree.structure(sol.z)
    assert SOLVERS[solver].read(sol.x).shape == x0.shape
    assert sol.steps == 2
    assert sol.status == jaxns.Status.COMPLETED


QUICK = ("ForwardBackward", "ForwardBackward, backtracking", "HeavyBall", "Anderson")
EVERY_SOLVER = [name if name in QUICK else slow(name) for name in SOLVERS]


@pytest.mark.parametrize("solver", EVERY_SOLVER)
def test_jit_and_vmap_agree_with_eager(solver):
    problem = SOLVERS[solver].problems[0]
    theta = PROBLEMS[problem][1]
    thetas = jnp.stack([theta, 1.3 * theta, 0.6 * theta])
    eager = jnp.stack([solution(solver, problem, t) for t in thetas])
    jitted = jax.jit(lambda t: solution(solver, problem, t))
    np.testing.assert_allclose(jnp.stack([jitted(t) for t in thetas]), eager, atol=1e-12)
    np.testing.assert_allclose(
        jax.vmap(lambda t: solution(solver, problem, t))(thetas), eager, atol=1e-11
    )


@pytest.mark.parametrize("solver", EVERY_SOLVER)
def test_float32_stays_float32(solver):
    """Data in float32 give float32 answers, as accurate as that type allows, also under x64."""
    problem = SOLVERS[solver].problems[0]
    build, theta = PROBLEMS[problem]
    exact = solution(solver, problem, theta)

    def single(theta):
        what = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), build(theta))
        x0 = jnp.zeros(P, jnp.float32)
        return jaxns.solve(what, SOLVERS[solver].solver, x0)

    read = SOLVERS[solver].read
    sol = single(theta)
    assert read(sol.x).dtype == jnp.float32
    assert sol.status.ok
    # eps = 1.2e-7; the condition numbers of these problems are below 30.
    np.testing.assert_allclose(read(sol.x), exact, atol=1e-5)
    jacobian = jax.jacrev(lambda t: read(single(t).x))(theta.astype(jnp.float32))
    assert jacobian.dtype == jnp.float32
    np.testing.assert_allclose(
        jacobian, jax.jacrev(lambda t: solution(solver, problem, t))(theta), atol=2e-4
    )


def _fit(x, A, b):
    return 0.5 * jnp.sum((A @ x["slope"] + x["level"] - b) ** 2) / b.size


PYTREE_SOLVERS = {
    "ForwardBackward": jaxns.ForwardBackward(stepsize=0.4),
    "HeavyBall": jaxns.HeavyBall(stepsize=0.2),
    "Nesterov": jaxns.Nesterov(jaxns.ForwardBackward(stepsize=0.4)),
    "Anderson": jaxns.Anderson(jaxns.ForwardBackward(stepsize=0.4)),
    "DavisYin": jaxns.DavisYin(stepsize=0.4),
    "PrimalDual": jaxns.PrimalDual(tau=0.4, sigma=1.0),
    "Relaxed": jaxns.Relaxed(jaxns.ForwardBackward(stepsize=0.4)),
}


@pytest.mark.parametrize(
    "solver", ["Anderson", *(slow(name) for name in PYTREE_SOLVERS if name != "Anderson")]
)
def test_pytree_unknowns(solver):
    """A dictionary of unknowns, with a penalty for each leaf, equals the stacked problem."""

    def tree_solution(penalty, mode):
        problem = jaxns.Composite(Smooth(_fit, X, y), L1({"slope": penalty, "level": 0.0}))
        x0 = {"slope": jnp.zeros(P), "level": jnp.zeros(())}
        x = jaxns.solve(problem, PYTREE_SOLVERS[solver], x0, mode=mode, stop=STRICT).x
        return jnp.append(x["slope"], x["level"])

    def flat_solution(penalty):
        A = jnp.column_stack([X, jnp.ones(len(y))])
        weights = jnp.append(jnp.full(P, penalty), 0.0)
        return jaxns.solve(jaxns.problems.lasso(A, y, weights), stop=STRICT).x

    np.testing.assert_allclose(tree_solution(0.3, jaxns.Implicit()), flat_solution(0.3), atol=1e-10)
    expected = jax.jacrev(flat_solution)(0.3)
    for mode in (jaxns.Implicit(), jaxns.Piggyback(direction="both")):
        found = jax.jacrev(lambda p, m=mode: tree_solution(p, m))(0.3)
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_relaxed_by_one_and_heavy_ball_without_inertia_are_forward_backward():
    """Equal iterates, not only equal limits."""
    build, theta = PROBLEMS["lasso"]
    plain = jaxns.ForwardBackward(stepsize=0.3, acceleration=False)
    stop = jaxns.Stop(tol=None, max_steps=7)

    def after_seven(solver):
        return jaxns.solve(build(theta), solver, stop=stop).x

    expected = after_seven(plain)
    np.testing.assert_allclose(after_seven(jaxns.Relaxed(plain, 1.0)), expected, atol=1e-15)
    np.testing.assert_allclose(after_seven(jaxns.HeavyBall(0.3, 0.0)), expected, atol=1e-15)
    smooth, theta = PROBLEMS["logistic"]
    f, g = smooth(theta).f, smooth(theta).g
    gradient = jaxns.solve(jaxns.Composite(f, g), jaxns.GradientDescent(0.3), stop=stop).x
    moreau = jaxns.Composite(Smooth(lambda x: f(x) + g(x)))
    forward = jaxns.solve(moreau, plain, jnp.zeros(P), stop=stop).x
    np.testing.assert_allclose(gradient, forward, atol=1e-14)


class Halving:
    """A solver in six lines, not even a pytree: it holds nothing."""

    def init(self, problem, x0):
        return x0

    def step(self, problem, x):
        return 0.5 * (x + problem.g.prox(x - 0.3 * problem.f.gradient(x), 0.3))

    def solution(self, problem, x):
        return x


class Cube:
    """A function without state."""

    def __call__(self, x):
        return 0.0 * jnp.sum(x)

    def prox(self, x, step):
        return jnp.clip(x, -1, 1)


class Level:
    """A function that holds a number which nobody else can see."""

    def __init__(self, level):
        self.level = level

    def __call__(self, x):
        return 0.0 * jnp.sum(x)

    def prox(self, x, step):
        return jnp.clip(x, -self.level, self.level)


def test_plain_classes():
    """Without state they serve as they are; with state they must be pytrees, and are told so."""
    f = jaxns.functions.LeastSquares(X, y, scale="mean")

    def solution(scale, g):
        f = jaxns.functions.LeastSquares(X, scale * y, scale="mean")
        return jaxns.solve(jaxns.Composite(f, g), Halving(), stop=STRICT).x

    expected = jax.value_and_grad(lambda s: solution(s, jaxns.functions.Box(-1, 1)).sum())(1.2)
    found = jax.value_and_grad(lambda s: solution(s, Cube()).sum())(1.2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    with pytest.raises(TypeError, match=r"Level must be a pytree.*jaxns\.struct"):
        jaxns.solve(jaxns.Composite(f, Level(1.0)))


@jaxns.struct
class SoftBox:
    """A function of one's own: the box [−level, level], with a level that can be differentiated."""

    level: float

    def __call__(self, x):
        return jnp.where(jnp.all(jnp.abs(x) <= self.level), 0.0, jnp.inf)

    def prox(self, x, step):
        return jnp.clip(x, -self.level, self.level)


@jaxns.struct
class Projected:
    """A solver of one's own, with a stepsize."""

    stepsize: float = 0.3

    def init(self, problem, x0):
        return x0

    def step(self, problem, x):
        return problem.g.prox(x - self.stepsize * problem.f.gradient(x), self.stepsize)

    def solution(self, problem, x):
        return x


def test_a_solver_and_a_function_of_ones_own_have_every_mode():
    f = jaxns.functions.LeastSquares(X, y, scale="mean")

    def solution(level, mode=jaxns.Implicit()):
        problem = jaxns.Composite(f, SoftBox(level))
        return jaxns.solve(problem, Projected(), mode=mode, stop=STRICT).x

    expected = central_difference(solution, 0.7)
    for mode in MODES.values():
        found = jax.jacrev(lambda v, m=mode: solution(v, m))(0.7)
        np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize(
    "how", [jaxns.ForwardBackward(), jaxns.DouglasRachford(0.5)], ids=lambda how: type(how).__name__
)
def test_goes_on_from_a_solution(how):
    """From where a similar problem ended: at once if nothing changed, whatever z is made of."""
    first = jaxns.solve(jaxns.problems.lasso(X, y, 0.1), how)
    assert jaxns.solve(jaxns.problems.lasso(X, y, 0.1), how, first).steps <= 2
    near = jaxns.problems.lasso(X, y, 0.0999)
    warm, cold = jaxns.solve(near, how, first), jaxns.solve(near, how)
    assert warm.steps < cold.steps
    np.testing.assert_allclose(warm.x, cold.x, atol=1e-9)
    with pytest.raises(ValueError, match="x0 must be a Solution by the same solver"):
        jaxns.solve(jaxns.problems.lasso(X[:, :2], y, 0.1), how, first)


def test_a_solve_to_many_digits_ends_with_newtons_correction():
    """Where the map contracts slowly the error is not the residual's times the condition number."""
    rng = np.random.default_rng(0)
    A = jnp.asarray(rng.normal(size=(40, 12)) * np.geomspace(1, 1e-2, 12))
    b = A @ jnp.ones(12) + 1e-3 * jnp.asarray(rng.normal(size=40))

    def solved(solver, tol, penalty=1e-6):
        stop = jaxns.Stop(tol=tol, on_failure="ignore")
        return jaxns.solve(jaxns.problems.lasso(A, b, penalty), solver, stop=stop)

    exact = solved(jaxns.ProximalNewton(), 1e-14).x
    fast, plain = jaxns.ForwardBackward(), jaxns.ForwardBackward(acceleration=False)

    def error(solution):
        return jnp.linalg.norm(solution.x - exact) / jnp.linalg.norm(exact)

    few, many, uncorrected = solved(fast, 1e-9), solved(fast, 1e-10), solved(plain, 1e-10)
    assert error(few) > 1e-8
    assert error(uncorrected) > 1e-8
    assert error(many) < 1e-12
    assert many.status == jaxns.Status.CONVERGED
    assert many.residual < 1e-13
    step = fast.prepare(jaxns.problems.lasso(A, b, 1e-6), exact).step
    gap = step(jaxns.problems.lasso(A, b, 1e-6), many.x) - many.x
    assert jnp.linalg.norm(gap) <= 1e-13 * jnp.linalg.norm(many.x)

    lanes = jax.vmap(lambda penalty: solved(fast, 1e-10, penalty).x)(jnp.array([1e-6, 3e-6]))
    np.testing.assert_allclose(lanes[0], exact, rtol=0, atol=1e-11)
    stopped = jaxns.Stop(tol=1e-10, max_steps=5, on_failure="ignore")
    assert jaxns.solve(jaxns.problems.lasso(A, b, 1e-6), fast, stop=stopped).steps == 5
