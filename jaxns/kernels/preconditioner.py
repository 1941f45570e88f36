"""P = L_k L_kᵀ + σ²I ≈ K + σ²I by a pivoted Cholesky factorisation of K, stopped after k steps."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from jaxns import tree
from jaxns.struct import struct


@struct
class Pivots:
    """Which k rows of K a factorisation took. Where K has a lower rank not all are `used`."""

    index: Array
    used: Array


def choose(K: Any, rank: int) -> Pivots:
    """Each time the row of the largest remaining diagonal: k rows of K, O(nk²)."""
    K = lax.stop_gradient(K)
    start = K.diagonal()
    least = 10 * max(rank, 1) * tree.eps(start) * jnp.max(start)

    def take(j: Array, carry: tuple) -> tuple:
        L, d, index, used = carry
        p = jnp.argmax(d).astype(jnp.int32)
        column = K.rows(p[None])[0] - L @ L[p]
        sound = d[p] > least
        column = jnp.where(sound, column / jnp.sqrt(jnp.where(sound, d[p], 1)), 0)
        d = (d - column**2).at[p].set(0)
        return L.at[:, j].set(column), d, index.at[j].set(p), used.at[j].set(sound)

    width = max(rank, 1)  # no array is empty
    L = jnp.zeros((K.size, width), start.dtype)
    nothing = jnp.zeros(width, jnp.int32), jnp.zeros(width, bool)
    return Pivots(*lax.fori_loop(0, rank, take, (L, start, *nothing))[2:])


def factor(K: Any, pivots: Pivots) -> Array:
    """L = K_{:p} K_pp^(−T/2), (n, k), differentiable with the pivots as they are."""
    across = jnp.where(pivots.used[:, None], K.rows(pivots.index), 0)
    both = pivots.used[:, None] & pivots.used
    among = jnp.where(both, across[:, pivots.index], jnp.eye(pivots.index.size, dtype=across.dtype))
    return solve_triangular(jnp.linalg.cholesky(among), across, lower=True).T


@struct
class Preconditioner:
    """P = L Lᵀ + σ²I.   L: (n, k).   noise: σ²."""

    L: Array
    noise: float | Array

    def __call__(self, v: Array) -> Array:
        """P v."""
        return self.L @ (self.L.T @ v) + self.noise * v

    def log_det(self) -> Array:
        """n log σ² + log det(I + LᵀL/σ²)."""
        n, k = self.L.shape
        C = jnp.linalg.cholesky(jnp.eye(k, dtype=self.L.dtype) + self.L.T @ self.L / self.noise)
        return n * jnp.log(self.noise) + 2 * jnp.sum(jnp.log(jnp.diagonal(C)))

    def power(self, p: float, v: Array) -> Array:
        """P^p v = σ^(2p) (v + L V [((1 + s)^p − 1)/σ²s] Vᵀ Lᵀ v), with LᵀL/σ² = V s Vᵀ."""
        s, V = jnp.linalg.eigh(self.L.T @ self.L / self.noise)
        positive = s > 0
        s = jnp.where(positive, s, 1)
        growth = jnp.where(positive, jnp.expm1(p * jnp.log1p(s)) / s, 0) / self.noise
        inner = (self.L @ V).T @ v
        scaled = (growth * inner.T).T
        return self.noise**p * (v + self.L @ (V @ scaled))


def precondition(K: Any, noise: Any, pivots: Pivots) -> Preconditioner:
    return Preconditioner(factor(K, pivots), jnp.asarray(noise))
