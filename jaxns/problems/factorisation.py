"""Nonnegative matrix factorisation."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxns.functions import NonNegative
from jaxns.problems.composite import Composite
from jaxns.struct import settle, static, struct
from jaxns.validate import array, nonnegative, scalar


class Factors(NamedTuple):
    """X ≈ W H.   W: (m, rank).   H: (rank, n)."""

    W: Array
    H: Array


@struct
class Factorisation:
    """½ ‖X − WH‖² + penalty/2 (‖W‖² + ‖H‖²), of x = `Factors(W, H)`."""

    X: Array
    penalty: Any = 0.0
    rank: int = static(default=1)

    def __post_init__(self) -> None:
        settle(self, "X", array("X", self.X, 2))
        settle(self, "penalty", nonnegative("penalty", scalar("penalty", self.penalty)))
        if not isinstance(self.rank, int) or not 1 <= self.rank <= min(self.X.shape):
            raise ValueError(
                f"rank must be an integer between 1 and {min(self.X.shape)}, got {self.rank!r}"
            )

    def __call__(self, x: Factors) -> Array:
        residual = x.W @ x.H - self.X
        size = jnp.sum(x.W**2) + jnp.sum(x.H**2)
        return 0.5 * jnp.sum(residual**2) + 0.5 * self.penalty * size

    def gradient(self, x: Factors) -> Factors:
        residual = x.W @ x.H - self.X
        return Factors(residual @ x.H.T + self.penalty * x.W, x.W.T @ residual + self.penalty * x.H)

    def start(self) -> Factors:
        """From the singular vectors (Boutsidis and Gallopoulos 2008), zeros filled by the mean.

        Of each pair ±(u, v), the sign whose nonnegative parts are larger. No derivative: only the
        minimum that is found depends on where one starts.
        """
        X = lax.stop_gradient(self.X)
        U, s, Vt = jnp.linalg.svd(X, full_matrices=False)
        u, v = U[:, : self.rank], Vt[: self.rank].T

        def part(sign):
            a, b = jnp.maximum(sign * u, 0), jnp.maximum(sign * v, 0)
            return a, b, jnp.linalg.norm(a, axis=0) * jnp.linalg.norm(b, axis=0)

        (a, b, plus), (c, d, minus) = part(1), part(-1)
        W, H = jnp.where(plus >= minus, a, c), jnp.where(plus >= minus, b, d)
        size = jnp.sqrt(s[: self.rank] * jnp.maximum(plus, minus))

        def scaled(part):
            part = part * size / jnp.linalg.norm(part, axis=0)
            return jnp.where(part > 0, part, jnp.mean(part))

        return Factors(scaled(W), scaled(H).T)


def nonnegative_matrix_factorisation(X: Any, rank: int, penalty: Any = 0.0) -> Composite:
    """½ ‖X − WH‖² + penalty/2 (‖W‖² + ‖H‖²) over W, H ≥ 0 (Lee and Seung 1999).

    Not convex: a solver finds a stationary point, by default the one it reaches from the singular
    vectors of X. With penalty 0, scaling W up and H down changes nothing, so that a minimum is not
    isolated and has no derivative by the implicit function theorem; a penalty > 0 fixes the scale.

    X: (m, n), nonnegative.   The solution is `Factors(W, H)`.
    """
    X = nonnegative("X", array("X", X, 2))
    return Composite(Factorisation(X, penalty, rank), NonNegative())
