"""How far a point is from the nearest kink.

`g.prox_margin(x, step)` is the Euclidean distance, over the whole pytree, from x to the nearest
point where prox(·, step) is not differentiable, or a lower bound of it; `f.gradient_margin(x)` says
the same of the gradient. Infinity where there is no kink. A function that does not know has no such
method. Within the margin the derivative is unique, and no convention is called for.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.tree import Tree


def nearest(distances: Tree) -> Array:
    """The least entry of all leaves, with the derivative of the first entry that is.

    By its index: the derivative of a minimum compares numbers that may have been rounded apart.
    """
    flat, _ = ravel_pytree(distances)
    flat = jnp.append(flat, jnp.inf)
    return flat[jnp.argmin(lax.stop_gradient(flat))]


def none_near(x: Tree) -> Array:
    """Infinity, in the type of x."""
    return jnp.asarray(jnp.inf, tree.dtype(x))


def from_threshold(size: Array, threshold: Any) -> Array:
    """|size − threshold|; a threshold of 0 is none."""
    return jnp.where(threshold > 0, jnp.abs(size - threshold), jnp.inf).astype(size.dtype)


class SmoothProx:
    """The prox has no kink. For functions to inherit."""

    def prox_margin(self, x: Tree, step: Any) -> Array:
        return none_near(x)


class SmoothGradient:
    """The gradient has no kink. For functions to inherit."""

    def gradient_margin(self, x: Tree) -> Array:
        return none_near(x)


class NoKinks(SmoothProx, SmoothGradient):
    """Neither has one."""
