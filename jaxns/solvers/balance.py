"""The weight between primal and dual, adapted while the iteration settles and then frozen."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.struct import struct
from jaxns.tree import Tree

LARGEST = 10.0  # factor by which the weight changes at once
FROZEN = 1024  # steps after which it stays


@struct
class Balance:
    """image: F at the point visited last.   weight: the one that made it.   step: how many so far.
    ratio: how far the dual moved in the last step, over how far the primal variable did.
    """

    image: Tree
    weight: Array
    step: Array
    ratio: Array

    def after(self, image: Tree, weight: Any, primal: Tree, dual: Tree) -> "Balance":
        """After a step with `weight` in which the two moved by `primal` and `dual`."""
        p, d = lax.stop_gradient((tree.norm(primal), tree.norm(dual)))
        moved = (p > 0) & (d > 0)
        ratio = jnp.where(moved, d, 1) / jnp.where(moved, p, 1)
        return Balance(image, weight, self.step + 1, ratio)


def start(z: Tree, weight: Any) -> Balance:
    weight = lax.stop_gradient(jnp.asarray(weight, tree.dtype(z)))
    return Balance(z, weight, jnp.zeros((), jnp.int32), jnp.ones_like(weight))


def weight(control: Balance) -> Array:
    """For the next step: changed by the root of the ratio at steps 4, 8, 16, … FROZEN."""
    k = control.step
    due = (k >= 4) & (k <= FROZEN) & (k & (k - 1) == 0)
    change = jnp.clip(jnp.sqrt(control.ratio), 1 / LARGEST, LARGEST)
    return jnp.where(due, control.weight * change, control.weight)
