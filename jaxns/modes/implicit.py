"""Implicit differentiation: solve the linearised fixed-point equation where the run ended."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, tree, validate
from jaxns.fixed_point import FAILURE_POLICIES, ConvergenceError, Iteration, Run, Stop, refuse
from jaxns.modes import rule
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class Implicit:
    r"""Differentiate z = F(z, θ) by the implicit function theorem.

        dz = (I − A)⁻¹ B dθ,    θ̄ = Bᵀ (I − A)⁻ᵀ z̄,    A = ∂_z F,  B = ∂_θ F  at the last iterate.

    At iterate k the error is linear in ‖z_k − z*‖ (arXiv 2305.13768, section 2; jaxopt's
    arXiv 2105.15183). It costs one linear system, solved by applying A or Aᵀ.

    direction: "reverse" (`grad`, `vjp`, `jacrev`, and any further derivative of those) or "both"
        (`jvp`, `jacfwd` and `linearize` too).
    method: "auto", "dense", "cg" (when ∂F is symmetric), "bicgstab", "gmres", or "neumann" (the
        adjoint fixed point). "auto" factorises small systems and uses Krylov methods otherwise.
    tol: relative residual asked of the linear system.   max_steps: applications of A at most.
    on_failure: as on `Stop`, for a linear system that did not reach its tolerance. "raise" can
        raise in an eager backward pass and gives NaN everywhere else.
    """

    direction: str = static(default="reverse")
    method: str = static(default="auto")
    tol: float | Array = 1e-12
    max_steps: int | Array = 10_000
    on_failure: str = static(default="raise")

    def __post_init__(self) -> None:
        validate.choice("direction", self.direction, ("reverse", "both"))
        validate.choice("method", self.method, linear.METHODS)
        validate.choice("on_failure", self.on_failure, FAILURE_POLICIES)
        settle(self, "tol", validate.nonnegative("tol", validate.scalar("tol", self.tol)))
        settle(self, "max_steps", validate.integer("max_steps", self.max_steps))

    def run(self, iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
        return rule.run(iteration, theta, z0, stop, self)

    def invert(self, matvec: linear.Matvec, b: Array) -> Array:
        policy = "ignore" if self.on_failure == "ignore" else "nan"
        tol, max_steps = (tree.vary_like(jnp.asarray(a), b) for a in (self.tol, self.max_steps))

        def solve(matvec, b):
            x, report = linear.solve(self.method, matvec, b, tol, max_steps)
            return refuse(report.converged, x, policy, str)

        return lax.custom_linear_solve(matvec, b, solve, transpose_solve=solve)

    def check(self, solved: Array) -> None:
        if self.on_failure == "raise" and validate.is_known(solved) and not bool(solved):
            raise ConvergenceError(_ADVICE)


_ADVICE = (
    "the linear system of the implicit derivative did not reach its tolerance: it is singular (is "
    "the solution unique?), or needs another method or more max_steps; "
    "Implicit(on_failure='ignore') returns it as it is"
)
