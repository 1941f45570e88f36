"""Proximal Newton by self-concordant smoothing, after arXiv 2309.01781."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxns
from jaxns.functions import L1, Box, LeastSquares, Logistic, ModelLoss, SquaredDistance
from jaxns.functions.norms import PseudoHuber
from jaxns.functions.smooth import Smooth
from jaxns.nonsmooth import cost, programs
from jaxns.solvers import dual_newton, frozen

N, P, PENALTY = 60, 30, 0.002
_rng = np.random.default_rng(0)
A = _rng.normal(size=(N, P)) * np.geomspace(1, 0.05, P)
signs = np.sign(A[:, ::6] @ [2, -3, 4, -5, 6] + 0.1 * _rng.normal(size=N))
LOGISTIC = jaxns.Composite(Logistic(A, signs, scale="mean"), L1(PENALTY))
SOLVER = jaxns.SelfConcordant()


def far_from_optimal(x):
    """The distance of −∇f(x) from ∂g(x), in each coordinate."""
    slope = LOGISTIC.f.gradient(x)
    away = jnp.maximum(jnp.abs(slope) - PENALTY, 0)
    return jnp.max(jnp.where(x == 0, away, jnp.abs(slope + PENALTY * jnp.sign(x))))


@functools.cache
def run(solver, steps):
    """Distances from optimality after 1, 2, … steps, the last point and every control."""
    x0 = jnp.zeros(P)
    how = solver.prepare(LOGISTIC, x0)

    def step(carry, _):
        z, control = how.advance(LOGISTIC, *carry)
        return (z, control), (far_from_optimal(control.image), control)

    start = how.init(LOGISTIC, x0), how.control(LOGISTIC, x0)
    (_, end), (left, controls) = jax.jit(lambda s: lax.scan(step, s, length=steps))(start)
    return np.asarray(left), end.image, controls


def test_sparse_logistic_regression_in_far_fewer_steps_than_fista():
    """And the steps become full ones: α → 1 as η → 0."""
    left, x, controls = run(SOLVER, 30)
    slow, expected, _ = run(jaxns.ForwardBackward(), 1000)
    np.testing.assert_allclose(x, expected, atol=1e-10)
    assert 0 < np.count_nonzero(x) < P
    steps, reference = (np.argmax(each < 1e-6) for each in (left, slow))
    assert left[-1] < 1e-12
    assert 0 < 10 * steps < reference
    M = 3 * 0.1 ** (-2 / 3)
    eta = np.append(0, controls.eta[:-1])
    np.testing.assert_allclose(controls.alpha, 1 / (1 + M * eta), rtol=1e-12)
    assert np.min(controls.alpha) < 0.1
    assert eta[-1] < 1e-10
    assert 1 - controls.alpha[-1] < 1e-8


def test_a_newton_step_and_then_a_scaled_prox_moves_away_from_the_optimum():
    """Whichever way the threshold is read: it counts the penalty twice."""
    _, x, _ = run(jaxns.ForwardBackward(), 1000)
    assert far_from_optimal(x) < 1e-10
    mu = 0.1
    s, h = x / np.sqrt(x**2 + mu**2), mu**2 * (x**2 + mu**2) ** -1.5
    H = jax.jacfwd(LOGISTIC.f.gradient)(x) + PENALTY * np.diag(h)
    moved = x - np.linalg.solve(H, LOGISTIC.f.gradient(x) + PENALTY * s)
    for threshold in (PENALTY / h, PENALTY * h):
        after = np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)
        assert np.linalg.norm(after - x) > 1e-3 * np.linalg.norm(x)


@pytest.mark.slow
def test_a_penalty_for_each_coordinate_and_one_of_zero():
    weights = np.where(np.arange(P) % 5, 0.05, 0)
    problem = jaxns.Composite(LeastSquares(A, signs, scale="mean"), L1(weights))
    stop = jaxns.Stop(tol=1e-13)
    expected = jaxns.solve(problem, jaxns.Newton(), stop=stop).x
    found = jaxns.solve(problem, SOLVER, stop=stop).x
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_array_equal(found == 0, expected == 0)


@pytest.mark.parametrize("mu", [0.01, 1.0, 3.0])
def test_pseudo_huber_is_self_concordant(mu):
    """Of order 8/3 and with the least constant; what the paper's code states, order 2.6, is not."""
    s = PseudoHuber(1.0, mu)
    x = mu * jnp.geomspace(1e-3, 1e3, 400)
    second, third = jax.vmap(jax.grad(jax.grad(s)))(x), jax.vmap(jax.grad(jax.grad(jax.grad(s))))(x)
    np.testing.assert_allclose(s.second(x), second, rtol=1e-6)
    ratio = jnp.abs(third) / s.second(x) ** (4 / 3)
    assert jnp.max(ratio) <= s.constant() * (1 + 1e-6)
    assert jnp.max(ratio) >= 0.999 * s.constant()
    assert jnp.max(jnp.abs(third) / s.second(x) ** 1.3) > 2.5 * mu ** (1.3 - 2)
    gap = jnp.abs(x) - jax.vmap(s)(x)
    assert jnp.all((gap >= 0) & (gap <= mu))


