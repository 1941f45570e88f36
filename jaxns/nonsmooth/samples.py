"""Jacobians at points nearby, of the Clarke Jacobian; and with other elements at the kinks met."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxns import validate
from jaxns.nonsmooth import programs
from jaxns.nonsmooth.directional import as_floats, nearby
from jaxns.nonsmooth.elementary import absolute, clip, maximum, minimum
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


def sample_conservative_jacobians(
    f: Callable[[Tree], Tree],
    x: Tree,
    key: Array,
    count: int,
    jacobian: Callable[[Callable], Callable] = jax.jacfwd,
) -> Tree:
    """What differentiating the program of f gives at x, with random elements at the kinks it meets.

    Elements of the conservative Jacobian of the program,

        D_F(x) = { M_L D_L ⋯ D_1 M_1 },   D_i diagonal, its entries at a kink free,

    (arXiv 2206.01730, on ReLU networks): each number that `max`, `min`, `abs` or a clamp meets
    at its kink has an element of its own, uniform in the Clarke interval. They are easy to have and
    need not be in the Clarke Jacobian: 0 written as relu(x) − relu(−x) − x has [−1, 1]. Two
    elements that differ show that x is a kink of the program, not that it is one of f. What has
    another kind of kink (sorting, branches, loops) keeps the element that JAX gives it.

    f, x, key, count, jacobian, and the result: as for `sample_jacobians`.
    """
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a positive integer, got {count!r}")
    x = as_floats(x)
    program, _, structure = programs.trace(f, x)

    def one(key: Array) -> Tree:
        def chosen(x: Tree) -> Tree:
            keys = iter(jax.random.split(key, sum(1 for _ in programs.equations(program)) + 1))
            results = _with_elements(program, jax.tree.leaves(x), keys)
            return jax.tree.unflatten(structure, results)

        return jacobian(chosen)(x)

    return jax.vmap(one)(jax.random.split(key, count))


def _with_elements(program: Any, values: Sequence[Any], keys: Iterator[Array]) -> list[Any]:
    def element(like: Any, least: float = 0.0) -> Array:
        return jax.random.uniform(next(keys), jnp.shape(like), jnp.result_type(like), least, 1)

    def rule(equation: Any, inputs: list[Any]) -> Sequence[Any]:
        floating = all(jnp.issubdtype(jnp.result_type(v), jnp.floating) for v in inputs)
        inside = programs.called(equation)
        if floating and equation.primitive.name in ("max", "min"):
            a, b = inputs
            larger = {"max": maximum, "min": minimum}[equation.primitive.name]
            return [larger(a, b, element(a + b))]
        if floating and equation.primitive.name == "abs":
            return [absolute(inputs[0], element(inputs[0], -1.0))]
        if floating and equation.primitive.name == "clamp":
            lower, x, upper = inputs
            return [clip(x, lower, upper, element(x))]
        if inside is not None and equation.primitive.name != "custom_linear_solve":
            return _with_elements(inside, inputs, keys)
        return programs.evaluate(equation, inputs)

    return programs.interpret(program, values, rule)
