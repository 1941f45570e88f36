"""Derivatives of high order in one pass, as in n-TangentProp (arXiv 2412.09752)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns

_rng = np.random.default_rng(0)
WIDTH, METHODS = 8, ("taylor", "nested")
SHAPES = ((WIDTH, 1), (WIDTH, WIDTH), (WIDTH, WIDTH), (1, WIDTH))
WEIGHTS = [
    (jnp.asarray(_rng.normal(size=shape) / np.sqrt(shape[1])), jnp.asarray(_rng.normal(size=n)))
    for shape in SHAPES
    for n in shape[:1]
]


def network(weights, x):
    """Three layers of tanh and a last one without, from a number to a number."""
    h = x[None]
    for W, b in weights[:-1]:
        h = jnp.tanh(W @ h + b)
    W, b = weights[-1]
    return (W @ h + b)[0]


def nested_grad(f, order):
    for _ in range(order):
        f = jax.grad(f)
    return f


def equations(f, x):
    """The number of primitive operations of a program."""

    def count(jaxpr):
        inner = [[v.jaxpr for v in e.params.values() if hasattr(v, "jaxpr")] for e in jaxpr.eqns]
        return sum(sum(map(count, each)) if each else 1 for each in inner)

    return count(jax.make_jaxpr(f)(x).jaxpr)


@pytest.mark.parametrize("layers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_equal_to_nested_grad(layers):
    x, weights = jnp.asarray(0.3), WEIGHTS[:layers] + WEIGHTS[-1:]

    def net(x):
        return network(weights, x)

    found = jax.jit(lambda x: jaxns.derivatives(net, x, 6))(x)
    expected = [net(x), *(jax.jit(nested_grad(net, k))(x) for k in range(1, 7))]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_cost_grows_like_the_square_of_the_order():
    """And that of nested differentiation like a power; the two cross between 3 and 5."""
    orders, x = np.arange(1, 9), jnp.asarray(0.3)

    def net(x):
        return network(WEIGHTS, x)

    taylor = np.array([equations(lambda x, n=n: jaxns.derivatives(net, x, n), x) for n in orders])
    nested = np.array([equations(nested_grad(net, n), x) for n in orders[:5]])
    assert np.all(nested[1:] / nested[:-1] > 2)
    assert np.all(np.abs(np.diff(taylor, 3)) <= 0.02 * taylor[3:])  # a quadratic in the order
    assert taylor[-1] < 40 * taylor[0]
    assert 3 <= orders[np.argmax(taylor[:5] < nested)] <= 5


@pytest.mark.parametrize("method", METHODS)
def test_polynomials_have_the_derivatives_of_the_textbook(method):
    """Along a direction of a pytree; exact, and zero beyond the degree."""
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.asarray(3.0)}
    v = {"a": jnp.array([0.0, 1.0]), "b": jnp.asarray(2.0)}

    def f(x):
        return {"product": x["a"] * x["b"] ** 2, "constant": jnp.ones(())}

    found = jaxns.derivatives(f, x, 4, v, method)
    t = np.polynomial.Polynomial([0, 1])
    exact = [1 * (3 + 2 * t) ** 2, (2 + t) * (3 + 2 * t) ** 2]
    for j, p in enumerate(exact):
        np.testing.assert_allclose(
            found["product"][:, j], [p.deriv(k)(0) if k else p(0) for k in range(5)], atol=1e-12
        )
    np.testing.assert_array_equal(found["constant"], [1, 0, 0, 0, 0])


def test_reverse_mode_goes_through():
    """The gradient of the loss of a differential equation, over a batch of points."""
    points = jnp.linspace(-1, 1, 4)

    def loss(weights, method):
        def residual(x):
            u, first, second, third = jaxns.derivatives(
                lambda x: network(weights, x), x, 3, method=method
            )
            return third + u * second - first**2

        return jnp.mean(jax.vmap(residual)(points) ** 2)

    found, expected = (jax.jit(jax.grad(loss), static_argnums=1)(WEIGHTS, m) for m in METHODS)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_points_side_by_side_and_types():
    x = jnp.linspace(0, 1, 5, dtype=jnp.float32)
    found = jaxns.derivatives(jnp.sin, x, 3)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, [np.sin(x), np.cos(x), -np.sin(x), -np.cos(x)], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(jaxns.derivatives(jnp.sin, x, 0), jnp.sin(x)[None])


def test_what_it_cannot_do_is_said():
    def doubled(x):
        return jax.lax.while_loop(lambda c: c < 1, lambda c: 2 * c, x)

    with pytest.raises(TypeError, match=r"no rule for while, .* method='nested'"):
        jaxns.derivatives(doubled, 0.3, 2)
    np.testing.assert_allclose(jaxns.derivatives(doubled, 0.3, 2, method="nested"), [1.2, 4, 0])
    with pytest.raises(TypeError, match="a derivative rule of its own"):
        jaxns.derivatives(jax.nn.softplus, 0.3, 2)
    with pytest.raises(ValueError, match="order must be nonnegative"):
        jaxns.derivatives(jnp.sin, 0.3, -1)
    with pytest.raises(ValueError, match="did you mean 'taylor'"):
        jaxns.derivatives(jnp.sin, 0.3, 1, method="tailor")
    with pytest.raises(ValueError, match=r"direction must have the shape of x, \(2,\)"):
        jaxns.derivatives(jnp.sin, jnp.ones(2), 1, 1.0)
    with pytest.raises(ValueError, match="direction must have the structure of x"):
        jaxns.derivatives(jnp.sum, jnp.ones(2), 1, {"a": jnp.ones(2)})
