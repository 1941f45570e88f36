"""The derivative of a solution on either side of a kink."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import tree, validate
from jaxns.fixed_point import Stop
from jaxns.modes import Implicit
from jaxns.nonsmooth import directional_derivative
from jaxns.solve import solve
from jaxns.tree import Tree


def one_sided(
    build: Callable[[Any], Any],
    theta: Tree,
    direction: Tree,
    *,
    solver: Any = None,
    x0: Tree | None = None,
    mode: Any = Implicit(direction="both"),
    stop: Stop = Stop(),
    step: float | Array | None = None,
) -> tuple[Tree, Tree]:
    r"""The left and the right derivative of x*(θ) along a direction d.

        lim_{t↑0} and lim_{t↓0} of (x*(θ + t d) − x*(θ))/t,

    by `jaxns.nonsmooth.directional_derivative` along −d and d: where x* is piecewise smooth (arXiv
    2206.00457, section on kinks), up to O(step²), and equal away from kinks.

    build: θ -> problem.   theta, direction: pytrees of floating-point numbers of the same shapes.
    solver, x0, stop: as for `solve`.   mode: with direction="both".
    step: how far from θ derivatives are taken, in multiples of d; by default √eps ‖θ‖∞/‖d‖∞.
    """
    theta = jax.tree.map(lambda leaf: validate.array("theta", _floating(leaf)), theta)
    direction = jax.tree.map(lambda leaf: validate.array("direction", _floating(leaf)), direction)
    if jax.tree.map(jnp.shape, theta) != jax.tree.map(jnp.shape, direction):
        raise ValueError("direction must have the shapes of theta")

    def x(theta):
        return solve(build(theta), solver, x0, mode=mode, stop=stop).x

    def derivative(direction: Tree) -> Tree:
        return directional_derivative(x, theta, direction, step, method="nearby")

    return tree.scale(-1, derivative(tree.scale(-1, direction))), derivative(direction)


def _floating(leaf: Any) -> Any:
    return float(leaf) if isinstance(leaf, int) else leaf
