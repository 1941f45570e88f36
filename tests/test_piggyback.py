"""Reverse piggyback: exact, with few stored iterates and few recomputed steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import PROBLEMS, central_difference

import jaxns
from jaxns.functions import L1, Smooth
from jaxns.modes.tape import stride

N = 2000
RATES = jnp.linspace(0.1, 0.9, N)


def relax(z, t):
    return RATES * jnp.sin(z) + t


def unrolled(t, K):
    return jax.lax.scan(lambda z, _: (relax(z, t), None), jnp.ones(N), length=K)[0]


@pytest.mark.parametrize("K", [1, 2, 3, 7, 63, 64, 65, 130, 800])
def test_exact_against_stored_unrolling(K):
    """To 1e-12, for numbers of steps around the sizes of the buffers."""
    stop = jaxns.Stop(tol=None, max_steps=jnp.asarray(K))

    def loss(t):
        return jnp.sum(
            jaxns.fixed_point(relax, jnp.ones(N), t, mode=jaxns.Piggyback(), stop=stop).x
        )

    expected = jax.grad(lambda t: jnp.sum(unrolled(t, K)))(0.7)
    np.testing.assert_allclose(jax.grad(loss)(0.7), expected, rtol=1e-12)


@pytest.mark.parametrize("checkpoints", [4, 8, 20])
def test_exact_with_few_checkpoints(checkpoints):
    """Fewer states than two levels need: the stretch is reversed in more sweeps, still exactly."""
    stop = jaxns.Stop(tol=None, max_steps=300)
    mode = jaxns.Piggyback(checkpoints=checkpoints)
    loss = lambda t: jnp.sum(jaxns.fixed_point(relax, jnp.ones(N), t, mode=mode, stop=stop).x)  # noqa: E731
    expected = jax.grad(lambda t: jnp.sum(unrolled(t, 300)))(0.7)
    np.testing.assert_allclose(jax.grad(loss)(0.7), expected, rtol=1e-12)


K = 800


def slow(z, t):
    """Contracts by about 0.98, so that hundreds of steps are needed."""
    return z - 0.02 * (z + 0.1 * z**3 - t * RATES)


def stop_after_K(z0):
    """The tolerance that `slow` reaches at step K exactly, out of max_steps = 100 000."""

    def body(z, _):
        image = slow(z, 0.7)
        size = jnp.maximum(jnp.linalg.norm(image), jnp.linalg.norm(z))
        return image, jnp.linalg.norm(image - z) / size

    residuals = jax.lax.scan(body, z0, length=K)[1]
    return jaxns.Stop(tol=float((residuals[-2] * residuals[-1]) ** 0.5), max_steps=100_000)


def slow_loss(t, stop, mode=jaxns.Piggyback(), F=slow):
    solution = jaxns.fixed_point(F, jnp.ones(N), t, mode=mode, stop=stop)
    return jnp.sum(solution.x**2), solution.steps


@pytest.mark.parametrize("direction", ["reverse", "both"])
def test_at_most_150_stored_iterates(direction):
    """XLA's own account, for a run of K = 800 steps that was allowed 100 000."""
    stop, mode = stop_after_K(jnp.ones(N)), jaxns.Piggyback(direction=direction)
    gradient = jax.jit(jax.grad(lambda t: slow_loss(t, stop, mode), has_aux=True))
    compiled = gradient.lower(0.7).compile()
    found, steps = compiled(0.7)
    assert steps == K
    iterates = compiled.memory_analysis().temp_size_in_bytes / (8 * N)
    assert iterates <= 150
    unroll = lambda t: jnp.sum(  # noqa: E731
        jax.lax.scan(lambda z, _: (slow(z, t), None), jnp.ones(N), length=K)[0] ** 2
    )
    np.testing.assert_allclose(found, jax.grad(unroll)(0.7), rtol=1e-12)


def test_at_most_two_recomputed_evaluations_per_step():
    """Counted by a callback in F: K going forward, at most 2K going back."""
    count = []
    stop = stop_after_K(jnp.ones(N))

    def counted(z, t):
        jax.debug.callback(lambda: count.append(1))
        return slow(z, t)

    grad, steps = jax.jit(jax.grad(lambda t: slow_loss(t, stop, F=counted), has_aux=True))(0.7)
    jax.block_until_ready(grad)
    jax.effects_barrier()
    assert steps == K
    assert K < len(count) <= 3 * K


