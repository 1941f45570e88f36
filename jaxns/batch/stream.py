"""A batch that is larger than memory: block after block, by one compiled program."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxns import validate
from jaxns.batch.blocks import Block, cut
from jaxns.batch.failures import raise_for
from jaxns.batch.program import Program
from jaxns.fixed_point import Solution, Status
from jaxns.tree import Tree

POLICIES = ("raise", "ignore")


class Progress(NamedTuple):
    """How far a stream is.

    done: rows.   total: how many there are, or None where an iterator brings them.
    failed: rows with a `Status` that is not ok.   steps: the sum over all `Solution`s.
    """

    done: int
    total: int | None
    failed: int
    steps: int


Report = Callable[[Progress], Any]


def stream(
    f: Callable[[Tree], Tree],
    over: Tree | Iterator[Tree],
    *,
    size: int,
    report: Report = lambda progress: None,
    on_failure: str = "raise",
) -> Iterator[Tree]:
    """f of a batch too large to be solved, or to be held, at once: its results, block by block.

    f: a function of a batch, compiled once for `size` rows, such as
        `lambda items: batch.solve(build, over=items)`, that and its gradient, or `batch.vmap(g)`.
        It returns a pytree of arrays with the axis of the batch, where row i depends on row i: the
        last block is filled up with copies of its last row, and what they give is dropped.
    over: the rows: a pytree of what has a `shape` and can be sliced along its first axis (arrays,
        `numpy.memmap`, datasets of h5py); or an iterator of such pytrees, each of any number of
        rows. None is read before its turn.
    size: rows in a block. Two blocks are in memory at once, one being solved and the next.
    report: is told the `Progress` after each block.
    on_failure: nothing can be raised from inside a compiled function, so a problem that failed
        comes back as the `Stop` in f says, by default as NaN, and its `Status` with it. With
        "raise", after the last block `ConvergenceError` names the rows with a `Status` that is not
        ok, wherever it is in the results; with "ignore" nobody does.

    Yields the results as pytrees of NumPy arrays, of `size` rows each, the last of what is left.
    To keep them on disk, and to go on after an interruption: `jaxns.batch.store`.
    """
    program, total, blocks = prepare(f, over, size, on_failure)

    def results() -> Iterator[Tree]:
        tally = Tally(total)
        for _, found in program.solve(blocks):
            tally.add(found)
            yield found
            report(tally.progress)
        tally.close(on_failure)

    return results()


def prepare(
    f: Any, over: Any, size: Any, on_failure: str
) -> tuple[Program, int | None, Iterator[Block]]:
    """What is computed, of how many rows, and their blocks; or what is wrong with the arguments."""
    if not callable(f):
        raise TypeError(f"f must be a function of a batch, got {type(f).__name__}")
    validate.choice("on_failure", on_failure, POLICIES)
    size = int(validate.positive("size", validate.integer("size", size)))
    total, blocks = cut(over, size)
    first = list(itertools.islice(blocks, 1))
    if total is None and not first:
        raise ValueError("over must bring a block at least: the iterator had ended")
    size = size if total is None else max(1, min(size, total))
    program = Program(f, first[0].part if first else over, size)
    return program, total, itertools.chain(first, blocks)


class Tally:
    """The `progress` of a stream, and the rows that failed."""

    def __init__(self, total: int | None) -> None:
        self.progress = Progress(0, total, 0, 0)
        self.failed = np.zeros((2, 0), int)  # their numbers, and the codes of their status

    def add(self, found: Tree) -> None:
        """The results of the next rows."""
        done, total, _, steps = self.progress
        rows = len(jax.tree.leaves(found)[0])
        codes = [np.asarray(status.code) for status in _parts(Status, found)]
        codes = [np.max(code, axis=tuple(range(1, code.ndim))) for code in codes]
        worst = np.max([np.zeros(rows, int), *codes], axis=0)
        (failed,) = np.nonzero(worst > Status.COMPLETED.code)
        self.failed = np.hstack([self.failed, [done + failed, worst[failed]]])
        steps += sum(int(np.sum(part.steps, dtype=int)) for part in _parts(Solution, found))
        self.progress = Progress(done + rows, total, self.failed.shape[1], steps)

    def close(self, on_failure: str) -> None:
        if on_failure == "raise":
            numbers, codes = self.failed
            raise_for(numbers, codes, self.progress.done, "have the rest by on_failure='ignore'")


def _parts(kind: type, found: Tree) -> list:
    parts = jax.tree.leaves(found, is_leaf=lambda part: isinstance(part, kind))
    return [part for part in parts if isinstance(part, kind)]
