"""Experiments of arXiv 2105.01637 on coordinate descent, on an instance of ours.

A lasso of which few coefficients survive, differentiated in the logarithm of its penalty.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns.experiments.hypergradient_accuracy import innermost_trips
from jaxns.experiments.rates import identification
from jaxns.functions import L1, LeastSquares

N, P = 100, 300
EPOCHS = 40
PLAIN = jaxns.CoordinateDescent(working_sets=False)


def instance(seed=1):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(N, P))
    truth = np.zeros(P)
    truth[rng.choice(P, 10, replace=False)] = 1
    b = A @ truth + 0.5 * rng.normal(size=N)
    return jnp.asarray(A), jnp.asarray(b), float(np.log(0.1 * np.max(np.abs(A.T @ b)) / N))


A, b, LOG_PENALTY = instance()
A_VAL, b_VAL, _ = instance(seed=2)


def build(log_penalty):
    return jaxns.Composite(LeastSquares(A, b, scale="mean"), L1(jnp.exp(log_penalty)))


@pytest.fixture(scope="module")
def path():
    return jaxns.derivative_path(build, LOG_PENALTY, EPOCHS, solver=PLAIN)


@pytest.fixture(scope="module")
def limit(path):
    """x, J and the support S in closed form, from the signs of the last iterate."""
    S = np.flatnonzero(path.x[-1])
    penalty, sign = np.exp(LOG_PENALTY), jnp.sign(path.x[-1][S])
    gram = A[:, S].T @ A[:, S] / N
    x = jnp.zeros(P).at[S].set(jnp.linalg.solve(gram, A[:, S].T @ b / N - penalty * sign))
    J = jnp.zeros(P).at[S].set(-penalty * jnp.linalg.solve(gram, sign))
    assert np.max(np.abs(A.T @ (A @ x - b))) / N <= penalty * (1 + 1e-9)  # x is the solution
    return x, J, S


def distance(iterates, to):
    return np.linalg.norm(iterates - to, axis=1)


def slope(e, against, floor):
    """Of log e over log `against`, where both are above their rounding level."""
    above = (e > 1e-11) & (against > floor)
    assert above.sum() >= 8
    return np.polyfit(np.log(against[above]), np.log(e[above]), 1)[0]


def test_derivatives_converge_at_the_gauss_seidel_rate_on_the_support(path, limit):
    """Erratic until the support is found; from then on a straight line, like the iterates."""
    x, J, S = limit
    gram = np.asarray(A[:, S].T @ A[:, S])
    gauss_seidel = np.eye(len(S)) - np.linalg.solve(np.tril(gram), gram)
    rho = np.max(np.abs(np.linalg.eigvals(gauss_seidel)))
    start, k = identification(np.asarray(path.x != 0)), np.arange(EPOCHS + 1)
    errors = distance(path.x, x), distance(path.jacobian, J)
    assert np.any(np.diff(errors[1][: start + 1]) > 0)
    for e in errors:
        window = (k >= start) & (e < 1e-3 * e.max()) & (e > 1e-12)
        line = np.polyfit(k[window], np.log(e[window]), 1)
        assert window.sum() >= 15
        np.testing.assert_allclose(np.polyval(line, k[window]), np.log(e[window]), atol=0.1)
        np.testing.assert_allclose(np.exp(line[0]), rho, rtol=0.1)


def test_the_limit_is_the_solve_restricted_to_the_support(path, limit):
    _, J, S = limit
    np.testing.assert_allclose(path.jacobian[-1], J, atol=1e-10)
    assert np.all(
        path.jacobian[identification(np.asarray(path.x != 0)) :, np.setdiff1d(np.arange(P), S)] == 0
    )


@pytest.mark.slow
def test_hypergradient_error_is_linear_in_the_distance(path, limit):
    """Implicit at the iterate, against the distance and against the primal suboptimality.

    The suboptimality is quadratic in the distance: it is the duality gap at the best dual point.
    (At the residual scaled to be feasible the gap would be linear in the distance itself.)
    """
    x, J, _ = limit
    start = identification(np.asarray(path.x != 0))

    def validation(log_penalty, epochs):
        stop = jaxns.Stop(tol=None, max_steps=epochs)
        beta = jaxns.solve(build(log_penalty), PLAIN, stop=stop).x
        return 0.5 * jnp.mean((A_VAL @ beta - b_VAL) ** 2)

    gradient = jax.jit(jax.grad(validation))
    exact = (A_VAL.T @ (A_VAL @ x - b_VAL) / N) @ J
    epochs = np.arange(start, start + 20)
    error = np.array([abs(gradient(LOG_PENALTY, k) - exact) for k in epochs])
    objective = jax.vmap(build(LOG_PENALTY))(jnp.append(path.x[epochs], x[None], axis=0))
    suboptimality = np.asarray(objective[:-1] - objective[-1])
    assert abs(slope(error, distance(path.x[epochs], x), 1e-11) - 1) < 0.15
    assert abs(slope(error, suboptimality, 1e-13) - 0.5) < 0.15


def test_implicit_forward_updates_the_coordinates_of_the_support_only(limit):
    """Solve first, by any means; then iterate the Jacobian alone, on the columns of the support."""
    x, J, S = limit

    def restricted(log_penalty, epochs=40):
        problem = jaxns.Composite(LeastSquares(A[:, S], b, scale="mean"), L1(jnp.exp(log_penalty)))
        mode = jaxns.OneStep(steps=epochs, direction="both")
        stop = jaxns.Stop(tol=None, max_steps=1)
        return jaxns.solve(problem, PLAIN, x[S], mode=mode, stop=stop).x

    np.testing.assert_allclose(jax.jacfwd(restricted)(LOG_PENALTY), J[S], atol=1e-10)

    def updates(A, x):
        """Coordinate updates in one Jacobian epoch, v ↦ ∂F v."""
        problem = jaxns.Composite(LeastSquares(A, b, scale="mean"), L1(np.exp(LOG_PENALTY)))
        solver = PLAIN.prepare(problem, x)
        epoch = lambda v: jax.jvp(lambda x: solver.step(problem, x), (x,), (v,))[1]  # noqa: E731
        return innermost_trips(jax.make_jaxpr(epoch)(x).jaxpr)

    assert updates(A[:, S], x[S]) == len(S)
    assert P <= updates(A, x) < P + 32  # in whole blocks
    assert len(S) < P / 10
