"""Kernel systems: stochastic dual descent against exact solves and its rivals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference
from jax import lax

import jaxns
from jaxns import kernels

rng = np.random.default_rng(0)
N = 400
X = rng.normal(size=(N, 3))
Y = np.sin(8 * X[:, 0]) + 0.5 * rng.normal(size=N)
NOISE = 0.05
THETA = {"lengthscale": 1.0, "variance": 1.0}
K = jax.jit(lambda X: kernels.KernelMatrix(X, THETA, kernels.matern32).at(X))(X)
EXACT = np.linalg.solve(K + NOISE * np.eye(N), Y)


def steps(count):
    return jaxns.Stop(tol=None, max_steps=count, on_failure="ignore")


def error(alpha):
    """‖K(α − α*)‖ / ‖Kα*‖, infinite where the iteration overflowed."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.linalg.norm(K @ (np.asarray(alpha) - EXACT)) / np.linalg.norm(K @ EXACT)
    return found if np.isfinite(found) else np.inf


def dual(stepsize, count, average=True):
    averaging = min(1.0, 100 / count) if average else 1.0
    solver = kernels.DualDescent(stepsize, batch_size=64, averaging=averaging)
    return error(jaxns.solve(kernels.System(K, Y, NOISE), solver, stop=steps(count)).x)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _rival(gradient, stepsize, count):
    def step(carry, key):
        alpha, v = carry
        v = 0.9 * v - stepsize / N * gradient(alpha + 0.9 * v, key)
        return (alpha + v, v), alpha + v

    keys = jax.random.split(jax.random.key(0), count)
    return lax.scan(step, (jnp.zeros(N), jnp.zeros(N)), keys)[1]


def primal(alpha, key):
    """½‖y − Kα‖² + λ/2 ‖α‖²_K by 64 of the n residuals."""
    i = jax.random.randint(key, (64,), 0, N)
    return N / 64 * (K[i] @ alpha - jnp.asarray(Y)[i]) @ K[i] + NOISE * (K @ alpha)


def features(alpha, key):
    """The dual's gradient with K ≈ ZZᵀ for 64 random Fourier features: its noise is additive."""
    normal, chi, phase = jax.random.split(key, 3)
    tail = jnp.sqrt(jax.random.chisquare(chi, 3.0, (64,)) / 3)  # Matérn-3/2: Student's t, ν = 3
    omega = jax.random.normal(normal, (3, 64)) / tail
    Z = jnp.cos(X @ omega + jax.random.uniform(phase, (64,), maxval=2 * jnp.pi)) / 32**0.5
    return Z @ (Z.T @ alpha) + NOISE * alpha - Y


def largest_stable(run):
    """On the grid 2^k: the first that does not blow up, from above."""
    return next(b for b in 2.0 ** np.arange(5, -20, -1) if run(b) < 1e3)


@pytest.mark.slow
def test_constant_steps_converge_linearly():
    """Below 1e-5 by 2000 steps of 5/n; 20/n diverges, and 0.1/n is far away after 8000."""
    assert dual(5.0, 2000) < 1e-5
    assert dual(20.0, 2000) == np.inf
    assert 1e-2 < dual(0.1, 8000) < 0.2
    path = np.log([dual(5.0, count, average=False) for count in (500, 1000, 1500, 2000)])
    rates = np.diff(path)
    assert np.all(rates < -1)
    np.testing.assert_allclose(rates, rates.mean(), rtol=0.35)


def test_ten_times_the_stable_step_of_the_primal():
    ours = largest_stable(lambda b: dual(b, 300, average=False))
    theirs = largest_stable(lambda b: error(_rival(primal, b, 300)[-1]))
    assert ours >= 10 * theirs


@pytest.mark.slow
def test_additive_noise_leaves_a_plateau():
    """With random features the same steps get stuck; with random coordinates they do not."""
    visited = _rival(features, 0.5, 2000)[1000:]
    before, after = (np.median([error(a) for a in part[::10]]) for part in np.split(visited, 2))
    assert after < 1
    np.testing.assert_allclose(after, before, rtol=0.3)
    free = [dual(0.5, count, average=False) for count in (1000, 2000)]
    assert free[1] < 0.5 * free[0]
    assert free[1] < 0.1 * after


