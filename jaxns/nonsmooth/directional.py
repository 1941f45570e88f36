"""One-sided directional derivatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.tree import Tree


def directional_derivative(
    f: Callable[[Tree], Tree], x: Tree, direction: Tree, step: float | Array | None = None
) -> Tree:
    """lim_{t→0⁺} (f(x + t d) − f(x))/t for a piecewise smooth program f.

    Shortly after x, on the way along d, f is smooth, and its derivative there tends to the limit:

        f′(x; d) ≈ 2 ∂f(x + t/2 d) d − ∂f(x + t d) d,

    which is exact where f is affine on the piece that d enters, and otherwise up to O(t²). Unlike
    ∂f(x) d, it does not depend on how f is written, and needs no element to be chosen; it is not
    linear in d where x is a kink. Other kinks must be farther away than t d.

    f: from a pytree of floating-point arrays to another; it must have forward-mode derivatives (a
        solve has them with `direction="both"`).
    x, direction: pytrees of one structure.   Returns what f does, in structure and shapes.
    step: t. By default t ‖d‖∞ = √ε ‖x‖∞ (√ε where x = 0), ε the relative spacing of numbers.
    """
    x = as_floats(x)
    d = jax.tree.map(lambda di, xi: jnp.asarray(di, xi.dtype), direction, x)
    if step is None:
        length = largest(d)
        t = nearby(x) / jnp.where(length > 0, length, 1)
    else:
        t = validate.positive("step", validate.scalar("step", step))

    def after(t: Any) -> Tree:
        ahead = jax.tree.map(lambda xi, di: xi + (t * di).astype(xi.dtype), x, d)
        return jax.jvp(f, (ahead,), (d,))[1]

    return tree.sub(tree.scale(2, after(t / 2)), after(t))


def nearby(x: Tree) -> Array:
    """A distance from x that is small, but not to rounding."""
    size = lax.stop_gradient(largest(x))
    return tree.eps(x) ** 0.5 * jnp.where(size > 0, size, 1)


def largest(x: Tree) -> Array:
    """‖x‖∞."""
    sizes = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(x)]
    return jnp.max(jnp.stack(sizes)).astype(tree.dtype(x))


def as_floats(x: Tree) -> Tree:
    return jax.tree.map(lambda xi: jnp.asarray(xi, jnp.result_type(xi, float)), x)
