"""The symmetric systems of quadratic programming, solved once factorised as often as needed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree

REFINEMENTS = 3


class Rows(NamedTuple):
    """A vector of the system: one entry per unknown, per equality and per inequality."""

    x: Array
    y: Array
    z: Array


class System(NamedTuple):
    r"""[[Q, Aᵀ, Gᵀ], [A, 0, 0], [G, 0, −D]], D diagonal."""

    Q: Array
    A: Array
    G: Array
    D: Array

    def __matmul__(self, v: Rows) -> Rows:
        return Rows(
            0.5 * (self.Q @ v.x + v.x @ self.Q) + v.y @ self.A + v.z @ self.G,
            self.A @ v.x,
            self.G @ v.x - self.D * v.z,
        )


class Factor(NamedTuple):
    """A factorisation of a system; no derivative flows through it."""

    lu: tuple[Array, Array]

    def solve(self, system: System, right: Rows, strict: bool = False) -> Rows:
        """v with system @ v = right: differentiable to every order in the system and in `right`.

        Where the system is singular but the equations agree, one of the solutions, close to the
        one of least norm. Where they contradict each other, NaN if `strict`.
        """

        n, m = right.x.shape[0], right.y.shape[0]

        def rows(flat: Array) -> Rows:
            return Rows(flat[:n], flat[n : n + m], flat[n + m :])

        def matvec(flat: Array) -> Array:
            return jnp.concatenate(system @ rows(flat))

        def refined(matvec: Any, r: Array) -> Array:
            def refine(_: Any, v: Array) -> Array:
                return v + jax.scipy.linalg.lu_solve(self.lu, r - matvec(v))

            v = lax.fori_loop(0, 1 + REFINEMENTS, refine, jnp.zeros_like(r))
            if not strict:
                return v
            sound = jnp.linalg.norm(r - matvec(v)) <= tree.eps(r) ** 0.5 * jnp.linalg.norm(r)
            return v * jnp.where(sound, 1, jnp.nan)

        flat = jnp.concatenate(right)  # one vector: each part of a tree would need a tangent
        return rows(lax.custom_linear_solve(matvec, flat, refined, symmetric=True))


def factorise(system: System) -> Factor:
    """LU of the system, made quasi-definite by a shift that the refinements take back."""
    Q, A, G, D = lax.stop_gradient(system)
    n, m, p = Q.shape[0], A.shape[0], G.shape[0]
    eps = tree.eps(Q)
    shift = eps ** (2 / 3) * (1 + jnp.max(jnp.abs(Q), initial=0))
    nothing = jnp.zeros((m, p), Q.dtype)
    matrix = jnp.block(
        [
            [0.5 * (Q + Q.T) + shift * jnp.eye(n, dtype=Q.dtype), A.T, G.T],
            [A, -shift * jnp.eye(m, dtype=Q.dtype), nothing],
            [G, nothing.T, -jnp.diag(D + jnp.where(D >= 0, shift, 0))],
        ]
    )
    return Factor(jax.scipy.linalg.lu_factor(matrix))
