"""One-step differentiation: differentiate the last step, or the last few, only."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, tree, validate
from jaxns.fixed_point import Iteration, Run, Stop
from jaxns.modes import rule
from jaxns.modes.probe import Probe
from jaxns.modes.work import Work
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
    probe: as for `Implicit`: its residual, ‖(Aᵀ)^K z̄‖ / ‖z̄‖, is what the sum leaves out.
    """

    pointwise: ClassVar[bool] = True  # it depends on the last point only

    steps: int = static(default=1)
    direction: str = static(default="reverse")
    probe: Probe | None = None

    def __post_init__(self) -> None:
        settle(self, "steps", validate.positive("steps", validate.integer("steps", self.steps)))
        validate.choice("direction", self.direction, ("reverse", "both"))
        rule.check_probe(self)

    def run(self, iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
        return rule.run(iteration, theta, z0, stop, self)

    def invert(self, system: rule.System, b: Array) -> tuple[Array, linear.Report]:
        def body(_, x):
            return b + (x - system.matvec(x))

        x = lax.fori_loop(1, self.steps, body, b)
        left = lax.stop_gradient(b - system.matvec(x))  # not computed unless it is looked at
        size = tree.norm(b)
        residual = tree.norm(left) / jnp.where(size > 0, size, 1)
        return x, linear.Report(residual, jnp.asarray(self.steps), jnp.ones((), bool))

    def cost(self, steps: Any, adjoint_steps: Any, z: Tree, control: Any) -> tuple[Any, Any]:
        """Evaluations and bytes."""
        return self.steps, 2 * tree.nbytes(z)

    def work(self, steps: Any, adjoint_steps: Any, z: Tree, control: Any) -> Work:
        return Work(min(self.steps - 1, 1), self.steps - 1, 1)
