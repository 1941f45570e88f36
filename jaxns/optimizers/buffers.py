"""What the transformations have in common: parameters, rates and buffers of the right precision."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import validate
from jaxns.tree import Tree

Rate = float | Array | Callable[[Any], Any]  # a number, or a schedule: a function of k = 0, 1, …


def check_rate(name: str, rate: Rate) -> Rate:
    return rate if callable(rate) else validate.nonnegative(name, validate.scalar(name, rate))


def at(rate: Rate, count: Array) -> Any:
    """γ_k: of the step with the number k."""
    return rate(count) if callable(rate) else rate


def present(params: Tree | None, who: str) -> Tree:
    """The parameters, which optax lets one leave out."""
    if params is None:
        raise ValueError(
            f"{who} needs the parameters: call update(gradient, state, params), with params"
        )
    return params


def widen(x: Tree) -> Tree:
    """x in float32 at least: a bfloat16 buffer loses every change below 1/256 of what it holds."""
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.promote_types(a.dtype, jnp.float32)), x)


def cast(x: Tree, like: Tree) -> Tree:
    """x in the types of `like`, whatever the type of the rate that went into it."""
    return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), x, like)
