"""Experiment C1 on arXiv 2207.12717, on an instance of ours.

The plans of the plain iteration and their derivatives converge at the rate λ₂(A), the second
eigenvalue of A = diag(1/a) P diag(1/b) Pᵀ, although A has the eigenvalue 1 along constants.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns

PLAIN = jaxns.Sinkhorn(acceleration=False)
THETA = 0.3
_rng = np.random.default_rng(0)
N, M = 20, 30
x, y, v = (jnp.asarray(_rng.normal(size=(k, 2))) for k in (N, M, M))
a, b = (jnp.asarray(_rng.dirichlet(np.full(k, 5.0))) for k in (N, M))


def cost(theta):
    return 0.5 * jnp.sum((x[:, None] - y - theta * v) ** 2, axis=-1)


def build(theta, epsilon):
    return jaxns.Transport(cost(theta), a, b, epsilon)


def closed_form(P, epsilon):
    """dP/dθ from the linear system of the two marginals, by pseudo-inverse, and A."""
    C_dot = jax.jvp(cost, (THETA,), (1.0,))[1] / epsilon
    system = np.block([[np.diag(a), P], [P.T, np.diag(b)]])
    dots = np.linalg.pinv(system) @ np.concatenate([np.sum(P * C_dot, 1), np.sum(P * C_dot, 0)])
    dP = P * (dots[:N, None] + dots[N:] - C_dot)
    return np.asarray(dP), np.asarray(P / a[:, None] @ (P / b).T)


def relative(path, limit):
    return np.linalg.norm(path - limit, axis=(1, 2)) / np.linalg.norm(limit)


def rate(errors, low, high):
    k = np.flatnonzero((errors < high) & (errors > low))
    assert k.size >= 8
    return float(np.exp(np.polyfit(k, np.log(errors[k]), 1)[0]))


@pytest.fixture(scope="module")
def paths():
    """P_k, dP_k/dθ, k = 0 … 400, for three ε."""

    def path(epsilon):
        def problem(theta):
            return build(theta, epsilon)

        return jaxns.derivative_path(problem, THETA, 400, solver=PLAIN, tangent=1.0)

    epsilons = (1.0, 0.5, 0.2)
    path = jax.jit(jax.vmap(path))(jnp.array(epsilons))
    plans, dots = np.asarray(path.x.plan), np.asarray(path.jacobian.plan)
    return {e: (plans[i], dots[i]) for i, e in enumerate(epsilons)}


@pytest.mark.parametrize("epsilon", [1.0, 0.5, 0.2])
def test_plans_and_their_derivatives_converge_at_the_same_rate(paths, epsilon):
    plans, dots = paths[epsilon]
    dP, A = closed_form(plans[-1], epsilon)
    np.testing.assert_allclose(A.sum(axis=1), 1, rtol=0, atol=1e-14)
    spectrum = np.sort(np.linalg.eigvals(A).real)[::-1]
    np.testing.assert_allclose(spectrum[0], 1, atol=1e-12)
    second = spectrum[1]

    of_P = rate(relative(plans, plans[-1]), 1e-10, 1e-2)
    np.testing.assert_allclose(of_P, second, rtol=0.01)
    errors = relative(dots, dP)
    assert errors[-1] < 1e-10
    of_dP = rate(errors, 1e-10, 1e-2)
    assert second * 0.999 <= of_dP <= 1.1 * second
    later = rate(errors, 1e-12, 1e-7)
    assert abs(later - second) < abs(of_dP - second)


def test_the_rate_gets_worse_as_epsilon_gets_smaller(paths):
    rates = [rate(relative(p, p[-1]), 1e-10, 1e-2) for p, _ in paths.values()]
    assert rates[0] < rates[1] < rates[2] < 1


def test_the_derivative_of_the_plan_forgets_its_start_and_that_of_the_potentials_does_not():
    """A start that moves with θ moves the limit of df by a constant, and not that of dP."""
    direction = jnp.asarray(np.random.default_rng(1).normal(size=N))

    def solution(theta, start):
        stop = jaxns.Stop(tol=None, max_steps=250)
        mode = jaxns.Piggyback(direction="both")
        x0 = start * direction
        return jaxns.solve(build(theta, 0.5), PLAIN, x0, mode=mode, stop=stop)

    def derivative(tangent):
        out = jax.jvp(solution, (THETA, 0.0), (1.0, tangent))[1]
        return out.x.plan, out.z

    (dP, df), (dP_moved, df_moved) = derivative(0.0), derivative(1.0)
    np.testing.assert_allclose(dP_moved, dP, rtol=0, atol=1e-14)
    shift = df_moved - df
    assert np.std(shift) < 1e-14
    assert abs(np.mean(shift)) > 1e-3


@pytest.mark.slow
def test_the_map_of_the_solver_has_that_jacobian(paths):
    """A = ∂F, as the solver steps; implicit differentiation gets past its eigenvalue 1."""
    epsilon = 0.5
    plans, _ = paths[epsilon]
    dP, A = closed_form(plans[-1], epsilon)
    problem = build(THETA, epsilon)
    f = jaxns.solve(problem, PLAIN).z
    np.testing.assert_allclose(jax.jacfwd(lambda f: PLAIN.step(problem, f))(f), A, atol=1e-10)

    def plan(theta, solver, mode):
        return jaxns.solve(build(theta, epsilon), solver, mode=mode).x.plan

    def error(solver, mode):
        found = jax.jvp(lambda t: plan(t, solver, mode), (THETA,), (1.0,))[1]
        return np.linalg.norm(found - dP) / np.linalg.norm(dP)

    assert error(PLAIN, jaxns.Implicit(direction="both")) < 1e-10
    # One plain step misses a share of the derivative for ever; one Newton step misses nothing.
    assert error(PLAIN, jaxns.OneStep(direction="both")) > 0.05
    assert error(jaxns.Sinkhorn(), jaxns.OneStep(direction="both")) < 1e-10
