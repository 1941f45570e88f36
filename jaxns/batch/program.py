"""A function of a block, compiled once, and its results one after another."""

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property

import jax
import numpy as np

from jaxns.batch.blocks import Block
from jaxns.closure import hoist
from jaxns.tree import Tree


class Program:
    """f, for blocks of `size` rows like those of `part`.

    What f closes over is an argument too, so that it is sent once.
    """

    def __init__(self, f: Callable[[Tree], Tree], part: Tree, size: int) -> None:
        def like(leaf):
            return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)

        self.size, block = size, jax.tree.map(like, part)
        explicit, self.arrays = hoist(f, block)
        self.lowered = jax.jit(explicit).lower(self.arrays, block)
        self.results: Tree = self.lowered.out_info  # shapes and types
        for leaf in jax.tree.leaves(self.results):
            if leaf.shape[:1] != (size,):
                raise ValueError(
                    f"f must return arrays with the axis of the batch, here of {size}; got one of "
                    f"shape {leaf.shape}"
                )

    @property
    def digest(self) -> str:
        """Of what is computed: the operations with their constants, and what f closes over."""
        digest = hashlib.sha256(self.lowered.as_text().encode())
        for array in self.arrays:
            digest.update(np.asarray(array).tobytes())
        return digest.hexdigest()

    @cached_property
    def compiled(self) -> Callable[[Tree], Tree]:
        compiled, arrays = self.lowered.compile(), jax.device_put(self.arrays)
        return lambda block: compiled(arrays, block)

    def solve(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Tree]]:
        """Each block with its results, as NumPy arrays.

        While the device works on one block, the next is read and sent: there are two at most.
        """

        def fetched(block: Block, found: Tree) -> tuple[Block, Tree]:
            return block, jax.tree.map(lambda leaf: np.asarray(leaf)[: block.rows], found)

        ahead = None
        for block in blocks:
            found = self.compiled(block.read(self.size))  # returns at once
            if ahead is not None:
                yield fetched(*ahead)
            ahead = block, found
        if ahead is not None:
            yield fetched(*ahead)
