"""The largest entry and the largest magnitude."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import validate
from jaxns.functions.balls import l1_gaps
from jaxns.functions.groups import Along
from jaxns.functions.margins import nearest
from jaxns.functions.norms import per_leaf, weighted_sum
from jaxns.functions.sets import along, simplex_gaps
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class Max:
    """penalty · maxⱼ xⱼ over each leaf, or Σ of these along `axis`.

    penalty: a number ≥ 0, one for each maximum, or a pytree of these matching the structure of x.
    axis: an axis of the leaves; None for the whole leaf.
    """

    penalty: Any
    axis: int | None = static(default=None)

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))
        validate.axis("axis", self.axis)

    def __call__(self, x: Tree) -> Array:
        largest = jax.tree.map(lambda xi: jnp.max(xi, axis=self.axis), x)
        return weighted_sum(self._per_maximum(x), largest)

    def prox(self, x: Tree, step: Any) -> Tree:
        """The largest entries are cut at a level where the cuts add up to step·penalty."""
        return jax.tree.map(lambda p, xi: _cut(xi, step * p, self.axis), self._per_maximum(x), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """What is cut off is the projection on a simplex, by Moreau's identity."""

        def gaps(p, xi):
            t = step * p[..., None]
            found = along(self.axis, simplex_gaps)(xi, jnp.where(t > 0, t, 1))
            return jnp.where(Along(self.axis).spread(p, xi) > 0, found, jnp.inf)

        return nearest(jax.tree.map(gaps, self._per_maximum(x), x))

    def _per_maximum(self, x: Tree) -> Tree:
        return per_leaf(
            "penalty", self.penalty, jax.tree.map(Along(self.axis).sums, x), "the maxima of x"
        )


@struct
class Linf:
    """penalty · maxⱼ |xⱼ| over each leaf, or Σ of these along `axis`; both as for `Max`."""

    penalty: Any
    axis: int | None = static(default=None)

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))
        validate.axis("axis", self.axis)

    def __call__(self, x: Tree) -> Array:
        largest = jax.tree.map(lambda xi: jnp.max(jnp.abs(xi), axis=self.axis, initial=0), x)
        return weighted_sum(self._per_norm(x), largest)

    def prox(self, x: Tree, step: Any) -> Tree:
        """As for `Max`, on magnitudes; 0 where these add up to no more than step·penalty."""

        lines = Along(self.axis)

        def cut(p, xi):
            signs, t = jnp.where(xi < 0, -1, 1).astype(xi.dtype), step * p
            size = lines.sums(jnp.abs(xi))
            zero = lines.spread((size <= t) & (t > 0), xi)
            return jnp.where(zero, 0, signs * _cut(signs * xi, t, self.axis))

        return jax.tree.map(cut, self._per_norm(x), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """What is cut off is the projection on an ℓ₁ ball, by Moreau's identity."""
        gaps = along(self.axis, l1_gaps)
        return nearest(
            jax.tree.map(lambda p, xi: gaps(xi, step * p[..., None]), self._per_norm(x), x)
        )

    def _per_norm(self, x: Tree) -> Tree:
        return per_leaf(
            "penalty", self.penalty, jax.tree.map(Along(self.axis).sums, x), "the norms of x"
        )


def _cut(x: Array, amount: Any, axis: int | None) -> Array:
    """min(x, level) with Σⱼ max(xⱼ − level, 0) = amount along the axis.

    An entry that is exactly at the level counts as below it.
    """
    if not x.size:
        return x
    values = jnp.moveaxis(x, axis, -1) if axis is not None else x.ravel()
    amount = jnp.asarray(amount, x.dtype)[..., None]
    # From the largest entry, no digits are lost to an offset.
    top = lax.stop_gradient(jnp.max(values, axis=-1, keepdims=True))
    depth = values - top
    descending = -jnp.sort(-lax.stop_gradient(depth), axis=-1)
    levels = (jnp.cumsum(descending, axis=-1) - amount) / jnp.arange(1, values.shape[-1] + 1)
    count = jnp.maximum(jnp.sum(descending > levels, axis=-1, keepdims=True), 1)
    below = depth <= lax.stop_gradient(jnp.take_along_axis(levels, count - 1, axis=-1))
    count = jnp.maximum(jnp.sum(~below, axis=-1, keepdims=True), 1)
    level = (jnp.sum(jnp.where(below, 0, depth), axis=-1, keepdims=True) - amount) / count
    cut = jnp.where(below, values, top + level).astype(x.dtype)
    return jnp.moveaxis(cut, -1, axis) if axis is not None else cut.reshape(x.shape)
