"""Finite differences of signals and images: the K of g(Kx), with their adjoints."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxns.struct import static, struct


@struct
class Differences:
    """The differences of the given order along the last axis: n entries become n − order.

    order 1: xᵢ₊₁ − xᵢ;   order 2: xᵢ₊₂ − 2 xᵢ₊₁ + xᵢ;   and so on.
    """

    order: int = static(default=1)

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or self.order < 1:
            raise ValueError(f"order must be a positive integer, got {self.order!r}")

    def __call__(self, x: Array) -> Array:
        return jnp.diff(x, n=self.order)

    @property
    def T(self) -> Callable[[Array], Array]:
        return self.adjoint

    def adjoint(self, u: Array) -> Array:
        """Each first difference has the adjoint −(differences of u between zeros)."""
        edges = [(0, 0)] * (u.ndim - 1) + [(self.order, self.order)]
        return (-1) ** self.order * jnp.diff(jnp.pad(u, edges), n=self.order)


@struct
class ImageGradient:
    """(m, n) -> (2, m, n): the differences downwards and to the right, 0 beyond the border."""

    def __call__(self, x: Array) -> Array:
        down = jnp.pad(jnp.diff(x, axis=0), [(0, 1), (0, 0)])
        right = jnp.pad(jnp.diff(x, axis=1), [(0, 0), (0, 1)])
        return jnp.stack([down, right])

    @property
    def T(self) -> Callable[[Array], Array]:
        return self.adjoint

    def adjoint(self, u: Array) -> Array:
        down, right = u[0, :-1, :], u[1, :, :-1]
        return -jnp.diff(jnp.pad(down, [(1, 1), (0, 0)]), axis=0) - jnp.diff(
            jnp.pad(right, [(0, 0), (1, 1)]), axis=1
        )
