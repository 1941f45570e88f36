"""One step of a scheme: what h and f make of x."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from jaxns.tree import Tree

Field = Callable[[Tree, Tree, Array], Tree]


def euler(f: Field, x: Tree, theta: Tree, t: Array, h: Array) -> Tree:
    """x + h f(x, θ, t)."""
    return _along(x, h, f(x, theta, t))


def rk4(f: Field, x: Tree, theta: Tree, t: Array, h: Array) -> Tree:
    """The classical scheme of order four."""
    k1 = f(x, theta, t)
    k2 = f(_along(x, h / 2, k1), theta, t + h / 2)
    k3 = f(_along(x, h / 2, k2), theta, t + h / 2)
    k4 = f(_along(x, h, k3), theta, t + h)
    mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
    return _along(x, h, mean)


def _along(x: Tree, h: Array, k: Tree) -> Tree:
    """x + h k, in x's type."""
    return jax.tree.map(lambda xi, ki: xi + (h * ki).astype(xi.dtype), x, k)


SCHEMES: dict[str, Callable[..., Any]] = {"euler": euler, "rk4": rk4}
