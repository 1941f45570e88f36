"""One-step differentiation: differentiate the last step, or the last few, only."""

from typing import Any

from jax import Array, lax

from jaxns import linear, validate
from jaxns.fixed_point import Iteration, Run, Stop
from jaxns.modes import rule
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class OneStep:
    r"""Differentiate `steps` applications of F from the last iterate (arXiv 2305.13768).

        dz = Σ_{i<K} Aⁱ B dθ,    θ̄ = Bᵀ Σ_{i<K} (Aᵀ)ⁱ z̄,    A = ∂_z F,  B = ∂_θ F.

    No linear system, and memory that depends on neither K nor the number of iterations. At the
    fixed point the error is A^K J*, at most ρ^K L_F / (1 − ρ) for ‖A‖ ≤ ρ, ‖B‖ ≤ L_F: exact for
    superlinear maps (Newton), poor with K = 1 for a slowly contracting one.

    steps: K ≥ 1.   direction: "reverse" or "both", as for `Implicit`.
    """

    steps: int = static(default=1)
    direction: str = static(default="reverse")

    def __post_init__(self) -> None:
        settle(self, "steps", validate.positive("steps", validate.integer("steps", self.steps)))
        validate.choice("direction", self.direction, ("reverse", "both"))

    def run(self, iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
        return rule.run(iteration, theta, z0, stop, self)

    def invert(self, matvec: linear.Matvec, b: Array) -> Array:
        def body(_, x):
            return b + (x - matvec(x))

        return lax.fori_loop(1, self.steps, body, b)

    def check(self, solved: Array) -> None:
        """A finite sum cannot fail."""
