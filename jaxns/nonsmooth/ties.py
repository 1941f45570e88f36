"""Functions that select by order, whose derivative where entries are equal is an argument.

Of equal entries an order has to take one first. β weighs the two ways there are: to share the
derivative equally among them, and to give all of it to the one that comes first,

    M_β = β · (shared equally) + (1 − β) · (the first)            (arXiv 2401.02736).

Both are elements of the Clarke Jacobian, and so is M_β for β in [0, 1]; with β = 1 its norm is
least. Away from ties M_β does not depend on β.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns.nonsmooth.elementary import REALS, prepare


def maxpool(
    x: Any,
    window: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    beta: Any = 0.0,
    conservative: bool = True,
) -> Array:
    """The maximum over windows of the axes before the last, which holds channels; no padding.

    x: (…, h₁, …, h_k, channels).   window, strides: k sizes each, and strides = window by default.
    beta: β in [0, 1], a number; 0 is what JAX and PyTorch do: the first of equal entries, the last
        axis of the window running fastest, has derivative 1.
    conservative: with False, β may be any real number (the paper: up to 10⁴). The weights still sum
        to 1, but their norm is of the order of |β|.
    """
    x, beta = prepare("beta", beta, (0, 1) if conservative else REALS, x)
    strides = tuple(window) if strides is None else tuple(strides)
    k, sizes = len(window), x.shape[-1 - len(window) : -1]
    if not 0 < k < x.ndim:
        raise ValueError(f"window must have 1 to {x.ndim - 1} sizes for shape {x.shape}, got {k}")
    if not all(isinstance(w, int) and 0 < w <= h for w, h in zip(window, sizes, strict=True)):
        raise ValueError(f"window must have sizes from 1 to those of x, {sizes}, got {window}")
    if len(strides) != k or not all(isinstance(s, int) and s > 0 for s in strides):
        raise ValueError(f"strides must be {k} positive integers, got {strides}")
    counts = [(h - w) // s + 1 for h, w, s in zip(sizes, window, strides, strict=True)]

    def shifted(start: tuple[int, ...]) -> Array:
        """The entry at this place of every window."""
        cut = (slice(a, a + s * n, s) for a, s, n in zip(start, strides, counts, strict=True))
        return x[(..., *cut, slice(None))]

    places = itertools.product(*map(range, window))
    return _largest(jnp.stack([shifted(place) for place in places]), beta)


def sort(x: Any, axis: int = -1, beta: Any = 0.0, conservative: bool = True) -> Array:
    """The entries in ascending order, NaN last; equal ones keep their order for β = 0.

    beta: β in [0, 1], a number; 0 is what `jnp.sort` does.   conservative: as for `maxpool`.
    The k largest are the last k, the median is in the middle.
    """
    x, beta = prepare("beta", beta, (0, 1) if conservative else REALS, x)
    rows = jnp.moveaxis(x, axis, -1)
    in_rows = jnp.vectorize(_sorted, signature="(n),()->(n)")
    return jnp.moveaxis(in_rows(rows, beta), -1, axis)


@jax.custom_jvp
def _largest(x: Array, beta: Array) -> Array:
    return jnp.max(x, 0)


@_largest.defjvp
def _largest_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, beta), (dx, _) = primals, tangents
    ties = x == jnp.max(x, 0)
    shared = ties / jnp.maximum(jnp.sum(ties, 0), 1).astype(x.dtype)
    first = jax.nn.one_hot(jnp.argmax(x, 0), len(x), dtype=x.dtype, axis=0)
    return _largest(x, beta), jnp.sum((first + beta * (shared - first)) * dx, 0)


@jax.custom_jvp
def _sorted(x: Array, beta: Array) -> Array:
    return x[jnp.argsort(x)]


@_sorted.defjvp
def _sorted_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, beta), (dx, _) = primals, tangents
    order = jnp.argsort(x)
    y, first = x[order], dx[order]
    run = jnp.cumsum(jnp.concatenate([y[:1] != y[:1], y[1:] != y[:-1]]))
    total, length = (jnp.zeros_like(dx).at[run].add(a)[run] for a in (first, jnp.ones_like(dx)))
    return y, jnp.where(length == 1, first, first + beta * (total / length - first))
