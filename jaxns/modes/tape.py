"""States laid down while a run happens, and the schedule by which its reverse pass goes back."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.tree import Tree

BUDGET = 128  # iterates that the stored states may fill, unless told otherwise
LEAST, MOST = 16, 96  # states stored, however large or small they are
ORDERS = 8  # evaluations of each step that schedules are made for, plus one


class Storage(NamedTuple):
    """How much to store.

    states: how many states, if that was said.   enough: how many are never too few.
    """

    states: int | None
    enough: int

    def slots(self, z: Tree, control: Any) -> int:
        """Half of the states to store, even: for the run, and for the stretch being reversed."""
        iterates = max(1, round(tree.size((z, control)) / max(1, tree.size(z))))
        fitting = min(max(BUDGET // iterates, LEAST), MOST)
        states = self.states or min(fitting, self.enough)
        return max(2, states // 4 * 2)


def storage(checkpoints: int | str | None, length: int) -> Storage:
    """For the reversal of so many steps at most; `checkpoints` as on `Piggyback`."""
    logarithmic = 4 * (length.bit_length() // 2 + 1)
    states = logarithmic if isinstance(checkpoints, str) else checkpoints
    return Storage(states, min(2 * math.isqrt(length) + 4, BUDGET))


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
    orders = range(1, ORDERS)

    def reach(slots):
        values, product = [], jnp.ones(())
        for r in orders:
            product = product * (slots + r - 1) / r
            values.append(product)
        return jnp.stack(values)

    order = jnp.argmax(reach(free) >= gap)
    rest = jnp.minimum(reach(free - 1)[order], gap - 1).astype(jnp.int32)
    return jnp.where(free <= 1, gap, gap - rest)


def advances(steps: Array, slots: int, last: int | None) -> Array:
    """Evaluations of F that go forward again from the checkpoints, for so many steps.

    Of a stretch of l steps, r l − β(s + 1, r − 1) with r the least with β(s, r) ≥ l, for β(s, r) =
    (s + r choose r) and s slots (Griewank and Walther 2000), the last slot being for where one is:
    those of `stride`, or nearly.
    """
    if last is None:
        spacing = 2.0 ** jnp.ceil(jnp.log2(jnp.maximum(steps / slots, 1)))
    else:
        spacing = jnp.asarray(-(-last // (slots - 1)), float)
    s = slots - 1
    reach = jnp.asarray([float(math.comb(s + r, r)) for r in range(ORDERS)])
    spared = jnp.asarray([0.0, *(float(math.comb(s + r, r - 1)) for r in range(1, ORDERS))])

    def stretch(length: Array) -> Array:
        r = jnp.sum(reach < length)
        return jnp.maximum(r * length - spared[r], 0)

    whole, rest = jnp.divmod(steps, spacing)
    return whole * stretch(spacing) + stretch(rest)


def read(stack: Tree, i: Array) -> Tree:
    return jax.tree.map(lambda s: lax.dynamic_index_in_dim(s, i, keepdims=False), stack)


def write(stack: Tree, i: Array | int, value: Tree) -> Tree:
    return jax.tree.map(
        lambda s, v: lax.dynamic_update_index_in_dim(s, jnp.asarray(v, s.dtype), i, 0),
        stack,
        value,
    )
