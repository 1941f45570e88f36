"""Second-order and semidefinite cones. At the apex and on the boundary of the polar cone the
projection is 0 with derivative 0; on a cone's own boundary it is differentiated as outside."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.functions.balls import polar
from jaxns.functions.margins import nearest
from jaxns.functions.sets import indicator
from jaxns.functions.spectral import spectral_map
from jaxns.struct import struct


@struct
class SecondOrderCone:
    """{(x, t) : ‖x‖₂ ≤ t} along the last axis; t is its last entry."""

    def __call__(self, x: Array) -> Array:
        norm, t = polar(x[..., :-1])[0], x[..., -1:]
        return indicator(jnp.all(norm <= t + 1e2 * tree.eps(x) * norm), x)

    def prox(self, x: Array, step: Any) -> Array:
        """Outside the cone and its polar: ½ (‖x‖ + t) (x/‖x‖, 1)."""
        norm, direction = polar(x[..., :-1])
        t = x[..., -1:]
        ray = jnp.concatenate([direction, jnp.ones_like(t)], -1)
        outside = jnp.where(norm <= -t, 0, (norm + t) / 2 * ray)
        return jnp.where(norm < t, x, outside)

    def prox_margin(self, x: Array, step: Any) -> Array:
        """To the surfaces of the cone and of its polar."""
        norm, _ = polar(x[..., :-1])
        return nearest(jnp.abs(norm - jnp.abs(x[..., -1:])) / 2**0.5)


@struct
class PositiveSemidefinite:
    """The symmetric positive semidefinite matrices among those of shape (…, n, n)."""

    def __call__(self, x: Array) -> Array:
        slack = 1e2 * tree.eps(x) * jnp.linalg.norm(x, axis=(-2, -1))
        least = jnp.linalg.eigvalsh(x)[..., 0]
        skew = jnp.max(jnp.abs(x - x.mT), axis=(-2, -1))
        return indicator(jnp.all((least >= -slack) & (skew <= slack)), x)

    def prox(self, x: Array, step: Any) -> Array:
        """The symmetric part, with its negative eigenvalues at 0."""
        return spectral_map(x, _positive_part)

    def prox_margin(self, x: Array, step: Any) -> Array:
        """To the nearest matrix with an eigenvalue 0 (Weyl; Mirsky 1960)."""
        return nearest(jnp.abs(jnp.linalg.eigvalsh((x + x.mT) / 2)))


def _positive_part(w: Array) -> Array:
    return jnp.where(w <= 0, 0, w)
