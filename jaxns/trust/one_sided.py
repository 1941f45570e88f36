"""The derivative of a solution on either side of a kink."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxns import tree, validate
from jaxns.fixed_point import Stop
from jaxns.modes import Implicit
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
    step: float | None = None,
) -> tuple[Tree, Tree]:
    r"""The left and the right derivative of x*(θ) along a direction d.

        lim_{t↑0} and lim_{t↓0} of J(θ + t d) d,    J = ∂x*/∂θ,

    at t = ∓step: where x* is piecewise smooth (arXiv 2206.00457, section on kinks) these are the
    one-sided derivatives up to O(step), equal away from kinks.

    build: θ -> problem.   theta, direction: pytrees of floating-point numbers of the same shapes.
    solver, x0, stop: as for `solve`.   mode: with direction="both".
    step: by default √eps ‖θ‖/‖d‖.
    """
    theta = jax.tree.map(lambda leaf: validate.array("theta", _floating(leaf)), theta)
    direction = jax.tree.map(lambda leaf: validate.array("direction", _floating(leaf)), direction)
    if jax.tree.map(jnp.shape, theta) != jax.tree.map(jnp.shape, direction):
        raise ValueError("direction must have the shapes of theta")
    size = tree.norm(direction)
    if step is None:
        reach = jnp.where(tree.norm(theta) > 0, tree.norm(theta), 1)
        step = tree.eps(theta) ** 0.5 * reach / jnp.where(size > 0, size, 1)  # pyright: ignore

    def x(theta):
        return solve(build(theta), solver, x0, mode=mode, stop=stop).x

    def beside(t):
        return jax.jvp(x, (tree.axpy(t, direction, theta),), (direction,))[1]

    return beside(-step), beside(step)  # pyright: ignore[reportOptionalOperand]


def _floating(leaf: Any) -> Any:
    return float(leaf) if isinstance(leaf, int) else leaf
