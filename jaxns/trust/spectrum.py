"""What ∂F is like at a point: how fast it contracts, how near I − ∂F is to a singular matrix."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, tree
from jaxns.linear import Matvec

SMALL = 1024  # unknowns up to which the matrix is assembled
POWERS = 200  # applications of A, or of (Aᵀ, A) pairs, where it is not


class Spectrum(NamedTuple):
    """rho: spectral radius of A.  norm: ‖A‖₂.  inverse: ‖(I − A)⁺‖₂.

    kernel: dimension of the kernel of I − A; −1 where it is not known (large problems).
    """

    rho: Array
    norm: Array
    inverse: Array
    kernel: Array


def spectrum(push: Matvec, pull: Matvec, z: Array, key: Array) -> Spectrum:
    """Of A given by `push` (A u) and `pull` (Aᵀ w), at a point like z.

    The spectral radius comes from the power method, as the larger root of λ² = aλ + b fitted to the
    last three powers: right for a pair of complex eigenvalues too, and for matrices that are not
    normal, whose norm says nothing about the rate.
    """
    u = jax.random.normal(key, z.shape, z.dtype)
    rho = _radius(push, u)
    norm = jnp.sqrt(_growth(lambda v: pull(push(v)), u, POWERS))
    if z.size <= SMALL:
        A = jax.vmap(push, out_axes=1)(jnp.eye(z.size, dtype=z.dtype))
        finite = jnp.all(jnp.isfinite(A))
        A = jnp.where(finite, A, 0)
        s = jnp.linalg.svd(jnp.eye(z.size, dtype=z.dtype) - A, compute_uv=False)
        positive = s > 10 * z.size * tree.eps(z) * jnp.max(s, initial=0)
        inverse = jnp.max(jnp.where(positive, 1 / jnp.where(positive, s, 1), 0), initial=0)
        kernel = jnp.sum(~positive, dtype=jnp.int32)
        unknown = jnp.asarray(jnp.nan, z.dtype)
        rho, norm, inverse = tree.where(finite, (rho, norm, inverse), (unknown,) * 3)
        return Spectrum(rho, norm, inverse, kernel)
    inverse = jnp.sqrt(_growth(lambda v: _solve(push, _solve(pull, v)), u, 5))
    return Spectrum(rho, norm, inverse, jnp.full((), -1, jnp.int32))


def _solve(product: Matvec, b: Array) -> Array:
    return linear.solve("auto", lambda v: v - product(v), b, 1e-8, 10_000)[0]


def _power(product: Matvec, u: Array, times: int) -> tuple[Array, Array]:
    """uₖ = Mᵏ u / ‖·‖, and the last ‖M uₖ₋₁‖."""

    def body(_, carry):
        v = product(carry[0])
        size = jnp.linalg.norm(v)
        return v / jnp.where(size > 0, size, 1), size

    start = (u / jnp.linalg.norm(u), jnp.zeros((), u.dtype))
    return lax.fori_loop(0, times, body, start)


def _growth(product: Matvec, u: Array, times: int) -> Array:
    """The largest eigenvalue of a positive semidefinite M."""
    return _power(product, u, times)[1]


def _radius(product: Matvec, u: Array) -> Array:
    u, size = _power(product, u, POWERS)
    v = product(u)
    w = product(v)
    (a, b), _, rank, _ = jnp.linalg.lstsq(jnp.stack([v, u], axis=1), w, rcond=1e-7)
    discriminant = a**2 / 4 + b
    root = jnp.sqrt(jnp.abs(discriminant))
    pair = jnp.where(discriminant >= 0, jnp.abs(a) / 2 + root, jnp.sqrt(jnp.abs(b)))
    rho = jnp.where(rank == 2, pair, jnp.linalg.norm(v))
    return jnp.where(size > 0, rho, 0)
