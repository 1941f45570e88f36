"""Heavy-ball: inertial forward-backward."""

from typing import Any

from jax import Array

from jaxns import tree, validate
from jaxns.solvers import stepsize
from jaxns.solvers.needs import need, need_plain
from jaxns.struct import replace, settle, struct
from jaxns.tree import Tree


@struct
class HeavyBall:
    r"""Minimise f(x) + g(x) by forward-backward steps with inertia.

        x_{k+1} = prox_{α g}(x_k − α ∇f(x_k) + β (x_k − x_{k−1}))

    Polyak's heavy ball when g = 0 (arXiv 2206.00457, heavy-ball section), iPiano otherwise (Ochs,
    Chen, Brox and Pock 2014). The governing variable is z = (x_k, x_{k−1}).

    Derivatives converge with the iterates where f is twice differentiable; for a gradient that is
    only Lipschitz, piggyback has no guarantee.

    stepsize: α, by default (1 − β)·1.5/L, inside iPiano's bound 2(1 − β)/L. f must know its
        Lipschitz constant, or α be given.
    inertia: β in [0, 1).
    """

    stepsize: float | Array | None = None
    inertia: float | Array = 0.5

    def __post_init__(self) -> None:
        stepsize.check(self)
        beta = validate.between("inertia", validate.scalar("inertia", self.inertia), 0, 1)
        settle(self, "inertia", beta)

    def prepare(self, problem: Any, x0: Tree) -> "HeavyBall":
        need(self, problem, "f", "gradient", "use a solver that takes the prox of f")
        need(self, problem, "g", "prox", "use GradientDescent if g is smooth")
        need_plain(self, problem, "use PrimalDual, or DavisYin for h")
        if self.stepsize is not None:
            return self
        constant = stepsize.lipschitz(problem.f)
        if constant is None:
            raise ValueError(
                f"HeavyBall needs a stepsize: {type(problem.f).__name__} knows no Lipschitz "
                "constant; pass HeavyBall(stepsize=…), or use ForwardBackward, which backtracks"
            )
        alpha = stepsize.from_lipschitz(constant)
        return replace(self, stepsize=1.5 * (1 - self.inertia) * alpha)

    def init(self, problem: Any, x0: Tree) -> tuple[Tree, Tree]:
        return x0, x0

    def step(self, problem: Any, z: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        x, x_before = z
        alpha, beta = self.stepsize, self.inertia
        if alpha is None:
            return self.prepare(problem, x).step(problem, z)
        inertia = tree.axpy(beta, tree.sub(x, x_before), x)
        return problem.g.prox(tree.axpy(-alpha, problem.f.gradient(x), inertia), alpha), x

    def solution(self, problem: Any, z: tuple[Tree, Tree]) -> Tree:
        x, _ = z
        return x

    def scale(self, problem: Any, z: tuple[Tree, Tree]) -> Any:
        x, _ = z
        return 0.0 if self.stepsize is None else self.stepsize * tree.norm(problem.f.gradient(x))
