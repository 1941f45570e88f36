"""Flows with kinks and their derivatives (arXiv 2201.03819)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxns import flows, nonsmooth

random = np.random.default_rng(0)
TIMES = jnp.linspace(0.0, 1.0, 41)
ELEMENTS = [0.0, 0.5, 1.0]
THETA = {
    "W": jnp.asarray(random.normal(size=(5, 3))),
    "b": jnp.zeros(5),
    "V": jnp.asarray(random.normal(size=(3, 5))),
}
X0 = jnp.asarray(random.normal(size=3))


def network(x, theta, t, s=0.0):
    return theta["V"] @ nonsmooth.relu(theta["W"] @ x + t * theta["b"], at_zero=s)


def objective(theta, s, x0=X0, method="euler", checkpoints=None):
    """∫ ‖X‖₁ dt + ‖X(T)‖²/2."""
    running = lambda x, theta, t: jnp.sum(nonsmooth.absolute(x, at_zero=s))  # noqa: E731
    field, final = partial(network, s=s), lambda x: x @ x / 2
    return flows.cost(field, running, final, x0, theta, TIMES, method, checkpoints)


def test_the_schemes_have_their_orders():
    """Against scipy's integrator, for X″ = −sin X + θ cos t."""

    def field(x, theta, t):
        return {"x": x["v"], "v": -jnp.sin(x["x"]) + theta * jnp.cos(t)}

    exact = solve_ivp(
        lambda t, y: [y[1], -np.sin(y[0]) + 0.3 * np.cos(t)], (0, 2), [1, 0], rtol=1e-12, atol=1e-12
    ).y[:, -1]
    start = {"x": jnp.array(1.0), "v": jnp.array(0.0)}
    for method, order in (("euler", 1), ("rk4", 4)):
        errors = []
        for n in (20, 40):
            xs = flows.integrate(field, start, 0.3, jnp.linspace(0, 2, n + 1), method)
            assert xs["x"].shape == (n + 1,)
            assert xs["x"][0] == 1
            errors.append(float(np.hypot(xs["x"][-1] - exact[0], xs["v"][-1] - exact[1])))
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("s", [-1.0, 0.0, 1.0])
def test_the_flow_of_the_absolute_value_at_its_kink(s):
    """X′ = |X| from 0: any element of [1/e, e]; this one is eˢ."""
    ts = jnp.linspace(0.0, 1.0, 20_001)
    end = jax.jit(
        lambda x0: flows.integrate(
            lambda x, _, t: nonsmooth.absolute(x, at_zero=s), x0, None, ts, "euler"
        )[-1]
    )
    value, forward = jax.jvp(end, (0.0,), (1.0,))
    assert value == 0
    assert forward == pytest.approx(float(jax.grad(end)(0.0)), rel=1e-12)
    assert forward == pytest.approx(np.exp(s), rel=1e-4)
    exactly = (1 + s / 20_000) ** 20_000
    assert forward == pytest.approx(exactly, rel=1e-10)
    for x0, slope in ((0.3, np.e), (-0.3, 1 / np.e)):
        assert jax.grad(end)(x0) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("s", ELEMENTS)
def test_a_zero_field_written_with_kinks(s):
    """X′ = relu(X) − relu(−X) − X = 0: e^((2s−1)T) at 0, 1 elsewhere; paths do not see it."""
    relu = partial(nonsmooth.relu, at_zero=s)
    ts = jnp.linspace(0.0, 1.0, 2001)
    end = jax.jit(
        lambda x0: flows.integrate(lambda x, _, t: relu(x) - relu(-x) - x, x0, None, ts)[-1]
    )
    slope = jax.jit(jax.grad(end))
    assert slope(0.0) == pytest.approx(np.exp(2 * s - 1), rel=1e-10)
    assert slope(0.7) == pytest.approx(1, rel=1e-12)
    test = flows.path_test(end, slope, jnp.array(-1.0), jnp.array(1.5), 100)
    assert test.difference == pytest.approx(2.5, rel=1e-12)
    assert test.integral == pytest.approx(2.5, rel=1e-12)


