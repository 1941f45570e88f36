"""Derivatives of high order along a line, in one forward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.errors import UnexpectedTracerError
from jax.experimental.jet import jet

from jaxns import validate
from jaxns.tree import Tree

METHODS = ("taylor", "nested")


def derivatives(
    f: Callable[[Tree], Tree],
    x: Tree,
    order: int,
    direction: Tree | None = None,
    method: str = "taylor",
) -> Tree:
    """dᵏ/dtᵏ f(x + t v) at t = 0 for k = 0, …, order, stacked along a new first axis.

    By Taylor mode, `jax.experimental.jet`: what a primitive does to the first derivatives of a path
    is Faà di Bruno's formula, so that the cost grows like order² where nested differentiation
    doubles it or worse with every order. For a dense network this is n-TangentProp (arXiv
    2412.09752). The result can be differentiated again, as in a loss on a network's derivatives.

    f: a function of pytrees.   x: a pytree of floating-point arrays.   order: ≥ 0.
    direction: v, like x. By default 1 in every entry: d/dx of a function of a number, or of each
        of the numbers in x where f acts on one by one.
    method: "taylor", or "nested": `jax.jvp` of `jax.jvp` of …, for any f, at a cost exponential in
        the order.

    Raises TypeError, naming the primitive, where Taylor mode has no rule for what f does; TypeError
    or ValueError for a direction that is not like x, or an order that is no integer ≥ 0.
    """
    order = int(validate.nonnegative("order", validate.integer("order", order)))
    validate.choice("method", method, METHODS)
    for leaf in jax.tree.leaves(x):
        validate.array("x", leaf)
    x = jax.tree.map(jnp.asarray, x)
    v = jax.tree.map(jnp.ones_like, x) if direction is None else _like(direction, x)
    along = _nested if method == "nested" or order == 0 else _taylor
    return jax.tree.map(lambda *each: jnp.stack(each), *along(f, x, v, order))


def _taylor(f: Callable[[Tree], Tree], x: Tree, v: Tree, order: int) -> list[Tree]:
    leaves, structure = jax.tree.flatten(x)
    paths = [[vi] + [jnp.zeros_like(vi)] * (order - 1) for vi in jax.tree.leaves(v)]

    def flat(*leaves: Any) -> tuple:
        return tuple(jax.tree.leaves(f(jax.tree.unflatten(structure, leaves))))

    kind = jax.tree.structure(jax.eval_shape(f, x))
    try:
        values, series = jet(flat, tuple(leaves), tuple(paths))
    except (AttributeError, KeyError, NotImplementedError, UnexpectedTracerError) as error:
        known = isinstance(error, KeyError) and error.args
        what = str(error.args[0]) if known else "a function with a derivative rule of its own"
        raise TypeError(
            f"Taylor mode has no rule for {what}, which f uses; pass method='nested'"
        ) from error
    each = [values, *zip(*series, strict=True)]
    return [jax.tree.unflatten(kind, k_th) for k_th in each]


def _nested(f: Callable[[Tree], Tree], x: Tree, v: Tree, order: int) -> list[Tree]:
    """dᵏ/dtᵏ f = the derivative of dᵏ⁻¹/dtᵏ⁻¹ f along v."""

    def next_of(g: Callable[[Tree], Tree], x: Tree) -> Tree:
        return jax.jvp(g, (x,), (v,))[1]

    each = [f]
    for _ in range(order):
        each.append(partial(next_of, each[-1]))
    return [g(x) for g in each]


def _like(direction: Tree, x: Tree) -> Tree:
    if jax.tree.structure(direction) != jax.tree.structure(x):
        raise ValueError(
            f"direction must have the structure of x, {jax.tree.structure(x)}, "
            f"got {jax.tree.structure(direction)}"
        )

    def check(vi: Any, xi: Any) -> Any:
        validate.array("direction", vi)
        if jnp.shape(vi) != xi.shape:
            raise ValueError(f"direction must have the shape of x, {xi.shape}, got {jnp.shape(vi)}")
        return jnp.asarray(vi, xi.dtype)

    return jax.tree.map(check, direction, x)
