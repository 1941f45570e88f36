"""Activations and functions of order with a chosen derivative at kinks and ties."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jaxns import nonsmooth

INF, NAN = np.inf, np.nan
SMOOTH = np.random.RandomState(0).uniform(0.1, 5.9, (4, 50))
SMOOTH = np.concatenate([SMOOTH[0], -SMOOTH[1], SMOOTH[2] + 6])  # no kink, after rounding either

# ours with elements s for its kinks, the twin in JAX, and the kinks
ACTIVATIONS = {
    "relu": (nonsmooth.relu, jax.nn.relu, (0.0,)),
    "relu6": (nonsmooth.relu6, jax.nn.relu6, (0.0, 6.0)),
    "leaky_relu": (lambda x, *s, **o: nonsmooth.leaky_relu(x, 0.01, *s, **o),
                   jax.nn.leaky_relu, (0.0,)),
}  # fmt: skip
each_activation = pytest.mark.parametrize("name", ACTIVATIONS)


@each_activation
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_away_from_kinks_an_activation_is_that_of_jax_to_the_last_bit(name, dtype):
    ours, twin, kinks = ACTIVATIONS[name]
    x = jnp.asarray(SMOOTH, dtype)
    cotangent = jnp.asarray(SMOOTH[::-1], dtype)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def derivatives(x, s):
        value, back = jax.vjp(lambda x: ours(x, *[s] * len(kinks), conservative=False), x)
        return value, back(cotangent)[0]

    value, back = jax.vjp(twin, x)
    values, slopes = derivatives(x, jnp.asarray([0.0, 0.3, 1.0, 50.0, -2.0]))
    assert values.dtype == slopes.dtype == dtype
    for found, slope in zip(values, slopes, strict=True):
        np.testing.assert_array_equal(found, value)
        np.testing.assert_array_equal(slope, back(cotangent)[0])


@each_activation
def test_at_a_kink_an_activation_has_the_chosen_derivative(name):
    """One element for all, one for each entry, and at random; the default is that of JAX."""
    ours, twin, kinks = ACTIVATIONS[name]
    for k, kink in enumerate(kinks):
        x = jnp.full(4, kink).at[0].set(-0.0 if kink == 0 else kink)
        for s in (0.25, np.array([0.25, 0.5, 1.0, 0.75]), jax.random.uniform(jax.random.key(0), 4)):
            elements = [0.0 if name == "relu6" else s] * len(kinks)
            elements[k] = s
            slope = jax.grad(lambda x, e=elements: ours(x, *e).sum())(x)
            np.testing.assert_array_equal(slope, np.broadcast_to(s, 4))
        assert jax.grad(ours)(kink) == jax.grad(twin)(kink)


def test_the_slope_of_a_leaky_relu_is_an_argument():
    x = jnp.asarray([-2.0, 0.0, 3.0])
    found = jax.jacobian(lambda a: nonsmooth.leaky_relu(x, a, at_zero=0.5))(0.2)
    np.testing.assert_array_equal(found, [-2.0, 0.0, 0.0])
    assert jax.jit(nonsmooth.leaky_relu)(-1.0, 0.2, 0.5) == -0.2  # traced, so not checked


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_sign_is_that_of_the_stored_preactivation(dtype):
    """What is rounded to 0 is at the kink, also where XLA could keep more digits in between."""
    tiny = float(jnp.finfo(dtype).smallest_subnormal) / 4

    @jax.jit
    def slope(x, s):
        return jax.grad(lambda x: nonsmooth.relu(x.astype(dtype), s).astype(jnp.float32).sum())(x)

    x = jnp.asarray([tiny, -tiny, 1.0, -1.0], jnp.float32)
    np.testing.assert_array_equal(slope(x, 0.5), [0.5, 0.5, 1, 0])


def test_a_network_has_one_gradient_unless_a_preactivation_is_zero():
    """Bit for bit that with `jax.nn.relu`, whatever s is."""
    random = np.random.RandomState(1)
    X = random.randn(16, 5).astype(np.float32)
    W, w = random.randn(5, 7).astype(np.float32), random.randn(7).astype(np.float32)

    @jax.jit
    def gradient(W, s):
        return jax.grad(lambda W: jnp.sum((nonsmooth.relu(X @ W, s) @ w) ** 2))(W)

    plain = jax.jit(jax.grad(lambda W: jnp.sum((jax.nn.relu(X @ W) @ w) ** 2)))(W)
    for s in (0.0, 0.5, 1.0):
        np.testing.assert_array_equal(gradient(W, s), plain)
    at_zero = [gradient(W.copy() * (np.arange(7) > 0), s) for s in (0.0, 1.0)]
    assert not np.array_equal(*at_zero)
    np.testing.assert_array_equal(at_zero[0][:, 1:], at_zero[1][:, 1:])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: nonsmooth.relu(jnp.array([NAN, INF, -INF, -0.0])), [NAN, INF, 0, 0]),
        (lambda: nonsmooth.relu6(jnp.array([NAN, INF, -INF])), [NAN, 6, 0]),
        (lambda: nonsmooth.leaky_relu(jnp.array([NAN, INF, -INF])), [NAN, INF, -INF]),
        (lambda: jax.vmap(jax.grad(nonsmooth.relu))(jnp.array([INF, -INF])), [1, 0]),
        (lambda: jax.vjp(nonsmooth.relu, -1.0)[1](INF), [0]),
        (lambda: nonsmooth.norm(jnp.array([[NAN, 1], [INF, 1], [0, 0]]), 1), [NAN, INF, 0]),
        (lambda: nonsmooth.norm(jnp.array([1e-200, 0])), 1e-200),
        (lambda: nonsmooth.norm(jnp.array([300, 400], jnp.float16)), 500),
        (lambda: nonsmooth.norm(jnp.zeros((2, 0)), 1), [0, 0]),
        (lambda: nonsmooth.sort(jnp.array([2, NAN, -INF, 1])), [-INF, 1, 2, NAN]),
        (lambda: nonsmooth.sort(jnp.zeros((3, 0))), np.zeros((3, 0))),
        (lambda: jax.grad(lambda x: nonsmooth.sort(x)[0])(jnp.array([1, NAN])), [1, 0]),
        (lambda: nonsmooth.maxpool(jnp.array([[1.0], [NAN], [2.0], [INF]]), (2,)), [[NAN], [INF]]),
        (lambda: nonsmooth.maxpool(jnp.array([[-INF], [-INF]]), (2,)), [[-INF]]),
        (lambda: nonsmooth.maxpool(jnp.zeros((0, 4, 1)), (2,)), np.zeros((0, 2, 1))),
    ],
)  # fmt: skip
def test_degenerate_arguments(found, expected):
    np.testing.assert_array_equal(found(), expected)


# The norm


def test_the_norm_has_a_derivative_at_zero():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [3e-200, 4e-200]])
    element = jnp.asarray([0.6, -0.8])

    @jax.jit
    def slopes(x):
        rows = partial(nonsmooth.norm, axis=-1, at_zero=element)
        whole = jax.grad(nonsmooth.norm)
        return rows(x), jax.grad(lambda x: rows(x).sum())(x), whole(x), whole(0 * x)

    lengths, by_rows, whole, at_zero = slopes(x)
    np.testing.assert_allclose(lengths, [5, 0, 5e-200], rtol=1e-15)
    np.testing.assert_allclose(by_rows, [[0.6, 0.8], element, [0.6, 0.8]], rtol=1e-15)
    np.testing.assert_allclose(whole, x / 5, rtol=1e-15)
    np.testing.assert_array_equal(at_zero, 0)


# Pooling and sorting


def images(levels):
    """With ties if there are few levels."""
    return np.rint(levels * np.random.RandomState(0).rand(2, 4, 5, 2)) / levels


def weights(shape):
    return np.random.RandomState(1).rand(*shape)


def shared_by_loops(x, window, strides):
    """The gradient of ⟨weights, pooled x⟩, with that of each window shared by its largest."""
    gradient, sizes = np.zeros_like(x), zip(x.shape[1:3], window, strides, strict=True)
    shape = tuple((h - w) // s + 1 for h, w, s in sizes)
    for place, weight in np.ndenumerate(weights((x.shape[0], *shape, x.shape[3]))):
        n, i, j, c = place
        starts = (i * strides[0], j * strides[1])
        rows, columns = (slice(a, a + w) for a, w in zip(starts, window, strict=True))
        ties = x[n, rows, columns, c] == x[n, rows, columns, c].max()
        gradient[n, rows, columns, c] += weight * ties / ties.sum()
    return gradient


@pytest.mark.parametrize(("window", "strides"), [((2, 2), None), ((3, 2), (1, 2))])
def test_maxpool_is_the_usual_one(window, strides):
    """flax's, whose winner is the first; β = 1 shares; and any other β is their combination."""
    x, steps = images(levels=2), strides or window

    @jax.jit
    def usual(x):
        y, back = jax.vjp(lambda x: linen.max_pool(x, window, steps), x)
        return y, back(weights(y.shape))[0]

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def ours(x, beta):
        pool = partial(nonsmooth.maxpool, window=window, strides=strides, beta=beta)
        y, back = jax.vjp(pool, x)
        return y, back(weights(y.shape))[0]

    betas = np.array([0.0, 1.0, 0.25, 100.0])
    (y, first), shared = usual(x), shared_by_loops(x, window, steps)
    values, slopes = ours(x, betas)
    for beta, value, slope in zip(betas, values, slopes, strict=True):
        np.testing.assert_array_equal(value, y)
        np.testing.assert_allclose(slope, beta * shared + (1 - beta) * first, atol=1e-13)
    assert np.linalg.norm(shared) < np.linalg.norm(first)


