"""Convex sets as functions: 0 on the set, infinity off it; the prox is the projection."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import tree, validate
from jaxns.functions.margins import nearest
from jaxns.functions.norms import per_leaf, repeat
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


def indicator(inside: Any, x: Tree) -> Array:
    """0 where inside, infinity elsewhere, in the type of x."""
    return jnp.where(inside, 0, jnp.inf).astype(tree.dtype(x))


class Flat:
    """A set has no curvature: what Newton methods add on the support of x. For sets to inherit."""

    def curvature(self, x: Tree, v: Tree) -> Tree:
        return tree.zeros_like(v)


@struct
class NonNegative(Flat):
    """{x : xⱼ ≥ 0}."""

    def separate(self, x: Array) -> tuple[None, "NonNegative"]:
        return None, self

    def __call__(self, x: Tree) -> Array:
        return indicator(holds(lambda xi: xi >= 0, x), x)

    def prox(self, x: Tree, step: Any) -> Tree:
        return jax.tree.map(lambda xi: jnp.where(xi <= 0, 0, xi).astype(xi.dtype), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        return nearest(jax.tree.map(jnp.abs, x))

    def support(self, x: Tree) -> Tree:
        """The coordinates that can move both ways."""
        return jax.tree.map(lambda xi: xi > 0, x)


@struct
class Box(Flat):
    """{x : lower ≤ xⱼ ≤ upper}.   lower, upper: numbers, arrays or pytrees; ±inf for no bound."""

    lower: Any = -jnp.inf
    upper: Any = jnp.inf

    def __post_init__(self) -> None:
        settle(self, "lower", bound("lower", self.lower))
        settle(self, "upper", bound("upper", self.upper))
        check_order(self.lower, self.upper)

    def separate(self, x: Array) -> tuple[None, "Box"]:
        return None, Box(repeat("lower", self.lower, x), repeat("upper", self.upper, x))

    def __call__(self, x: Tree) -> Array:
        lower, upper = per_leaf("lower", self.lower, x), per_leaf("upper", self.upper, x)
        inside = holds(lambda xi, lo, up: (lo <= xi) & (xi <= up), x, lower, upper)
        return indicator(inside, x)

    def prox(self, x: Tree, step: Any) -> Tree:
        """Clip; at a bound the derivative is the bound's."""
        lower, upper = per_leaf("lower", self.lower, x), per_leaf("upper", self.upper, x)
        return jax.tree.map(clip, x, lower, upper)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """To the nearest bound, of the coordinates that have some room."""
        lower, upper = per_leaf("lower", self.lower, x), per_leaf("upper", self.upper, x)
        return nearest(jax.tree.map(from_bounds, x, lower, upper))

    def support(self, x: Tree) -> Tree:
        """The coordinates strictly inside their bounds."""
        lower, upper = per_leaf("lower", self.lower, x), per_leaf("upper", self.upper, x)
        return jax.tree.map(lambda xi, lo, up: (lo < xi) & (xi < up), x, lower, upper)


