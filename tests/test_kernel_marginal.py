"""Estimated log determinants and likelihoods against those of a Cholesky factorisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference
from scipy.optimize import minimize

from jaxns import kernels
from jaxns.kernels import preconditioner

rng = np.random.default_rng(0)


def system(theta, X, y):
    matrix = kernels.KernelMatrix(X, {"lengthscale": theta[0], "variance": theta[1]}, kernels.rbf)
    return kernels.System(matrix, y, theta[2])


def dense(problem):
    n = problem.K.size
    return problem.K.at(problem.K.X) + problem.noise * jnp.eye(n)


@jax.jit
def exact_log_det(theta, X):
    return jnp.linalg.slogdet(dense(system(theta, X, X[:, 0])))[1]


@jax.jit
def exact_likelihood(theta, X, y):
    problem = system(theta, X, y)
    fit = y @ jnp.linalg.solve(dense(problem), y)
    return -(fit + exact_log_det(theta, X) + y.size * jnp.log(2 * jnp.pi)) / 2


LARGE, THETA = rng.normal(size=(300, 1)), jnp.array([0.5, 1.0, 1e-2])


@pytest.mark.slow
def test_a_better_preconditioner_means_less_noise_and_fewer_iterations():
    """RBF, n = 300, σ² = 1e-2: the standard deviation falls with k, and so do CG's iterations."""
    matrix = dense(system(THETA, LARGE, LARGE[:, 0])) - 1e-2 * jnp.eye(300)
    problem = kernels.System(matrix, np.sin(3 * LARGE[:, 0]), 1e-2)
    keys = jax.random.split(jax.random.key(0), 40)
    exact = exact_log_det(THETA, LARGE)
    deviation, iterations = [], []
    for rank in (0, 5, 10, 20):
        estimate = jax.jit(
            lambda key, rank=rank: kernels.log_det(
                problem, kernels.Estimate(key, rank=rank, probes=1, lanczos=60)
            )
        )
        found = jax.lax.map(estimate, keys)
        deviation.append(np.std(found, ddof=1))
        half_width = 3.5 * deviation[-1] / 40**0.5 + 1e-6 * abs(exact)
        assert abs(np.mean(found) - exact) < half_width
        iterations.append(int(kernels.solve(problem, kernels.Estimate(rank=rank))[1].steps))
    assert np.all(np.diff(deviation) < 0)
    assert np.all(np.diff(iterations) < 0)
    assert deviation[3] < 1e-2 * deviation[0]


X = rng.normal(size=(40, 1))
Y = np.sin(3 * X[:, 0]) + 0.1 * rng.normal(size=40)
POINT = jnp.array([0.4, 1.3, 0.05])


@pytest.mark.slow
def test_gradients_are_unbiased_estimates_of_the_exact_one():
    """By a confidence interval over draws; and one draw is enough where P is nearly K̂."""

    def estimated(theta, key, rank):
        how = kernels.Estimate(key, rank=rank, probes=4, lanczos=40)
        return kernels.log_marginal_likelihood(system(theta, X, Y), how)

    expected = central_difference(lambda t: exact_likelihood(t, X, Y), POINT)
    keys = jax.random.split(jax.random.key(1), 60)
    several = jax.jit(jax.vmap(jax.value_and_grad(estimated), (None, 0, None)), static_argnums=2)
    spread = []
    for rank in (3, 25):
        values, slopes = several(POINT, keys, rank)
        spread.append(np.std(slopes, axis=0, ddof=1))
        half_width = 3.5 * spread[-1] / 60**0.5
        assert np.all(np.abs(np.mean(slopes, axis=0) - expected) < half_width + 1e-5)
        off = np.mean(values) - exact_likelihood(POINT, X, Y)
        assert abs(off) < 3.5 * np.std(values, ddof=1) / 60**0.5 + 1e-8
    assert np.all(spread[1] < 1e-3 * spread[0])


