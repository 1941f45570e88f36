"""Jacobians at points nearby: elements of the Clarke Jacobian, by its definition."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxns import validate
from jaxns.nonsmooth.directional import as_floats, nearby
from jaxns.tree import Tree


def sample_jacobians(
    f: Callable[[Tree], Tree],
    x: Tree,
    key: Array,
    count: int,
    radius: float | Array | None = None,
    jacobian: Callable[[Callable], Callable] = jax.jacfwd,
) -> Tree:
    """The Jacobians of f at `count` points, uniform in the ball of a radius about x.

    A locally Lipschitz f is differentiable almost everywhere, its program then computes the
    derivative (arXiv 2206.00457), and the Clarke Jacobian at x is the convex hull of the limits of
    these as the points tend to x. So the samples lie within O(radius) of that Jacobian (exactly in
    it for a piecewise affine f whose other kinks are farther away), and approximate it from inside:
    pieces that are thin at x may be missed.

    f: of a pytree of floating-point arrays.   key: as of `jax.random.key`.
    radius: by default √ε ‖x‖∞ (√ε where x = 0), ε the relative spacing of numbers.
    jacobian: `jax.jacrev` for an f that has reverse-mode derivatives only.
    Returns what `jacobian(f)(x)` does, with a new first axis of length `count`. For small problems:
    all points are worked on together.
    """
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a positive integer, got {count!r}")
    x = as_floats(x)
    if radius is None:
        reach = nearby(x)
    else:
        reach = validate.positive("radius", validate.scalar("radius", radius))
    centre, unravel = ravel_pytree(x)
    of_direction, of_length = jax.random.split(key)
    offsets = jax.random.normal(of_direction, (count, centre.size), centre.dtype)
    offsets = offsets / jnp.linalg.norm(offsets, axis=1, keepdims=True)
    lengths = jax.random.uniform(of_length, (count, 1), centre.dtype) ** (1 / centre.size)
    points = centre + (reach * lengths * offsets).astype(centre.dtype)
    return jax.vmap(lambda point: jacobian(f)(unravel(point)))(points)
