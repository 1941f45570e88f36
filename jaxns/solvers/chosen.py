"""The coordinates that a step looks at: the largest of a vector, those of a mask.

They are selected in float32: other numbers XLA sorts on a CPU, all of them, for 30 times as long.
"""

import jax.numpy as jnp
from jax import Array, lax


def largest(a: Array, count: int) -> Array:
    """Where the `count` largest entries of a ≥ 0 are, infinities first; equal ones in order."""
    size = jnp.max(jnp.where(a < jnp.inf, a, 0))
    return lax.top_k((a / jnp.where(size > 0, size, 1)).astype(jnp.float32), count)[1]


def marked(mask: Array, count: int) -> Array:
    """Where the first `count` entries that are True are, in order; past the end where none is."""
    found, index = lax.top_k(mask.astype(jnp.float32), count)
    return jnp.where(found > 0, index, mask.size)
