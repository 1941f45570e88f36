"""The weight between primal and dual, adapted while the iteration settles and then frozen."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.struct import struct
from jaxns.tree import Tree

LARGEST = 10.0  # factor by which the weight changes at once
FROZEN = 1024  # steps after which it stays
TRAVELS = 1e-5  # a move longer than this fraction of the size counts when the other stands still


@struct
class Balance:
    """image: F at the point visited last.   weight: the one that made it.   step: how many so far.
    ratio: how far the dual moved in the last step, over how far the primal variable did.
    """

    image: Tree
    weight: Array
    step: Array
    ratio: Array

    def after(self, image: Tree, weight: Any, primal: "Move", dual: "Move") -> "Balance":
        """After a step with `weight` in which the two moved like that."""
        (p, p_travels), (d, d_travels) = primal, dual
        one_way = jnp.where(d_travels, jnp.inf, jnp.where(p_travels, 0, 1)).astype(p.dtype)
        both = (p > 0) & (d > 0)
        ratio = jnp.where(both, d / jnp.where(p > 0, p, 1), one_way)
        return Balance(image, weight, self.step + 1, ratio)


class Move(NamedTuple):
    """How far a variable moved, and whether that is much for its size."""

    length: Array
    travels: Array


def move(before: Tree, after: Tree, scale: Any = 1.0) -> Move:
    """From one to the other, in units of 1/scale."""
    length, size = tree.norm(tree.sub(after, before)), tree.norm(after)
    return Move(*lax.stop_gradient((scale * length, length > TRAVELS * size)))


def start(z: Tree, weight: Any) -> Balance:
    weight = lax.stop_gradient(jnp.asarray(weight, tree.dtype(z)))
    return Balance(z, weight, jnp.zeros((), jnp.int32), jnp.ones_like(weight))


def weight(control: Balance) -> Array:
    """For the next step: changed by the root of the ratio at steps 4, 8, 16, … FROZEN."""
    k = control.step
    due = (k >= 4) & (k <= FROZEN) & (k & (k - 1) == 0)
    change = jnp.clip(jnp.sqrt(control.ratio), 1 / LARGEST, LARGEST)
    return jnp.where(due, control.weight * change, control.weight)
