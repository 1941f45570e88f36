"""`jaxopt.perturbations`: `jaxns.nonsmooth.perturbed` and `perturbed_max`."""

from collections.abc import Callable
from typing import Any

from jax import Array

from jaxns import nonsmooth


class Normal:
    """The normal distribution."""

    def sample(self, seed: Array, sample_shape: tuple[int, ...]) -> Array:
        return nonsmooth.Normal().sample(seed, sample_shape, float)

    def log_prob(self, inputs: Array) -> Array:
        return nonsmooth.Normal().log_prob(inputs)


class Gumbel:
    """The Gumbel distribution."""

    def sample(self, seed: Array, sample_shape: tuple[int, ...]) -> Array:
        return nonsmooth.Gumbel().sample(seed, sample_shape, float)

    def log_prob(self, inputs: Array) -> Array:
        return nonsmooth.Gumbel().log_prob(inputs)


class _Noise:
    """A distribution with JAXopt's keywords, as ours."""

    def __init__(self, noise: Any) -> None:
        self.noise = noise

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.noise.sample(seed=key, sample_shape=shape).astype(dtype)

    def log_prob(self, z: Array) -> Array:
        return self.noise.log_prob(z)


def make_perturbed_argmax(
    argmax_fun: Callable,
    num_samples: int = 1000,
    sigma: Any = 0.1,
    noise: Any = Gumbel(),
    control_variate: bool = False,
) -> Callable[[Any, Array], Any]:
    """(inputs, rng) ↦ the mean of argmax_fun(inputs + sigma · noise), with derivatives."""
    return make_perturbed_fun(argmax_fun, num_samples, sigma, noise, control_variate)


def make_perturbed_max(
    argmax_fun: Callable, num_samples: int = 1000, sigma: Any = 0.1, noise: Any = Gumbel()
) -> Callable[[Any, Array], Array]:
    """(inputs, rng) ↦ the mean of ⟨argmax_fun(u), u⟩, u = inputs + sigma · noise."""
    return nonsmooth.perturbed_max(argmax_fun, num_samples, sigma, _Noise(noise), baseline=False)


def make_perturbed_fun(
    fun: Callable,
    num_samples: int = 1000,
    sigma: Any = 0.1,
    noise: Any = Gumbel(),
    control_variate: bool = False,
) -> Callable[[Any, Array], Any]:
    """(inputs, rng) ↦ the mean of fun(inputs + sigma · noise), with derivatives of every order.

    noise: an object with `sample(seed=…, sample_shape=…)` and `log_prob(inputs)`, as in distrax.
    control_variate: subtract fun(inputs) in derivatives.
    """
    return nonsmooth.perturbed(fun, num_samples, sigma, _Noise(noise), baseline=control_variate)
