"""A lasso-like model of few rows, minimised by Newton's method on its dual."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve

from jaxns import tree

ARMIJO = 1e-4  # fraction of the predicted increase that is asked for
SHORTEST = 2**-10  # the shortest step that is tried
MOST = 50  # steps


def minimiser(b: Array, x: Array, D: Array, B: Array, penalty: Any) -> Array:
    r"""argmin_u  bᵀ(u − x) + ½ (u − x)ᵀ(D + BᵀB)(u − x) + Σⱼ penaltyⱼ |uⱼ|,   D > 0 diagonal.

    With w for B (u − x), u is soft-thresholded coordinate by coordinate, and w maximises ψ:

        u(w) = argmin_u (b + Bᵀw)ᵀ(u − x) + ½ (u − x)ᵀD(u − x) + Σⱼ penaltyⱼ |uⱼ|
        ∇ψ = B (u(w) − x) − w,   −∇²ψ = I + B_S D_S⁻¹ B_Sᵀ,   S where u(w) ≠ 0 or is free.

    ψ is concave and piecewise quadratic, so Newton's method with a line search ends (Li, Sun and
    Toh 2018). Everything is linear in the n columns of B, and factored are its m rows.

    b, x, D: (n,).   B: (m, n).   penalty: ≥ 0, broadcasts.   Not to be differentiated.
    """

    def primal(w):
        v = x - (b + w @ B) / D
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - penalty / D, 0)

    def psi(w):
        u = primal(w)
        d = u - x
        return (b + w @ B) @ d + d @ (D * d) / 2 + jnp.sum(penalty * jnp.abs(u)) - w @ w / 2

    def going(state):
        _, rise, here, k = state
        return (rise > tree.eps(x) * jnp.abs(here)) & (k < MOST)

    def body(state):
        w, _, _, k = state
        u = primal(w)
        r, on = B @ (u - x) - w, (u != 0) | (penalty == 0)
        lower = jnp.linalg.cholesky(jnp.eye(len(B), dtype=B.dtype) + (B * (on / D)) @ B.T)
        step = cho_solve((lower, True), r)
        here, rise = psi(w), r @ step
        noise = 1e2 * tree.eps(x) * jnp.abs(here)

        def too_long(t):
            enough = psi(w + t * step) >= here + ARMIJO * t * rise - noise
            return ~enough & (t > SHORTEST)

        t = tree.while_loop(too_long, lambda t: t / 2, jnp.ones_like(here))
        return w + t * step, rise, here, k + 1

    infinity = jnp.asarray(jnp.inf, B.dtype)
    start = jnp.zeros_like(B[:, 0]), infinity, 0 * D[0], jnp.zeros((), jnp.int32)
    return primal(tree.while_loop(going, body, start)[0])
