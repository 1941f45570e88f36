r"""Functions smoothed by noise: derivatives from values at random points (arXiv 2002.08676).

A piecewise constant f, such as the argmax of a linear program, has derivative 0 almost everywhere.
Its mean under noise, f_σ(x) = E f(x + σZ), is as smooth as the density exp(−ν) of Z:

    f_σ(x) = ∫ f(u) p(u; x, σ) du,   p(u; x, σ) = σ⁻ⁿ exp(−ν((u − x)/σ)),

so that ∂f_σ(x) = E f(x + σZ) ∇ν(Z)ᵀ / σ (Section 3 there), and so on for all orders.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.tree import Tree


class Noise(Protocol):
    """A distribution of real numbers; those of the entries of x are independent."""

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array: ...

    def log_prob(self, z: Array) -> Array:
        """−ν(z), up to a constant."""
        ...


class Normal:
    """exp(−z²/2)/√2π."""

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return jax.random.normal(key, shape, dtype)

    def log_prob(self, z: Array) -> Array:
        return -(z**2) / 2


class Gumbel:
    """exp(−z − exp(−z)): under it the mean argmax over the simplex is softmax(x/σ)."""

    def sample(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return jax.random.gumbel(key, shape, dtype)

    def log_prob(self, z: Array) -> Array:
        return -z - jnp.exp(-z)


def perturbed(
    f: Callable[[Tree], Tree],
    samples: int = 1000,
    sigma: float | Array = 0.1,
    noise: Noise = Gumbel(),
    baseline: bool = True,
) -> Callable[[Tree, Array], Tree]:
    r"""(x, key) ↦ (1/N) Σᵢ f(x + σZᵢ), with unbiased derivatives in x and σ of every order.

    Value and derivatives are of the same samples: f is evaluated at uᵢ = x + σZᵢ, held fixed, and
    weighted by wᵢ = p(uᵢ; x, σ)/p(uᵢ), of value 1, which is what is differentiated (the importance
    weights of arXiv 1802.05098). f itself need not have a derivative, and none is taken of it.

    f: pytree ↦ pytree, under `vmap`.   samples: N.   sigma: σ > 0.
    noise: what Z is distributed as: `Gumbel()`, `Normal()`, or an object with their two methods.
    baseline: subtract f(x) from f(uᵢ) in derivatives, which leaves their mean as it is and makes
        their variance bounded as σ → 0 where f is smooth.
    """
    _check(f, samples, sigma)

    def smoothed(x: Tree, key: Array) -> Tree:
        x, sigma_, z, u = _points(x, sigma, noise, samples, key)
        log_p = _log_density(noise, x, sigma_, z)
        weight = jnp.exp(log_p - lax.stop_gradient(log_p))
        values = lax.stop_gradient(jax.vmap(f)(u))
        if not baseline:
            return jax.tree.map(lambda v: _mean(weight, v), values)
        base = lax.stop_gradient(f(lax.stop_gradient(x)))
        return jax.tree.map(lambda v, b: _mean(weight, v - b) + b, values, base)

    return smoothed


def perturbed_max(
    argmax: Callable[[Tree], Tree],
    samples: int = 1000,
    sigma: float | Array = 0.1,
    noise: Noise = Gumbel(),
    baseline: bool = True,
) -> Callable[[Tree, Array], Array]:
    r"""(x, key) ↦ (1/N) Σᵢ max_y ⟨y, x + σZᵢ⟩, for argmax(x) = argmax_y ⟨y, x⟩ over a fixed set.

    Its gradient is `perturbed(argmax, …)(x, key)`, of the same samples (Section 2 there), and so on
    for its Hessian; in σ its derivative is the mean of ⟨y, Z⟩.

    argmax: the shape of x is kept, and nothing differentiated is closed over.
    The others: as for `perturbed`.
    """
    _check(argmax, samples, sigma)

    @jax.custom_jvp
    def smoothed(x: Tree, sigma: Array, key: Array) -> Array:
        *_, u = _points(x, sigma, noise, samples, key)
        return jnp.mean(jax.vmap(tree.vdot)(jax.vmap(argmax)(u), u))

    @smoothed.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
        x, sigma, key = primals
        dx, dsigma, _ = tangents
        y = perturbed(argmax, samples, sigma, noise, baseline)(x, key)
        value = smoothed(x, sigma, key)
        return value, tree.vdot(y, dx) + (value - tree.vdot(y, x)) / sigma * dsigma

    def of(x: Tree, key: Array) -> Array:
        x = _floats(x)
        return smoothed(x, jnp.asarray(sigma, tree.dtype(x)), key)

    return of


def _points(x: Tree, sigma: Any, noise: Noise, samples: int, key: Array) -> Any:
    """x and σ in the type of x, the samples Z, and u = x + σZ, the latter two held fixed."""
    x = _floats(x)
    sigma = jnp.asarray(sigma, tree.dtype(x))
    leaves, structure = jax.tree.flatten(x)
    keys = jax.random.split(key, len(leaves)) if len(leaves) > 1 else [key]
    drawn = [
        noise.sample(k, (samples, *leaf.shape), leaf.dtype)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    z = jax.tree.unflatten(structure, drawn)
    u = jax.tree.map(lambda xi, zi: xi + sigma * zi, x, z)
    return x, sigma, lax.stop_gradient(z), lax.stop_gradient(u)


def _log_density(noise: Noise, x: Tree, sigma: Array, z: Tree) -> Array:
    """log p(uᵢ; x, σ) of each sample, up to a constant."""
    x0, sigma0 = lax.stop_gradient((x, sigma))

    def of_leaf(xi, x0i, zi):
        where = (sigma0 * zi - (xi - x0i)) / sigma  # (u − x)/σ, without rounding u
        return jnp.sum(noise.log_prob(where), tuple(range(1, zi.ndim))) - xi.size * jnp.log(sigma)

    return sum(jax.tree.leaves(jax.tree.map(of_leaf, x, x0, z)))  # pyright: ignore[reportReturnType]


def _mean(weight: Array, values: Array) -> Array:
    return jnp.tensordot(weight, values.astype(weight.dtype), (0, 0)) / len(weight)


def _floats(x: Tree) -> Tree:
    return jax.tree.map(lambda xi: jnp.asarray(xi, jnp.result_type(xi, float)), x)


def _check(f: Any, samples: Any, sigma: Any) -> None:
    if not callable(f):
        raise TypeError(f"the first argument must be a function of x, got {type(f).__name__}")
    validate.positive("samples", validate.integer("samples", samples))
    validate.positive("sigma", validate.scalar("sigma", sigma))
