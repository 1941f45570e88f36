"""JAXopt's interface: solutions and derivatives against closed forms, and what is corrected."""

import subprocess
import sys
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns.compat.jaxopt as jaxopt
from jaxns import Status
from jaxns.compat.jaxopt.base import CompositeLinearFunction, IterativeSolver, LinearOperator
from jaxns.compat.jaxopt.implicit_diff import (
    custom_fixed_point,
    custom_root,
    root_jvp,
    root_vjp,
)

D = jnp.array([1.0, 2.0, 0.5])
Y = jnp.array([3.0, -2.0, 0.1])
LAM, X0 = 0.4, jnp.zeros(3)


def f(x, y):
    return 0.5 * jnp.sum(D * (x - y) ** 2)


def soft(x, threshold):
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


def prox_lasso(x, lam, scaling=1.0):
    return soft(x, lam * scaling)


def lasso(lam):
    """argmin f(x, Y) + lam ‖x‖₁, and its derivative in lam."""
    x = soft(Y, lam / D)
    return x, -jnp.sign(x) / D


def ridge(lam):
    """argmin f(x, Y) + lam/2 ‖x‖²."""
    return D * Y / (D + lam), -D * Y / (D + lam) ** 2


def nearest_in_box(radius):
    return jnp.clip(Y, -radius, radius), jnp.sign(Y) * (jnp.abs(Y) > radius)


def ridge_objective(x, lam, y):
    return f(x, y) + 0.5 * lam * jnp.sum(x**2)


def ridge_map(x, lam, y):
    return x - 0.4 * jax.grad(ridge_objective)(x, lam, y)


class Weighted(CompositeLinearFunction):
    """f with √D for a matrix."""

    def subfun(self, predictions, y):
        return 0.5 * jnp.sum((predictions - jnp.sqrt(D) * y) ** 2)

    def make_linop(self, y):
        return LinearOperator(jnp.diag(jnp.sqrt(D)))

    def columnwise_lipschitz_const(self, y):
        return D


def project_box(x, radius):
    return jnp.clip(x, -radius, radius)


def kl_step(x, gradient, stepsize, hyperparams):
    return jax.nn.softmax(jnp.log(x) - stepsize * gradient)


def entropic(x, lam, y):
    return lam * jnp.sum(x * jnp.log(x)) - x @ y


def softmax_and_slope(lam):
    x = jax.nn.softmax(Y / lam)
    return x, x * (x @ Y - Y) / lam**2


TIGHT = {"tol": 1e-10, "maxiter": 2000}


def plain_proximal_gradient(**more):
    return jaxopt.ProximalGradient(f, prox_lasso, acceleration=False, **TIGHT, **more)


def entropic_mirror_descent(**more):
    return jaxopt.MirrorDescent(entropic, kl_step, stepsize=0.5, **TIGHT, **more)


# name: (solver of options, the rest of run's arguments for lam, closed form)
CASES = {
    "ProximalGradient": (
        lambda **more: jaxopt.ProximalGradient(f, prox_lasso, **TIGHT, **more),
        lambda lam: (X0, lam, Y),
        lasso,
    ),
    "without acceleration": (plain_proximal_gradient, lambda lam: (X0, lam, Y), lasso),
    "fixed stepsize": (
        lambda **more: jaxopt.ProximalGradient(f, prox_lasso, stepsize=0.5, **TIGHT, **more),
        lambda lam: (X0, lam, Y),
        lasso,
    ),
    "BlockCoordinateDescent": (
        lambda **more: jaxopt.BlockCoordinateDescent(Weighted(), prox_lasso, **TIGHT, **more),
        lambda lam: (X0, lam, Y),
        lasso,
    ),
    "AndersonWrapper": (
        lambda **more: jaxopt.AndersonWrapper(plain_proximal_gradient(), **more),
        lambda lam: (X0, lam, Y),
        lasso,
    ),
    "ProjectedGradient": (
        lambda **more: jaxopt.ProjectedGradient(f, project_box, **TIGHT, **more),
        lambda lam: (X0, 4 * lam, Y),
        lambda lam: (nearest_in_box(4 * lam)[0], 4 * nearest_in_box(4 * lam)[1]),
    ),
    "GradientDescent": (
        lambda **more: jaxopt.GradientDescent(ridge_objective, **TIGHT, **more),
        lambda lam: (X0, lam, Y),
        ridge,
    ),
    "FixedPointIteration": (
        lambda **more: jaxopt.FixedPointIteration(ridge_map, **TIGHT, **more),
        lambda lam: (X0, lam, Y),
        ridge,
    ),
    "AndersonAcceleration": (
        lambda **more: jaxopt.AndersonAcceleration(ridge_map, **TIGHT, **more),
        lambda lam: (X0, lam, Y),
        ridge,
    ),
    "MirrorDescent": (
        entropic_mirror_descent,
        lambda lam: (jnp.ones(3) / 3, None, 3 * lam, Y),
        lambda lam: (softmax_and_slope(3 * lam)[0], 3 * softmax_and_slope(3 * lam)[1]),
    ),
}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