def system(theta, n, s=None):
    inputs, b = X[:n], theta[3] * Y[:n]
    if s is not None:
        b = jnp.stack([b, b**2, jnp.cos(b)], axis=1)
    matrix = kernels.KernelMatrix(
        inputs, {"lengthscale": theta[0], "variance": theta[1]}, kernels.matern32
    )
    return kernels.System(matrix, b, theta[2])


POINT = jnp.array([0.8, 1.2, 0.5, 1.0])


@pytest.mark.parametrize(
    ("n", "s"),
    [(20, None), pytest.param(90, 3, marks=pytest.mark.slow)],
    ids=["dense", "structured"],
)
def test_solutions_and_their_derivatives_are_those_of_the_system(n, s):
    """In the kernel's parameters, λ and b: small systems factorised, large ones by CG."""
    solver = kernels.DualDescent(2.0, batch_size=n // 2, averaging=1.0)
    weights = jnp.cos(jnp.arange(n * (s or 1))).reshape((n, s) if s else (n,))

    def ours(theta):
        return jnp.vdot(weights, jaxns.solve(system(theta, n, s), solver, stop=steps(800)).x)

    @jax.jit
    def exactly(theta):
        p = system(theta, n, s)
        return jnp.vdot(
            weights, jnp.linalg.solve(p.K.rows(jnp.arange(n)) + p.noise * jnp.eye(n), p.b)
        )

    value, slope = jax.jit(jax.value_and_grad(ours))(POINT)
    np.testing.assert_allclose(value, exactly(POINT), rtol=1e-8)
    np.testing.assert_allclose(slope, central_difference(exactly, POINT), rtol=1e-6, atol=1e-8)


def test_products_never_need_the_whole_matrix():
    """Row by row, for one vector and several, in float32; and no array of n² numbers."""
    matrix = kernels.KernelMatrix(X.astype(np.float32), THETA, kernels.matern32)
    a = jnp.asarray(rng.normal(size=(N, 2)), jnp.float32)
    assert matrix(a).dtype == jnp.float32
    np.testing.assert_allclose(matrix(a), K @ a, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(matrix(a[:, 0]), K @ a[:, 0], rtol=1e-4, atol=1e-4)
    solver = kernels.DualDescent(batch_size=8)
    problem = kernels.System(matrix, a, NOISE)
    control = solver.control(problem, a)
    jaxpr = jax.make_jaxpr(solver.advance)(problem, a, control)
    assert max(v.aval.size for e in jaxpr.eqns for v in e.outvars) < N * N / 4


@pytest.mark.parametrize("kernel", [kernels.rbf, kernels.matern32])
def test_kernels_are_smooth_where_points_meet(kernel):
    theta = {"lengthscale": jnp.array([1.0, 2.0, 3.0]), "variance": 2.0}
    x = jnp.ones(3)
    np.testing.assert_allclose(kernel(x, x, theta), 2.0)
    np.testing.assert_array_equal(jax.grad(kernel)(x, x, theta), 0)
    slope = jax.grad(kernel, argnums=2)(x, 2 * x, theta)["lengthscale"]
    expected = central_difference(
        lambda s: kernel(x, 2 * x, theta | {"lengthscale": s}), jnp.array([1.0, 2.0, 3.0])
    )
    np.testing.assert_allclose(slope, expected, atol=1e-8)


def test_bad_systems_and_solvers_are_refused():
    with pytest.raises(ValueError, match="K must be square"):
        kernels.System(np.ones((2, 3)), np.ones(2), 1.0)
    with pytest.raises(ValueError, match="b must have one entry per row of K"):
        kernels.System(np.eye(3), np.ones(2), 1.0)
    with pytest.raises(ValueError, match="noise must be positive"):
        kernels.System(np.eye(3), np.ones(3), 0.0)
    with pytest.raises(TypeError, match="kernel must be a function"):
        kernels.KernelMatrix(np.ones((3, 1)), THETA, "rbf")
    with pytest.raises(ValueError, match="momentum"):
        kernels.DualDescent(momentum=1.0)
    with pytest.raises(ValueError, match="averaging"):
        kernels.DualDescent(averaging=1.5)
    with pytest.raises(TypeError, match="DualDescent solves"):
        jaxns.solve(jaxns.problems.lasso(X, Y, 0.1), kernels.DualDescent(), stop=steps(1))
    with pytest.raises(ValueError, match="ask for a number of steps"):
        jaxns.solve(kernels.System(np.eye(3), np.ones(3), 1.0), kernels.DualDescent())