def test_without_ties_pooling_and_sorting_do_not_depend_on_beta():
    x = images(levels=10**6)

    @jax.jit
    @jax.vmap
    def slopes(beta):
        def both(x):
            pooled = nonsmooth.maxpool(x, (2, 2), beta=beta)
            return [pooled, nonsmooth.sort(x, 1, beta)]

        y, back = jax.vjp(both, x)
        return back([weights(leaf.shape) for leaf in y])[0]

    found = slopes(np.array([0.0, 0.3, 1.0, 1e4]))
    np.testing.assert_array_equal(found, np.broadcast_to(found[0], found.shape))


def test_sorting_shares_over_the_orders_that_there_are():
    x = np.array([2.0, 1.0, 2.0, 0.5, 2.0])
    orders = [p for p in itertools.permutations(range(5)) if np.all(np.diff(x[list(p)]) >= 0)]
    shared, first = np.mean([np.eye(5)[list(p)] for p in orders], axis=0), np.eye(5)[np.argsort(x)]
    betas = np.array([0.0, 0.5, 1.0])

    @jax.jit
    @jax.vmap
    def derivatives(beta):
        order = partial(nonsmooth.sort, beta=beta)
        return order(x), jax.jacfwd(order)(x), jax.jacrev(order)(x)

    for beta, value, *jacobians in zip(betas, *derivatives(betas), strict=True):
        np.testing.assert_array_equal(value, np.sort(x))
        for jacobian in jacobians:
            np.testing.assert_allclose(jacobian, beta * shared + (1 - beta) * first, atol=1e-15)
    np.testing.assert_array_equal(jax.jacobian(jnp.sort)(x), first)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: nonsmooth.relu(1.0, 2.0), "at_zero"),
        (lambda: nonsmooth.relu(1.0, NAN, conservative=False), "at_zero"),
        (lambda: nonsmooth.relu6(1.0, 0.0, -1.0), "at_six"),
        (lambda: nonsmooth.leaky_relu(1.0, 0.1, 0.05), "at_zero"),
        (lambda: nonsmooth.leaky_relu(1.0, 2.0, 0.5), "at_zero"),
        (lambda: nonsmooth.norm(np.ones(4), at_zero=0.6), "at_zero"),
        (lambda: nonsmooth.sort(np.ones(4), beta=2.0), "beta"),
        (lambda: nonsmooth.maxpool(np.ones((4, 4, 1)), (2, 2), beta=-0.1), "beta"),
        (lambda: nonsmooth.maxpool(np.ones((4, 4, 1)), (2, 5)), "window"),
        (lambda: nonsmooth.maxpool(np.ones((4, 4, 1)), (0, 2)), "window"),
        (lambda: nonsmooth.maxpool(np.ones((4, 1)), (2, 2)), "window"),
        (lambda: nonsmooth.maxpool(np.ones((4, 4, 1)), ()), "window"),
        (lambda: nonsmooth.maxpool(np.ones((4, 4, 1)), (2, 2), (1,)), "strides"),
    ],
)
def test_wrong_arguments(call, named):
    with pytest.raises(ValueError, match=named):
        call()
