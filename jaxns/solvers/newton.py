"""Newton's method: damped for smooth problems and equations, semismooth for composite ones."""

from typing import Any, ClassVar

from jax import Array

from jaxns import validate
from jaxns.solvers import stepsize
from jaxns.solvers.damped import Damped
from jaxns.solvers.forward_backward import ForwardBackward
from jaxns.solvers.manifold import is_partly_smooth
from jaxns.solvers.needs import need, need_plain
from jaxns.solvers.semismooth import Semismooth
from jaxns.struct import static, struct
from jaxns.tree import Tree


@struct
class Newton:
    r"""Newton's method, on whichever equations the problem's solution satisfies.

    `Root(fun)`: G = fun, and `Composite(f, g)` with f and g both smooth: G = ∇f + ∇g.

        x ← x − t ∂G(x)⁻¹ G(x)

    t ≤ 1 makes ‖G‖, or the objective, decrease. Where ∂G is singular its pseudo-inverse is used.
    A point where ‖G‖ ≠ 0 cannot be decreased ends the solve with the status INFEASIBLE.

    `Composite(f, g)` with g partly smooth (`L1`, `Box`, …): semismooth Newton (Qi and Sun 1993) on
    the natural residual x − prox_{αg}(x − α∇f(x)), reduced to the coordinates S that can move (Li,
    Sun and Toh 2018); E embeds them, H = ∇²f(p), C is the curvature of g on S, and v ∈ ∂g(p):

        p = prox_{αg}(x − α∇f(x)),   v = (x − p)/α − ∇f(x)
        x ← p − E (H_SS + C_SS)⁻¹ Eᵀ (∇f(p) + v)

    Tried once accelerated forward-backward steps leave S as it is, and taken if the objective
    decreases; the cost of the system follows the size of S.

    What is differentiated is the full step. It is superlinear, so its derivative ∂F vanishes at the
    solution and `OneStep()` equals `Implicit()` there (arXiv 2305.13768, section 2); and it reaches
    its linear system through products only, so no derivative passes through a factorisation.
    `Implicit` differentiates the fixed point of p instead, which is the same and costs less.

    linear: "direct" (factorise), "krylov" (products with the Hessian only: conjugate gradients,
        or BiCGSTAB and GMRES for `Root`; inexact until close to the solution), or "auto", which
        factorises systems of up to about 2000 unknowns.
    stepsize: α, as for `ForwardBackward`, where g has kinks.
    """

    sequential: ClassVar[bool] = True

    linear: str = static(default="auto")
    stepsize: float | Array | None = None

    def __post_init__(self) -> None:
        validate.choice("linear", self.linear, ("auto", "direct", "krylov"))
        stepsize.check(self)

    def prepare(self, problem: Any, x0: Tree) -> Damped | Semismooth:
        method = self._on(problem)
        if isinstance(method, Semismooth) and not is_partly_smooth(problem.g, x0):
            raise TypeError(
                f"Newton needs an unknown that is a vector with {type(problem.g).__name__}, one "
                "constraint at a time; use ForwardBackward, or ProximalNewton"
            )
        return method.prepare(problem, x0)

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        return self._on(problem).step(problem, x)

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def margin(self, problem: Any, x: Tree) -> Array | None:
        return self._on(problem).margin(problem, x)

    def control(self, problem: Any, x: Tree) -> Any:
        return self._on(problem).control(problem, x)

    def advance(self, problem: Any, x: Tree, control: Any) -> tuple[Tree, Any]:
        return self._on(problem).advance(problem, x, control)

    def _on(self, problem: Any) -> Damped | Semismooth:
        if hasattr(problem, "residual"):
            return Damped(self.linear)
        need_plain(self, problem, "use PrimalDual, or DavisYin for h")
        need(self, problem, "f", "gradient", "use a solver that takes the prox of f")
        if hasattr(problem.g, "gradient"):
            return Damped(self.linear)
        need(self, problem, "g", "support", "use ForwardBackward, or ProximalNewton")
        return Semismooth(ForwardBackward(self.stepsize), self.linear)
