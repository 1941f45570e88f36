"""Linear solvers: each returns its residual and whether it converged, and is honest about it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxns import linear

N = 40
rng = np.random.default_rng(0)
_Q, _ = np.linalg.qr(rng.normal(size=(N, N)))
SYMMETRIC = jnp.asarray(_Q * np.linspace(0.05, 1, N) @ _Q.T)
GENERAL = jnp.eye(N) - 0.5 * jnp.asarray(rng.normal(size=(N, N))) / np.sqrt(N)
b = jnp.asarray(rng.normal(size=N))
SERVES = {
    "auto": GENERAL,
    "dense": GENERAL,
    "krylov": GENERAL,
    "cg": SYMMETRIC,
    "bicgstab": GENERAL,
    "gmres": GENERAL,
    "neumann": GENERAL,
    "anderson": GENERAL,
}


def solve(method, A, b, tol=1e-12, max_steps=10_000):
    return linear.solve(method, lambda v: A @ v, b, tol, max_steps)


def test_every_method_has_a_row():
    assert set(SERVES) == set(linear.METHODS)


@pytest.mark.parametrize("method", SERVES)
def test_solution_and_report(method):
    A = SERVES[method]
    x, report = solve(method, A, b)
    np.testing.assert_allclose(x, jnp.linalg.solve(A, b), rtol=1e-9)
    assert report.converged
    assert report.residual <= 1e-12
    actual = jnp.linalg.norm(b - A @ x) / jnp.linalg.norm(b)
    np.testing.assert_allclose(report.residual, actual, atol=1e-15)
    assert report.steps > 0


@pytest.mark.parametrize("method", SERVES)
@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_tiny_and_huge_right_hand_sides(method, size):
    x, report = solve(method, SERVES[method], size * b)
    assert report.converged
    np.testing.assert_allclose(x / size, jnp.linalg.solve(SERVES[method], b), rtol=1e-9)


@pytest.mark.parametrize("method", SERVES)
def test_zero_right_hand_side(method):
    x, report = solve(method, SERVES[method], 0 * b)
    np.testing.assert_array_equal(x, 0)
    assert report.converged


@pytest.mark.parametrize("method", ["cg", "bicgstab", "neumann"])
def test_too_few_steps_are_reported(method):
    x, report = solve(method, SERVES[method], b, max_steps=3)
    assert not report.converged
    assert report.residual > 1e-6
    assert jnp.linalg.norm(b - SERVES[method] @ x) <= jnp.linalg.norm(b) * (1 + 1e-12)


def test_gmres_restarts():
    """It works in cycles of 40 applications: one is not enough here, a few are."""
    n = 300
    A = jnp.eye(n) - 0.9 * jnp.roll(jnp.eye(n), 1, axis=0)
    rhs = jnp.ones(n).at[: n // 2].set(-1.0)
    x, report = solve("gmres", A, rhs, max_steps=40)
    assert not report.converged
    assert report.residual > 1e-6
    x, report = solve("gmres", A, rhs)
    assert report.converged
    np.testing.assert_allclose(x, jnp.linalg.solve(A, rhs), rtol=1e-9)


@pytest.mark.parametrize("method", ["auto", "dense", "bicgstab", "gmres"])
def test_singular_systems(method):
    """A consistent one is solved, by the dense method with least norm; another is reported."""
    singular = GENERAL.at[:, 0].set(GENERAL[:, 1])
    singular = singular.at[0].set(singular[1])
    consistent = singular @ b
    x, report = solve(method, singular, consistent)
    if method in ("auto", "dense"):
        assert report.converged
        np.testing.assert_allclose(x, jnp.linalg.pinv(singular) @ consistent, atol=1e-8)
    elif report.converged:
        np.testing.assert_allclose(singular @ x, consistent, atol=1e-7)
    _, report = solve(method, singular, jnp.ones(N).at[0].set(-5.0))
    assert not report.converged


def test_a_nearly_consistent_singular_system_has_its_least_norm_answer():
    """Two columns that are one but for rounding: what rounding left along them is not amplified."""
    duplicated = SYMMETRIC.at[:, 0].set(SYMMETRIC[:, 1]).at[0].set(SYMMETRIC[1])
    duplicated = duplicated.at[0, 0].set(duplicated[1, 1])
    rhs = (duplicated @ b).at[0].multiply(1 + 1e-11)
    x, _ = solve("dense", duplicated, rhs)
    assert jnp.linalg.norm(rhs - duplicated @ x) <= 1e-10 * jnp.linalg.norm(rhs)
    np.testing.assert_allclose(x, jnp.linalg.pinv(duplicated, rtol=1e-12) @ rhs, atol=1e-8)


@pytest.mark.parametrize("method", SERVES)
def test_no_answer_is_never_called_one(method):
    """NaN in the matrix, or a map that expands: reported, at once."""
    _, report = solve(method, SERVES[method].at[0, 0].set(jnp.nan), b)
    assert not report.converged
    _, report = solve("neumann", 4 * SYMMETRIC, b)
    assert not report.converged
    assert report.steps < 2000


@pytest.mark.parametrize("method", SERVES)
def test_float32_ends_where_rounding_does(method):
    """A tolerance out of reach of the type does not make the method spin."""
    A, rhs = SERVES[method].astype(jnp.float32), b.astype(jnp.float32)
    x, report = solve(method, A, rhs, tol=1e-14)
    assert x.dtype == jnp.float32
    assert report.converged
    assert report.steps < 1500
    np.testing.assert_allclose(x, jnp.linalg.solve(SERVES[method], b), rtol=2e-4, atol=2e-4)


def test_large_systems_use_krylov_methods_and_vmap():
    n = linear.DENSE_SIZE + 44
    scale = jnp.linspace(1, 3, n)
    right = jnp.asarray(rng.normal(size=(3, n)))
    x, report = jax.vmap(lambda c: linear.solve("auto", lambda v: scale * v, c, 1e-12, 5000))(right)
    np.testing.assert_allclose(x, right / scale, rtol=1e-10, atol=1e-12)
    assert report.converged.all()
    assert (report.steps < n).all()


def test_a_batch_of_dense_systems_does_not_deadlock():
    """One singular lane among sound ones: the repair is decided for all lanes together."""
    M = jnp.eye(50) + 0.05 * jnp.asarray(rng.normal(size=(64, 50, 50)))
    M = M.at[7, :, 0].set(M[7, :, 1])
    f = jax.jit(
        jax.vmap(lambda A: linear.solve("dense", lambda v: A @ v, A @ jnp.ones(50), 1e-12, 1))
    )
    for _ in range(5):
        x, report = f(M)
    assert report.converged.all()
    np.testing.assert_allclose(jnp.einsum("kij,kj->ki", M, x), M.sum(axis=2), atol=1e-9)


@pytest.mark.parametrize("method", SERVES)
def test_nan_stays_nan(method):
    x, report = solve(method, SERVES[method], b.at[3].set(jnp.nan))
    assert jnp.all(jnp.isnan(x))
    assert not report.converged
