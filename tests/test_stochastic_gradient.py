"""Stochastic gradient descent: its draws, its averages, and its derivatives in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import N, P, X, central_difference, labels, y
from jax.experimental import sparse

import jaxns
from jaxns.functions import L1, Gram, LeastSquares, Logistic, SquaredL2

THETA = jnp.array([0.2, 1.1])


def build(theta):
    """Sparse least squares with a penalty and scaled targets."""
    return jaxns.Composite(LeastSquares(X, theta[1] * y, scale="mean"), L1(theta[0]))


def run(theta, steps=30, mode=jaxns.Piggyback(), problem=build, **options):
    options = {"batch_size": 3, "key": 5, **options}
    stop = jaxns.Stop(tol=None, max_steps=steps)
    return jaxns.solve(problem(theta), jaxns.StochasticGradient(**options), mode=mode, stop=stop).x


@pytest.mark.parametrize("weights", [None, jnp.linspace(0, 2, N)], ids=["", "weighted"])
@pytest.mark.parametrize("scale", ["sum", "mean"])
@pytest.mark.parametrize(
    "loss", [lambda **o: LeastSquares(X, y, **o), lambda **o: Logistic(X, labels, **o)]
)
def test_the_mean_over_rows_is_the_loss(loss, scale, weights):
    """Value and gradient; each row within its Lipschitz constant."""
    f, x = loss(scale=scale, weights=weights), jnp.linspace(-1, 1, P)
    batches = jnp.arange(N).reshape(-1, 3)
    values = jax.vmap(lambda index: f.rows(index)(x))(batches)
    gradients = jax.vmap(lambda index: f.rows(index).gradient(x))(batches)
    np.testing.assert_allclose(values.mean(), f(x), rtol=1e-13)
    np.testing.assert_allclose(gradients.mean(0), f.gradient(x), rtol=1e-12, atol=1e-13)
    for i, constant in enumerate(f.row_lipschitz()):
        hessian = f.rows(jnp.array([i])).hessian(x)
        assert np.linalg.eigvalsh(hessian)[-1] <= constant + 1e-12


def test_a_run_is_the_recursion_written_out():
    """Proximal steps on the rows that the key draws, with a decreasing stepsize; and their mean."""
    problem, stepsize, x = build(THETA), jaxns.Decreasing(0.3, 2.0), np.zeros(P)
    key, visited = jax.random.key(5), []
    for k in range(30):
        i = np.asarray(jax.random.randint(jax.random.fold_in(key, k), (3,), 0, N))
        eta = 0.3 / (k + 2)
        x = x - eta * X[i].T @ (X[i] @ x - 1.1 * y[i]) / 3
        x = np.sign(x) * np.maximum(np.abs(x) - eta * 0.2, 0)
        visited.append(x)
    np.testing.assert_allclose(run(THETA, stepsize=stepsize), x, atol=1e-13)
    mean = run(THETA, stepsize=stepsize, averaging=True)
    np.testing.assert_allclose(mean, np.mean(visited, axis=0), atol=1e-13)
    assert problem(x) < problem(np.zeros(P))


def test_piggyback_differentiates_the_draws_that_were_made():
    """Both directions and the path, in the problem and the schedule, against differences."""
    theta = jnp.append(THETA, 0.3)

    def x(theta, mode=jaxns.Piggyback()):
        stepsize = jaxns.Decreasing(theta[2], 2.0)
        return run(theta, mode=mode, stepsize=stepsize, averaging=True)

    expected = central_difference(x, theta)
    np.testing.assert_allclose(jax.jacrev(x)(theta), expected, atol=1e-9)
    both = jax.jacfwd(lambda t: x(t, jaxns.Piggyback(direction="both")))(theta)
    np.testing.assert_allclose(both, expected, atol=1e-9)
    solver = jaxns.StochasticGradient(jaxns.Decreasing(0.3, 2.0), 3, 5, averaging=True)
    path = jaxns.derivative_path(build, THETA, 30, solver=solver)
    np.testing.assert_allclose(path.x[-1], x(theta), atol=1e-14)
    np.testing.assert_allclose(path.jacobian[-1], expected[:, :2], atol=1e-9)


@pytest.mark.slow
def test_implicit_goes_through_the_full_objective():
    """At the end of a long decreasing run: within its distance of the closed form, ridge."""

    def ridge(theta):
        return jaxns.Composite(LeastSquares(X, theta[1] * y, scale="mean"), SquaredL2(theta[0]))

    def closed(theta):
        return jnp.linalg.solve(X.T @ X / N + theta[0] * jnp.eye(P), theta[1] * X.T @ y / N)

    def x(theta, mode=jaxns.Implicit()):
        options = {"stepsize": jaxns.Decreasing(4.0, 80.0), "averaging": True}
        return run(theta, 40_000, mode, ridge, **options)

    distance = np.linalg.norm(x(THETA) - closed(THETA))
    assert distance < 1e-2
    expected = jax.jacobian(closed)(THETA)
    found = jax.jacrev(x)(THETA)
    assert np.linalg.norm(found - expected) < 10 * distance
    # The map is that of proximal gradient descent: the same derivative as from its own solution.
    near = jax.jacrev(lambda t: x(t, jaxns.OneStep(steps=1500)))(THETA)
    np.testing.assert_allclose(near, found, atol=1e-9)


def test_keys_and_parameters_in_batches():
    """Over keys and θ at once; a seed, a typed key and a raw key are the same key."""
    thetas = jnp.stack([THETA, 1.3 * THETA])
    keys = jax.random.split(jax.random.key(1), 2)
    found = jax.jit(jax.vmap(lambda t, k: run(t, key=k)))(thetas, keys)
    for theta, key, x in zip(thetas, keys, found, strict=True):
        np.testing.assert_allclose(run(theta, key=key), x, atol=1e-13)
        np.testing.assert_array_equal(run(theta, key=jax.random.key_data(key)), run(theta, key=key))
    np.testing.assert_array_equal(run(THETA, key=7), run(THETA, key=jax.random.key(7)))
    np.testing.assert_array_equal(run(THETA, key=7), run(THETA, key=jnp.asarray(7)))
    assert np.any(run(THETA, key=7) != run(THETA, key=8))


def test_float32_stays_float32_with_a_schedule_of_optax():
    problem = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), build(THETA))
    stop = jaxns.Stop(tol=None, max_steps=20)
    schedule = optax.exponential_decay(0.3, 10, 0.5)
    solver = jaxns.StochasticGradient(schedule, 3, 5, averaging=True)
    x = jaxns.solve(problem, solver, stop=stop).x
    assert x.dtype == jnp.float32
    exact = jaxns.solve(build(THETA), solver, stop=stop).x
    np.testing.assert_allclose(x, exact, atol=1e-5)


def test_without_arguments():
    """The default step is safe: with noise it stays in a ball, without it arrives."""
    x = jnp.array([2.0, 0.0, -1.0, 0.5])
    stop = jaxns.Stop(tol=None, max_steps=4000)
    interpolated = jaxns.Composite(LeastSquares(X, X @ x))
    np.testing.assert_allclose(
        jaxns.solve(interpolated, jaxns.StochasticGradient(), stop=stop).x, x, atol=1e-9
    )
    noisy = jaxns.solve(jaxns.Composite(LeastSquares(X, y)), jaxns.StochasticGradient(), stop=stop)
    assert noisy.status == jaxns.Status.COMPLETED
    assert np.linalg.norm(noisy.x - np.linalg.lstsq(X, y)[0]) < 0.5


@pytest.mark.slow
def test_sparse_designs_and_quadratics_by_their_factor():
    """The same draws from a sparse matrix; rows of ½‖Ax‖² + qᵀx."""
    A = np.where(np.abs(X) > 0.5, X, 0)
    stop = jaxns.Stop(tol=None, max_steps=20)
    designs = A, sparse.BCOO.fromdense(A)
    dense, thin = (
        jaxns.solve(jaxns.Composite(LeastSquares(D, y)), jaxns.StochasticGradient(), stop=stop).x
        for D in designs
    )
    np.testing.assert_allclose(thin, dense, atol=1e-14)
    gram, x = Gram(X, jnp.ones(P)), jnp.linspace(-1, 1, P)
    of_rows = jax.vmap(lambda i: gram.rows(i[None]).gradient(x))(jnp.arange(N))
    np.testing.assert_allclose(of_rows.mean(0), gram.gradient(x), rtol=1e-12)


def test_what_cannot_be_right_is_said():
    with pytest.raises(ValueError, match=r"draws at random.*tol=None"):
        jaxns.solve(build(THETA), jaxns.StochasticGradient())
    with pytest.raises(ValueError, match="batch_size"):
        jaxns.StochasticGradient(batch_size=0)
    with pytest.raises(TypeError, match="key must be"):
        jaxns.StochasticGradient(key="seed")
    with pytest.raises(ValueError, match="k0 must be positive"):
        jaxns.Decreasing(1.0, 0.0)
    smooth = jaxns.Composite(jaxns.functions.Smooth(jnp.sum), L1(1.0))
    with pytest.raises(TypeError, match="StochasticGradient needs rows on f; Smooth has none"):
        jaxns.solve(smooth, jaxns.StochasticGradient(), X[0], stop=jaxns.Stop(tol=None))
