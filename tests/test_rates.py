"""Rates of experiments A1, A2 and A2b of arXiv 2206.00457, on instances of ours.

The piggyback derivatives of forward-backward converge at the rate of its iterates. Rates are fitted
to the relative errors between 1e-2 and 1e-10, from the step on after which the support is final.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns.functions import L1, LeastSquares, SquaredL2

PLAIN = jaxns.ForwardBackward(acceleration=False)


def instance(n, p, scale, noise, seed=42):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, p)) * scale
    truth = np.zeros(p)
    truth[rng.choice(p, 5, replace=False)] = rng.normal(size=5) + np.sign(rng.normal(size=5))
    b = A @ truth + noise * rng.normal(size=n)
    return jnp.asarray(A), jnp.asarray(b), 0.1 * float(np.max(np.abs(A.T @ b)))


def relative(path, limit):
    difference = np.asarray(path - limit)
    return np.linalg.norm(difference.reshape(len(path), -1), axis=1) / np.linalg.norm(limit)


def rate(errors, start=0):
    """exp of the slope of log(error) over k, in the window of relative errors given above."""
    k = np.arange(len(errors))
    window = (errors < 1e-2) & (errors > 1e-10) & (k >= start)
    assert window.sum() >= 20
    return float(np.exp(np.polyfit(k[window], np.log(errors[window]), 1)[0]))


def test_a1_ridge():
    A, b, theta = instance(100, 50, 1.0, 0.1)
    build = lambda t: jaxns.Composite(LeastSquares(A, b), SquaredL2(t))  # noqa: E731
    path = jaxns.derivative_path(build, theta, 600, solver=PLAIN)
    system = A.T @ A + theta * jnp.eye(50)
    x = jnp.linalg.solve(system, A.T @ b)
    J = -jnp.linalg.solve(system, x)
    spectrum = np.linalg.eigvalsh(A.T @ A)
    # The prox of the ridge penalty contracts by 1/(1 + αθ) on top of the gradient step.
    rho = (1 - spectrum[0] / spectrum[-1]) / (1 + theta / spectrum[-1])
    assert path.x.shape == (601, 50)
    np.testing.assert_array_equal(path.x[0], 0)
    np.testing.assert_array_equal(path.jacobian[0], 0)
    assert rate(relative(path.x, x)) <= rho * 1.001
    assert rate(relative(path.jacobian, J)) <= np.sqrt(rho)
    np.testing.assert_allclose(rate(relative(path.jacobian, J)), rho, rtol=0.02)
    assert relative(path.x, x)[-1] < 1e-12
    assert relative(path.jacobian, J)[-1] < 1e-12


@pytest.mark.parametrize(
    ("name", "n", "p", "scale", "steps"),
    [("A2", 100, 50, 1.0, 400), ("A2b", 50, 100, 50**-0.5, 1500)],
)
def test_a2_lasso(name, n, p, scale, steps):
    A, b, theta = instance(n, p, scale, 0.1 * scale)
    build = lambda t: jaxns.Composite(LeastSquares(A, b), L1(t))  # noqa: E731
    path = jaxns.derivative_path(build, theta, steps, solver=PLAIN)
    supports = np.asarray(path.x != 0)
    S = np.flatnonzero(supports[-1])
    identified = 1 + np.flatnonzero((supports != supports[-1]).any(axis=1))[-1]
    gram = A[:, S].T @ A[:, S]
    sign = jnp.sign(path.x[-1][S])
    x = jnp.zeros(p).at[S].set(jnp.linalg.solve(gram, A[:, S].T @ b - theta * sign))
    J = jnp.zeros(p).at[S].set(-jnp.linalg.solve(gram, sign))
    assert np.max(np.abs(A.T @ (A @ x - b))) <= theta * (1 + 1e-9)  # x is the solution

    alpha = 1 / np.linalg.eigvalsh(A.T @ A)[-1]
    local = 1 - alpha * float(np.linalg.eigvalsh(gram)[0])
    rate_x = rate(relative(path.x, x), identified)
    rate_J = rate(relative(path.jacobian, J), identified)
    np.testing.assert_allclose(rate_J, rate_x, rtol=0.01)
    np.testing.assert_allclose([rate_x, rate_J], local, rtol=0.01)
    assert relative(path.jacobian, J)[-1] < 1e-12
    off = np.setdiff1d(np.arange(p), S)
    assert np.all(path.jacobian[identified:, off] == 0)

    # Almost everywhere: at nearby penalties too the limit is the closed form there.
    def value(t):
        mode, stop = jaxns.Piggyback(direction="both"), jaxns.Stop(tol=1e-15)
        return jaxns.solve(build(t), mode=mode, stop=stop).x

    for moved in theta * (1 + 1e-3 * np.random.default_rng(0).normal(size=3)):
        at, found = jax.jvp(value, (moved,), (1.0,))
        T = np.flatnonzero(at)
        closed = -jnp.linalg.solve(A[:, T].T @ A[:, T], jnp.sign(at[T]))
        np.testing.assert_allclose(found[T], closed, rtol=1e-8)


def test_a_path_along_a_direction():
    """J_k·tangent, for θ a dictionary, and x_k equal to what a solve of k steps gives."""
    A, b, theta = instance(30, 8, 1.0, 0.1)
    build = lambda t: jaxns.Composite(LeastSquares(A, t["b"]), L1(t["penalty"]))  # noqa: E731
    at = {"b": b, "penalty": jnp.asarray(theta)}
    tangent = {"b": jnp.ones(30), "penalty": jnp.asarray(0.3)}
    full = jaxns.derivative_path(build, at, 9)
    along = jaxns.derivative_path(build, at, 9, tangent=tangent)
    expected = full.jacobian["b"] @ tangent["b"] + 0.3 * full.jacobian["penalty"]
    np.testing.assert_allclose(along.jacobian, expected, atol=1e-13)
    for k in (0, 4, 9):
        stop = jaxns.Stop(tol=None, max_steps=k)
        np.testing.assert_allclose(full.x[k], jaxns.solve(build(at), stop=stop).x, atol=1e-14)