def test_logarithmic_checkpoints():
    """24 states for 1000 steps, exactly; and with max_steps unknown, what any run may need."""
    count = []
    mode = jaxns.Piggyback(checkpoints="logarithmic")

    def loss(t, max_steps, mode=mode):
        def counted(z, t):
            jax.debug.callback(lambda: count.append(1))
            return slow(z, t)

        stop = jaxns.Stop(tol=None, max_steps=max_steps)
        return jnp.sum(jaxns.fixed_point(counted, jnp.ones(N), t, mode=mode, stop=stop).x)

    expected = jax.grad(lambda t: loss(t, 1000, jaxns.Piggyback()))(0.7)
    count.clear()
    compiled = jax.jit(jax.grad(loss), static_argnums=1).lower(0.7, 1000).compile()
    assert compiled.memory_analysis().temp_size_in_bytes / (8 * N) <= 24 + 8
    np.testing.assert_allclose(compiled(0.7), expected, rtol=1e-13)
    jax.effects_barrier()
    assert 4 * 1000 < len(count) <= 4.5 * 1000
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(0.7, 1000), expected, rtol=1e-13)
    with pytest.raises(ValueError, match="logarithmic"):
        jaxns.Piggyback(checkpoints="linear")


def test_an_accelerated_run_of_800_steps():
    """The same promises for a state of two vectors: 150 iterates, two recomputed evaluations."""
    count = []
    scales = jnp.geomspace(1e-3, 1, N)

    def fun(x, t):
        jax.debug.callback(lambda: count.append(1))
        return 0.5 * jnp.sum(scales * (x - t) ** 2)

    def loss(t):
        problem = jaxns.Composite(Smooth(fun, t, lipschitz=1.0), L1(1e-4))
        stop = jaxns.Stop(tol=None, max_steps=jnp.asarray(K))
        x0, mode = jnp.zeros(N), jaxns.Piggyback()
        return jnp.sum(jaxns.solve(problem, x0=x0, mode=mode, stop=stop).x)

    compiled = jax.jit(jax.grad(loss)).lower(0.7).compile()
    assert compiled.memory_analysis().temp_size_in_bytes / (8 * N) <= 150
    jax.block_until_ready(compiled(0.7))
    jax.effects_barrier()
    assert K < len(count) <= 3 * K


@pytest.mark.slow
def test_lanes_that_stop_at_different_steps():
    """Under vmap each lane is differentiated through its own number of steps."""
    stop = jaxns.Stop(tol=1e-6)
    loss = lambda t: slow_loss(t, stop)[0]  # noqa: E731
    ts = jnp.array([0.0, 0.7, 50.0])
    steps = jax.vmap(lambda t: slow_loss(t, stop)[1])(ts)
    assert len(set(steps.tolist())) == 3
    expected = jnp.stack([jax.grad(loss)(t) for t in ts])
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(ts), expected, rtol=1e-12)
    both = lambda t: slow_loss(t, stop, jaxns.Piggyback(direction="both"))[0]  # noqa: E731
    np.testing.assert_allclose(jax.vmap(jax.jacfwd(both))(ts), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("solver", "problem"),
    [
        ("ForwardBackward", "lasso"),
        pytest.param("Anderson", "logistic", marks=pytest.mark.slow),
        ("HeavyBall", "nonnegative"),
    ],
)
def test_the_iteration_as_it_ran(solver, problem):
    """Stopped after 12 steps, far from converged, acceleration included: the derivative of x_12."""
    build, theta = PROBLEMS[problem]
    stop = jaxns.Stop(tol=None, max_steps=12)
    how = {
        "ForwardBackward": jaxns.ForwardBackward(0.3),
        "Anderson": jaxns.Anderson(jaxns.ForwardBackward(0.3)),
        "HeavyBall": jaxns.HeavyBall(0.02),
    }[solver]
    x0 = jnp.full(4, 0.1)

    def x12(theta, mode=jaxns.Piggyback()):
        return jaxns.solve(build(theta), how, x0, mode=mode, stop=stop).x

    expected = central_difference(x12, theta, 1e-4)
    for mode in (jaxns.Piggyback(), jaxns.Piggyback(direction="both")):
        found = jax.jacrev(lambda t, m=mode: x12(t, m))(theta)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)


