"""Isotonic regression, and the cone it projects onto."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.functions.margins import nearest
from jaxns.struct import static, struct
from jaxns.tree import Tree


def isotonic_regression(y: Array, weights: Any = None, increasing: bool = True) -> Array:
    """argmin of Σᵢ wᵢ (uᵢ − yᵢ)² over u₁ ≤ u₂ ≤ … along the last axis (≥ if not increasing).

    weights: positive, broadcasting against y; by default 1.

    Pool-adjacent-violators (Barlow et al. 1972) finds the blocks in O(n); u is the weighted mean of
    each block, and is differentiated as that. Neighbours that are equal already count as one block.
    """
    if not y.shape[-1]:
        return y
    weights = 1.0 if weights is None else validate.positive("weights", weights)
    weights = jnp.broadcast_to(weights, y.shape).astype(y.dtype)
    ordered = y if increasing else -y
    split = pool_adjacent(ordered, weights, jnp.ones(y.shape[-1] - 1, bool))
    return block_means(y, split, weights)


@struct
class Isotonic:
    """{x : x₁ ≤ x₂ ≤ …} along the last axis of each leaf, or x₁ ≥ x₂ ≥ … if not increasing."""

    increasing: bool = static(default=True)

    def __post_init__(self) -> None:
        if not isinstance(self.increasing, bool):
            raise TypeError(f"increasing must be True or False, got {self.increasing!r}")

    def __call__(self, x: Tree) -> Array:
        leaves = [self._in_order(leaf) for leaf in jax.tree.leaves(x)]
        return jnp.where(jnp.stack(leaves).all(), 0, jnp.inf).astype(tree.dtype(x))

    def prox(self, x: Tree, step: Any) -> Tree:
        """The mean of each block."""
        return jax.tree.map(partial(isotonic_regression, increasing=self.increasing), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """To where two blocks have the same mean, or the two parts of a block."""

        def gaps(xi):
            u = isotonic_regression(xi, increasing=self.increasing)
            return block_gaps(u, jnp.diff(u) != 0, jnp.abs(jnp.cumsum(xi - u, -1)[..., :-1]))

        return nearest(jax.tree.map(gaps, x))

    def _in_order(self, x: Array) -> Array:
        rises = jnp.diff(x, axis=-1) if self.increasing else -jnp.diff(x, axis=-1)
        return (rises >= -1e2 * tree.eps(x) * jnp.max(jnp.abs(x), initial=0)).all()


def block_gaps(u: Array, split: Array, room: Array) -> Array:
    """How far an input is from where a split vanishes, or a new one appears: (…, n − 1).

    Between blocks of lengths a and b the jump of the means u has a gradient of length √(1/a + 1/b).
    Inside a block of length n, what the first k entries exceed its mean by, which is allowed to
    change by `room`, has one of length √(k (n − k)/n).
    """
    length, k = (part.astype(u.dtype) for part in block_places(split))
    across = jnp.abs(jnp.diff(u)) / jnp.sqrt(1 / length[..., :-1] + 1 / length[..., 1:])
    steepness = jnp.where(split, 1, (k * (length - k) / length)[..., :-1])
    return jnp.where(split, across, room / jnp.sqrt(steepness))


def block_places(split: Array) -> tuple[Array, Array]:
    """For each entry the length of its block, and its place in it, from 1."""
    edge = jnp.ones((*split.shape[:-1], 1), bool)
    index, last = jnp.arange(split.shape[-1] + 1), split.ndim - 1
    start = lax.cummax(jnp.where(jnp.concatenate([edge, split], -1), index, 0), axis=last)
    ends = jnp.where(jnp.concatenate([split, edge], -1), index, split.shape[-1])
    end = lax.cummin(ends, axis=last, reverse=True)
    return end - start + 1, index - start + 1


def block_means(y: Array, split: Array, weights: Any = None) -> Array:
    """Each entry replaced by the weighted mean of its block; differentiable in y and the weights.

    split: (…, n − 1) booleans along the last axis, whether a block ends between two neighbours.
    """
    weights = jnp.ones_like(y) if weights is None else weights
    return _block_means(y, split, weights)


@partial(jnp.vectorize, signature="(n),(m),(n)->(n)")
def _block_means(y: Array, split: Array, weights: Array) -> Array:
    first = jnp.concatenate([jnp.ones_like(split, shape=1), split])
    block = jnp.cumsum(first) - 1
    # Relative to the first entry of its block: equal entries stay what they are, to the last digit.
    start = lax.cummax(jnp.where(first, jnp.arange(y.size), 0))
    base = lax.stop_gradient(y)[start]

    def sums(values: Array) -> Array:
        return jax.ops.segment_sum(values, block, y.size, indices_are_sorted=True)[block]

    return base + sums(weights * (y - base)) / sums(weights)


def pool_adjacent(y: Array, weights: Array, sticky: Array) -> Array:
    """Where the blocks of the nondecreasing regression of y end: (…, n − 1) booleans.

    sticky: (n − 1,) booleans along the last axis, whether two blocks that meet there with one and
        the same mean are one block. Derivatives do not go through: which blocks there are is
        constant between kinks.
    """
    if not sticky.shape[-1]:
        return jnp.zeros((*y.shape[:-1], 0), bool)
    return _pool_adjacent(*map(lax.stop_gradient, (y, weights, sticky)))


@partial(jnp.vectorize, signature="(n),(n),(m)->(m)")
def _pool_adjacent(y: Array, weights: Array, sticky: Array) -> Array:
    """A stack of blocks; each new entry swallows the blocks before it that are not below it."""
    n = y.size

    def push(stack, entry):
        means, masses, starts, height = stack

        def swallows(block):
            height, start, mean, _ = block
            before = means[height - 1]
            # Not `before >= mean`: a NaN swallows, and is seen.
            meets = ~(before < mean) & ((before != mean) | sticky[start - 1])
            return (height > 0) & meets

        def swallow(block):
            height, start, mean, mass = block
            height, start, more = height - 1, starts[height - 1], masses[height - 1]
            mean = mean + more / (mass + more) * (means[height] - mean)
            return height, start, mean, mass + more

        height, start, mean, mass = tree.while_loop(swallows, swallow, (height, *entry))
        means, masses = means.at[height].set(mean), masses.at[height].set(mass)
        return (means, masses, starts.at[height].set(start), height + 1), None

    places = jnp.arange(n)
    empty = (jnp.zeros_like(y), jnp.zeros_like(weights), jnp.zeros_like(places), jnp.zeros_like(n))
    empty = jax.tree.map(lambda leaf: tree.vary_like(leaf, y), empty)
    *_, starts, height = lax.scan(push, empty, (places, y, weights))[0]
    ends = jnp.zeros(n, bool).at[jnp.where(places < height, starts, n)].set(True, mode="drop")
    return ends[1:]
