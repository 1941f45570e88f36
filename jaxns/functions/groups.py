"""Euclidean norms of blocks of coordinates: all of them, an axis, groups, groups that overlap."""

from collections.abc import Iterable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxns import validate
from jaxns.functions.margins import from_threshold, nearest
from jaxns.functions.norms import per_leaf, repeat, soft_threshold, weighted_l1, weighted_sum
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


class Blocks(Protocol):
    """Disjoint sets of entries of an array."""

    def sums(self, x: Array) -> Array:
        """The sum of each block."""
        ...

    def spread(self, values: Array, x: Array) -> Array:
        """One value per block, laid out to broadcast against x; 0 for entries in no block."""
        ...


class BlockNorm:
    """Σ_b penalty_b ‖x_b‖₂ over blocks of coordinates. For the norms below to inherit."""

    penalty: Any

    @property
    def blocks(self) -> Blocks:
        raise NotImplementedError

    def __call__(self, x: Tree) -> Array:
        return weighted_sum(self._per_block(x), self._norms(x))

    def prox(self, x: Tree, step: Any) -> Tree:
        """Each block shrunk: (1 − step·penalty/‖x_b‖)₊ x_b."""

        def shrink(p, norms, xi):
            size, t = self.blocks.spread(norms, xi), self.blocks.spread(step * p, xi)
            zero = (size <= t) & (t > 0)
            return jnp.where(zero, 0, xi - t / jnp.where(size == 0, 1, size) * xi).astype(xi.dtype)

        return jax.tree.map(shrink, self._per_block(x), self._norms(x), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        return nearest(self.gaps(x, step))

    def gaps(self, x: Tree, step: Any) -> Tree:
        """How far each block is from the edge of its dead zone."""
        return jax.tree.map(
            lambda p, norms: from_threshold(norms, step * p), self._per_block(x), self._norms(x)
        )

    def support(self, x: Tree) -> Tree:
        def movable(p, norms, xi):
            still = self.blocks.spread((norms == 0) & (p != 0), xi)
            return jnp.broadcast_to(~still, xi.shape)

        return jax.tree.map(movable, self._per_block(x), self._norms(x), x)

    def curvature(self, x: Tree, v: Tree) -> Tree:
        """penalty_b (v_b − e⟨e, v_b⟩) / ‖x_b‖ with e = x_b/‖x_b‖; 0 where x_b = 0."""

        def bend(p, norms, xi, vi):
            size = self.blocks.spread(norms, xi)
            size = jnp.where(size == 0, jnp.inf, size)
            along = self.blocks.spread(self.blocks.sums(xi / size * vi), xi)
            return self.blocks.spread(p, xi) / size * (vi - xi / size * along)

        return jax.tree.map(bend, self._per_block(x), self._norms(x), x, v)

    def _norms(self, x: Tree) -> Tree:
        return jax.tree.map(lambda xi: block_norms(self.blocks, xi), x)

    def _per_block(self, x: Tree) -> Tree:
        norms = jax.tree.map(self.blocks.sums, x)
        penalty = per_leaf("penalty", self.penalty, norms, "the norms of x")
        return jax.tree.map(lambda p, n: jnp.broadcast_to(p, n.shape), penalty, norms)


@struct
class L2(BlockNorm):
    """penalty · ‖x‖₂ for each leaf, or Σ of these along `axis`: not squared.

    penalty: a number ≥ 0, one for each norm, or a pytree of these matching the structure of x.
    axis: an axis of the leaves; None for the norm of the whole leaf.
    """

    penalty: Any
    axis: int | None = static(default=None)

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))
        validate.axis("axis", self.axis)

    @property
    def blocks(self) -> Blocks:
        return Along(self.axis)


@struct
class GroupL2(BlockNorm):
    """Σ_g penalty_g ‖x_g‖₂ (group lasso), for x of shape (p, …) grouped along its first axis.

    penalty: a number ≥ 0, one for each group, or a pytree of these matching the structure of x.
        There is no factor √|g|; write it into the penalty where it is wanted.
    groups: a label for each of the p entries, integers; groups are counted in the order of their
        labels, and entries with a negative label are in none, without penalty. Or lists of indices,
        one for each group, disjoint; entries that no list names are in none. Or None: each entry
        along the first axis is a group, which for a matrix is the sum of the norms of its rows.
    """

    penalty: Any
    groups: Any = static(default=None)

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))
        settle(self, "groups", Groups.read(self.groups))

    @property
    def blocks(self) -> Blocks:
        return Rows() if self.groups is None else self.groups

    def separate(self, x: Array) -> tuple[np.ndarray | None, L2]:
        """Disjoint blocks of indices, and the norm of each; entries in no group are free."""
        penalty, index = self._per_block(x), None
        if self.groups is not None:
            index = self.groups.members(x)
            penalty = jnp.pad(penalty, (0, len(index) - len(penalty)))
        return index, L2(penalty)

    @staticmethod
    def overlapping(penalty: Any, groups: Iterable, size: int) -> tuple["Duplicate", "GroupL2"]:
        """(K, g) with g(Kx) = Σ_g penalty_g ‖x_g‖₂ for lists of indices that may overlap.

        K copies each entry of x, of which there are `size`, into each group that names it; the
        copies are disjoint. `Composite(f, g, K)` is for the solvers that split.
        """
        lists = [_indices(group) for group in groups]
        if any(np.any(group >= size) for group in lists):
            raise ValueError(f"groups must hold indices below size = {size}")
        labels = np.repeat(np.arange(len(lists)), [len(group) for group in lists])
        return Duplicate(Integers(np.concatenate(lists)), size), GroupL2(penalty, labels)