def test_likelihoods_in_float32_side_by_side():
    """One compiled program of `jit`, `vmap` and `grad`, with P so near K̂ that little is random."""
    how = kernels.Estimate(rank=15, probes=2, lanczos=10, tol=1e-5)
    points, x, y = jnp.float32([[0.6, 1.0, 0.1], [0.8, 1.3, 0.2]]), np.float32(X), np.float32(Y)
    lanes = jax.vmap(
        jax.value_and_grad(lambda t: kernels.log_marginal_likelihood(system(t, x, y), how))
    )
    values, slopes = jax.jit(lanes)(points)
    assert values.dtype == slopes.dtype == jnp.float32
    for theta, value, slope in zip(jnp.float64(points), values, slopes, strict=True):
        np.testing.assert_allclose(value, exact_likelihood(theta, X, Y), rtol=1e-3)
        expected = central_difference(lambda t: exact_likelihood(t, X, Y), theta)
        np.testing.assert_allclose(slope, expected, rtol=1e-2, atol=1e-2)


def test_the_preconditioner_is_the_partial_factorisation():
    """Greedy pivots; powers and log det of P; also where K has a rank below k."""
    A = rng.normal(size=(12, 4))
    low = jnp.asarray(A @ A.T)
    remaining, taken = np.asarray(low), []
    for _ in range(4):
        p = int(np.argmax(np.diag(remaining)))
        taken.append(p)
        remaining = remaining - np.outer(remaining[p], remaining[p]) / remaining[p, p]

    @functools.partial(jax.jit, static_argnums=0)
    def facts(rank):
        K = kernels.GivenMatrix(low)
        pivots = preconditioner.choose(K, rank)
        P = preconditioner.precondition(K, 0.1, pivots)
        whole = P(jnp.eye(12))
        return pivots, whole, P.power(-0.5, jnp.eye(12)), P.power(-1.0, whole), P.log_det()

    for rank in (0, 2, 7):
        pivots, whole, half, identity, log_det = facts(rank)
        assert list(pivots.index[: min(rank, 4)]) == taken[:rank]
        assert np.sum(pivots.used) == min(rank, 4)
        np.testing.assert_allclose(half @ whole @ half, np.eye(12), atol=1e-11)
        np.testing.assert_allclose(identity, np.eye(12), atol=1e-11)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(whole)[1], rtol=1e-12)
    np.testing.assert_allclose(whole, low + 0.1 * np.eye(12), atol=1e-12)


def test_what_has_not_converged_is_nan():
    problem = system(POINT, X, Y)
    x, report = kernels.solve(problem, kernels.Estimate(rank=0, max_steps=2))
    assert not report.converged
    assert np.all(np.isnan(x))
    with pytest.raises(ValueError, match="rank must be nonnegative"):
        kernels.Estimate(rank=-1)
    with pytest.raises(ValueError, match="probes must be positive"):
        kernels.Estimate(probes=0)


@pytest.mark.slow
def test_training_does_not_stall_on_noise_where_the_preconditioner_is_good():
    """L-BFGS on one probe, drawn anew at every evaluation, against it on the exact likelihood."""

    def loss(log_theta, key, rank):
        how = kernels.Estimate(key, rank=rank, probes=1, lanczos=40)
        return -kernels.log_marginal_likelihood(system(jnp.exp(log_theta), X, Y), how)

    def end(evaluate):
        return minimize(evaluate, np.log([1.0, 0.5, 0.3]), jac=True, method="L-BFGS-B").x

    exactly = jax.jit(jax.value_and_grad(lambda t: -exact_likelihood(jnp.exp(t), X, Y)))
    estimated = jax.jit(jax.value_and_grad(loss), static_argnums=2)
    best = exactly(end(lambda t: jax.tree.map(np.asarray, exactly(t))))[0]
    behind = {}
    for rank in (0, 25):
        keys = iter(jax.random.split(jax.random.key(2), 10_000))
        found = end(lambda t, rank=rank, keys=keys: jax.tree.map(
            np.asarray, estimated(t, next(keys), rank)))  # fmt: skip
        behind[rank] = float(exactly(found)[0] - best)
    assert behind[25] < 1e-4
    assert behind[0] > 1e-2
