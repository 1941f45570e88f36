"""Kernel matrices: by rows of a kernel function, without the n × n matrix, or given as they are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import validate
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree

BLOCK = 2**20  # entries computed together in a product with K

Kernel = Callable[[Array, Array, Tree], Array]


@struct
class KernelMatrix:
    """K_ij = k(x_i, x_j, θ), computed in blocks of rows whenever they are needed: O(n) memory.

    X: (n, d), the inputs.   theta: θ, a pytree, which may be differentiated.
    kernel: k, symmetric and positive semidefinite, static (define it at module level): `rbf`,
        `matern32`, or one of your own.
    """

    X: Array
    theta: Tree
    kernel: Kernel = static()

    def __post_init__(self) -> None:
        settle(self, "X", validate.array("X", self.X, 2))
        if not callable(self.kernel):
            raise TypeError(f"kernel must be a function of two points and θ, got {self.kernel!r}")

    @property
    def size(self) -> int:
        return self.X.shape[0]

    def at(self, points: Array) -> Array:
        """k(p_i, x_j) for points (m, d): (m, n)."""
        return jax.vmap(self._row)(jnp.asarray(points))

    def rows(self, index: Array) -> Array:
        """The rows of K with these numbers: (m, n)."""
        return self.at(self.X[index])

    def diagonal(self) -> Array:
        return jax.vmap(lambda x: self.kernel(x, x, self.theta))(self.X)

    def __call__(self, a: Array) -> Array:
        """K a, for a (n,) or (n, s); the rows are computed again for the derivative."""
        together = max(1, BLOCK // max(1, self.size))
        row = jax.checkpoint(lambda x: self._row(x) @ a)
        return lax.map(row, self.X, batch_size=min(together, self.size))

    def _row(self, x: Array) -> Array:
        return jax.vmap(lambda y: self.kernel(x, y, self.theta))(self.X)


@struct
class GivenMatrix:
    """K as an (n, n) array, symmetric and positive semidefinite."""

    matrix: Array

    @property
    def size(self) -> int:
        return self.matrix.shape[0]

    def rows(self, index: Array) -> Array:
        return self.matrix[index]

    def diagonal(self) -> Array:
        return jnp.diagonal(self.matrix)

    def __call__(self, a: Array) -> Array:
        return self.matrix @ a


def as_kernel_matrix(K: Any) -> Any:
    """K itself if it has rows; an (n, n) array as a `GivenMatrix`."""
    if hasattr(K, "rows") and hasattr(K, "diagonal"):
        return K
    K = validate.array("K", K, 2)
    if K.shape[0] != K.shape[1]:
        raise ValueError(f"K must be square, got shape {K.shape}")
    return GivenMatrix(jnp.asarray(K))


def rbf(x: Array, y: Array, theta: Tree) -> Array:
    """v exp(−r²/2), r = ‖(x − y)/ℓ‖.   theta: {"lengthscale": ℓ, one or (d,); "variance": v}."""
    return theta["variance"] * jnp.exp(-_square(x, y, theta) / 2)


def matern32(x: Array, y: Array, theta: Tree) -> Array:
    """v (1 + √3 r) exp(−√3 r), r = ‖(x − y)/ℓ‖.   theta: as for `rbf`."""
    square = _square(x, y, theta)
    apart = square > 0  # at r = 0 the root has no derivative, and the kernel has: zero
    r = jnp.where(apart, jnp.sqrt(3 * jnp.where(apart, square, 1)), 0)
    return theta["variance"] * (1 + r) * jnp.exp(-r)


def _square(x: Array, y: Array, theta: Tree) -> Array:
    return jnp.sum(((x - y) / theta["lengthscale"]) ** 2)