def test_what_it_cannot_solve_is_said():
    with pytest.raises(TypeError, match="needs smoothed on g; Box has none; use ProximalNewton"):
        jaxns.solve(jaxns.Composite(LOGISTIC.f, Box(0, 1)), SOLVER)
    with pytest.raises(TypeError, match="without K"):
        jaxns.solve(jaxns.Composite(LOGISTIC.f, L1(1.0), np.eye(P)), SOLVER)
    with pytest.raises(ValueError, match="mu must be positive"):
        jaxns.SelfConcordant(mu=0.0)


# More unknowns than outputs: systems of the size of the outputs (Prox-GGN-SCORE)

WIDE = _rng.normal(size=(10, 40)) / 3
wide_signs = np.sign(WIDE[:, :4] @ [4.0, -3.0, 5.0, -4.0])
STRICT = jaxns.Stop(tol=1e-13)


def network(x, X):
    """Two layers, with more parameters than there are samples."""
    return jnp.tanh(X @ x["W"]) @ x["v"]


def fit(network_data, target, penalty):
    return jaxns.Composite(
        ModelLoss(SquaredDistance(target), Smooth(network, network_data)), L1(penalty)
    )


NETWORK_X = _rng.normal(size=(9, 5))
TEACHER = {"W": 2.0 * np.eye(5, 4) * (np.arange(4) < 2), "v": np.array([2.0, -1.5, 0.0, 0.0])}
NETWORK_Y = network(TEACHER, NETWORK_X)
NETWORK_START = {"W": _rng.normal(size=(5, 4)), "v": _rng.normal(size=4)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_system_of_the_size_of_the_rows(dtype):
    """Woodbury, against the whole matrix; entries of D that are 0 are raised."""
    D, r = _rng.uniform(0.01, 1, 40).astype(dtype), _rng.normal(size=40).astype(dtype)
    B, on = WIDE.astype(dtype), _rng.random(40) < 0.6
    found = frozen.low_rank(D, B, on)(r)
    assert found.dtype == dtype
    S = np.ix_(on, on)
    expected = np.linalg.solve((np.diag(D) + B.T @ B)[S], r[on])
    np.testing.assert_allclose(found[on], expected, atol=1e-12 if dtype == np.float64 else 1e-3)
    np.testing.assert_array_equal(found[~on], r[~on])
    raised = frozen.floored(np.where(on, D, 0), B)
    np.testing.assert_array_equal(raised[on], D[on])
    assert np.all(raised > 0)
    np.testing.assert_array_equal(frozen.floored(0 * D, 0 * B), 1)


@pytest.mark.parametrize("penalty", [0.05, np.where(np.arange(40) % 4, 0.05, 0)])
def test_the_model_is_minimised_from_its_dual(penalty):
    """Optimal: the slope of the model is in the subdifferential of the penalty, at once."""
    b, x = np.random.default_rng(0).normal(size=(2, 40))
    D = np.geomspace(1e-3, 1, 40)
    u = np.asarray(jax.jit(dual_newton.minimiser)(b, x, D, WIDE, penalty))
    slope = b + (np.diag(D) + WIDE.T @ WIDE) @ (u - x)
    assert 0 < np.count_nonzero(u) < 40
    moving = (u != 0) | (np.broadcast_to(penalty, 40) == 0)
    np.testing.assert_allclose((slope + penalty * np.sign(u))[moving], 0, atol=1e-9)
    assert np.all(np.abs(slope) <= penalty + 1e-9)


def derivative(solver, mode, problem, x0=None):
    def total(t):
        return jnp.sum(jnp.cos(jaxns.solve(problem(t), solver, x0, mode=mode, stop=STRICT).x))

    return jax.value_and_grad(total)(jnp.asarray([0.03, 1.1]))


def wide(t):
    return jaxns.Composite(Logistic(t[1] * WIDE, wide_signs, scale="mean"), L1(t[0]))


def through_a_model(t):
    def loss(z):
        return jnp.mean(jax.nn.softplus(-wide_signs * z))

    return jaxns.Composite(ModelLoss(loss, lambda x: t[1] * WIDE @ x), L1(t[0]))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "mode"), [(wide, jaxns.Implicit()), (through_a_model, jaxns.Piggyback())]
)
def test_more_unknowns_than_samples(problem, mode):
    """The solution of forward-backward, and its derivative, with Logistic's rows or a model's."""
    expected, slope = derivative(jaxns.ForwardBackward(), jaxns.Implicit(), wide)
    found, other = derivative(SOLVER, mode, problem, jnp.zeros(40))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(other, slope, rtol=1e-5)


