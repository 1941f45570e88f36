"""Nesterov's extrapolation with adaptive restart: a control that any solver's map can carry."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.struct import struct
from jaxns.tree import Tree


@struct
class Momentum:
    """image: x_k = F(y_{k−1}).   t: Nesterov's t_k.   stepsize: the last one, when adaptive."""

    image: Tree
    t: Array
    stepsize: Array | None = None


def start(x: Tree, stepsize: Array | None = None) -> Momentum:
    return Momentum(x, jnp.ones((), tree.dtype(x)), stepsize)


def extrapolate(
    y: Tree, x: Tree, before: Momentum, accelerate: bool = True, stepsize: Any = None
) -> tuple[Tree, Momentum]:
    """The next point y⁺ = x + (t − 1)/t⁺ (x − x_before), t⁺ = (1 + √(1 + 4t²))/2, after x = F(y).

    Restarted with t = 1 when the step from y to x and the momentum disagree,
    ⟨y − x, x − x_before⟩ > 0 (O'Donoghue and Candès 2015, gradient scheme).
    """
    stepsize = None if before.stepsize is None else stepsize
    if not accelerate:
        return x, Momentum(x, before.t, stepsize)
    move = tree.sub(x, before.image)
    uphill = tree.vdot(tree.sub(y, x), move) > 0
    t = jnp.where(uphill, 1, before.t)
    t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
    return tree.axpy((t - 1) / t_next, move, x), Momentum(x, t_next, stepsize)
