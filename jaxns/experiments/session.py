"""A run in progress: who is told, and what a run that was interrupted has already computed."""

import hashlib
import pickle
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import jaxns
from jaxns import batch
from jaxns.experiments.config import Base

T = TypeVar("T")
Report = Callable[[str, int, int, str], None]
"""report(task, done, total, note), called after each unit of work."""


class Session:
    """Called like a `Report`; `each` runs units of work and keeps what they return.

    `vmap` is for the repetitions of one unit: they are spread over the devices of the config's
    mesh; `spread` tells whether there may have been any. What is kept lies in `folder`, in the name
    of everything it depends on (the config but for its mesh, the versions of jaxns, jax and numpy),
    and is thrown away by `close`, when the run is complete. Each host keeps its own, whole results,
    so that the first one can go on with the others or without them.
    """

    def __init__(
        self, report: Report, folder: Path, settings: Base, mesh: Mesh | None = None
    ) -> None:
        self.report, self.mesh, self.spread = report, mesh, False
        versions = [jaxns.__version__, *map(metadata.version, ("jax", "jaxlib", "numpy"))]
        name = repr((settings.model_dump_json(exclude={"mesh"}), versions)).encode()
        self.name = f".partial-{hashlib.sha256(name).hexdigest()[:12]}"
        self.folder = folder / f"{self.name}-{jax.process_index()}"

    def __call__(self, task: str, done: int, total: int, note: str) -> None:
        self.report(task, done, total, note)

    def vmap(self, f: Callable) -> Callable:
        """`jaxns.batch.vmap` over the devices of the mesh, compiled."""
        self.spread = True
        return batch.vmap(f, self.mesh) if self.mesh else jax.jit(jax.vmap(f))

    def each(self, task: str, units: Mapping[str, Callable[[], T]]) -> list[T]:
        """The results of the units in their order, each computed now or found from last time."""
        results = []
        for done, (name, compute) in enumerate(units.items()):
            self(task, done, len(units), name)
            results.append(self._kept(f"{task} {name}", compute))
        self(task, len(units), len(units), "")
        return results

    def close(self) -> None:
        """When all hosts are done, for they end together."""
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("done")
        for folder in self.folder.parent.glob(f"{self.name}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _kept(self, name: str, compute: Callable[[], T]) -> T:
        path = self.folder / (hashlib.sha256(name.encode()).hexdigest()[:16] + ".pickle")
        if _everywhere(path.exists()):
            self.spread = True
            return pickle.loads(path.read_bytes())
        result: Any = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_bytes(pickle.dumps(result))
        beside.replace(path)
        return result


def _everywhere(found: bool) -> bool:
    """Whether all hosts have found it: they work in step."""
    if jax.process_count() == 1:
        return found
    return bool(np.all(multihost_utils.process_allgather(np.array(found))))
