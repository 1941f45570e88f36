"""Implicit differentiation: solve the linearised fixed-point equation where the run ended."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, tree, validate
from jaxns.fixed_point import FAILURE_POLICIES, ConvergenceError, Iteration, Run, Stop, refuse
from jaxns.modes import rule
from jaxns.modes.probe import Probe
from jaxns.modes.work import Work
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree

METHODS = (*linear.METHODS, "structured")


@struct
class Implicit:
    r"""Differentiate z = F(z, θ) by the implicit function theorem.

        dz = (I − A)⁻¹ B dθ,    θ̄ = Bᵀ (I − A)⁻ᵀ z̄,    A = ∂_z F,  B = ∂_θ F  at the last iterate.

    At iterate k the error is linear in ‖z_k − z*‖ (arXiv 2305.13768, section 2; jaxopt's
    arXiv 2105.15183). It costs one linear system. Where it has solutions but more than one, the
    derivative is that of an answer of least norm; where it has none, see `on_failure`.

    direction: "reverse" (`grad`, `vjp`, `jacrev`, and any further derivative of those) or "both"
        (`jvp`, `jacfwd` and `linearize` too).
    method: how the linear system is solved.
        "auto": three terms of the Neumann series where they suffice (superlinear maps); up to 256
            unknowns, "dense"; beyond, what the solver knows of the structure, and "bicgstab" for
            what that leaves; where it knows nothing, "bicgstab" and then "gmres".
        "structured": what the solver knows (`Solver.linearisation`), and nothing else: for
            `ForwardBackward`, a Cholesky factorisation of the Hessian on the support, gathered, so
            that 50 active coordinates of 20 000 cost as 50 do (arXiv 2105.01637).
        "dense": LU, of least norm where singular.   "cg": where ∂F is symmetric.
        "bicgstab", "gmres": Krylov methods for any ∂F.
        "neumann": the adjoint fixed point w ← z̄ + Aᵀ w.   "anderson": the same, accelerated.
    tol: relative residual asked of the linear system, never below 10 times the spacing of numbers.
    max_steps: applications of A at most.   restart: vectors that "gmres" keeps.
    precondition: a function v ↦ M v on pytrees like z, linear, with M ≈ (I − A)⁻¹; symmetric
        positive definite for "cg".
    on_failure: as on `Stop`, for a linear system that did not reach its tolerance. "raise" can
        raise in an eager backward pass and gives NaN everywhere else (`jit`, `vmap`, and `jacrev`,
        which batches its backward pass).
    start: where the reverse system starts, a pytree like z: the `adjoint` of an earlier `Probe`.
    probe: a `Probe`, whose "gradient" tells how the backward pass went.
    """

    pointwise: ClassVar[bool] = True  # it depends on the last point only
    any_map: ClassVar[bool] = True  # … and not on the map whose fixed point it is

    direction: str = static(default="reverse")
    method: str = static(default="auto")
    tol: float | Array = 1e-12
    max_steps: int | Array = 10_000
    on_failure: str = static(default="raise")
    restart: int = static(default=40)
    precondition: Callable[[Tree], Tree] | None = static(default=None)
    start: Tree = None
    probe: Probe | None = None

    def __post_init__(self) -> None:
        validate.choice("direction", self.direction, ("reverse", "both"))
        validate.choice("method", self.method, METHODS)
        validate.choice("on_failure", self.on_failure, FAILURE_POLICIES)
        settle(self, "tol", validate.nonnegative("tol", validate.scalar("tol", self.tol)))
        settle(self, "max_steps", validate.integer("max_steps", self.max_steps))
        settle(self, "restart", validate.positive("restart", self.restart))
        if self.precondition is not None and not callable(self.precondition):
            raise TypeError("precondition must be a function v -> M v on pytrees like z")
        rule.check_probe(self)

    def run(self, iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
        return rule.run(iteration, theta, z0, stop, self)

    def known(self, iteration: Iteration, theta: Any, z: Tree, control: Any) -> Any:
        large = tree.size(z) > linear.DENSE_SIZE
        wanted = self.method == "structured" or (self.method == "auto" and large)
        return iteration.linearisation(theta, z) if wanted else None

    def invert(self, system: rule.System, b: Array) -> tuple[Array, linear.Report]:
        policy = "ignore" if self.on_failure == "ignore" else "nan"
        tol, max_steps = (tree.vary_like(jnp.asarray(a), b) for a in (self.tol, self.max_steps))
        if self.method == "structured" and system.inverse is None:
            raise TypeError(
                "Implicit(method='structured') needs a solver with a method `linearisation` that "
                "knows the problem; use method='auto'"
            )

        def by(inverse, precondition, start=None):
            def solve(matvec, b):
                x, report = linear.solve(
                    self.method,
                    matvec,
                    b,
                    tol,
                    max_steps,
                    start=start,
                    inverse=inverse,
                    precondition=precondition,
                    restart=self.restart,
                    loop=system.loop,
                )
                return refuse(report.converged, x, policy, str), report

            return solve

        ways = by(system.inverse, system.precondition, system.start)
        transposed = by(system.transposed, system.precondition_transposed)
        return lax.custom_linear_solve(
            system.matvec, b, ways, transpose_solve=transposed, has_aux=True
        )

    def cost(self, steps: Any, adjoint_steps: Any, z: Tree, control: Any) -> tuple[Any, Any]:
        """Evaluations and bytes: the products with Aᵀ, and the matrix or some ten vectors."""
        size = tree.size(z)
        small = self.method == "dense" or (self.method == "auto" and size <= linear.DENSE_SIZE)
        return adjoint_steps + 1, tree.nbytes(z) * (2 * size if small else 10)

    def work(self, steps: Any, adjoint_steps: Any, z: Tree, control: Any) -> Work:
        """One linearisation, products with it, and a factorisation where the system is small."""
        n = tree.size(z)
        small = self.method == "dense" or (self.method == "auto" and n <= linear.DENSE_SIZE)
        factored = jnp.where(adjoint_steps >= n, 2 * n**3 / 3, 0.0) if small else 0.0
        return Work(1, adjoint_steps, 1, factored)

    def check(self, solved: Array) -> None:
        if self.on_failure == "raise" and validate.is_known(solved) and not bool(solved):
            raise ConvergenceError(_ADVICE)


_ADVICE = (
    "the linear system of the implicit derivative did not reach its tolerance: it is singular (is "
    "the solution unique?), or needs another method or more max_steps; "
    "Implicit(on_failure='ignore') returns it as it is"
)
