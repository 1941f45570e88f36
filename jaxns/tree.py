"""Points as vectors: the arithmetic of pytrees of arrays."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

Tree = Any  # a pytree of arrays: what an unknown, a cotangent or a state is made of


def add(x: Tree, y: Tree) -> Tree:
    return jax.tree.map(jnp.add, x, y)


def sub(x: Tree, y: Tree) -> Tree:
    return jax.tree.map(jnp.subtract, x, y)


def scale(a: Any, x: Tree) -> Tree:
    """a x."""
    return jax.tree.map(lambda xi: a * xi, x)


def axpy(a: Any, x: Tree, y: Tree) -> Tree:
    """a x + y."""
    return jax.tree.map(lambda xi, yi: a * xi + yi, x, y)


def vdot(x: Tree, y: Tree) -> Array:
    """⟨x, y⟩, summed over all leaves."""
    return sum(
        (jnp.vdot(xi, yi) for xi, yi in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)),
        start=jnp.zeros((), dtype(x)),
    )


def norm(x: Tree) -> Array:
    """‖x‖₂ over all leaves, scaled so that neither tiny nor huge entries under- or overflow."""
    leaves = [jnp.abs(leaf) for leaf in jax.tree.leaves(x)]
    size = largest(x)
    unit = jnp.where((size > 0) & (size < jnp.inf), size, 1)
    return unit * jnp.sqrt(sum(jnp.sum((leaf / unit) ** 2) for leaf in leaves))


def largest(x: Tree) -> Array:
    """‖x‖∞ over all leaves."""
    sizes = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(x)]
    return reduce(jnp.maximum, sizes, jnp.zeros((), dtype(x)))


def zeros_like(x: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, x)


def where(condition: Any, x: Tree, y: Tree) -> Tree:
    """x if the scalar condition holds, else y."""
    return jax.tree.map(lambda xi, yi: jnp.where(condition, xi, yi), x, y)


def dtype(x: Tree) -> jnp.dtype:
    """The floating-point type in which the whole tree can be computed."""
    leaves = jax.tree.leaves(x)
    return jnp.result_type(*leaves) if leaves else jnp.result_type(float)


def eps(x: Tree) -> float:
    """The relative spacing of numbers in the tree's type."""
    return float(jnp.finfo(dtype(x)).eps)


def size(x: Tree) -> int:
    """The number of scalars in the tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(x))


def nbytes(x: Tree) -> int:
    """What the tree takes in memory."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(x))


def spread(prefix: Tree, x: Tree) -> Tree:
    """Repeat `prefix` (a scalar, an array, or a tree that ends before `x`) to the leaves of x."""
    return jax.tree.map(lambda p, sub_x: jax.tree.map(lambda _: p, sub_x), prefix, x)


@custom_vmap
def any_lane(flag: Array) -> Array:
    """Whether the flag is up in any lane of any enclosing vmap: the same for all lanes.

    Under `vmap` a loop or a branch that depends on the lane is run by masking or by taking every
    branch. One decided for all lanes together stays a real loop, with cheap indexing, and a real
    branch.
    """
    return flag


@any_lane.def_vmap
def _(axis_size, in_batched, flag):
    return any_lane(jnp.any(flag, axis=0) if in_batched[0] else flag), False


@custom_vmap
def over_lanes(count: Array) -> Array:
    """The largest of the counts of all lanes of any enclosing vmap: the same for all lanes.

    For what must be decided once for all of them, like the size of a static buffer.
    """
    return count


@over_lanes.def_vmap
def _(axis_size, in_batched, count):
    return over_lanes(jnp.max(count, axis=0) if in_batched[0] else count), False


def while_loop(going: Callable, body: Callable, start: Tree) -> Tree:
    """`lax.while_loop`, also inside `shard_map`."""
    return lax.while_loop(going, body, settle_axes(body, start))


def settle_axes(body: Callable, start: Tree) -> Tree:
    """`start`, made to vary over the mesh axes over which `body(start)` varies.

    Inside `shard_map` what a loop carries must vary over the same axes before and after a step;
    anywhere else this is the identity.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return start
    after = jax.make_jaxpr(body)(start).out_avals
    before = [jax.typeof(leaf) for leaf in jax.tree.leaves(start)]
    axes = frozenset().union(*map(_varying_axes, [*after, *before]))
    return jax.tree.map(lambda leaf: _vary(leaf, axes), start)


def vary_like(x: Tree, like: Tree) -> Tree:
    """x, made to vary over the mesh axes over which some of `like` varies."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return x
    axes = frozenset().union(*(_varying_axes(jax.typeof(leaf)) for leaf in jax.tree.leaves(like)))
    return jax.tree.map(lambda leaf: _vary(jnp.asarray(leaf), axes), x)


def _vary(x: Array, axes: frozenset) -> Array:
    missing = tuple(axes - _varying_axes(jax.typeof(x)))
    return lax.pcast(x, missing, to="varying") if missing else x


def _varying_axes(aval: Any) -> frozenset:
    return frozenset(getattr(getattr(aval, "mat", None), "varying", ()))
