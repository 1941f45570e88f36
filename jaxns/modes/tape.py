"""States laid down while a run happens, and the schedule by which its reverse pass goes back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.tree import Tree


class Tape(NamedTuple):
    """The states at 0, spacing, 2 spacing, … of a run of `steps` steps: number j in slot j mod c.

    When only the last steps are differentiated, later states take the slots of the earliest.
    """

    states: Tree
    spacing: Array
    steps: Array


def checkpoint(tape: Tape, j: Array) -> Tree:
    return read(tape.states, j % (jax.tree.leaves(tape.states)[0].shape[0] - 1))


def steps_after(tape: Tape, j: Array, begun: Array, ended: Array) -> tuple[Array, Array]:
    """The steps from checkpoint j to the next; none if no lane differentiates any of them."""
    first = j * tape.spacing
    last = jnp.minimum(first + tape.spacing, tape.steps)
    return first, jnp.where(tree.any_lane((last > begun) & (first < ended)), last, first)


def stride(gap: Array, free: Array) -> Array:
    """How far to go before storing the next state, with `free` slots left for a gap of steps.

    β(s, r) = (s + r − 1 choose r) steps can be reversed with s free slots and at most r − 1 extra
    evaluations of each (Griewank and Walther 2000); keep what follows within β(free − 1, r).
    """
    orders = range(1, 8)

    def reach(slots):
        values, product = [], jnp.ones(())
        for r in orders:
            product = product * (slots + r - 1) / r
            values.append(product)
        return jnp.stack(values)

    order = jnp.argmax(reach(free) >= gap)
    rest = jnp.minimum(reach(free - 1)[order], gap - 1).astype(jnp.int32)
    return jnp.where(free <= 1, gap, gap - rest)


def read(stack: Tree, i: Array) -> Tree:
    return jax.tree.map(lambda s: lax.dynamic_index_in_dim(s, i, keepdims=False), stack)


def write(stack: Tree, i: Array | int, value: Tree) -> Tree:
    return jax.tree.map(
        lambda s, v: lax.dynamic_update_index_in_dim(s, jnp.asarray(v, s.dtype), i, 0),
        stack,
        value,
    )
