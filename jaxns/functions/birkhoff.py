"""Doubly stochastic matrices, and others with given sums of rows and columns."""

from functools import partial
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
        return onto_plans(x, jnp.ones(x.shape[-2:-1], x.dtype), jnp.ones(x.shape[-1:], x.dtype))


def onto_plans(Y: Array, a: Array, b: Array) -> Array:
    """The projection of Y on {X ≥ 0 : X1 = a, Xᵀ1 = b}, as that on `Birkhoff`; NaN if it fails.

    Y: (…, n, m).   a: (n,).   b: (m,), of the same sum.   Differentiable in all three.
    """
    unit = lax.stop_gradient(jnp.maximum(jnp.max(a), jnp.max(b)))
    return unit * _onto_plans(Y / unit, a / unit, b / unit)


def sums(X: Array) -> Array:
    """Of rows, then of columns."""
    return jnp.concatenate([jnp.sum(X, -1), jnp.sum(X, -2)], -1)


def spread(dual: Array, rows: int) -> Array:
    """f1ᵀ + 1gᵀ for dual = (f, g): the adjoint of `sums`."""
    f, g = jnp.split(dual, [rows], axis=-1)
    return f[..., :, None] + g[..., None, :]


@partial(jnp.vectorize, signature="(n,m),(n),(m)->(n,m)")
def _onto_plans(Y: Array, a: Array, b: Array) -> Array:
    n, m = Y.shape
    marginals = jnp.concatenate([a, b])
    # Onto the matrices with these sums, which contain the set: so Y loses no digits to an offset.
    Y = Y - jnp.mean(Y, 0) - jnp.mean(Y, 1)[:, None] + jnp.mean(Y)
    Y = Y + a[:, None] / m + b / n - jnp.sum(a) / (n * m)
    still = lax.stop_gradient(Y)
    rounding = 8 * tree.eps(Y) * (1 + jnp.max(jnp.abs(still)))
    near = _newton(still, lax.stop_gradient(marginals))
    on = near > rounding
    inverse = jnp.linalg.pinv(_normal_matrix(on, Y.dtype), hermitian=True)
    X = jnp.where(on, near + (Y - still), 0)
    for _ in range(2):  # the second time for the digits that the first has lost
        X = X - jnp.where(on, spread(inverse @ (sums(X) - marginals), n), 0)
    sound = jnp.max(jnp.abs(X - near)) <= tree.eps(Y) ** 0.5 + 20 * rounding
    X = X + lax.stop_gradient(jnp.maximum(X, 0) - X)
    return jnp.where(sound, X, jnp.nan)


def _newton(Y: Array, marginals: Array) -> Array:
    """max(Y + f1ᵀ + 1gᵀ, 0) at the minimum of ½‖max(Y + f1ᵀ + 1gᵀ, 0)‖² − ⟨a, f⟩ − ⟨b, g⟩.

    Each step is added to Y at once: what counts in the end, the entries near 0 and 1, is then as
    exact as they are, however large Y was. A last step follows once the sums are right.
    """
    tol = 4 * max(Y.shape) * tree.eps(Y)
    sizes = 0.5 ** jnp.arange(HALVINGS, dtype=Y.dtype)

    def step(carry):
        Y, _, steps = carry
        plan = jnp.maximum(Y, 0)
        gradient = sums(plan) - marginals
        off = jnp.max(jnp.abs(gradient))
        damping = jnp.clip(off / (1 + jnp.max(jnp.abs(Y))), 1e3 * tree.eps(Y), 0.1)
        H = _normal_matrix(Y > 0, Y.dtype) + damping * jnp.eye(len(gradient), dtype=Y.dtype)
        move = -jnp.linalg.solve(H, gradient)
        after = Y + sizes[:, None, None] * spread(move, len(Y))
        # By how much the value exceeds its tangent: no term is negative, so none cancels.
        bend = 0.5 * (jnp.maximum(after, 0) - plan) ** 2 + jnp.maximum(-after, 0) * plan
        change = sizes * (gradient @ move) + jnp.sum(bend, (-2, -1))
        return after[jnp.argmin(change)], off > tol, steps + 1

    def going(carry):
        _, off, steps = carry
        return off & (steps < MAX_STEPS)

    start = (Y, jnp.array(True), jnp.zeros((), jnp.int32))
    return jnp.maximum(tree.while_loop(going, step, start)[0], 0)


def _normal_matrix(on: Array, dtype: jnp.dtype) -> Array:
    """Of dual ↦ sums(on · spread(dual))."""
    on = on.astype(dtype)
    rows, columns = (jnp.zeros((count, count), dtype) for count in on.shape)
    return jnp.diag(sums(on)) + jnp.block([[rows, on], [on.T, columns]])