@struct
class Simplex(Flat):
    """{x : xⱼ ≥ 0, Σⱼ xⱼ = radius} along an axis of each leaf.

    radius: a number > 0.   axis: an integer, by default the last; None for all entries of a leaf.
    """

    radius: float | Array = 1.0
    axis: int | None = static(default=-1)

    def __post_init__(self) -> None:
        radius = validate.positive("radius", validate.scalar("radius", self.radius))
        settle(self, "radius", radius)
        settle(self, "axis", validate.axis("axis", self.axis))

    def __call__(self, x: Tree) -> Array:
        def on_simplex(xi):
            off = jnp.abs(jnp.sum(xi, self.axis) - self.radius)
            return (xi >= 0).all(self.axis) & (off <= 1e2 * tree.eps(xi) * self.radius)

        return indicator(holds(on_simplex, x), x)

    def prox(self, x: Tree, step: Any) -> Tree:
        project = along(self.axis, onto_simplex)
        return jax.tree.map(lambda xi: project(xi, jnp.asarray(self.radius, xi.dtype)), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        gaps = along(self.axis, simplex_gaps)
        return nearest(jax.tree.map(lambda xi: gaps(xi, jnp.asarray(self.radius, xi.dtype)), x))

    def support(self, x: Tree) -> Tree:
        """The coordinates that can move, along {normal · d = 0}."""
        return jax.tree.map(lambda xi: xi > 0, x)

    def normal(self, x: Tree) -> Tree:
        return jax.tree.map(jnp.ones_like, x)


def onto_simplex(x: Array, radius: Array) -> Array:
    """max(x − τ, 0) with τ from the sorted entries (Held, Wolfe and Crowder 1974), by rows."""
    # The projection of x + c is that of x: from its largest entry, x loses no digits.
    x = x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    descending = -jnp.sort(-x, axis=-1)
    count = jnp.arange(1, x.shape[-1] + 1)
    thresholds = (jnp.cumsum(descending, axis=-1) - radius) / count
    active = jnp.sum(descending > thresholds, axis=-1, keepdims=True)
    tau = jnp.take_along_axis(thresholds, jnp.maximum(active, 1) - 1, axis=-1)
    return jnp.where(x <= tau, 0, x - tau)


def simplex_gaps(x: Array, radius: Array) -> Array:
    """How far x is from where each entry enters, or leaves, the face that it is projected onto.

    On a face of k entries τ = (Σ xᵢ − radius)/k, and xⱼ − τ has a gradient of length √(1 − 1/k) for
    j on the face, √(1 + 1/k) off it.
    """
    u = onto_simplex(x, radius)
    on = u > 0
    count = jnp.sum(on, axis=-1, keepdims=True)
    tau = (jnp.sum(jnp.where(on, x, 0), axis=-1, keepdims=True) - radius) / count
    alone = on & (count == 1)  # cannot leave
    steepness = jnp.where(on, 1 - 1 / count, 1 + 1 / count)
    steepness = jnp.sqrt(jnp.where(alone, 1, steepness)).astype(x.dtype)
    return jnp.where(alone, jnp.inf, jnp.abs(jnp.where(on, u, x - tau)) / steepness)


def along(axis: int | None, by_rows: Callable[..., Array]) -> Callable[..., Array]:
    """A map of the last axis, applied along another one; along all entries for None."""

    def moved(x, *args):
        if axis is None:
            return by_rows(jnp.ravel(x), *args).reshape(x.shape)
        return jnp.moveaxis(by_rows(jnp.moveaxis(x, axis, -1), *args), -1, axis)

    return moved


def clip(x: Array, lower: Array, upper: Array) -> Array:
    clipped = jnp.where(x > lower, jnp.where(x < upper, x, upper), lower)  # a NaN bound stays NaN
    return jnp.where(jnp.isnan(x), x, clipped)


def from_bounds(x: Array, lower: Array, upper: Array) -> Array:
    """The distance from the nearer of two bounds; infinity where they leave no room."""
    gap = jnp.minimum(jnp.abs(x - lower), jnp.abs(x - upper))
    return jnp.where(lower < upper, gap, jnp.inf)


def bound(name: str, value: Any) -> Any:
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, list):
        return validate.array(name, value)
    if not jax.tree.leaves(value):
        raise TypeError(f"{name} must be a number, an array or a pytree of them, got {value!r}")
    return jax.tree.map(lambda v: validate.array(name, v), value)


def check_order(lower: Any, upper: Any) -> None:
    """Compare where the two can be: leaf by leaf, one number standing for all leaves."""
    if isinstance(lower, float):
        lower = tree.spread(lower, upper)
    if isinstance(upper, float):
        upper = tree.spread(upper, lower)
    if jax.tree.structure(lower) != jax.tree.structure(upper):
        return  # one of them does not fit x, which will say so
    for low, high in zip(jax.tree.leaves(lower), jax.tree.leaves(upper), strict=True):
        try:
            np.broadcast_shapes(np.shape(low), np.shape(high))
        except ValueError:
            raise ValueError(
                "lower and upper must broadcast against each other, "
                f"got shapes {np.shape(low)} and {np.shape(high)}"
            ) from None
        known = validate.is_known(low) and validate.is_known(high)
        if known and not np.all(np.asarray(low) <= np.asarray(high)):
            raise ValueError("lower must not exceed upper")


def holds(test: Any, *trees: Tree) -> Array:
    return jnp.stack([jnp.all(t) for t in jax.tree.leaves(jax.tree.map(test, *trees))]).all()
