"""The weight between primal and dual, adapted while the iteration settles and then frozen."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.struct import struct
from jaxns.tree import Tree

LARGEST = 10.0  # factor by which the weight changes at once
FROZEN = 1024  # steps after which it stays
ROUNDING = 1e3  # times eps: moves that are no larger, for the size of what moves, are no moves


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
        """After a step with `weight` in which the two moved like that.

        Where one of them stands still their sizes are compared instead, so that neither outgrows
        the other; one that is zero and stays so leaves the whole move to the other.
        """
        moving = primal.moving & dual.moving
        d = jnp.where(moving, dual.length, dual.size)
        p = jnp.where(moving, primal.length, primal.size)
        ratio = jnp.where(d > 0, d, 1) / jnp.where(p > 0, p, 1)
        ratio = jnp.where((p == 0) & dual.moving, jnp.inf, ratio)
        ratio = jnp.where((d == 0) & primal.moving, 0, ratio)
        ratio = jnp.where((p == 0) & (d == 0), 1, ratio)
        return Balance(image, weight, self.step + 1, ratio)


class Move(NamedTuple):
    """How far a variable moved, how large it is, and whether the move is more than rounding."""

    length: Array
    size: Array
    moving: Array


def move(before: Tree, after: Tree, scale: Any = 1.0) -> Move:
    """From one to the other, in units of 1/scale."""
    length, size = tree.norm(tree.sub(after, before)), tree.norm(after)
    moving = length > ROUNDING * tree.eps(after) * size
    return Move(*lax.stop_gradient((scale * length, scale * size, moving)))


def start(z: Tree, weight: Any) -> Balance:
    weight = lax.stop_gradient(jnp.asarray(weight, tree.dtype(z)))
    return Balance(z, weight, jnp.zeros((), jnp.int32), jnp.ones_like(weight))


def weight(control: Balance) -> Array:
    """For the next step: changed by the root of the ratio at steps 4, 8, 16, … FROZEN."""
    k = control.step
    due = (k >= 4) & (k <= FROZEN) & (k & (k - 1) == 0)
    change = jnp.clip(jnp.sqrt(control.ratio), 1 / LARGEST, LARGEST)
    return jnp.where(due, control.weight * change, control.weight)
