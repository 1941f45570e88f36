"""The results of a stream on disk, where a process that is killed leaves what it has finished.

An array of results is one `.npy` file, which grows by the rows of a block; `stream.json` is put in
place by a rename when all of them are on disk. What a file holds beyond that is of a block that was
not finished, and is written again.
"""

import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import jax
import numpy as np

from jaxns.batch.blocks import Block
from jaxns.batch.stream import Report, Tally, prepare
from jaxns.tree import Tree

JOURNAL = "stream.json"


def store(
    f: Callable[[Tree], Tree],
    over: Tree | Iterator[Tree],
    folder: str | os.PathLike,
    *,
    size: int,
    report: Report = lambda progress: None,
    on_failure: str = "raise",
) -> Tree:
    """`jaxns.batch.stream`, with the results kept in a folder: all of them, as memory maps.

    A call that was interrupted, be it by `kill -9`, goes on in the next call with the same
    arguments: blocks that had been finished are not solved again, and the results are to the bit
    those of a call that was not interrupted. Each array is a file that `numpy.load` reads, named
    for its place in what f returns, such as `x.npy` and `status.code.npy`.

    f, over, size, on_failure: as for `stream`. Failures are raised when everything is on disk.
    folder: made where it does not exist. `ValueError` if it holds another stream: one of another
        program (its operations and constants, and the arrays that f closes over), version of JAX,
        kind of device or `size`, or of other rows, which are told by their number and by the first
        of each block.
    report: is told the `Progress` at the start, with what was found, and after each block.
    """
    program, total, blocks = prepare(f, over, size, on_failure)
    device = jax.devices()[0]
    identity = {
        "number of rows": total,
        "size": program.size,
        "version of jax": jax.__version__,
        "device": f"{device.platform} {device.device_kind}",
        "program": program.digest,
    }
    shelf = _Shelf(Path(folder), program.results)
    shelf.resume(identity, blocks)
    tally = Tally(total)
    tally.add(shelf.read())
    report(tally.progress)
    for block, found in program.solve(blocks):
        shelf.append(block, found)
        tally.add(found)
        report(tally.progress)
    tally.close(on_failure)
    return shelf.read()


class _Shelf:
    """The files. `like`: the shapes and types of a block of results."""

    def __init__(self, folder: Path, like: Tree) -> None:
        named, self.structure = jax.tree_util.tree_flatten_with_path(like)
        self.folder, self.journal = folder, folder / JOURNAL
        self.columns = [_Column(folder / _file(path), leaf) for path, leaf in named]

    def resume(self, identity: dict[str, Any], blocks: Iterator[Block]) -> None:
        """Pass over the blocks that are on disk. Raises if they belong to another stream."""
        self.state = identity | {"blocks": 0, "rows": 0, "digest": ""}
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = dict(self.state)
        if self.journal.exists():
            kept = json.loads(self.journal.read_text(encoding="utf-8"))
        for what, value in identity.items():
            if kept.get(what) != value:
                self._refuse(f"its {what} is {kept.get(what)}, and here {value}")
        for block in itertools.islice(blocks, kept["blocks"]):
            self._count(block)
        if self.state != kept:
            self._refuse("of other rows")
        for column in self.columns:
            if not column.has(self.state["rows"]):
                self._refuse(f"without all of {column.path.name}")
            column.append(self.state["rows"], np.zeros((0, *column.shape), column.dtype))

    def append(self, block: Block, found: Tree) -> None:
        for column, rows in zip(self.columns, jax.tree.leaves(found), strict=True):
            column.append(self.state["rows"], rows)
        self._count(block)
        beside = self.journal.with_suffix(".new")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(self.state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.journal)

    def read(self) -> Tree:
        rows = self.state["rows"]
        return jax.tree.unflatten(self.structure, [column.read(rows) for column in self.columns])

    def _count(self, block: Block) -> None:
        self.state["blocks"] += 1
        self.state["rows"] += block.rows
        self.state["digest"] = block.after(self.state["digest"])

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(
            f"folder: {self.folder} holds another stream ({why}); name another folder, or delete "
            "this one to begin anew"
        )


class _Column:
    """One array of results in a `.npy` file."""

    def __init__(self, path: Path, like: Any) -> None:
        self.path, self.shape, self.dtype = path, like.shape[1:], np.dtype(like.dtype)
        self.nbytes = self.dtype.itemsize * int(np.prod(self.shape))  # of a row

    def has(self, rows: int) -> bool:
        if not rows:
            return True
        size = self.path.stat().st_size if self.path.exists() else 0
        return size >= len(self._header(rows)) + rows * self.nbytes

    def append(self, before: int, rows: np.ndarray) -> None:
        """Let the file have `rows` after the first `before`, and nothing else."""
        with self.path.open("r+b" if before else "wb") as file:
            file.write(self._header(before + len(rows)))
            file.seek(before * self.nbytes, os.SEEK_CUR)
            file.write(np.ascontiguousarray(rows, self.dtype).tobytes())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    def _header(self, rows: int) -> bytes:
        """As long for any number of rows: NumPy leaves room for that to grow."""
        header = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self.dtype)
        fields = {"descr": descr, "fortran_order": False, "shape": (rows, *self.shape)}
        np.lib.format.write_array_header_1_0(header, fields)
        return header.getvalue()

    def read(self, rows: int) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")[:rows].view(self.dtype)


def _file(path: tuple) -> str:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return quote(name or "result", safe="") + ".npy"
