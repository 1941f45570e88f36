"""The exponential cone: epigraph of the perspective of exp."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.functions.sets import indicator
from jaxns.struct import struct


@struct
class ExponentialCone:
    """cl{(x, y, z) : y > 0, y exp(x/y) ≤ z} along a last axis of length 3.

    The projection is 0 on the polar cone, (x, 0, max(z, 0)) where x, y ≤ 0, and otherwise lies on
    the ray through (ρ, 1, exp ρ), ρ the root of an equation in one unknown (Friberg 2023,
    Mathematical Programming Computation 15).
    """

    def __call__(self, x: Array) -> Array:
        gap = jnp.linalg.norm(self.prox(x, 1.0) - x, axis=-1)
        return indicator(jnp.all(gap <= 1e2 * tree.eps(x) * jnp.linalg.norm(x, axis=-1)), x)

    def prox(self, x: Array, step: Any) -> Array:
        if x.shape[-1] != 3:
            raise ValueError(f"x must have a last axis of length 3, got shape {x.shape}")
        r, s, t = (x[..., i] for i in range(3))
        inside = (s > 0) & (s * jnp.exp(r / jnp.where(s > 0, s, 1)) < t)
        polar = (r > 0) & (r * jnp.exp(s / jnp.where(r > 0, r, 1) - 1) <= -t)
        flat = (r <= 0) & (s <= 0)
        outside = (~(inside | polar | flat))[..., None]
        v = jnp.where(outside, x, jnp.asarray([0, 1, 0], x.dtype))  # anything that has a root
        face = jnp.stack([jnp.where(r < 0, r, 0), jnp.zeros_like(s), jnp.where(t <= 0, 0, t)], -1)
        u = jnp.where(outside, on_ray(v), jnp.where(flat[..., None], face, 0))
        return jnp.where(inside[..., None], x, u)


def on_ray(v: Array) -> Array:
    """The projection of v on the ray through (ρ, 1, exp ρ)."""
    rho = root(v)
    unit = lax.stop_gradient(jnp.maximum(rho, 0))
    ray = jnp.stack([rho * jnp.exp(-unit), jnp.exp(-unit), jnp.exp(rho - unit)], -1)
    ray = ray / lax.stop_gradient(jnp.max(jnp.abs(ray), -1, keepdims=True))
    return jnp.sum(v * ray, -1, keepdims=True) / jnp.sum(ray**2, -1, keepdims=True) * ray


def residual(rho: Array, v: Array) -> Array:
    """Of v = y (ρ, 1, eᵖ) + μ (1, 1 − ρ, −e⁻ᵖ), p = ρ, in its last entry, times e^−|ρ|.

    The two vectors are orthogonal, one on the boundary of the cone and one on that of its polar;
    y and μ follow from the first two entries.
    """
    r, s, t = (v[..., i] for i in range(3))
    size = rho**2 - rho + 1
    y, mu = ((rho - 1) * r + s) / size, (r - rho * s) / size
    low = jnp.abs(rho)
    return y * jnp.exp(rho - low) - mu * jnp.exp(-rho - low) - t * jnp.exp(-low)


@jax.custom_jvp
def root(v: Array) -> Array:
    """ρ with residual 0 where y, μ > 0, by Newton's method within a bracket."""
    r, s, _ = (v[..., i] for i in range(3))
    far = 2 - jnp.log(jnp.finfo(v.dtype).tiny)  # there exp(±ρ) decides on the residual's sign
    right = jnp.where(s > 0, r / jnp.where(s > 0, s, 1), jnp.inf)  # μ = 0
    left = jnp.where(r > 0, 1 - s / jnp.where(r > 0, r, 1), -jnp.inf)  # y = 0
    left, right = (
        jnp.maximum(left, jnp.minimum(right, 0) - far),
        jnp.minimum(right, jnp.maximum(left, 0) + far),
    )

    def halve(carry):
        left, right, rho, last, steps = carry
        h, slope = jax.jvp(lambda rho: residual(rho, v), (rho,), (jnp.ones_like(rho),))
        left, right = jnp.where(h <= 0, rho, left), jnp.where(h >= 0, rho, right)
        newton = rho - h / jnp.where(slope == 0, 1, slope)
        good = (left <= newton) & (newton <= right) & (jnp.abs(newton - rho) <= last / 2)
        new = jnp.where(good & (slope != 0), newton, left + (right - left) / 2)
        return left, right, new, jnp.abs(new - rho), steps + 1

    def going(carry):
        left, right, rho, last, steps = carry
        close = 2 * tree.eps(v) * (1 + jnp.abs(rho))
        return jnp.any((last > close) & (right - left > close)) & (steps < 200)

    middle = left + (right - left) / 2
    start = (left, right, middle, right - left, jnp.zeros((), jnp.int32))
    return tree.while_loop(going, halve, start)[2]


@root.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """residual(ρ(v), v) = 0, differentiated."""
    (v,), (dv,) = primals, tangents
    rho = root(v)
    slope = jax.jvp(lambda rho: residual(rho, v), (rho,), (jnp.ones_like(rho),))[1]
    moved = jax.jvp(lambda v: residual(rho, v), (v,), (dv,))[1]
    return rho, -moved / slope