def euler_by_hand(theta, x0, s):
    """The adjoint of the paper, one product at a time, in numpy."""
    W, V = (np.asarray(theta[k]) for k in "WV")
    h = 1 / (len(TIMES) - 1)
    xs = [np.asarray(x0)]
    for _ in TIMES[1:]:
        xs.append(xs[-1] + h * V @ np.maximum(W @ xs[-1], 0))
    adjoint, gW, gV, gb = xs[-1].copy(), 0 * W, 0 * V, np.zeros(len(W))
    for x, t in zip(xs[-2::-1], np.asarray(TIMES)[-2::-1], strict=True):
        z = W @ x
        on = np.where(z == 0, s, z > 0)
        inside = on * (V.T @ adjoint)
        gV += h * np.outer(adjoint, np.maximum(z, 0))
        gW += h * np.outer(inside, x)
        gb += h * t * inside
        adjoint = adjoint + h * W.T @ inside + h * np.where(x == 0, s, np.sign(x))
    return {"W": gW, "b": gb, "V": gV}


@pytest.mark.parametrize("kink", [False, True])
def test_the_adjoint_is_the_papers_and_dual_to_the_forward_sensitivity(kink):
    """At a kink too: from X = 0 every unit is at its kink, at every time."""
    x0 = jnp.zeros(3) if kink else X0
    delta = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), THETA)

    @jax.jit
    def both(s):
        f = lambda theta: objective(theta, s, x0)  # noqa: E731
        return jax.grad(f)(THETA), jax.jvp(f, (THETA,), (delta,))[1]

    for s in ELEMENTS:
        gradient, forward = both(s)
        product = sum(np.vdot(gradient[k], delta[k]) for k in THETA)
        assert product == pytest.approx(float(forward), rel=1e-12)
        expected = euler_by_hand(THETA, x0, s)
        for k in THETA:
            np.testing.assert_allclose(gradient[k], expected[k], rtol=1e-10, atol=1e-12)
    if kink:
        assert np.abs(both(1.0)[0]["b"]).max() > 1e-3  # the choice matters
        np.testing.assert_array_equal(both(0.0)[0]["b"], 0)


def test_the_gradient_is_the_finite_difference():
    f = jax.jit(lambda theta: objective(theta, 0.5, method="rk4"))
    delta = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), THETA)
    slope = float(jax.jvp(f, (THETA,), (delta,))[1])
    move = lambda t: jax.tree.map(lambda p, d: p + t * d, THETA, delta)  # noqa: E731
    errors = [abs(float((f(move(t)) - f(move(0.0))) / t - slope)) for t in (1e-4, 1e-5)]
    assert errors[0] < 1e-3 * abs(slope)
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)
    assert (f(move(1e-6)) - f(move(-1e-6))) / 2e-6 == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize(
    ("steps", "checkpoints"),
    [
        (7, 2),
        (125, 5),
        pytest.param(1, 3, marks=pytest.mark.slow),
        pytest.param(7, 9, marks=pytest.mark.slow),
        pytest.param(126, 5, marks=pytest.mark.slow),
        pytest.param(126, 12, marks=pytest.mark.slow),
    ],
)
def test_a_reverse_pass_with_checkpoints_is_the_same(steps, checkpoints):
    ts = jnp.linspace(0.0, 1.0, steps + 1) ** 2

    @partial(jax.jit, static_argnums=1)
    def derivatives(theta, checkpoints):
        path = lambda theta, x0: flows.integrate(  # noqa: E731
            partial(network, s=0.5), x0, theta, ts, "euler", checkpoints
        )
        weigh = lambda theta, x0: jnp.sum(path(theta, x0) ** 2 * ts[:, None])  # noqa: E731
        return path(theta, X0), jax.grad(weigh, (0, 1))(theta, X0)

    stored, again = (jax.tree.leaves(derivatives(THETA, c)) for c in (None, checkpoints))
    for one, other in zip(stored, again, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-13)


def test_checkpoints_save_memory():
    ts = jnp.linspace(0.0, 1.0, 1729)  # 12³ steps

    def temporary(checkpoints):
        f = lambda theta: flows.cost(  # noqa: E731
            network, None, lambda x: x @ x, X0, theta, ts, checkpoints=checkpoints
        )
        compiled = jax.jit(jax.grad(f)).lower(THETA).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(12) < temporary(None) / 10