QUICK = {"ProximalGradient", "BlockCoordinateDescent", "AndersonAcceleration", "MirrorDescent"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_solution_and_derivative(name):
    build, arguments, closed = CASES[name]
    solver = build()
    x, slope = closed(LAM)

    @jax.jit
    def step_and_slope(lam):
        def solution(lam):
            step = solver.run(*arguments(lam))
            return step.params, step

        slope, step = jax.jacrev(solution, has_aux=True)(lam)
        return step, slope, solver.l2_optimality_error(step.params, *arguments(lam)[1:])

    (params, state), by_rule, error = step_and_slope(LAM)
    np.testing.assert_allclose(params, x, atol=1e-8)
    np.testing.assert_allclose(by_rule, slope, atol=1e-7)
    assert state.error <= 1e-10
    assert state.status == Status.CONVERGED
    assert error < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("implicit_diff", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_forward_mode_and_the_steps_that_ran(name, implicit_diff):
    build, arguments, closed = CASES[name]
    solver = build(implicit_diff=implicit_diff)
    derivative = (jax.jacfwd if implicit_diff else jax.jacrev)(
        lambda lam: solver.run(*arguments(lam)).params
    )
    np.testing.assert_allclose(jax.jit(derivative)(LAM), closed(LAM)[1], atol=1e-7)


def ridge_in_a_closure(lam):
    def objective(x):
        return ridge_objective(x, lam, Y)

    return jaxopt.GradientDescent(objective, **TIGHT).run(X0).params


def test_closures_are_differentiated():
    slope = jax.jit(jax.jacrev(ridge_in_a_closure))(LAM)
    np.testing.assert_allclose(slope, ridge(LAM)[1], atol=1e-8)


@pytest.mark.slow
def test_closures_eagerly_second_derivatives_and_vmap():
    solution = ridge_in_a_closure
    np.testing.assert_allclose(jax.jacrev(solution)(LAM), ridge(LAM)[1], atol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(solution)(LAM), ridge(LAM)[1], atol=1e-8)
    curvature = jax.jacfwd(jax.jacrev(solution))(LAM)
    np.testing.assert_allclose(curvature, 2 * D * Y / (D + LAM) ** 3, atol=1e-7)
    lams = jnp.array([0.1, 1.0])
    slopes = jax.jit(jax.vmap(jax.jacrev(solution)))(lams)
    np.testing.assert_allclose(slopes, jax.vmap(lambda lam: ridge(lam)[1])(lams), atol=1e-8)


@pytest.mark.slow
def test_steps_are_differentiated_as_they_ran():
    """By `Piggyback` what a scan over maxiter steps gives, and Python's loop."""

    def slope(**options):
        options = {"implicit_diff": False, "on_failure": "ignore", "maxiter": 7} | options
        solver = jaxopt.ProximalGradient(f, prox_lasso, stepsize=0.3, tol=1e-10, **options)
        return jax.jacfwd(lambda lam: solver.run(X0, lam, y=Y).params)(LAM)

    expected = slope(unroll=True)
    assert not np.allclose(expected, lasso(LAM)[1], atol=1e-3)
    np.testing.assert_allclose(slope(), expected, rtol=1e-10)
    np.testing.assert_allclose(slope(jit=False), expected, rtol=1e-10)
    with pytest.raises(ValueError, match="cannot be used together"):
        slope(jit=False, unroll=False)


def test_a_run_that_did_not_converge_says_so():
    def run(lam, **options):
        return jaxopt.GradientDescent(ridge_objective, maxiter=2, **options).run(X0, lam, Y)

    with pytest.warns(jaxopt.ConvergenceWarning, match="GradientDescent did not reach tol"):
        params, state = run(LAM)
    assert np.all(np.isfinite(params))
    assert state.status == Status.MAX_STEPS

    def slope(**options):
        return jax.jit(jax.jacrev(lambda lam: run(lam, **options).params))(LAM)

    def said(**options):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", jaxopt.ConvergenceWarning)
            found = slope(**options).block_until_ready()
            jax.effects_barrier()
        return found, any("may be far off" in str(warning.message) for warning in heard)

    found, warned = said()
    assert np.all(np.isfinite(found))
    assert warned
    found, warned = said(on_failure="nan")
    assert np.all(np.isnan(found))
    assert warned
    found, warned = said(on_failure="ignore")
    assert np.all(np.isfinite(found))
    assert not warned
    with pytest.raises(ValueError, match="on_failure"):
        run(LAM, on_failure="raise")


def test_a_solver_is_compiled_once():
    calls = []

    def counted(x, y):
        calls.append(x)
        return f(x, y)

    solver = jaxopt.ProximalGradient(counted, prox_lasso, **TIGHT)
    first = solver.run(X0, LAM, Y).params
    assert calls
    calls.clear()
    second = solver.run(X0, 2 * LAM, Y + 1).params
    assert not calls
    assert not np.allclose(first, second)


def test_updates_by_hand_and_aux():
    def with_aux(x, y):
        return f(x, y), x - y

    both = jax.value_and_grad(with_aux, has_aux=True)
    for fun, given in ((with_aux, False), (both, True)):
        solver = jaxopt.GradientDescent(fun, has_aux=True, value_and_grad=given, stepsize=0.5)
        params, state = X0, solver.init_state(X0, Y)
        for _ in range(3):
            visited = state.velocity
            params, state = solver.update(params, state, Y)
            np.testing.assert_allclose(state.aux, visited - Y)
        assert int(state.iter_num) == 3


@pytest.mark.slow
def test_gradients_do_not_depend_on_units():
    """JAXopt squares the linear system of the derivative: 1 % and 4 % off here (and 0 digits)."""
    A = jax.random.normal(jax.random.key(0), (8, 3))
    target = A @ Y

    def slope(scale):
        def data_fit(x, A):
            return 0.5 * jnp.mean((A @ x - target) ** 2)

        matrix = scale * A
        L = jnp.linalg.norm(matrix, 2) ** 2 / len(matrix)
        options = {"stepsize": 1 / L, "tol": 1e-10 * scale, "maxiter": 5000}
        solver = jaxopt.ProximalGradient(data_fit, prox_lasso, **options)
        return jax.jacrev(lambda lam: scale * solver.run(X0, scale * lam, matrix).params)(0.1)

    gram = A.T @ A / len(A)
    signs = jnp.sign(Y)  # the penalty is small: no coefficient is zero
    np.testing.assert_allclose(slope(100.0), -jnp.linalg.solve(gram, signs), rtol=1e-6)


def by_numpy(init, lam, y):
    """A solver that JAX cannot look into."""
    return jnp.asarray(np.asarray(D) * np.asarray(y) / (np.asarray(D) + float(lam)))


def test_custom_root_around_a_solver_outside_jax():
    solver = custom_root(jax.grad(ridge_objective))(by_numpy)
    x, slope = ridge(LAM)
    np.testing.assert_allclose(solver(None, LAM, Y), x)
    np.testing.assert_allclose(jax.jacrev(lambda lam: solver(None, y=Y, lam=lam))(LAM), slope)
    np.testing.assert_allclose(jax.jacfwd(lambda lam: solver(None, y=Y, lam=lam))(LAM), slope)


def test_custom_fixed_point_with_aux_other_names_and_other_things():
    class Answer(NamedTuple):
        root: jax.Array
        words: str

    def solve(init, **named):
        return Answer(by_numpy(init, named["lam"], Y), "done")

    def T(x, lam, how):
        assert how == "with momentum"  # not an array, and handed through
        return ridge_map(x, lam, Y)

    solver = custom_fixed_point(T, has_aux=True)(solve)

    def solution(lam):
        answer = solver(None, how="with momentum", lam=lam)
        assert answer.words == "done"
        return answer.root

    np.testing.assert_allclose(jax.jacrev(solution)(LAM), ridge(LAM)[1], rtol=1e-7)


def test_products_with_the_derivative_of_a_root():
    F, x = jax.grad(ridge_objective), ridge(LAM)[0]
    push = root_jvp(F, x, (LAM, Y), (1.0, jnp.zeros(3)))
    np.testing.assert_allclose(push, ridge(LAM)[1])
    bar = jnp.array([1.0, 2.0, 3.0])
    lam_bar, y_bar = root_vjp(F, x, (LAM, Y), bar)
    np.testing.assert_allclose(lam_bar, bar @ ridge(LAM)[1])
    np.testing.assert_allclose(y_bar, bar * D / (D + LAM))

    with pytest.raises(ValueError, match="tangents"):
        root_jvp(F, x, (LAM, Y), (1.0,))


def test_a_singular_system_has_the_answer_of_least_norm_or_none():
    def F(x, b):
        return jnp.ones((2, 2)) @ x - b

    ones = jnp.ones(2)
    np.testing.assert_allclose(root_jvp(F, ones / 2, (ones,), (ones,)), ones / 2)
    assert np.all(np.isnan(root_jvp(F, ones / 2, (ones,), (jnp.array([1.0, -1.0]),))))


class Halving(NamedTuple):
    iter_num: int
    error: float


class Halve(IterativeSolver):
    """A solver of somebody else's: x ← (x + a)/2, its state without our fields."""

    maxiter, tol, jit = 100, 1e-12, True

    def init_state(self, params, a):
        return Halving(0, jnp.inf)

    def update(self, params, state, a):
        return jaxopt.OptStep((params + a) / 2, Halving(state.iter_num + 1, abs(params - a)))

    def optimality_fun(self, params, a):
        return params - a**2 / a


def test_solvers_of_other_packages():
    solver = Halve()
    assert solver.run(0.0, 3.0).params == pytest.approx(3.0)
    assert jax.grad(lambda a: solver.run(0.0, a).params)(3.0) == pytest.approx(1.0)


def test_install_answers_import_jaxopt():
    code = """
import jaxns.compat.jaxopt as ours
ours.install()
import jaxopt, jaxopt.implicit_diff
from jaxopt._src.base import OptStep
assert jaxopt is ours and OptStep is jaxopt.OptStep
assert jaxopt.implicit_diff.custom_root is ours.implicit_diff.custom_root
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    other = "import sys, types; sys.modules['jaxopt'] = types.ModuleType('jaxopt')\n"
    code = other + "import jaxns.compat.jaxopt as ours\nours.install()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "jaxopt is imported already" in done.stderr


def test_bad_arguments_are_named():
    with pytest.raises(AttributeError, match=r"'LBFGS': use jaxns\.LBFGS"):
        _ = jaxopt.LBFGS
    assert not hasattr(jaxopt, "NoSuchSolver")
    with pytest.raises(AttributeError, match="CompositeLinearFunction"):
        jaxopt.BlockCoordinateDescent(f, prox_lasso)
    with pytest.raises(ValueError, match="history_size"):
        jaxopt.AndersonAcceleration(ridge_map, history_size=1)