def truncated(t, z0, K, last, F=slow):
    """K steps of which the last ones are differentiated, as an ordinary program."""
    z = z0
    for k in range(K):
        z = jax.lax.stop_gradient(z) if 0 < k == K - last else z
        z = F(z, t)
    return z


@pytest.mark.parametrize("direction", ["reverse", "both"])
@pytest.mark.parametrize("last", [1, 17, 40])
def test_the_last_steps_only(last, direction):
    """Exact against an explicit loop with stop_gradient, in θ and in x0, which has none left."""
    mode = jaxns.Piggyback(direction, last=last)
    stop = jaxns.Stop(tol=None, max_steps=jnp.asarray(40))
    z0 = jnp.linspace(-1, 1, N)

    def losses(run):
        def loss(t, z0):
            return jnp.sum(run(t, z0) ** 2)

        return loss

    ours = losses(lambda t, z0: jaxns.fixed_point(slow, z0, t, mode=mode, stop=stop).x)
    plain = losses(lambda t, z0: truncated(t, z0, 40, last))
    expected = jax.jit(jax.grad(plain, (0, 1)))(0.7, z0)
    assert jnp.any(expected[1] != 0) == (last == 40)
    found = jax.jit(jax.grad(ours, (0, 1)))(0.7, z0)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), found, expected)
    if direction == "both":
        dz = jnp.cos(z0)
        found = jax.jvp(ours, (0.7, z0), (1.0, dz))[1]
        np.testing.assert_allclose(found, expected[0] + expected[1] @ dz, rtol=1e-12)


@pytest.mark.parametrize("direction", ["reverse", "both"])
def test_the_last_steps_of_each_lane(direction):
    """Lanes of different lengths, the shortest of them differentiated whole."""
    F, z0 = lambda z, t: z - 0.1 * (z + 0.1 * z**3 - t), jnp.ones(2)
    mode, stop = jaxns.Piggyback(direction, last=30), jaxns.Stop(tol=1e-3)
    ts = jnp.array([1.0, 0.7, 5.0, 0.0])

    def solution(t):
        run = jaxns.fixed_point(F, z0, t, mode=mode, stop=stop)
        return run.x.sum(), run.steps

    steps = jax.vmap(solution)(ts)[1]
    assert len(set(steps.tolist())) == 4
    assert steps.min() < 30 < steps.max()
    plain = lambda t, K: truncated(t, z0, K, 30, F).sum()  # noqa: E731
    expected = [jax.grad(plain)(t, int(K)) for t, K in zip(ts, steps, strict=True)]
    found = jax.vmap(jax.grad(lambda t: solution(t)[0]))(ts)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    if direction == "both":
        found = jax.jit(jax.vmap(jax.jacfwd(lambda t: solution(t)[0])))(ts)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_last_steps_with_acceleration():
    """Momentum is part of what is differentiated, and of what is cut off."""
    build, theta = PROBLEMS["lasso"]
    solver, x0 = jaxns.ForwardBackward(0.3), jnp.full(4, 0.1)

    def ours(theta, direction):
        mode, stop = jaxns.Piggyback(direction, last=5), jaxns.Stop(tol=None, max_steps=12)
        return jaxns.solve(build(theta), solver, x0, mode=mode, stop=stop).x

    def plain(theta):
        problem = build(theta)
        state = (x0, solver.control(problem, x0))
        for k in range(12):
            state = jax.lax.stop_gradient(state) if k == 7 else state
            state = solver.advance(problem, *state)
        return state[1].image

    expected = jax.jit(jax.jacfwd(plain))(theta)
    for direction in ("reverse", "both"):
        found = jax.jit(jax.jacrev(ours), static_argnums=1)(theta, direction)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_a_warm_start_is_differentiated_unless_cut_off():
    """The whole run depends on where it started, however near the solution; its end does not."""
    stop = jaxns.Stop(tol=None, max_steps=20)
    far = jaxns.fixed_point(slow, jnp.ones(N), 0.7, stop=jaxns.Stop()).x
    warm = far + 1e-6

    def x0_bar(mode):
        return jax.grad(lambda z: jnp.sum(jaxns.fixed_point(slow, z, 0.7, mode=mode, stop=stop).x))(
            warm
        )

    assert jnp.all(x0_bar(jaxns.Piggyback()) > 0.5)
    np.testing.assert_array_equal(x0_bar(jaxns.Piggyback(last=19)), 0)
    np.testing.assert_array_equal(x0_bar(jaxns.Piggyback(last=20)), x0_bar(jaxns.Piggyback()))


