"""A number that cannot be trusted is never returned in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import X, y

import jaxns
from jaxns import Status, Stop
from jaxns.functions import Smooth

SHORT = Stop(max_steps=3)
ALL_MODES = [
    mode(direction=direction)
    for mode in (jaxns.Implicit, jaxns.Piggyback, jaxns.OneStep)
    for direction in ("reverse", "both")
]


def solve(penalty=0.3, X=X, y=y, **options):
    return jaxns.solve(jaxns.problems.lasso(X, y, penalty), **options)


def test_status_in_words():
    assert str(solve().status) == "converged"
    assert solve().status == Status.CONVERGED
    assert str(solve(stop=Stop(max_steps=3, on_failure="ignore")).status) == "reached max_steps"
    nan = solve(y=y.at[2].set(jnp.nan), stop=Stop(on_failure="ignore"))
    assert str(nan.status) == "diverged (NaN or infinity)"
    exact = solve(stop=Stop(tol=None, max_steps=5))
    assert exact.status == Status.COMPLETED
    assert exact.status.ok
    assert exact.steps == 5
    statuses = jax.vmap(lambda p: solve(p, stop=Stop(max_steps=9)).status)(jnp.array([0.3, 99.0]))
    assert str(statuses) == "1 converged, 1 reached max_steps"


def test_raises_outside_jit():
    with pytest.raises(jaxns.ConvergenceError, match="reached max_steps"):
        solve(stop=SHORT)
    with pytest.raises(jaxns.ConvergenceError, match="NaN"):
        solve(y=y.at[2].set(jnp.nan))
    with pytest.raises(jaxns.ConvergenceError, match="NaN"):
        solve(X=X.at[1, 1].set(jnp.nan))
    with pytest.raises(jaxns.ConvergenceError, match="fixed_point"):
        jaxns.fixed_point(lambda z: 2 * z + 1, jnp.zeros(2))


@pytest.mark.parametrize("mode", ALL_MODES, ids=lambda m: f"{type(m).__name__}-{m.direction}")
def test_a_failed_solve_has_no_quiet_derivative(mode):
    def loss(penalty, stop=SHORT):
        return jnp.sum(solve(penalty, mode=mode, stop=stop).x)

    with pytest.raises(jaxns.ConvergenceError, match="max_steps"):
        jax.grad(loss)(0.3)
    value, grad = jax.jit(jax.value_and_grad(loss))(0.3)
    assert np.isnan(value)
    assert np.isnan(grad)
    quiet = Stop(max_steps=3, on_failure="nan")
    assert np.isnan(jax.grad(lambda p: loss(p, quiet))(0.3))
    asked_for = Stop(max_steps=3, on_failure="ignore")
    assert np.isfinite(jax.grad(lambda p: loss(p, asked_for))(0.3))
    if mode.direction == "both":
        assert np.isnan(jax.jit(jax.jacfwd(loss))(0.3))


def test_only_the_failed_lane_is_nan():
    """Lane 0 converges within the steps allowed, lane 1 does not."""
    penalties = jnp.array([99.0, 0.3])

    def loss(penalty):
        return jnp.sum(solve(penalty, stop=SHORT).x)

    values, grads = jax.vmap(jax.value_and_grad(loss))(penalties)
    np.testing.assert_array_equal(np.isnan(values), [False, True])
    np.testing.assert_array_equal(np.isnan(grads), [False, True])


def _ill_posed(z, t):
    """Converges from any start in one step, but I − ∂F is singular: no derivative exists."""
    return jnp.array([z[0], 0.5 * z[1] + t])


def test_an_unsolved_adjoint_is_refused():
    def loss(t, mode, weights):
        stop = Stop(tol=1e-12)
        return weights @ jaxns.fixed_point(_ill_posed, jnp.ones(2), t, mode=mode, stop=stop).x

    every = jnp.array([1.0, 1.0])
    with pytest.raises(jaxns.ConvergenceError, match="linear system"):
        jax.grad(loss)(0.3, jaxns.Implicit(), every)
    assert np.isnan(jax.jit(jax.grad(loss))(0.3, jaxns.Implicit(), every))
    assert np.isnan(jax.grad(loss)(0.3, jaxns.Implicit(on_failure="nan"), every))
    assert np.isfinite(jax.grad(loss)(0.3, jaxns.Implicit(on_failure="ignore"), every))
    both = jaxns.Implicit(direction="both")
    assert np.isfinite(jax.jacfwd(loss)(0.3, both, every))  # its tangent system has a solution
    # What does not look along the singular direction has a derivative, 1/(1 − ½).
    determined = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(jax.grad(loss)(0.3, jaxns.Implicit(), determined), 2.0)


def _lanes(a, t):
    """z₀ = t/(1 − ½), and z₁ has a derivative unless a = 1; reached in a step from z₁ = 1."""
    return lambda z: jnp.array([0.5 * z[0] + t, a * z[1] + (1 - a)])


def _adjoint_loss(t, a, policy):
    mode = jaxns.Implicit(on_failure=policy)
    z = jaxns.fixed_point(_lanes(a, t), jnp.array([2 * t, 1.0]), mode=mode).x
    return jnp.sum(z)


def _solve_loss(t, a, policy):
    """Contracts by a: at a = 1 − 1e-6 the steps do not suffice."""
    stop = Stop(tol=1e-9, max_steps=100, on_failure=policy)
    return jaxns.fixed_point(lambda z: a * z + (1 - a) * t**2, jnp.zeros(()), stop=stop).x


DERIVATIVES = {
    "grad": jax.grad,
    "jit(grad)": lambda f: jax.jit(jax.grad(f), static_argnums=2),
    "jacrev": jax.jacrev,
    "vmap(grad)": lambda f: (
        lambda t, a, policy: jax.vmap(jax.grad(lambda t, a: f(t, a, policy)))(
            jnp.stack([t, t]), jnp.stack([jnp.asarray(0.5), a])
        )
    ),
}
# Loss, the a at which it fails, its derivative otherwise, and where "raise" can raise: jacrev
# batches its backward pass.
FAILURES = {
    "solve": (_solve_loss, 1 - 1e-6, 3.0, {"grad", "jacrev"}),
    "adjoint": (_adjoint_loss, 1.0, 2.0, {"grad"}),
}


@pytest.mark.parametrize("policy", ["raise", "nan", "ignore"])
@pytest.mark.parametrize(
    "derivative",
    [pytest.param(d, marks=pytest.mark.slow) if d == "jacrev" else d for d in DERIVATIVES],
)
@pytest.mark.parametrize("failing", FAILURES)
def test_failure_policy(failing, derivative, policy):
    """Under "raise" it raises where it can be seen, and is NaN elsewhere, lane by lane."""
    loss, bad, right, raising = FAILURES[failing]
    run = lambda a: DERIVATIVES[derivative](loss)(1.5, jnp.asarray(a), policy)  # noqa: E731
    np.testing.assert_allclose(run(0.5), right, rtol=1e-8)
    if policy == "raise" and derivative in raising:
        with pytest.raises(jaxns.ConvergenceError, match="on_failure"):
            run(bad)
        return
    *others, found = np.atleast_1d(run(bad))
    np.testing.assert_allclose(others, [right] * len(others), rtol=1e-8)
    assert np.isfinite(found) == (policy == "ignore")


def test_too_few_adjoint_steps_are_refused():
    mode = jaxns.Implicit(method="neumann", max_steps=2)
    with pytest.raises(jaxns.ConvergenceError, match="linear system"):
        jax.grad(lambda p: jnp.sum(solve(p, mode=mode).x))(0.3)


def test_float32_stalls_rather_than_fails():
    """Rounding of size 3e-5 in the map: no step gets below it, and none is needed."""
    noisy = jaxns.fixed_point(
        lambda z: 0.5 * z + 0.5 + 3e-5 * jnp.sin(1e7 * z * jnp.arange(1.0, 101.0, dtype=z.dtype)),
        jnp.zeros(100, jnp.float32),
        stop=Stop(max_steps=50_000),
    )
    assert noisy.x.dtype == jnp.float32
    assert noisy.status == Status.STALLED
    assert noisy.status.ok
    assert noisy.steps < 5_000
    np.testing.assert_allclose(noisy.x, 1.0, atol=1e-4)


def test_slow_is_not_stalled():
    """A contraction of 1 − 1e-4, warm-started at 1e-9, is run to its tolerance."""
    sol = jaxns.fixed_point(lambda z: (1 - 1e-4) * z + 1e-4, jnp.array([1 - 1e-6]))
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, 1.0, atol=2e-8)


def test_a_zero_solution_converges():
    """Nothing is small relative to zero; the run still ends, at zero."""
    sol = jaxns.fixed_point(lambda z: 0.5 * z, jnp.ones(3))
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, 0, atol=1e-30)
    assert solve(99.0).status == Status.CONVERGED
    np.testing.assert_array_equal(solve(99.0).x, 0)


@pytest.mark.parametrize(
    "solver",
    [
        jaxns.ForwardBackward(),
        jaxns.ForwardBackward(acceleration=False),
        jaxns.HeavyBall(),
        jaxns.Anderson(jaxns.ForwardBackward()),
        jaxns.Relaxed(jaxns.ForwardBackward(), 0.8),
    ],
    ids=lambda s: type(s).__name__,
)
def test_the_penalty_at_its_maximum(solver):
    """The solution is zero up to rounding of the gradient, which is not small relative to it."""
    largest = jnp.max(jnp.abs(X.T @ y)) / len(y)

    def solution(penalty, ridge):
        net = jaxns.Composite(
            jaxns.functions.LeastSquares(X, y, scale="mean"),
            jaxns.functions.ElasticNet(penalty, ridge),
        )
        return jaxns.solve(net, solver, stop=Stop(max_steps=5000, on_failure="ignore"))

    penalties = largest * (1 + jnp.array([-4, -2, -1, 0, 1, 2]) * jnp.finfo(float).eps)
    found = jax.vmap(jax.vmap(solution, (None, 0)), (0, None))(penalties, jnp.array([0.0, 0.3]))
    assert found.status.ok.all(), str(found.status)
    np.testing.assert_allclose(found.x, 0, atol=1e-14)


def test_zero_steps():
    sol = solve(stop=Stop(tol=None, max_steps=0))
    np.testing.assert_array_equal(sol.x, 0)
    assert sol.steps == 0


DEGENERATE = {
    "penalty above its maximum": (X, y, 99.0, 0.0),
    "no penalty": (X, y, 0.0, None),
    "one sample": (X[:1], y[:1], 0.01, None),
    "zero column": (X.at[:, 1].set(0), y, 0.3, None),
    "zero weights": (X, y, 0.3, None),
    "n much smaller than p": (X[:3], y[:3], 0.1, None),
    "zero targets": (X, 0 * y, 0.3, 0.0),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_data(name):
    """Finite and equal to the closed form on the support, in both modes."""
    A, b, penalty, expected = DEGENERATE[name]
    weights = jnp.ones(len(b)).at[: len(b) // 2].set(0) if name == "zero weights" else None

    def loss(penalty, mode):
        problem = jaxns.problems.lasso(A, b, penalty, sample_weight=weights)
        x = jaxns.solve(problem, mode=mode, stop=Stop(tol=1e-14)).x
        return jnp.sum(jnp.arange(1.0, x.size + 1) * x), x

    _, x = loss(penalty, jaxns.Implicit())
    if expected is None:
        S = np.flatnonzero(np.asarray(x))
        W = np.eye(len(b)) if weights is None else np.diag(weights)
        gram = A[:, S].T @ W @ A[:, S] / len(b)
        expected = -(S + 1.0) @ np.linalg.solve(gram, np.sign(x[S]))
    for mode in (jaxns.Implicit(), jaxns.Piggyback()):
        found = jax.grad(lambda p, m=mode: loss(p, m)[0])(penalty)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_duplicated_columns():
    """x is not unique but Xx is: its derivative comes out right, and that of x is refused."""
    twice = jnp.column_stack([X, X[:, 0]])
    once = jaxns.solve(jaxns.problems.lasso(X, y, 0.3), stop=Stop(tol=1e-14))

    def fit(penalty, A):
        return jnp.sum((A @ jaxns.solve(jaxns.problems.lasso(A, y, penalty)).x) ** 2)

    np.testing.assert_allclose(jax.grad(fit)(0.3, twice), jax.grad(fit)(0.3, X), rtol=1e-8)
    assert once.status.ok
    with pytest.raises(jaxns.ConvergenceError, match="unique"):
        jax.grad(lambda p: jaxns.solve(jaxns.problems.lasso(twice, y, p)).x[0])(0.3)


def test_a_coefficient_exactly_at_its_kink():
    """½(x − 1)² + θ|x| at θ = 1: any value in [−1, 0] is right, NaN is not; ours is 0."""
    problem = lambda t: jaxns.problems.lasso(jnp.ones((1, 1)), jnp.ones(1), t)  # noqa: E731
    for mode in ALL_MODES:
        found = jax.grad(lambda t, m=mode: jaxns.solve(problem(t), mode=m).x[0])(1.0)
        assert found == 0


def test_an_overflowing_map_ends_at_once():
    sol = jaxns.fixed_point(
        lambda z: z**2 + 2, jnp.ones(2), stop=Stop(max_steps=1000, on_failure="ignore")
    )
    assert sol.status == Status.DIVERGED
    assert sol.steps < 20


def test_what_a_step_must_return():
    with pytest.raises(ValueError, match="shape of z0"):
        jaxns.fixed_point(lambda z: jnp.append(z, 1.0), jnp.zeros(2))
    with pytest.raises(TypeError, match="structure of z0"):
        jaxns.fixed_point(lambda z: (z, z), jnp.zeros(2))
    with pytest.raises(TypeError, match="z0"):
        jaxns.fixed_point(lambda z: z, jnp.zeros(2, int))
    wide = jaxns.fixed_point(lambda z: 0.5 * z + jnp.ones(2), jnp.zeros(2, jnp.float32))
    assert wide.x.dtype == jnp.float64


def test_x0_of_the_wrong_shape():
    with pytest.raises(ValueError, match="x0"):
        solve(x0=jnp.zeros(7))
    with pytest.raises(ValueError, match="x0"):
        jaxns.solve(jaxns.Composite(Smooth(lambda x: jnp.sum(x**2))))
