"""Balls of radius r about 0; about another centre c, `Translate(ball, c)`.

On the sphere the projection moves with the radius, as outside (docs/kinks.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.functions.margins import from_threshold, nearest
from jaxns.functions.norms import per_leaf
from jaxns.functions.sets import along, holds, indicator, onto_simplex, simplex_gaps
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class L2Ball:
    """{x : ‖x‖₂ ≤ radius} along an axis of each leaf.

    radius: a number ≥ 0.   axis: an integer, by default the last; None for all entries of a leaf.
    """

    radius: float | Array
    axis: int | None = static(default=-1)

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, x: Tree) -> Array:
        def norm(xi):
            return polar(xi, self.axis)[0]

        return indicator(holds(lambda xi: _within(norm(xi), self.radius), x), x)

    def prox(self, x: Tree, step: Any) -> Tree:
        """radius · x / ‖x‖, from outside."""

        def project(xi):
            radius = jnp.asarray(self.radius, xi.dtype)
            norm, direction = polar(xi, self.axis)
            return jnp.where(norm < radius, xi, radius * direction)

        return jax.tree.map(project, x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        def gaps(xi):
            return from_threshold(polar(xi, self.axis)[0], jnp.asarray(self.radius, xi.dtype))

        return nearest(jax.tree.map(gaps, x))


@struct
class L1Ball:
    """{x : Σⱼ |xⱼ| ≤ radius} along an axis of each leaf.   radius, axis: as for `L2Ball`."""

    radius: float | Array
    axis: int | None = static(default=-1)

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, x: Tree) -> Array:
        def norm(xi):
            return jnp.sum(jnp.abs(xi), self.axis)

        return indicator(holds(lambda xi: _within(norm(xi), self.radius), x), x)

    def prox(self, x: Tree, step: Any) -> Tree:
        """From outside: the moduli go onto the simplex (Duchi et al. 2008)."""

        def project(xi, radius):
            size = jnp.abs(xi)
            outside = jnp.sign(xi) * onto_simplex(size, radius)
            return jnp.where(jnp.sum(size, -1, keepdims=True) < radius, xi, outside)

        onto = along(self.axis, project)
        return jax.tree.map(lambda xi: onto(xi, jnp.asarray(self.radius, xi.dtype)), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        gaps = along(self.axis, l1_gaps)
        return nearest(jax.tree.map(lambda xi: gaps(xi, jnp.asarray(self.radius, xi.dtype)), x))


@struct
class LinfBall:
    """{x : |xⱼ| ≤ radiusⱼ}.   radius: a number ≥ 0, an array that broadcasts, or a pytree."""

    radius: Any

    def __post_init__(self) -> None:
        settle(self, "radius", validate.coefficients("radius", self.radius))

    def __call__(self, x: Tree) -> Array:
        radius = per_leaf("radius", self.radius, x)
        return indicator(holds(lambda xi, r: jnp.abs(xi) <= r, x, radius), x)

    def prox(self, x: Tree, step: Any) -> Tree:
        radius = per_leaf("radius", self.radius, x)
        return jax.tree.map(
            lambda xi, r: jnp.where(jnp.abs(xi) < r, xi, r * jnp.sign(xi)), x, radius
        )

    def prox_margin(self, x: Tree, step: Any) -> Array:
        radius = per_leaf("radius", self.radius, x)
        return nearest(jax.tree.map(lambda xi, r: from_threshold(jnp.abs(xi), r), x, radius))


def l1_gaps(x: Array, radius: Array) -> Array:
    """How far x is from the sphere of the ℓ₁ ball and, outside, from the edges of the face that it
    is projected onto. A ball of radius 0 has none."""
    size = jnp.abs(x)
    excess = jnp.sum(size, -1, keepdims=True) - radius
    unit = jnp.where(radius > 0, radius, 1)
    face = onto_simplex(size, unit) > 0
    beyond = jnp.sum(jnp.where(face, size, 0), -1, keepdims=True) - radius
    outside = beyond / jnp.sqrt(jnp.sum(face, -1, keepdims=True).astype(x.dtype))
    outside = jnp.minimum(outside, simplex_gaps(size, unit))
    inside = -excess / x.shape[-1] ** 0.5
    return jnp.where(radius > 0, jnp.where(excess < 0, inside, outside), jnp.inf)


def polar(x: Array, axis: int | None = -1) -> tuple[Array, Array]:
    """‖x‖ along the axis, which is kept, and x/‖x‖. At 0 both are 0, with derivative 0."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis, keepdims=True))
    unit = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1)
    square = jnp.sum((x / unit) ** 2, axis, keepdims=True)
    zero = square == 0
    norm = unit * jnp.sqrt(jnp.where(zero, 1, square))
    return jnp.where(zero, 0, norm), jnp.where(zero, 0, x) / norm


def _within(norm: Array, radius: Any) -> Array:
    return norm <= jnp.asarray(radius, norm.dtype) * (1 + 1e2 * tree.eps(norm))


def _check(ball: Any) -> None:
    radius = validate.nonnegative("radius", validate.scalar("radius", ball.radius))
    settle(ball, "radius", radius)
    settle(ball, "axis", validate.axis("axis", ball.axis))