def test_the_last_steps_cost_what_they_are():
    """Evaluations and memory of 30 steps, at the end of a run of 800."""
    count = []

    def counted(z, t):
        jax.debug.callback(lambda: count.append(1))
        return slow(z, t)

    stop = stop_after_K(jnp.ones(N))
    loss = lambda t: slow_loss(t, stop, jaxns.Piggyback(last=30), counted)  # noqa: E731
    compiled = jax.jit(jax.grad(loss, has_aux=True)).lower(0.7).compile()
    assert compiled.memory_analysis().temp_size_in_bytes / (8 * N) <= 30
    _, steps = jax.block_until_ready(compiled(0.7))
    jax.effects_barrier()
    assert steps == K
    assert K + 30 <= len(count) <= K + 4 * 30


def test_a_jacobian_forward_iterates_once_for_all_columns():
    """Ridge with 20 penalties: F is evaluated in one run and in one replay, not for each column."""
    rows, steps, n = [], 400, 20
    rng = np.random.default_rng(0)
    Q, c = jnp.asarray(rng.normal(size=(n, n)) / 10), jnp.asarray(rng.normal(size=n))
    H = Q @ Q.T

    def F(z, penalties):
        jax.debug.callback(lambda _: rows.append(1), z)  # vmap calls it for each lane of z
        return z - 0.3 * (H @ z - c + penalties * z)

    def solution(penalties):
        mode, stop = jaxns.Piggyback("both"), jaxns.Stop(tol=None, max_steps=steps)
        return jaxns.fixed_point(F, jnp.zeros(n), penalties, mode=mode, stop=stop).x

    def exact(penalties):
        inverse = jnp.linalg.inv(H + jnp.diag(penalties))
        return -inverse * (inverse @ c)

    some = jnp.linspace(0.5, 1.0, n)
    pair = jnp.stack([some, some[::-1]])
    jacobian = jax.jit(jax.jacfwd(solution))
    for lanes, found, expected in (
        (1, lambda: jacobian(some), exact(some)),
        (2, lambda: jax.vmap(jacobian)(pair), jax.vmap(exact)(pair)),
    ):
        rows.clear()
        np.testing.assert_allclose(found(), expected, rtol=1e-10, atol=1e-13)
        jax.effects_barrier()
        assert lanes * 2 * steps <= len(rows) <= lanes * (2 * steps + 4)


def test_only_what_is_differentiated_is_paid_for():
    """Data that need no derivative cost the backward pass nothing: no outer product per step."""
    n, p = 400, 300
    rng = np.random.default_rng(0)
    A, b = jnp.asarray(rng.normal(size=(n, p))), jnp.asarray(rng.normal(size=n))

    def loss(penalty, A):
        problem = jaxns.problems.lasso(A, b, penalty)
        solver = jaxns.ForwardBackward(stepsize=0.2)
        return jnp.sum(jaxns.solve(problem, solver, mode=jaxns.Piggyback()).x)

    def flops(argnums):  # XLA counts the body of a loop once
        return jax.jit(jax.grad(loss, argnums)).lower(0.1, A).compile().cost_analysis()["flops"]

    assert flops(1) - flops(0) > 2 * A.size


def test_strides_reverse_any_gap():
    """The schedule never runs out of slots, and stores every state when they all fit."""
    for free in (1, 2, 5, 63):
        for gap in (1, 2, free, free + 1, 4 * free, 1000):
            length = int(stride(jnp.asarray(gap), jnp.asarray(free)))
            assert 1 <= length <= gap
            if gap <= free:
                assert length == 1
            if free == 1:
                assert length == gap
