"""The rows of a batch, cut into blocks that are read when their turn comes."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from jaxns.tree import Tree


class Block(NamedTuple):
    """Rows start … stop − 1 of `part`, a pytree of what can be sliced."""

    part: Tree
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def read(self, size: int) -> Tree:
        """The rows, and copies of the last one to make up `size`."""

        def read(leaf):
            rows = np.asarray(leaf[self.start : self.stop])
            return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])

        return jax.tree.map(read, self.part)

    def after(self, digest: str) -> str:
        """A digest of the blocks so far: their lengths, and the first row of each."""
        first = [np.asarray(leaf[self.start]).tobytes() for leaf in jax.tree.leaves(self.part)]
        return hashlib.sha256(b"".join([f"{digest} {self.rows} ".encode(), *first])).hexdigest()


def cut(over: Tree | Iterator[Tree], size: int) -> tuple[int | None, Iterator[Block]]:
    """The number of rows, or None if an iterator brings them, and the blocks."""
    if isinstance(over, Iterator):
        return None, (block for part in over for block in cut(part, size)[1])
    leaves, structure = jax.tree.flatten(over)
    shapes = [getattr(leaf, "shape", None) for leaf in leaves]
    if not leaves or not all(shapes) or len({shape[0] for shape in shapes if shape}) > 1:
        found = (str(getattr(leaf, "shape", type(leaf).__name__)) for leaf in leaves)
        raise ValueError(
            "over must hold arrays with one first axis, that of the batch, or be an iterator of "
            f"such blocks; got {', '.join(found) or 'no arrays'}"
        )
    leaves = [np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
    part, rows = jax.tree.unflatten(structure, leaves), int(leaves[0].shape[0])
    ends = ((start, min(start + size, rows)) for start in range(0, rows, size))
    return rows, (Block(part, *end) for end in ends)
