"""Whether a field of gradients integrates to the function: what makes it conservative."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.tree import Tree


class PathTest(NamedTuple):
    """difference: L(b) − L(a).   integral: of ⟨v, b − a⟩ from a to b."""

    difference: Array
    integral: Array


def path_test(
    L: Callable[[Tree], Array],
    gradient: Callable[[Tree], Tree] | None,
    theta_a: Tree,
    theta_b: Tree,
    count: int = 100,
) -> PathTest:
    r"""Both sides of the chain rule along the segment θ(τ) = a + τ (b − a):

        L(b) − L(a) = ∫₀¹ ⟨v(θ(τ)), b − a⟩ dτ,

    which holds along every path exactly if v selects from a conservative gradient of L
    (arXiv 2201.03819). A path inside the set of kinks is the one that can tell.

    L: a scalar.   gradient: v, by default `jax.grad(L)`.
    count: midpoints at which v is taken, one after the other. The integral is wrong by O(1/count)
        where v jumps on the way, by O(1/count²) where it does not.
    """
    if validate.integer("count", count) < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    v = jax.grad(L) if gradient is None else gradient
    way = tree.sub(theta_b, theta_a)

    def slope(tau: Array) -> Array:
        return tree.vdot(v(tree.axpy(tau, way, theta_a)), way)

    midpoints = (jnp.arange(count, dtype=tree.dtype(way)) + 0.5) / count
    return PathTest(L(theta_b) - L(theta_a), jnp.mean(lax.map(slope, midpoints)))