@pytest.mark.long
@pytest.mark.slow
def test_a_network_with_more_parameters_than_samples():
    """Stationary, with the derivative of differences; float32 side by side."""
    start = jax.tree.map(jnp.asarray, NETWORK_START)

    def solved(X, y, penalty, start, tol):
        stop = jaxns.Stop(tol=tol, max_steps=300)
        return jaxns.solve(fit(X, y, penalty), SOLVER, start, stop=stop).x

    @jax.jit
    @jax.value_and_grad
    def read(scale, start):
        x = solved(NETWORK_X, scale * NETWORK_Y, 0.03, start, 1e-11)
        return sum(jnp.vdot(jnp.cos(NETWORK_START[name]), x[name]) for name in x)

    x = solved(NETWORK_X, NETWORK_Y, 0.03, start, 1e-11)
    slope = fit(NETWORK_X, NETWORK_Y, 0.03).f.gradient(x)
    for name in x:
        on = np.asarray(x[name] != 0)
        np.testing.assert_allclose((slope[name] + 0.03 * jnp.sign(x[name]))[on], 0, atol=1e-8)
        assert np.all(np.abs(slope[name][~on]) <= 0.03)
        assert not on.all()
    h = 1e-5
    (_, found), (after, _), (before, _) = (read(scale, x) for scale in (1.0, 1 + h, 1 - h))
    np.testing.assert_allclose(found, (after - before) / (2 * h), rtol=1e-5)

    data = np.float32(NETWORK_X), np.float32(NETWORK_Y)
    begin = jax.tree.map(lambda leaf: leaf.astype(np.float32), x)
    lanes = jax.jit(jax.vmap(lambda penalty: solved(*data, penalty, begin, 1e-5)["v"]))
    found = lanes(jnp.asarray([0.03, 0.04], np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], x["v"], atol=2e-3)


def test_the_rows_are_a_factor_of_the_curvature():
    """JᵀQJ, for Q that is full too; none for what has no vector of unknowns."""
    x, weights = _rng.normal(size=40), _rng.uniform(size=10)
    losses = (
        Logistic(WIDE, wide_signs, scale="mean", weights=weights),
        LeastSquares(WIDE, wide_signs, weights=weights),
    )
    for loss in losses:
        B = loss.hessian_rows(x)
        assert B.shape == WIDE.shape
        np.testing.assert_allclose(B.T @ B, loss.hessian(x), atol=1e-12)
    assert LeastSquares(WIDE, np.ones((10, 2))).hessian_rows is None

    def logits(x):
        return jnp.tanh(WIDE[:2, :6] @ x.reshape(6, 3))

    def entropy(t):
        return jnp.sum(jax.nn.logsumexp(t, axis=1) - t[:, 0])

    f, x = ModelLoss(entropy, logits), jnp.asarray(_rng.normal(size=18))

    @jax.jit
    def parts(x):
        near = f.linearised(x)
        J, Q = jax.jacfwd(logits)(x).reshape(6, 18), jax.hessian(entropy)(logits(x)).reshape(6, 6)
        return near.hessian_rows(x), jax.hessian(near)(x), near.gradient(x), f.gradient(x), J, Q

    B, H, tangent, slope, J, Q = parts(x)
    np.testing.assert_allclose(B.T @ B, J.T @ Q @ J, atol=1e-12)
    np.testing.assert_allclose(H, J.T @ Q @ J, atol=1e-12)
    t = np.exp(logits(x))
    expected = J.T @ (t / t.sum(1, keepdims=True) - [1, 0, 0]).ravel()
    np.testing.assert_allclose(slope, expected, rtol=1e-12)
    np.testing.assert_allclose(tangent, expected, rtol=1e-12)
    with pytest.raises(TypeError, match="model must be a function"):
        ModelLoss(entropy, WIDE)


def test_a_step_costs_in_proportion_to_the_unknowns_for_so_many_samples():
    """Operations of a step at n and 4n, each loop once; and no array of more than m n numbers."""
    random, m = np.random.default_rng(1), 12

    def counted(n):
        A = random.normal(size=(m, n))
        problem = jaxns.Composite(Logistic(A, np.ones(m), scale="mean"), L1(0.1))
        how = SOLVER.prepare(problem, jnp.zeros(n))

        def step(x):
            return how.step(problem, x)

        program, *_ = programs.trace(step, jnp.zeros(n))
        sizes = [v.aval.size for e in programs.equations(program) for v in e.outvars]
        assert max(sizes) <= m * n
        return cost.count(step, jnp.zeros(n), while_trips=1).total

    one, four = counted(300), counted(1200)
    np.testing.assert_allclose(four / one, 4, rtol=0.02)
