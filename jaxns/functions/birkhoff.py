"""Doubly stochastic matrices."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.functions.sets import indicator
from jaxns.struct import struct

MAX_STEPS = 200
HALVINGS = 40


@struct
class Birkhoff:
    """{X ≥ 0 : X1 = 1, Xᵀ1 = 1} among matrices of shape (…, n, n).

    `prox` is the Euclidean projection, max(Y + f1ᵀ + 1gᵀ, 0), its dual variables f and g by a
    damped semismooth Newton method (Li, Sun and Toh 2020, SIAM Journal on Optimization 30); NaN
    should that fail. Near it the set is affine on the entries that are positive, and so is the
    derivative; an entry that is 0 stays 0. The other projection in use, that of the
    Kullback-Leibler divergence, is Sinkhorn's.
    """

    def __call__(self, x: Array) -> Array:
        off = jnp.abs(sums(x) - 1) <= 1e2 * tree.eps(x)
        return indicator(jnp.all(x >= 0) & jnp.all(off), x)

    def prox(self, x: Array, step: Any) -> Array:
        if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
            raise ValueError(f"x must have shape (…, n, n), got {x.shape}")
        return jnp.vectorize(_project, signature="(n,n)->(n,n)")(x)


def sums(X: Array) -> Array:
    """Of rows, then of columns."""
    return jnp.concatenate([jnp.sum(X, -1), jnp.sum(X, -2)], -1)


def spread(dual: Array) -> Array:
    """f1ᵀ + 1gᵀ for dual = (f, g): the adjoint of `sums`."""
    f, g = jnp.split(dual, 2, axis=-1)
    return f[..., :, None] + g[..., None, :]


def _project(Y: Array) -> Array:
    n = len(Y)
    # Onto the matrices with sums 1, which contain the set: so Y loses no digits to an offset.
    Y = Y - jnp.mean(Y, 0) - jnp.mean(Y, 1)[:, None] + jnp.mean(Y) + 1 / n
    still = lax.stop_gradient(Y)
    rounding = 2 * n * tree.eps(Y) * (1 + jnp.max(jnp.abs(still)))
    near = _newton(still, rounding)
    on = near > 10 * rounding
    inverse = jnp.linalg.pinv(_normal_matrix(on, Y.dtype), hermitian=True)
    X = jnp.where(on, Y, 0)
    for _ in range(2):  # the second time for the digits that the first has lost
        X = X - jnp.where(on, spread(inverse @ (sums(X) - 1)), 0)
    sound = jnp.max(jnp.abs(X - near)) <= tree.eps(Y) ** 0.5 + 20 * rounding
    X = X + lax.stop_gradient(jnp.maximum(X, 0) - X)
    return jnp.where(sound, X, jnp.nan)


def _newton(Y: Array, tol: Array) -> Array:
    """max(Y + f1ᵀ + 1gᵀ, 0) at the minimum of ½‖max(Y + f1ᵀ + 1gᵀ, 0)‖² − Σf − Σg."""
    sizes = 0.5 ** jnp.arange(HALVINGS, dtype=Y.dtype)

    def plan(dual):
        return jnp.maximum(Y + spread(dual), 0)

    def value(dual):
        return 0.5 * jnp.sum(plan(dual) ** 2, (-2, -1)) - jnp.sum(dual, -1)

    def step(carry):
        dual, gradient, steps = carry
        damping = jnp.clip(jnp.max(jnp.abs(gradient)), 1e3 * tree.eps(Y), 0.1)
        H = _normal_matrix(plan(dual) > 0, Y.dtype) + damping * jnp.eye(len(dual), dtype=Y.dtype)
        move = -jnp.linalg.solve(H, gradient)
        now = value(dual)
        enough = now + 1e-4 * sizes * (gradient @ move) + tol * (1 + jnp.abs(now))
        t = sizes[jnp.argmax(value(dual + sizes[:, None] * move) <= enough)]  # the first that does
        dual = dual + t * move
        return dual, sums(plan(dual)) - 1, steps + 1

    def going(carry):
        _, gradient, steps = carry
        return (jnp.max(jnp.abs(gradient)) > tol) & (steps < MAX_STEPS)

    dual = jnp.zeros(2 * len(Y), Y.dtype)
    start = (dual, sums(plan(dual)) - 1, jnp.zeros((), jnp.int32))
    return plan(tree.while_loop(going, step, start)[0])


def _normal_matrix(on: Array, dtype: jnp.dtype) -> Array:
    """Of dual ↦ sums(on · spread(dual))."""
    on = on.astype(dtype)
    return jnp.diag(sums(on)) + jnp.block([[jnp.zeros_like(on), on], [on.T, jnp.zeros_like(on)]])