class SparseNorm:
    """Σⱼ l1ⱼ |xⱼ| + norm(x), for a norm of groups. For those below to inherit."""

    l1: Any
    norm: Any

    def __call__(self, x: Tree) -> Array:
        return weighted_l1(per_leaf("l1", self.l1, x), x) + self.norm(x)

    def prox(self, x: Tree, step: Any) -> Tree:
        """Soft-threshold, then shrink each group (Friedman, Hastie and Tibshirani 2010)."""
        return self.norm.prox(self._thresholded(x, step), step)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """At least: to the edge of a group's dead zone and, where a group is outside of it, of a
        coordinate's."""
        u = self._thresholded(x, step)
        moves = self.norm.support(self.norm.prox(u, step))

        def gaps(p, xi, moving):
            return jnp.where(moving, from_threshold(jnp.abs(xi), step * p), jnp.inf)

        l1 = per_leaf("l1", self.l1, x)
        return nearest((jax.tree.map(gaps, l1, x, moves), self.norm.gaps(u, step)))

    def support(self, x: Tree) -> Tree:
        l1, in_group = per_leaf("l1", self.l1, x), self.norm.support(x)
        return jax.tree.map(lambda p, xi, s: s & ((xi != 0) | (p == 0)), l1, x, in_group)

    def curvature(self, x: Tree, v: Tree) -> Tree:
        return self.norm.curvature(x, v)

    def _thresholded(self, x: Tree, step: Any) -> Tree:
        l1 = per_leaf("l1", self.l1, x)
        return jax.tree.map(lambda p, xi: soft_threshold(xi, step * p), l1, x)


@struct
class SparseGroup(SparseNorm):
    """Σⱼ l1ⱼ |xⱼ| + Σ_g group_g ‖x_g‖₂ (sparse group lasso).

    l1: as the penalty of `L1`.   group, groups: as the penalty and the groups of `GroupL2`.
    """

    l1: Any
    group: Any
    groups: Any = static(default=None)

    def __post_init__(self) -> None:
        settle(self, "l1", validate.coefficients("l1", self.l1))
        settle(self, "group", validate.coefficients("group", self.group))
        settle(self, "groups", Groups.read(self.groups))

    @property
    def norm(self) -> GroupL2:
        return GroupL2(self.group, self.groups)

    def separate(self, x: Array) -> tuple[np.ndarray | None, "SparseBlock"]:
        """Disjoint blocks of indices, and the function of each."""
        l1, (index, norm) = repeat("l1", self.l1, x), self.norm.separate(x)
        if index is not None:
            l1 = l1.at[index].get(mode="fill", fill_value=0)
        return index, SparseBlock(l1, norm)


@struct
class SparseBlock(SparseNorm):
    """Σⱼ l1ⱼ |xⱼ| + norm(x) for a single group."""

    l1: Any
    norm: L2


