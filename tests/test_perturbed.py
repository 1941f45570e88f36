"""Functions smoothed by noise, against the softmax and Gaussian integrals in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxns.nonsmooth import Normal, perturbed, perturbed_max

x = jnp.array([0.3, -0.2, 0.1])
key = jax.random.key(0)
SAMPLES, SIGMA = 40_000, 0.5


def highest(u):
    return jax.nn.one_hot(jnp.argmax(u), u.size)


def smooth_max(x, sigma=SIGMA):
    """E max(x + σZ) for Gumbel noise."""
    return sigma * (jax.nn.logsumexp(x / sigma) + np.euler_gamma)


def test_a_perturbed_argmax_is_a_softmax_and_so_are_its_derivatives():
    def argmax(x, sigma):
        return perturbed(highest, SAMPLES, sigma)(x, key)

    def softmax(x, sigma):
        return jax.nn.softmax(x / sigma)

    np.testing.assert_allclose(argmax(x, SIGMA), softmax(x, SIGMA), atol=0.01)
    ours, exact = (jax.jacobian(f, (0, 1))(x, SIGMA) for f in (argmax, softmax))
    for a, b in zip(ours, exact, strict=True):
        np.testing.assert_allclose(a, b, atol=0.04)


@pytest.mark.slow
def test_a_perturbed_max_has_the_argmax_of_its_own_samples_for_gradient():
    def largest(x, sigma):
        return perturbed_max(highest, SAMPLES, sigma)(x, key)

    np.testing.assert_allclose(largest(x, SIGMA), smooth_max(x), atol=0.01)
    slope, in_sigma = jax.grad(largest, (0, 1))(x, SIGMA)
    np.testing.assert_array_equal(slope, perturbed(highest, SAMPLES, SIGMA)(x, key))
    np.testing.assert_allclose(in_sigma, jax.grad(smooth_max, 1)(x, SIGMA), atol=0.02)
    np.testing.assert_allclose(
        jax.hessian(largest)(x, SIGMA), jax.hessian(smooth_max)(x), atol=0.04
    )


def test_trees_in_single_precision_without_baseline():
    """E f = f(x) + 2σ² for this f of independent normal numbers: the same gradient."""

    def f(u):
        return {"value": jnp.sum(u["a"] ** 2) + u["b"] * u["a"][0]}

    point = {"a": jnp.array([1.0, -0.5], jnp.float32), "b": jnp.array(0.3, jnp.float32)}
    smoothed = perturbed(f, SAMPLES, SIGMA, Normal(), baseline=False)
    value, slope = jax.value_and_grad(lambda p: smoothed(p, key)["value"])(point)
    assert value.dtype == slope["a"].dtype == jnp.float32
    np.testing.assert_allclose(value, f(point)["value"] + 2 * SIGMA**2, atol=0.05)
    np.testing.assert_allclose(slope["a"], [2.3, -1.0], atol=0.1)
    np.testing.assert_allclose(slope["b"], 1.0, atol=0.1)


def test_bad_arguments_are_named():
    for arguments, named in (((highest, 0), "samples"), ((highest, 5, 0.0), "sigma")):
        for make in (perturbed, perturbed_max):
            with pytest.raises(ValueError, match=named):
                make(*arguments)
    with pytest.raises(TypeError, match="function"):
        perturbed(3)
