"""The symmetric systems of quadratic programming, solved once factorised as often as needed."""

from collections.abc import Callable
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

    def rows(self, flat: Array) -> Rows:
        return Rows(*jnp.split(flat, (len(self.Q), len(self.Q) + len(self.A))))


class Factor(NamedTuple):
    """A factorised system: `apply` solves it but for a shift. No derivative flows through it."""

    apply: Callable[[Rows], Rows]

    def solve(self, system: System, right: Rows, strict: bool = False) -> Rows:
        """v with system @ v = right: differentiable to every order in the system and in `right`.

        Where the system is singular but the equations agree, one of the solutions, close to the
        one of least norm. Where they contradict each other, NaN if `strict`.
        """

        def matvec(flat: Array) -> Array:
            return jnp.concatenate(system @ system.rows(flat))

        def apply(r: Array) -> Array:
            return jnp.concatenate(self.apply(system.rows(r)))

        def refined(matvec: Any, r: Array) -> Array:
            def refine(_: Any, v: Array) -> Array:
                return v + apply(r - matvec(v))

            v = lax.fori_loop(0, REFINEMENTS, refine, apply(r))
            if not strict:
                return v
            sound = jnp.linalg.norm(r - matvec(v)) <= tree.eps(r) ** 0.5 * jnp.linalg.norm(r)
            return v * jnp.where(sound, 1, jnp.nan)

        flat = jnp.concatenate(right)  # one vector: each part of a tree would need a tangent
        return system.rows(lax.custom_linear_solve(matvec, flat, refined, symmetric=True))


def factorise(system: System) -> Factor:
    """LU of the system, made quasi-definite by a shift that the refinements take back."""
    Q, A, G, D = lax.stop_gradient(system)
    shift = _shift(Q)
    below = jnp.concatenate([G, jnp.zeros((len(G), len(A)), Q.dtype)], axis=1)
    corner = -jnp.diag(D + jnp.where(D >= 0, shift, 0))
    lu = jax.scipy.linalg.lu_factor(jnp.block([[_saddle(Q, A, shift), below.T], [below, corner]]))
    return Factor(lambda r: system.rows(jax.scipy.linalg.lu_solve(lu, jnp.concatenate(r))))


def eliminated(system: System) -> Factor:
    """The same for D > 0, by LU of the size of x and y: with z = D⁻¹ (Gx − r_z),

    [[Q + GᵀD⁻¹G, Aᵀ], [A, 0]] (x, y) = (r_x + GᵀD⁻¹ r_z, r_y).
    """
    Q, A, G, D = lax.stop_gradient(system)
    shift = _shift(Q)
    D = D + shift
    lu = jax.scipy.linalg.lu_factor(_saddle(Q + (G.T / D) @ G, A, shift))

    def apply(r: Rows) -> Rows:
        right = jnp.concatenate([r.x + (r.z / D) @ G, r.y])
        x, y = jnp.split(jax.scipy.linalg.lu_solve(lu, right), (len(Q),))
        return Rows(x, y, (G @ x - r.z) / D)

    return Factor(apply)


def _shift(Q: Array) -> Array:
    return tree.eps(Q) ** (2 / 3) * (1 + jnp.max(jnp.abs(Q), initial=0))


def _saddle(Q: Array, A: Array, shift: Array) -> Array:
    convex = 0.5 * (Q + Q.T) + shift * jnp.eye(len(Q), dtype=Q.dtype)
    return jnp.block([[convex, A.T], [A, -shift * jnp.eye(len(A), dtype=Q.dtype)]])
