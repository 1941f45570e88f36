"""Spectral functions: values, proximity operators, derivatives where eigenvalues meet."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference

from jaxns.functions import Nuclear
from jaxns.functions.spectral import spectral_map

SHAPES = [(4, 3), (3, 4), (3, 3)]
VALUES = {
    "generic": [3.0, 2.0, 0.2],
    "repeated": [2.0, 2.0, 0.1],
    "nearly repeated": [2.0, 2.0 + 1e-9, 0.1],
    "close": [2.0, 2.0 + 1e-5, 0.1],
    "all equal": [1.0, 1.0, 1.0],
    "rank one": [2.0, 0.0, 0.0],
    "zero": [0.0, 0.0, 0.0],
}
PENALTY = 0.7


@jax.jit
def prox(g, x, step):
    return g.prox(x, step)


@jax.jit
def directional(g, x, step, tangents):
    return jax.jvp(lambda g, x, step: g.prox(x, step), (g, x, step), tangents)[1]


@jax.jit
def pulled_back(g, x, step, cotangent):
    return jax.vjp(lambda g, x, step: g.prox(x, step), g, x, step)[1](cotangent)


def bases(shape, seed=0):
    random = np.random.RandomState(seed)
    return [np.linalg.qr(random.randn(n, n))[0][:, :3] for n in shape]


def matrix(shape, values):
    U, V = bases(shape)
    return U @ np.diag(values) @ V.T


def spectral_ball(radius):
    """Projection onto {‖y‖ ≤ radius} by squaring: y = x (xᵀx / radius²)^(−½) where that is > 1."""

    def project(x):
        w, V = np.linalg.eigh(x.T @ x)
        size = np.sqrt(np.maximum(w, 0))
        return x @ (V * np.minimum(1, radius / np.where(size == 0, 1, size))) @ V.T

    return project


def random_matrices(count):
    random = np.random.RandomState(1)
    for k in range(count):
        x = random.randn(4, 3) * random.choice([0.1, 1, 5])
        yield np.round(x) if k % 3 == 0 else x  # rank-deficient and repeated too


def test_prox_is_firmly_nonexpansive_optimal_and_dual_to_the_spectral_ball():
    g, matrices = Nuclear(PENALTY), list(random_matrices(40))
    for x, y in itertools.pairwise(matrices):
        for step in (0.3, 1.0):
            u, v = np.asarray(prox(g, x, step)), np.asarray(prox(g, y, step))
            assert np.vdot(u - v, u - v) <= np.vdot(u - v, x - y) + 1e-12
            s = (x - u) / step  # a subgradient: in the polar set, where ⟨s, u⟩ = g(u)
            assert np.linalg.norm(s, 2) <= PENALTY + 1e-12
            np.testing.assert_allclose(np.vdot(s, u), g(u), atol=1e-11)
            conjugate = x - step * np.asarray(prox(g, x / step, 1 / step))
            np.testing.assert_allclose(conjugate, spectral_ball(PENALTY)(x), atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_derivative_agrees_with_central_differences_at_ties_too(shape):
    random, step = np.random.RandomState(2), 0.8
    for values in VALUES.values():
        x, dx, w = matrix(shape, values), random.randn(*shape), random.randn(*shape)
        dp, dstep = random.rand(2)

        def moved(t, x=x, dx=dx, dp=dp, dstep=dstep):
            return prox(Nuclear(PENALTY + float(t) * dp), x + t * dx, step + float(t) * dstep)

        found = directional(Nuclear(PENALTY), x, step, (Nuclear(np.array(dp)), dx, dstep))
        np.testing.assert_allclose(found, central_difference(moved, 0.0), atol=1e-8)
        dg, back, dback = pulled_back(Nuclear(PENALTY), x, step, w)
        total = dg.penalty * dp + np.vdot(back, dx) + dback * dstep
        np.testing.assert_allclose(total, np.vdot(w, found), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_singular_value_on_the_threshold_is_kept_zero(shape):
    """x is on the edge in one direction: moving it there has derivative 0."""
    x = np.eye(*shape) * 2.0
    x[1, 1] = x[2, 2] = 0.5
    g, e = Nuclear(0.5), np.zeros(shape)
    e[1, 1] = 1.0
    np.testing.assert_array_equal(directional(g, x, 1.0, (Nuclear(0.0), e, 0.0)), 0 * e)
    e[0, 0] = 1.0
    expected = np.zeros(shape)
    expected[0, 0] = 1.0
    np.testing.assert_allclose(directional(g, x, 1.0, (Nuclear(0.0), e, 0.0)), expected, atol=1e-15)
    in_penalty = directional(g, x, 1.0, (Nuclear(1.0), 0 * e, 0.0))
    np.testing.assert_allclose(in_penalty, -expected, atol=1e-15)


def test_without_penalty_the_identity():
    for values in VALUES.values():
        x, dx = matrix((4, 3), values), np.random.RandomState(0).randn(4, 3)
        np.testing.assert_allclose(prox(Nuclear(0.0), x, 1.0), x, atol=1e-14)
        found = directional(Nuclear(0.0), x, 1.0, (Nuclear(0.0), dx, 0.0))
        np.testing.assert_allclose(found, dx, atol=1e-9)  # through divided differences
        np.testing.assert_array_equal(prox(Nuclear(1e9), x, 1.0), 0 * x)


def test_batches_types_trees_and_what_is_not_a_number():
    x = np.random.RandomState(0).randn(2, 3, 4, 3)
    penalty = np.array([0.5, 0.0, 2.0])
    u = prox(Nuclear(penalty), x, 0.8)
    for index in np.ndindex(2, 3):
        alone = prox(Nuclear(penalty[index[1]]), x[index], 0.8)
        np.testing.assert_allclose(u[index], alone, atol=1e-14)
    batched = jax.vmap(prox, (None, 0, None))(Nuclear(0.5), x[0], 0.8)
    np.testing.assert_allclose(batched, prox(Nuclear(0.5), x[0], 0.8), atol=1e-14)
    batched = jax.vmap(prox, (0, 0, None))(Nuclear(penalty), x[0], 0.8)
    np.testing.assert_allclose(batched, u[0], atol=1e-14)
    tree = {"a": x[0, 0], "b": (x[0, 1].T,)}
    whole = prox(Nuclear(0.5), tree, 0.8)
    np.testing.assert_allclose(whole["b"][0], prox(Nuclear(0.5), x[0, 1].T, 0.8), atol=1e-15)
    np.testing.assert_allclose(
        Nuclear(0.5)(tree), 0.5 * sum(np.linalg.norm(x[0, i], "nuc") for i in (0, 1))
    )

    x32 = jnp.asarray(x[0, 0], jnp.float32)
    for g in (Nuclear(0.5), Nuclear(np.array(0.5))):
        assert g(x32).dtype == prox(g, x32, 0.8).dtype == jnp.float32
    np.testing.assert_allclose(prox(Nuclear(0.5), x32, 0.8), u[0, 0], atol=2e-6)
    assert np.isnan(prox(Nuclear(0.5), np.full((4, 3), np.nan), 0.8)).all()
    assert np.isnan(prox(Nuclear(jnp.nan), x[0, 0], 0.8)).all()

    assert prox(Nuclear(0.5), np.zeros((3, 0)), 0.8).shape == (3, 0)
    np.testing.assert_allclose(prox(Nuclear(0.5), np.array([[-2.0]]), 0.8), [[-1.6]])
    with pytest.raises(ValueError, match="last two axes"):
        Nuclear(0.5).prox(np.ones(3), 1.0)


# Symmetric matrices -----------------------------------------------------------------------------

EIGENVALUES = {
    "generic": [1.0, 2.0, 3.0, -4.0],
    "repeated": [1.0, 1.0, 1.0, -2.0],
    "two pairs, nearly": [1.0, 1.0 + 1e-8, -1.0, -1.0 - 1e-10],
    "zero": [0.0, 0.0, 0.0, 0.0],
}


def logdet_prox(X, t):
    return spectral_map(X, lambda w: (w + jnp.sqrt(w**2 + 4 * t)) / 2)


def test_spectral_map_has_the_derivative_of_the_matrix_function():
    random = np.random.RandomState(0)
    Q = np.linalg.qr(random.randn(4, 4))[0]
    D, W = (random.randn(4, 4) for _ in range(2))  # not symmetric: the symmetric part counts

    @jax.jit
    def forward(X, t, dX, dt):
        return jax.jvp(logdet_prox, (X, t), (dX, dt))

    backward = jax.jit(lambda X, t, W: jax.vjp(logdet_prox, X, t)[1](W))
    for w in EIGENVALUES.values():
        X = Q @ np.diag(w) @ Q.T
        value, found = forward(X, 0.7, D, 1.3)
        np.testing.assert_allclose(value - 0.7 * np.linalg.inv(value), X, atol=1e-12)
        expected = central_difference(
            lambda h, X=X: forward(X + h * D, 0.7 + 1.3 * float(h), D, 1.3)[0], 0.0
        )
        np.testing.assert_allclose(found, expected, atol=1e-8)
        dX, dt = backward(X, 0.7, W)
        np.testing.assert_allclose(np.vdot(dX, D) + 1.3 * dt, np.vdot(W, found), atol=1e-12)


def test_spectral_map_across_a_kink():
    """The projection on the semidefinite cone: pairs on both sides of the kink, however close."""
    project = jax.jit(
        lambda X, D: jax.jvp(
            lambda X: spectral_map(X, lambda w: jnp.where(w <= 0, 0, w)), (X,), (D,)
        )[1]
    )
    D = np.array([[0.0, 1.0], [1.0, 0.0]])
    for small in (1.0, 1e-4, 1e-8):
        found = project(np.diag([3 * small, -small]), D)
        np.testing.assert_allclose(found, 0.75 * D, rtol=1e-9)
    np.testing.assert_array_equal(project(np.zeros((2, 2)), D), 0 * D)


def test_spectral_map_has_second_derivatives_where_eigenvalues_differ():
    X = np.random.RandomState(0).randn(3, 3)
    grad = jax.jit(jax.grad(lambda X: jnp.sum(jnp.sin(spectral_map(X, jnp.tanh)))))
    expected = central_difference(grad, X)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(grad))(X), expected, atol=1e-8)
    assert spectral_map(jnp.zeros((0, 0)), jnp.tanh).shape == (0, 0)