def block_norms(blocks: Blocks, x: Array) -> Array:
    """‖x_b‖₂, scaled against over- and underflow, with derivative 0 where x_b = 0."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), initial=0))
    unit = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1)
    squares = blocks.sums((x / unit) ** 2)
    return jnp.where(squares == 0, 0, unit * jnp.sqrt(jnp.where(squares == 0, 1, squares)))


class Along:
    """The blocks are the lines of an array along an axis, or all of it."""

    def __init__(self, axis: int | None) -> None:
        self.axis = axis

    def sums(self, x: Array) -> Array:
        return jnp.sum(x, axis=self.axis)

    def spread(self, values: Array, x: Array) -> Array:
        return values if self.axis is None else jnp.expand_dims(values, self.axis)


class Rows:
    """The blocks are the entries along the first axis."""

    def sums(self, x: Array) -> Array:
        return jnp.sum(x, axis=tuple(range(1, x.ndim)))

    def spread(self, values: Array, x: Array) -> Array:
        return values.reshape(values.shape + (1,) * (x.ndim - 1))


class Integers:
    """Integers as structure: compared and hashed by what they are."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.array(values, np.int32)
        self._hash = hash((self.values.shape, self.values.tobytes()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Integers) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return np.array2string(self.values, threshold=10, separator=", ")


class Groups(Integers):
    """The blocks are the entries along the first axis that share a label, 0 ≤ label < count.

    exact: whether there is a label for each entry; if not, entries beyond the labels have none.
    """

    def __init__(self, labels: np.ndarray, count: int, exact: bool) -> None:
        super().__init__(np.append(labels, (count, exact)))
        self.labels, self.count, self.exact = self.values[:-2], count, exact

    @classmethod
    def read(cls, groups: Any) -> "Groups | None":
        """From labels, or from lists of indices."""
        if groups is None or isinstance(groups, Groups):
            return groups
        if isinstance(groups, (str, dict)) or not hasattr(groups, "__len__"):
            raise TypeError(f"groups must be labels or lists of indices, got {groups!r}")
        if len(groups) and all(np.ndim(group) == 1 for group in groups):
            return cls._from_lists([_indices(group) for group in groups])
        labels = _whole("groups", groups)
        if labels.ndim != 1:
            raise ValueError(f"groups must be one label per entry, got shape {labels.shape}")
        distinct, position = np.unique(labels, return_inverse=True)
        free = int(np.sum(distinct < 0))
        return cls(np.where(labels < 0, -1, position - free), len(distinct) - free, True)

    @classmethod
    def _from_lists(cls, lists: list[np.ndarray]) -> "Groups":
        named = np.concatenate(lists)
        if len(np.unique(named)) < len(named):
            raise ValueError(
                "groups must be disjoint; for groups that overlap use GroupL2.overlapping"
            )
        labels = np.full(np.max(named, initial=-1) + 1, -1)
        for label, group in enumerate(lists):
            labels[group] = label
        return cls(labels, len(lists), False)

    def sums(self, x: Array) -> Array:
        rows = jnp.sum(x, axis=tuple(range(1, x.ndim)))
        return jax.ops.segment_sum(rows, self._of(x), self.count)

    def spread(self, values: Array, x: Array) -> Array:
        spread = jnp.take(values, self._of(x), mode="fill", fill_value=0)
        return spread.reshape(spread.shape + (1,) * (x.ndim - 1))

    def members(self, x: Array) -> np.ndarray:
        """The indices in each block, a row each, and then of each entry in none.

        Rows are filled up with an index past the end.
        """
        labels = self._of(x)
        free = labels == self.count
        labels[free] += np.arange(np.sum(free))
        sizes = np.bincount(labels, minlength=self.count)
        rows = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
        index = np.full((len(sizes), np.max(sizes)), len(x), np.int32)
        for row, block in zip(index, rows, strict=True):
            row[: len(block)] = block
        return index

    def _of(self, x: Array) -> np.ndarray:
        """A label for each entry of x along its first axis; those in no group are out of range."""
        given, wanted = len(self.labels), x.shape[0] if x.ndim else 0
        if given > wanted or (self.exact and given < wanted):
            least = "one label per entry" if self.exact else "indices of entries"
            raise ValueError(
                f"groups must hold {least} of x along its first axis, which has {wanted}; "
                f"got {'labels' if self.exact else 'indices'} for {given}"
            )
        labels = np.full(wanted, self.count, np.int32)
        labels[:given] = np.where(self.labels < 0, self.count, self.labels)
        return labels


@struct
class Duplicate:
    """The operator K with (Kx)ᵢ = x_index(i), for x of shape (size, …)."""

    index: Integers = static()
    size: int = static()

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.index.values), self.size

    def __call__(self, x: Array) -> Array:
        return x[self.index.values]

    def T(self, u: Array) -> Array:
        """Kᵀu: the copies of each entry added up."""
        return jax.ops.segment_sum(u, self.index.values, self.size)

    def norm(self) -> float:
        """‖K‖₂: KᵀK is diagonal and counts the copies."""
        return float(np.sqrt(np.max(np.bincount(self.index.values), initial=0)))


def _indices(group: Any) -> np.ndarray:
    indices = _whole("groups", group) if len(group) else np.zeros(0, np.int32)
    if np.any(indices < 0) or len(np.unique(indices)) < len(indices):
        raise ValueError(f"groups must be lists of distinct indices from 0, got {group!r}")
    return indices


def _whole(name: str, values: Any) -> np.ndarray:
    if not validate.is_known(values):
        raise TypeError(f"{name} must be known: it is structure, and cannot be traced")
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"{name} must hold integers, got dtype {values.dtype}")
    return values
