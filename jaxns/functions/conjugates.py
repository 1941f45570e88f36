"""The conjugates that have a closed form: f*(y) = supₓ ⟨x, y⟩ − f(x). One row each.

`conjugate.register(Mine)` adds the row of a function of one's own.
"""

from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.functions import affine, balls, cones, groups, largest, norms, sets
from jaxns.functions.exponential_cone import ExponentialCone
from jaxns.functions.isotonic import Isotonic
from jaxns.functions.norms import per_leaf, total
from jaxns.functions.sets import holds, indicator
from jaxns.tree import Tree


@singledispatch
def conjugate(f: Any, y: Tree) -> Array:
    """f*(y)."""
    raise TypeError(
        f"the conjugate of {type(f).__name__} has no value in closed form here, only a prox; "
        "register one with jaxns.functions.conjugates.conjugate"
    )


@conjugate.register
def _(f: norms.Zero, y: Tree) -> Array:
    return indicator(holds(lambda yi: yi == 0, y), y)


@conjugate.register
def _(f: affine.Linear, y: Tree) -> Array:
    return indicator(holds(lambda yi, c: _near(yi - c, c), y, f.gradient(y)), y)


@conjugate.register
def _(f: norms.L1, y: Tree) -> Array:
    penalty = per_leaf("penalty", f.penalty, y)
    return indicator(holds(lambda yi, p: _near(_beyond(yi, p), p), y, penalty), y)


@conjugate.register
def _(f: norms.SquaredL2, y: Tree) -> Array:
    return _sum(_half_square, y, per_leaf("penalty", f.penalty, y))


@conjugate.register
def _(f: norms.ElasticNet, y: Tree) -> Array:
    l1, l2 = per_leaf("l1", f.l1, y), per_leaf("l2", f.l2, y)
    return _sum(lambda yi, a, b: _half_square(_beyond(yi, a), b), y, l1, l2)


@conjugate.register
def _(f: sets.Box, y: Tree) -> Array:
    lower, upper = per_leaf("lower", f.lower, y), per_leaf("upper", f.upper, y)

    def value(yi, low, high):
        return yi * jnp.where(yi > 0, high, jnp.where(yi == 0, 0, low))

    return _sum(value, y, lower, upper)


@conjugate.register
def _(f: sets.Simplex, y: Tree) -> Array:
    return _sum(lambda yi: f.radius * jnp.max(yi, f.axis), y)


@conjugate.register
def _(f: balls.L1Ball, y: Tree) -> Array:
    return _sum(lambda yi: f.radius * jnp.max(jnp.abs(yi), f.axis), y)


@conjugate.register
def _(f: balls.L2Ball, y: Tree) -> Array:
    return _sum(lambda yi: f.radius * balls.polar(yi, f.axis)[0], y)


@conjugate.register
def _(f: balls.LinfBall, y: Tree) -> Array:
    return _sum(lambda yi, r: r * jnp.abs(yi), y, per_leaf("radius", f.radius, y))


@conjugate.register
def _(f: groups.L2, y: Tree) -> Array:
    def inside(yi, p):
        norm = jnp.squeeze(balls.polar(yi, f.axis)[0], f.axis)
        return _near(_beyond(norm, p), p)

    return indicator(holds(inside, y, f._per_block(y)), y)


@conjugate.register
def _(f: largest.Linf, y: Tree) -> Array:
    def inside(yi, p):
        return _near(_beyond(jnp.sum(jnp.abs(yi), f.axis), p), p)

    return indicator(holds(inside, y, f._per_norm(y)), y)


@conjugate.register
def _(f: largest.Max, y: Tree) -> Array:
    def inside(yi, p):
        return _near(jnp.sum(yi, f.axis) - p, p) & _near(jnp.min(yi, f.axis, initial=0), p)

    return indicator(holds(inside, y, f._per_maximum(y)), y)


@conjugate.register(Isotonic)
@conjugate.register(sets.NonNegative)
@conjugate.register(cones.SecondOrderCone)
@conjugate.register(cones.PositiveSemidefinite)
@conjugate.register(ExponentialCone)
def _(f: Any, y: Tree) -> Array:
    """The polar cone: where the projection on f is 0."""
    return indicator(tree.norm(f.prox(y, 1.0)) <= 1e2 * tree.eps(y) * tree.norm(y), y)


def _half_square(y: Array, curvature: Array) -> Array:
    """The conjugate of ½ curvature x²: y²/(2 curvature), or that of 0."""
    flat = curvature == 0
    return jnp.where(
        flat, jnp.where(y == 0, 0, jnp.inf), y**2 / (2 * jnp.where(flat, 1, curvature))
    )


def _beyond(y: Array, radius: Array) -> Array:
    return jnp.maximum(jnp.abs(y) - radius, 0)


def _near(gap: Array, size: Array) -> Array:
    return jnp.abs(gap) <= 1e2 * tree.eps(gap) * jnp.abs(size)


def _sum(value: Any, y: Tree, *others: Tree) -> Array:
    return total(jax.tree.map(value, y, *others))
