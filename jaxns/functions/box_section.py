"""A box cut by a hyperplane: the constraints of an SVM's dual, or of a portfolio."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.functions.margins import nearest
from jaxns.functions.sets import Flat, bound, check_order, clip, from_bounds, indicator
from jaxns.struct import settle, struct


@struct
class BoxSection(Flat):
    """{x : lower ≤ x ≤ upper, aᵀx = b} along the last axis.

    lower, upper: numbers, or arrays that broadcast against x; ±inf for no bound.
    a: (p,).   b: a number.   Where the set is empty the projection is NaN.
    """

    lower: Any
    upper: Any
    a: Array
    b: float | Array

    def __post_init__(self) -> None:
        settle(self, "lower", bound("lower", self.lower))
        settle(self, "upper", bound("upper", self.upper))
        check_order(self.lower, self.upper)
        settle(self, "a", validate.array("a", self.a, 1))
        settle(self, "b", validate.scalar("b", self.b))

    def __call__(self, x: Array) -> Array:
        lower, upper, a, b = self._like(x)
        return indicator(jnp.all((lower <= x) & (x <= upper)) & jnp.all(_met(x, a, b)), x)

    def prox(self, x: Array, step: Any) -> Array:
        """clip(x − μa, lower, upper), with μ such that aᵀu = b.

        Once it is known which coordinates lie strictly between their bounds, μ has a closed form,
        and that is differentiated: a coordinate at a bound moves with the bound.
        """
        lower, upper, a, b = self._like(x)
        mu, first = multiplier(*map(lax.stop_gradient, (x, lower, upper, a, b)))
        v = lax.stop_gradient(x - mu * a)
        free = (lower < v) & (v < upper)
        # At a vertex the coordinate that leaves first absorbs a change of b.
        free |= first & ~jnp.any(free & (a != 0), -1, keepdims=True)
        ends = jnp.where(v < upper, lower, upper)
        u = jnp.where(free, x - _level(free, ends, x, a, b) * a, ends)
        u = u + lax.stop_gradient(clip(u, lower, upper) - u)  # to the last bit
        return jnp.where(_met(u, a, b), u, jnp.nan)

    def prox_margin(self, x: Array, step: Any) -> Array:
        """To where a coordinate of x − μa meets a bound; at a vertex, where no coordinate is free
        and μ may lie between two meetings, at least to where these coincide."""
        lower, upper, a, b = self._like(x)
        mu, _ = multiplier(x, lower, upper, a, b)
        v = x - mu * a
        free = (lower < v) & (v < upper) & (a != 0)
        square = jnp.sum(jnp.where(free, a**2, 0), -1, keepdims=True)
        part = a**2 / jnp.where(square > 0, square, 1)
        alone = free & (part == 1)  # held by aᵀx = b
        steepness = jnp.where(alone, 1, jnp.where(free, 1 - part, 1 + part))
        gaps = jnp.where(alone, jnp.inf, from_bounds(v, lower, upper) / jnp.sqrt(steepness))

        slope = jnp.where(a == 0, 1, a)
        meets = jnp.stack([(x - upper) / slope, (x - lower) / slope])
        least = jnp.min(jnp.where(a == 0, jnp.inf, jnp.abs(a)), -1)
        after = jnp.where((a != 0) & (meets > mu), meets - mu, jnp.inf)
        vertex = jnp.min(after, axis=(0, -1)) * least / 2**0.5
        of_others = jnp.min(jnp.where(a == 0, gaps, jnp.inf), -1)
        corner = square[..., 0] == 0
        return nearest(jnp.where(corner, jnp.minimum(vertex, of_others), jnp.min(gaps, -1)))

    def support(self, x: Array) -> Array:
        """The coordinates strictly between their bounds, which can move along {normal · d = 0}."""
        lower, upper, _, _ = self._like(x)
        return (lower < x) & (x < upper)

    def normal(self, x: Array) -> Array:
        return self._like(x)[2]

    def _like(self, x: Array) -> tuple[Array, Array, Array, Array]:
        lower, upper, a = (
            jnp.broadcast_to(jnp.asarray(part, x.dtype), x.shape)
            for part in (self.lower, self.upper, self.a)
        )
        return lower, upper, a, jnp.asarray(self.b, x.dtype)


def multiplier(x: Array, lower: Array, upper: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """μ with aᵀclip(x − μa, lower, upper) = b, and the coordinate that meets a bound nearest to it.

    The left side falls in μ, and is affine between the points where a coordinate meets a bound. A
    search among these, sorted, finds the piece on which it crosses b.
    """
    slope = jnp.where(a == 0, 1, a)
    meets = jnp.stack([(x - upper) / slope, (x - lower) / slope])
    meets = jnp.where(a == 0, jnp.inf, meets)
    enters, leaves = jnp.min(meets, 0), jnp.max(meets, 0)  # free in between
    points = jnp.sort(jnp.concatenate([enters, leaves], -1), -1)
    n = points.shape[-1]
    padded = jnp.pad(points, [(0, 0)] * (x.ndim - 1) + [(1, 1)], constant_values=jnp.inf)
    padded = padded.at[..., 0].set(-jnp.inf)

    def at(k):
        return jnp.take_along_axis(padded, k, -1)

    def halve(_, ends):
        low, high = ends
        k = (low + high + 1) // 2
        u = clip(x - jnp.where(a == 0, 0, at(k) * slope), lower, upper)
        above = jnp.sum(jnp.where(a == 0, 0, slope * u), -1, keepdims=True) > b
        return jnp.where(above, k, low), jnp.where(above, high, k)

    low = jnp.zeros((*x.shape[:-1], 1), jnp.int32)
    low, high = lax.fori_loop(0, n.bit_length(), halve, (low, low + n + 1))
    left, right = at(low), at(high)

    free = (a != 0) & (enters <= left) & (leaves >= right)
    before, after = jnp.where(a > 0, upper, lower), jnp.where(a > 0, lower, upper)
    ends = jnp.where(a == 0, 0, jnp.where(leaves <= left, after, before))
    corner = jnp.where(low == 0, right, left)  # b is the largest or the least value of aᵀu
    mu = jnp.where(jnp.any(free, -1, keepdims=True), _level(free, ends, x, a, b), corner)
    distance = jnp.where(a == 0, jnp.inf, jnp.min(jnp.abs(meets - mu), 0))
    nearest = jnp.arange(x.shape[-1]) == jnp.argmin(distance, -1, keepdims=True)
    return jnp.where(jnp.isinf(mu), 0, mu), nearest & (a != 0)  # infinite where all of a is 0


def _level(free: Array, ends: Array, x: Array, a: Array, b: Array) -> Array:
    """μ with Σ_free aⱼ(xⱼ − μaⱼ) + Σ_others aⱼ endⱼ = b."""
    total = jnp.sum(a * jnp.where(free, x, ends), -1, keepdims=True)
    square = jnp.sum(jnp.where(free, a**2, 0), -1, keepdims=True)
    return (total - b) / jnp.where(square > 0, square, 1)


def _met(x: Array, a: Array, b: Array) -> Array:
    off = jnp.abs(jnp.sum(a * x, -1, keepdims=True) - b)
    return off <= 1e2 * tree.eps(x) * (jnp.sum(jnp.abs(a * x), -1, keepdims=True) + jnp.abs(b))
