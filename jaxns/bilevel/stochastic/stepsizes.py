"""Stepsizes: numbers, or functions of the number of the step."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns import tree, validate
from jaxns.struct import settle, struct
from jaxns.tree import Tree

Stepsize = float | Array | Callable[[Any], Any]


@struct
class Power:
    """The stepsizes c/(k + 1)^exponent of k = 0, 1, …

    c: positive.   exponent: nonnegative; 1/2 is the one of the theorem on `SOBA`.
    """

    c: float | Array
    exponent: float | Array = 0.5

    def __post_init__(self) -> None:
        settle(self, "c", validate.positive("c", validate.scalar("c", self.c)))
        exponent = validate.scalar("exponent", self.exponent)
        settle(self, "exponent", validate.nonnegative("exponent", exponent))

    def __call__(self, k: Any) -> Array:
        return self.c / jnp.asarray(k + 1, float) ** self.exponent


def check(method: Any, *names: str) -> None:
    """Refuse stepsizes that are neither positive numbers nor functions (for `__post_init__`)."""
    for name in names:
        value = getattr(method, name)
        if not callable(value):
            settle(method, name, validate.positive(name, validate.scalar(name, value)))


def check_count(method: Any, *names: str) -> None:
    """Refuse numbers of inner steps that are not positive integers (for `__post_init__`)."""
    for name in names:
        count = validate.positive(name, validate.integer(name, getattr(method, name)))
        settle(method, name, count)


def at(stepsize: Stepsize, k: Array, x: Tree) -> Array:
    """The stepsize of step k, in the type of x."""
    return jnp.asarray(stepsize(k) if callable(stepsize) else stepsize, tree.dtype(x))
