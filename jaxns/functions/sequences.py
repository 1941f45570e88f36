"""Penalties on sequences: total variation, the fused lasso, sorted ℓ1."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxns import tree, validate
from jaxns.functions.isotonic import block_gaps, block_means, block_places, pool_adjacent
from jaxns.functions.margins import from_threshold, nearest
from jaxns.functions.norms import per_leaf, soft_threshold, weighted_l1
from jaxns.struct import settle, struct
from jaxns.tree import Tree


@struct
class TotalVariation1D:
    """Σᵢ penaltyᵢ |xᵢ₊₁ − xᵢ| along the last axis of each leaf.

    penalty: a number ≥ 0, an array that broadcasts against the differences of x (one for each), or
        a pytree of these matching the structure of x.
    """

    penalty: Any

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))

    def __call__(self, x: Tree) -> Array:
        penalty = per_leaf("penalty", self.penalty, differences(x), "the differences of x")
        return weighted_l1(penalty, differences(x))

    def prox(self, x: Tree, step: Any) -> Tree:
        """Exact; O(n) with the dynamic program of Johnson (2013)."""
        penalty = per_leaf("penalty", self.penalty, differences(x), "the differences of x")
        return jax.tree.map(lambda p, xi: denoise(xi, step * p), penalty, x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """To where two segments just meet, or one just breaks."""
        penalty = per_leaf("penalty", self.penalty, differences(x), "the differences of x")
        return nearest(jax.tree.map(lambda p, xi: _segment_gaps(xi, step * p)[0], penalty, x))


@struct
class FusedLasso:
    """l1 Σⱼ |xⱼ| + Σᵢ tvᵢ |xᵢ₊₁ − xᵢ|.

    l1: one number ≥ 0 (or a pytree of them).   tv: as the penalty of `TotalVariation1D`.
    """

    l1: Any
    tv: Any

    def __post_init__(self) -> None:
        settle(self, "l1", validate.coefficients("l1", self.l1))
        settle(self, "tv", validate.coefficients("tv", self.tv))
        for leaf in jax.tree.leaves(self.l1):
            if jnp.ndim(leaf):
                raise ValueError(f"l1 must be one number for all of x, got shape {leaf.shape}")

    def __call__(self, x: Tree) -> Array:
        l1, tv = self._per_leaf(x)
        return weighted_l1(l1, x) + weighted_l1(tv, differences(x))

    def prox(self, x: Tree, step: Any) -> Tree:
        """Denoise, then soft-threshold (Friedman et al. 2007)."""
        l1, tv = self._per_leaf(x)
        return jax.tree.map(
            lambda a, b, xi: soft_threshold(denoise(xi, step * b), step * a), l1, tv, x
        )

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """That of the total variation, or to where a segment enters the dead zone."""

        def gaps(l1, tv, xi):
            of_segments, u, length = _segment_gaps(xi, step * tv)
            return of_segments, from_threshold(jnp.abs(u), step * l1) * jnp.sqrt(length)

        return nearest(jax.tree.map(gaps, *self._per_leaf(x), x))

    def _per_leaf(self, x: Tree) -> tuple[Tree, Tree]:
        tv = per_leaf("tv", self.tv, differences(x), "the differences of x")
        return per_leaf("l1", self.l1, x), tv


@struct
class Slope:
    """Σᵢ penaltiesᵢ |x|₍ᵢ₎, |x|₍₁₎ ≥ |x|₍₂₎ ≥ … the sorted magnitudes along the last axis (OWL).

    penalties: (n,), nonnegative and nonincreasing, or one number, which is `L1`; or a pytree of
        these matching the structure of x.
    """

    penalties: Any

    def __post_init__(self) -> None:
        settle(self, "penalties", validate.coefficients("penalties", self.penalties))
        for leaf in jax.tree.leaves(self.penalties):
            if not validate.is_known(leaf) or not jnp.ndim(leaf):
                continue
            known = np.asarray(leaf, float)
            if np.any(known[..., 1:] > known[..., :-1]):
                raise ValueError("penalties must be nonincreasing: the largest comes first")

    def __call__(self, x: Tree) -> Array:
        penalties = per_leaf("penalties", self.penalties, x)
        descending = jax.tree.map(lambda xi: -jnp.sort(-jnp.abs(xi), axis=-1), x)
        return weighted_l1(penalties, descending)

    def prox(self, x: Tree, step: Any) -> Tree:
        """Sort, shift, regress, cut, and put back (Bogdan et al. 2015)."""
        penalties = per_leaf("penalties", self.penalties, x)
        return jax.tree.map(lambda p, xi: _sorted_threshold(xi, step * p), penalties, x)


def differences(x: Tree) -> Tree:
    """xᵢ₊₁ − xᵢ along the last axis of each leaf."""
    return jax.tree.map(lambda xi: jnp.diff(xi, axis=-1), x)


def denoise(x: Array, t: Any) -> Array:
    """argmin_u ½ ‖u − x‖² + Σᵢ tᵢ |uᵢ₊₁ − uᵢ| along the last axis.

    On a segment where u is constant it is the mean of x, moved by what pulls at its two ends. The
    segments and the signs of the jumps between them are constant between kinks; u is computed, and
    differentiated, from them.
    """
    if x.shape[-1] < 2:
        return x
    t = jnp.broadcast_to(t, (*x.shape[:-1], x.shape[-1] - 1)).astype(x.dtype)
    signs = _jumps(lax.stop_gradient(x), lax.stop_gradient(t))
    pull, ends = t * signs, [(0, 0)] * (x.ndim - 1)
    pulled = x + jnp.pad(pull, [*ends, (0, 1)]) - jnp.pad(pull, [*ends, (1, 0)])
    return block_means(pulled, (signs != 0) | (t == 0))


def _segment_gaps(x: Array, t: Any) -> tuple[Array, Array, Array]:
    """How far x is from each kink of `denoise`; u; and the length of each entry's segment.

    With the multipliers z of the differences of u, z = Σ (u − x) up to there, a segment breaks
    where |z| = t.
    """
    if x.shape[-1] < 2:
        return jnp.full_like(x, jnp.inf), x, jnp.ones_like(x)
    t = jnp.broadcast_to(t, (*x.shape[:-1], x.shape[-1] - 1)).astype(x.dtype)
    u = denoise(x, t)
    split = (jnp.diff(u) != 0) | (t == 0)
    room = t - jnp.abs(jnp.cumsum(u - x, -1)[..., :-1])
    gaps = jnp.where(t > 0, block_gaps(u, split, room), jnp.inf)
    return gaps, u, block_places(split)[0].astype(x.dtype)


@partial(jnp.vectorize, signature="(n),(m)->(m)")
def _jumps(x: Array, t: Array) -> Array:
    """sign(uᵢ₊₁ − uᵢ), by dynamic programming (Johnson 2013, A dynamic programming algorithm for
    the fused lasso and L0-segmentation).

    δᵢ(u) is the derivative of the least cost of u₁ … uᵢ = u. It is increasing and piecewise linear,
    and δᵢ₊₁(u) = clip(δᵢ(u), −tᵢ, tᵢ) + u − xᵢ₊₁. Backwards, uᵢ = clip(uᵢ₊₁, lowᵢ, highᵢ) with
    δᵢ(lowᵢ) = −tᵢ and δᵢ(highᵢ) = tᵢ.

    knots: rows (place, change of slope, change of intercept) of δ, from `left` to `right`.
    """
    n = x.size
    x = x - x[0]  # loses no digits to an offset
    t = jnp.minimum(t, 3 * jnp.sum(jnp.abs(x)))  # beyond this nothing changes but rounding
    none = jnp.zeros_like(t, shape=1)

    def forward(carry, data):
        knots, left, right = carry
        xi, before, after = data  # δᵢ is u − xᵢ ∓ before on its outermost pieces

        def low_is_beyond(left, right, slope, intercept):
            return (left <= right) & (slope * knots[left, 0] + intercept <= -after)

        def high_is_before(left, right, slope, intercept):
            return (left <= right) & (slope * knots[right, 0] + intercept >= after)

        def outside(ends):
            left, right, first, last = ends
            return low_is_beyond(left, right, *first) | high_is_before(left, right, *last)

        def drop(ends):  # in one loop for both ends, so that XLA does not copy the knots
            left, right, first, last = ends
            at_left = low_is_beyond(left, right, *first)
            other = [last[0] - knots[right, 1], last[1] - knots[right, 2]]
            moved = [first[0] + knots[left, 1], first[1] + knots[left, 2]]
            first, last = tree.where(at_left, (moved, last), (first, other))
            return left + at_left, right - (1 - at_left), first, last

        one = jnp.ones_like(xi)
        ends = (left, right, [one, -before - xi], [one, before - xi])
        left, right, first, last = tree.while_loop(outside, drop, ends)
        low, high = (-after - first[1]) / first[0], (after - last[1]) / last[0]
        knots = knots.at[left - 1].set(jnp.stack([low, first[0], first[1] + after]))
        knots = knots.at[right + 1].set(jnp.stack([high, -last[0], after - last[1]]))
        return (knots, left - 1, right + 1), (low, high)

    start = (jnp.zeros_like(x, shape=(2 * n, 3)), jnp.asarray(n), jnp.asarray(n - 1))
    start = jax.tree.map(lambda leaf: tree.vary_like(leaf, x), start)
    data = (x, jnp.concatenate([none, t]), jnp.concatenate([t, none]))
    _, (low, high) = lax.scan(forward, start, data)

    def backward(u, bounds):
        low, high = bounds
        rises, falls = u > high, u < low
        u = jnp.where(rises, high, jnp.where(falls, low, u))
        return u, rises.astype(u.dtype) - falls.astype(u.dtype)

    return lax.scan(backward, low[-1], (low[:-1], high[:-1]), reverse=True)[1]


def _sorted_threshold(x: Array, t: Array) -> Array:
    """The regression of |x|₍ᵢ₎ − tᵢ on nonincreasing sequences, its positive part, x's order and
    signs. Magnitudes that meet stay together where their penalties differ, and are free of each
    other where these are equal, as they are under the ℓ1 norm."""
    if not x.shape[-1]:
        return x
    signs = jnp.where(x < 0, -1, 1).astype(x.dtype)
    order = lax.stop_gradient(jnp.argsort(-jnp.abs(x), axis=-1))
    t = jnp.broadcast_to(t, x.shape).astype(x.dtype)
    z = jnp.take_along_axis(signs * x, order, axis=-1) - t
    split = pool_adjacent(-z, jnp.ones_like(z), t[..., :-1] > t[..., 1:])
    u = block_means(z, split)
    u = jnp.where((u <= 0) & (block_means(t, split) > 0), 0, u)
    return signs * jnp.take_along_axis(u, jnp.argsort(order, axis=-1), axis=-1)
