"""A function of one item, over many, spread over devices and hosts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxns import validate

AXIS = "batch"


def mesh(count: int | None = None, backend: str | None = None) -> Mesh:
    """The first `count` devices (by default all, of all hosts), along one axis named "batch".

    backend: "cpu", "gpu" or "tpu"; by default what JAX prefers.
    """
    devices = jax.devices(backend)
    if count is not None and not 1 <= count <= len(devices):
        have = f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)}"
        raise ValueError(f"count must be between 1 and {len(devices)}, for {have}; got {count}")
    return Mesh(np.array(devices[:count]), (AXIS,))


def one_by_one(f: Callable) -> Callable:
    """What `jax.vmap(f)` computes, one item after another."""
    return lambda *batches: lax.map(lambda items: f(*items), batches)


def in_groups(width: int) -> Callable[[Callable], Callable]:
    """As `jax.vmap`, of `width` items at a time."""

    def each(f):
        def call(*batches):
            size, filled = fill(batches, width)
            if size <= width:
                return jax.vmap(f)(*batches)
            found = lax.map(lambda items: f(*items), filled, batch_size=width)
            return jax.tree.map(lambda leaf: leaf[:size], found)

        return call

    return each


def fill(batches: tuple, width: int) -> tuple[int, tuple]:
    """The size of the batch; and the batch, filled up by its last item to a multiple of `width`."""
    size = np.shape(jax.tree.leaves(batches)[0])[0]
    rows = np.minimum(np.arange(-(-size // width) * width), size - 1)
    if len(rows) == size:
        return size, batches
    return size, jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], batches)


def vmap(f: Callable, mesh: Mesh | None = None) -> Callable:
    """`jax.vmap(f)`, with the batch spread over the devices of a mesh, each working alone.

    f: of pytrees whose every array has a first axis, that of the batch.   mesh: see
        `jaxns.batch.mesh`; None for one device. Where the batch is no multiple of the devices, its
        last item fills up, and what that gives is dropped. A loop inside `f` ends on each device
        when the lanes there have ended: nothing is communicated.

    With several hosts (`jax.distributed`) every process calls this with the same arguments, and has
    the whole result.
    """
    return spread(f, mesh, jax.vmap)


def spread(f: Callable, mesh: Mesh | None, each: Callable) -> Callable:
    """`vmap`, with a choice of how the items of one device are run: jax.vmap or `one_by_one`."""
    if mesh is None:
        return each(f)
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}")
    if len(mesh.axis_names) != 1:
        raise ValueError(f"mesh must have one axis, that of the batch, got {mesh.axis_names}")
    spec, devices = PartitionSpec(*mesh.axis_names), mesh.size
    if mesh.devices.flat[0].platform == "cpu":
        # Batched calls of LAPACK, by as many devices as there are threads, wait for each other for
        # ever.
        each = one_by_one
    on_all = jax.jit(
        jax.shard_map(each(f), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    )

    def call(*batches: Any) -> Any:
        size, filled = fill(batches, devices)
        return jax.tree.map(lambda leaf: leaf[:size], gathered(on_all(*filled)))

    return call


def gathered(batch: Any) -> Any:
    """Arrays of which other hosts hold a part, as whole ones (unless they are being traced)."""
    if jax.process_count() == 1 or not all(map(validate.is_known, jax.tree.leaves(batch))):
        return batch
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(batch, tiled=True)
