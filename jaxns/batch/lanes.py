"""The loop of many runs at once, where a run that has ended makes room for another.

Under `vmap` a loop goes on until its slowest lane has ended, and every lane pays for that. Here at
most `width` lanes run side by side, the first ones that have not ended; after `chunk` steps the
lanes are chosen again. So the cost follows the sum of the iterations, at the price of copying the
lanes' data once in `chunk` steps. When few are left they go on in a narrower loop.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxns import tree
from jaxns.fixed_point import Iteration, Run, Stop, is_running, proceed, proceed_to_end

NARROWER = 8  # each loop than the one before: few widths, since each is compiled
LOOPS = 3


@dataclasses.dataclass(frozen=True)
class Compaction:
    """The `loop` of an `Iteration`. width: lanes that run side by side.   chunk: steps between."""

    width: int
    chunk: int

    def __call__(self, iteration: Iteration, theta, stop: Stop, run: Run) -> Run:
        @custom_vmap
        def loop(theta, stop, run):
            return proceed_to_end(iteration, theta, stop, run)

        @loop.def_vmap
        def _(axis_size, in_batched, theta, stop, run):
            axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched[:2]))
            runs = jax.tree.map(  # a run is one's own, whatever the lanes share
                lambda leaf, batched: leaf if batched else jnp.stack([leaf] * axis_size),
                run,
                in_batched[2],
            )
            runs = self.lanes(iteration, axis_size, axes, (theta, stop), runs)
            return runs, jax.tree.map(lambda leaf: True, runs)

        return loop(theta, stop, run)

    def lanes(self, iteration: Iteration, total: int, axes: Any, given: Any, runs: Run) -> Run:
        """All runs, to their ends. given: (theta, stop), of which `axes` says what lanes share."""

        def some(given: tuple[Any, Stop], run: Run) -> Run:
            theta, stop = given

            def going(state):
                step, run = state
                return (step < self.chunk) & is_running(run)

            def body(state):
                step, run = state
                return step + 1, proceed(iteration, theta, stop, run)

            return tree.while_loop(going, body, (jnp.zeros((), jnp.int32), run))[1]

        def body(width: int, runs: Run) -> Run:
            (lanes,) = jnp.nonzero(is_running(runs), size=width, fill_value=total)

            def chosen(axis, leaf):
                return leaf if axis is None else leaf.at[lanes].get(mode="clip")

            theirs = jax.tree.map(chosen, axes, given, is_leaf=lambda axis: axis is None)
            these = jax.tree.map(partial(chosen, 0), runs)
            these = jax.vmap(some, in_axes=(axes, 0))(theirs, these)
            return jax.tree.map(lambda old, new: old.at[lanes].set(new, mode="drop"), runs, these)

        widths = [min(self.width, total)]
        while len(widths) < LOOPS and widths[-1] >= 2 * NARROWER:
            widths.append(widths[-1] // NARROWER)
        for width, left in zip(widths, [*widths[1:], 0], strict=True):
            runs = tree.while_loop(
                lambda runs, left=left: jnp.sum(is_running(runs)) > left,
                partial(body, width),
                runs,
            )
        return runs
