"""Proximal Newton by self-concordant smoothing, after arXiv 2309.01781."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxns
from jaxns.functions import L1, Box, LeastSquares, Logistic
from jaxns.functions.norms import PseudoHuber

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
