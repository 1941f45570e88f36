"""Where hyperparameters live: smooth maps u ↦ θ from free variables onto sets.

The outer optimiser moves u, so that every θ it visits is admissible and no projection is needed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import validate
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class Free:
    """θ = u: any number."""

    def constrain(self, u: Array) -> Array:
        return u

    def free(self, theta: Array) -> Array:
        return theta


@struct
class Positive:
    """θ = exp u > 0. A step in u multiplies θ: what penalties, whose scale is unknown, ask for."""

    def constrain(self, u: Array) -> Array:
        return jnp.exp(u)

    def free(self, theta: Array) -> Array:
        _inside(theta, theta > 0, "positive")
        return jnp.log(theta)


@struct
class Box:
    """low < θ < high, by θ = low + (high − low) / (1 + exp(−u)).

    log: whether that holds for the logarithms instead, for low > 0.
    """

    low: float | Array
    high: float | Array
    log: bool = static(default=False)

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bound = getattr(self, name)
            number = isinstance(bound, (int, float))
            bound = validate.scalar(name, bound) if number else validate.array(name, bound)
            settle(self, name, validate.positive(name, bound) if self.log else bound)
        ordered = jnp.all(jnp.asarray(self.low) < self.high)
        if validate.is_known(ordered) and not ordered:
            raise ValueError(f"high must be above low, got low={self.low}, high={self.high}")

    def constrain(self, u: Array) -> Array:
        low, high = self.ends()
        x = low + (high - low) * jax.nn.sigmoid(u)
        return jnp.exp(x) if self.log else x

    def free(self, theta: Array) -> Array:
        _inside(theta, (theta > self.low) & (theta < self.high), f"in ({self.low}, {self.high})")
        low, high = self.ends()
        x = jnp.log(theta) if self.log else theta
        return jax.scipy.special.logit((x - low) / (high - low))

    def ends(self) -> tuple[Any, Any]:
        """Low and high, or their logarithms: between them u ↦ θ, or u ↦ log θ, is a sigmoid."""
        return (jnp.log(self.low), jnp.log(self.high)) if self.log else (self.low, self.high)


def constrain(space: Any, u: Tree) -> Tree:
    """θ of u, leaf by leaf; `space` may end before u does and then holds for what follows."""
    return _each("constrain", space, u)


def free(space: Any, theta: Tree) -> Tree:
    """u of θ. Raises `ValueError` where θ is not in the space."""
    return _each("free", space, theta)


def _each(method: str, space: Any, x: Tree) -> Tree:
    def apply(part, below):
        return jax.tree.map(getattr(part, method), below)

    return jax.tree.map(apply, space, x, is_leaf=is_space)


def is_space(part: Any) -> bool:
    return hasattr(part, "constrain")


def _inside(theta: Array, inside: Array, where: str) -> None:
    if validate.is_known(inside) and not np.all(inside):
        raise ValueError(f"theta0 must be {where}, got {theta}")
