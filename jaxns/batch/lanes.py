"""The loop of many runs at once, where a run that has ended makes room for another.

Under `vmap` a loop goes on until its slowest lane has ended, and every lane pays for that. Here at
most `width` lanes run side by side and the others wait. When lanes that have ended have idled for
as long as an exchange takes, they are exchanged for lanes that wait: so no more than twice the time
is lost that would be with the exchanges made in hindsight. When few are left they go on in a
narrower loop, or one by one.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from jaxns import tree
from jaxns.closure import hoist
from jaxns.tree import Tree

NARROWER = 8  # each loop than the one before: few widths, since each is compiled
LOOPS = 3


@dataclasses.dataclass(frozen=True)
class Compaction:
    """A `while_loop(going, body, start)`, for the `loop` of an `Iteration`.

    width: lanes that run side by side.   chunk: steps of all of them that an exchange may cost.
    alone: when so many are left, they go on one by one; 0 for ever narrower loops.
    """

    width: int
    chunk: int = 2
    alone: int = 0

    def __call__(self, going: Callable, body: Callable, start: Tree) -> Tree:
        (still, bounds), (step, data) = hoist(going, start), hoist(body, start)

        @custom_vmap
        def loop(given, state):
            bounds, data = given
            return tree.while_loop(partial(still, bounds), partial(step, data), state)

        @loop.def_vmap
        def _(axis_size, in_batched, given, state):
            axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched[0])

            def own(leaf, batched):  # a state is one's own, whatever the lanes share
                return leaf if batched else jnp.broadcast_to(leaf, (axis_size, *jnp.shape(leaf)))

            states = jax.tree.map(own, state, in_batched[1])
            lanes = _Lanes(still, step, axes, given, axis_size)
            return self.run(lanes, states), jax.tree.map(lambda leaf: True, states)

        return loop((bounds, data), start)

    def run(self, lanes: "_Lanes", states: Tree) -> Tree:
        """All lanes, to their ends."""
        width = min(self.width, lanes.total)
        if not width:
            return states
        if self.alone:
            alone = min(self.alone, width - 1)
            return lanes.one_by_one(lanes.side_by_side(width, alone, self.chunk, states))
        widths = [width]
        while len(widths) < LOOPS and widths[-1] >= 2 * NARROWER:
            widths.append(widths[-1] // NARROWER)
        for width, left in zip(widths, [*widths[1:], 0], strict=True):
            states = lanes.side_by_side(width, left, self.chunk, states)
        return states


@dataclasses.dataclass(frozen=True)
class _Lanes:
    """What `total` lanes do: given = (bounds, data), of which `axes` says what they share."""

    still: Callable[[Any, Tree], Array]
    step: Callable[[Any, Tree], Tree]
    axes: Any
    given: Any
    total: int

    def going(self, given: Any, states: Tree) -> Array:
        return jax.vmap(self.still, (self.axes[0], 0))(given[0], states)

    def move(self, given: Any, states: Tree) -> Tree:
        return jax.vmap(self.step, (self.axes[1], 0))(given[1], states)

    def of(self, lanes: Array) -> Any:
        """What is given to these lanes, or to this one."""
        return jax.tree.map(
            lambda axis, leaf: leaf if axis is None else leaf[lanes],
            self.axes,
            self.given,
            is_leaf=lambda axis: axis is None,
        )

    def waiting(self, states: Tree) -> tuple[Array, Array]:
        """The lanes that have not ended, in front of the others; and how many they are."""
        going = self.going(self.given, states)
        return jnp.argsort(~going, stable=True), jnp.sum(going)

    def side_by_side(self, width: int, left: int, chunk: int, states: Tree) -> Tree:
        """`width` lanes at a time, until `left` have not ended."""
        queue, count = self.waiting(states)
        place = jnp.arange(width)

        def exchange(carry):
            lanes, taken, _, states = carry
            given, more = self.of(lanes), taken < count

            def go_on(carry):
                idle, going, _ = carry
                wait = jnp.where(more, idle < chunk * width, jnp.sum(going) > left)
                return wait & jnp.any(going)

            def move(carry):
                idle, going, these = carry
                these = jax.vmap(tree.where)(going, self.move(given, these), these)
                going = self.going(given, these)
                return idle + jnp.sum(~going), going, these

            these = jax.tree.map(lambda leaf: leaf[lanes], states)
            carry = (jnp.zeros((), int), self.going(given, these), these)
            _, going, these = tree.while_loop(go_on, move, carry)
            states = jax.tree.map(
                lambda all, new: all.at[lanes].set(new, unique_indices=True), states, these
            )
            remaining = jnp.sum(going)
            lanes = lanes[jnp.argsort(~going, stable=True)]  # those that go on stay
            new = taken + place - remaining
            lanes = jnp.where((place >= remaining) & (new < count), queue[new], lanes)
            taken_next = jnp.minimum(taken + width - remaining, count)
            return lanes, taken_next, remaining + count - taken, states

        carry = (queue[:width], jnp.minimum(width, count), count, states)
        return tree.while_loop(lambda carry: carry[2] > left, exchange, carry)[-1]

    def one_by_one(self, states: Tree) -> Tree:
        queue, count = self.waiting(states)

        def run(i, states):
            lane = queue[i]
            bounds, data = self.of(lane)
            state = jax.tree.map(lambda leaf: leaf[lane], states)
            state = tree.while_loop(partial(self.still, bounds), partial(self.step, data), state)
            return jax.tree.map(lambda all, new: all.at[lane].set(new), states, state)

        return lax.fori_loop(0, count, run, states)