def test_a_path_inside_the_kinks_tells_what_is_conservative():
    """X′ = |X − θ₁| from θ₂, along θ₁ = θ₂, where X − θ₁ = 0 at all times."""
    ts = jnp.linspace(0.0, 1.0, 201)

    def end(theta, s):
        field = lambda x, theta, t: nonsmooth.absolute(x - theta[0], at_zero=s)  # noqa: E731
        return flows.integrate(field, theta[1], theta, ts, "euler")[-1]

    a, b = jnp.array([-1.0, -1.0]), jnp.array([2.0, 2.0])

    @jax.jit
    def at(s):
        gradient = jax.grad(partial(end, s=s))
        return gradient(a)[1], flows.path_test(partial(end, s=s), gradient, a, b, 5)

    slopes = []
    for s in ELEMENTS:
        slope, test = at(s)
        slopes.append(float(slope))
        assert test.difference == pytest.approx(3, rel=1e-12)
        assert test.integral == pytest.approx(3, rel=1e-12)
    assert np.ptp(slopes) > 1  # yet they differ
    wrong = lambda theta: jnp.array([0.0, slopes[-1]])  # noqa: E731
    test = flows.path_test(partial(end, s=1.0), wrong, a, b, 5)
    assert abs(test.integral - test.difference) > 1


@pytest.mark.parametrize("s", ELEMENTS)
def test_along_random_segments_the_gradient_integrates_to_the_cost(s):
    other = jax.tree.map(lambda p: p + jnp.asarray(random.normal(size=p.shape)), THETA)
    f = partial(objective, s=s)
    found = jax.jit(lambda: flows.path_test(f, None, THETA, other, 400))()
    assert found.integral == pytest.approx(float(found.difference), rel=1e-3)


def test_float32_and_many_starts_at_once():
    starts = jnp.asarray(random.normal(size=(4, 3)), jnp.float32)
    theta = jax.tree.map(lambda p: p.astype(jnp.float32), THETA)

    @partial(jax.jit, static_argnums=2)
    def slopes(starts, theta, checkpoints):
        f = lambda x0: objective(theta, 0.0, x0, checkpoints=checkpoints)  # noqa: E731
        return jax.vmap(jax.grad(f))(starts)

    together = slopes(starts, theta, 7)
    assert together.dtype == jnp.float32
    alone = [jax.grad(lambda x0: objective(THETA, 0.0, x0))(x0) for x0 in starts.astype(float)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("checkpoints", [None, 5])
def test_diffrax(checkpoints):
    """Its Euler is ours, with the same derivative at a kink."""
    diffrax = pytest.importorskip("diffrax")
    for x0 in (X0, jnp.zeros(3)):
        for method in ("path", "cost"):

            def value(theta, solver, x0=x0, method=method):
                if method == "cost":
                    return objective(theta, 0.5, x0, solver, checkpoints)
                xs = flows.integrate(partial(network, s=0.5), x0, theta, TIMES, solver, checkpoints)
                assert xs.shape == (41, 3)
                return jnp.sum(xs**2 * TIMES[:, None])

            ours, theirs = (
                jax.jit(jax.value_and_grad(value), static_argnums=1)(THETA, solver)
                for solver in ("euler", diffrax.Euler())
            )
            for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
                np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"method": "rk5"}, ValueError, "method must be one of"),
        ({"method": 4}, TypeError, "method must be 'euler', 'rk4' or a solver of diffrax"),
        ({"ts": jnp.zeros(1)}, ValueError, "ts must hold two times"),
        ({"ts": jnp.zeros((2, 2))}, ValueError, "ts must have 1 dimension"),
        ({"x0": jnp.arange(3)}, TypeError, "x0 must hold floating-point numbers"),
        ({"checkpoints": 1}, ValueError, "checkpoints must be at least 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        flows.integrate(network, **{"x0": X0, "theta": THETA, "ts": TIMES} | change)


def test_nothing_to_pay_and_nowhere_to_look():
    with pytest.raises(ValueError, match="cost needs running or final"):
        flows.cost(network, None, None, X0, THETA, TIMES)
    with pytest.raises(ValueError, match="count must be at least 1"):
        flows.path_test(jnp.sum, None, X0, X0, 0)
