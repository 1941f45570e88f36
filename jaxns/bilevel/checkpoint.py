"""A search kept on disk, so that a process that is killed loses nothing.

One `.npz` of numpy, written beside the old one and put in its place by a rename, which is atomic:
whenever the process dies, there is a whole file. It holds the numbers of the state, the next
step's whole input, and of the history. (Orbax is made for sharded models: it refuses arrays of
size zero, takes a directory of files a save, and would bring eleven packages.)
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxns.tree import Tree

FILE = "search.npz"


class Checkpoint:
    """Where a search is kept.   directory: made where it does not exist."""

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.file = self.directory / FILE

    def save(self, state: Any, rows: list) -> None:
        """Replace what is there by (state, rows)."""
        arrays: dict[str, Any] = {
            f"state {i}": _numbers(leaf) for i, leaf in enumerate(jax.tree.leaves(state))
        }
        columns = zip(*map(jax.tree.leaves, rows), strict=True)
        arrays |= {f"history {i}": np.stack(column) for i, column in enumerate(columns)}
        part = self.file.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self.file)

    def resume(self, step: Callable, state: Any) -> tuple[Any, list]:
        """(state, rows) from where the search was left, or (state, []) where none is kept.

        Raises `ValueError` for another search: one whose arrays are not like ours, or whose first
        evaluation, which is made again, found something else than ours.
        """
        if not self.file.exists():
            return state, []
        with np.load(self.file) as kept:
            arrays = dict(kept)
        like = jax.eval_shape(step, state)
        after, row = (jax.tree.flatten(part) for part in like)
        now = [arrays.pop(f"state {i}", None) for i in range(len(after[0]))]
        past = [arrays.pop(f"history {i}", None) for i in range(len(row[0]))]
        alike = not arrays and all(map(_fits, now, after[0])) and all(map(_fits_rows, past, row[0]))
        if not alike:
            self._refuse("its unknowns, hyperparameters or optimiser have other shapes or types")
        rows = [jax.tree.unflatten(row[1], cells) for cells in zip(*past, strict=True)]
        second, first = step(state)
        again = [(first.theta, rows[0].theta), (first.value, rows[0].value)]
        again += [(first.gradient, rows[0].gradient)]
        if len(rows) > 1:
            again += [(step(second)[1].theta, rows[1].theta)]
        if not all(_same(ours, kept) for ours, kept in again):
            self._refuse("its first steps found other numbers")
        leaves = [_restored(a, leaf) for a, leaf in zip(now, after[0], strict=True)]
        return jax.tree.unflatten(after[1], leaves), rows

    def _refuse(self, why: str) -> None:
        raise ValueError(
            f"checkpoint: {self.file} holds another search ({why}); name another directory, or "
            "delete the file to begin anew"
        )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _restored(kept: Any, like: Any) -> Any:
    return jax.random.wrap_key_data(kept) if _is_key(like) else jnp.asarray(kept)


def _fits(kept: np.ndarray | None, like: Any) -> bool:
    if kept is None or _is_key(like):
        return kept is not None
    return kept.shape == like.shape and kept.dtype == like.dtype


def _fits_rows(kept: np.ndarray | None, like: Any) -> bool:
    return kept is not None and kept.shape[1:] == like.shape and kept.dtype == like.dtype


def _same(ours: Tree, kept: Tree) -> bool:
    """Equal to half of the digits: those that another machine would also find."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(kept), strict=True)

    def close(a, b):
        rtol = float(jnp.finfo(b.dtype).eps) ** 0.5
        return np.allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b), initial=0))

    return all(close(a, b) for a, b in pairs)
