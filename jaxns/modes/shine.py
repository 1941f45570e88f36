"""SHINE: differentiate with the inverse that the solver has learned while it iterated."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, tree, validate
from jaxns.fixed_point import Iteration, Run, Stop
from jaxns.modes import rule
from jaxns.modes.probe import Probe
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class Shine:
    r"""Share the inverse estimate of a quasi-Newton solve with the derivative (arXiv 2106.00553).

        dz = H B dθ,    θ̄ = Bᵀ Hᵀ z̄,    H ≈ (I − A)⁻¹,    A = ∂_z F,  B = ∂_θ F,

    where H is what the solver knows at the end of its run (`Solver.estimate`: `LBFGS`, `Broyden`,
    `Anderson`). No linear system, and no product with A: one with H and one with B.

    This is an approximation, and nothing says that it is a good one: H is right along the steps
    that were made, not along z̄. `LBFGS(opa=…)` makes it right there; `refine` improves it; `probe`
    measures it. The relative error of w is at most ‖(I − A)⁻¹‖ times the probe's residual times
    ‖z̄‖ / ‖(I − A)⁻ᵀ z̄‖.

    refine: so many further steps of GMRES, from Hᵀ z̄ and preconditioned by Hᵀ, with one product
        with Aᵀ each, and one before.
    fallback: where ‖Hᵀ z̄‖ > fallback ‖z̄‖, H is not believed and w = z̄ is used, as `OneStep()`
        does. By default never: for a symmetric A with largest eigenvalue ρ the true w is up to
        1/(1 − ρ) times as long as z̄. The paper has 1.3, for the layers of deep equilibrium models.
    direction: "reverse" or "both", as for `Implicit`.
    probe: as for `Implicit`: ‖z̄ − (I − Aᵀ) w‖ / ‖z̄‖, for one product with Aᵀ.
    """

    refine: int = static(default=0)
    fallback: float | Array = float("inf")
    direction: str = static(default="reverse")
    probe: Probe | None = None

    def __post_init__(self) -> None:
        refine = validate.integer("refine", self.refine)
        settle(self, "refine", validate.nonnegative("refine", refine))
        fallback = validate.positive("fallback", validate.scalar("fallback", self.fallback))
        settle(self, "fallback", fallback)
        validate.choice("direction", self.direction, ("reverse", "both"))
        rule.check_probe(self)

    def run(self, iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
        return rule.run(iteration, theta, z0, stop, self)

    def known(self, iteration: Iteration, theta: Any, z: Tree, control: Any) -> Any:
        found = iteration.estimate(theta, z, control)
        if found is None:
            raise TypeError(
                "Shine needs a solver that estimates (I - A)^-1 while it runs (a method "
                "`estimate`): LBFGS, Broyden, or Anderson around any other; or use Implicit()"
            )
        return found

    def cost(self, steps: Any, adjoint_steps: Any, z: Tree, control: Any) -> tuple[Any, Any]:
        """Evaluations and bytes, beside the memory of the run."""
        return self.refine + 1, tree.nbytes(z) * (self.refine + 4)

    def invert(self, system: rule.System, b: Array) -> tuple[Array, linear.Report]:
        fallback = tree.vary_like(jnp.asarray(self.fallback, b.dtype), b)

        def by(H):
            def share(matvec, v):
                w = H(v)
                w = jnp.where(tree.norm(w) <= fallback * tree.norm(v), w, v)
                if self.refine:
                    return _refine(matvec, v, w, H, self.refine)
                if self.probe is None:
                    return w, _report(jnp.zeros((), v.dtype), 0, v)
                size = tree.norm(v)
                return w, _report(tree.norm(v - matvec(w)) / jnp.where(size > 0, size, 1), 1, v)

            return share

        assert system.inverse is not None
        assert system.transposed is not None
        H, H_transposed = by(system.inverse), by(system.transposed)
        return lax.custom_linear_solve(
            system.matvec, b, H, transpose_solve=H_transposed, has_aux=True
        )


def _refine(
    matvec: linear.Matvec, v: Array, w: Array, H: linear.Matvec, steps: int
) -> tuple[Array, linear.Report]:
    """w, after so many steps of GMRES preconditioned by H."""
    w, report = linear.solve("gmres", matvec, v, 0.0, steps, start=w, precondition=H, restart=steps)
    return w, _report(report.residual, report.steps, v)


def _report(residual: Array, steps: Array | int, v: Array) -> linear.Report:
    """There is no tolerance that could be missed."""
    zero = jnp.sum(v[:0])  # which varies over the axes of a mesh that v varies over
    steps = jnp.asarray(steps, jnp.int32) + zero.astype(jnp.int32)
    return linear.Report(residual + zero, steps, zero == 0)
