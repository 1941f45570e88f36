"""Many problems at once: lanes that leave when they have converged, devices, hosts."""

from jaxns.batch.devices import mesh, vmap
from jaxns.batch.lanes import Compaction
from jaxns.batch.problems import path, solve
from jaxns.batch.store import store
from jaxns.batch.stream import Progress, stream

__all__ = ["solve", "path", "vmap", "mesh", "Compaction", "stream", "store", "Progress"]
