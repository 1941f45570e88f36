"""Forward-backward splitting (proximal gradient)."""

from typing import Any

from jax import Array

from jaxns import tree
from jaxns.solvers import kinks, linearised, momentum, stepsize
from jaxns.solvers.needs import need, need_plain
from jaxns.struct import replace, static, struct
from jaxns.tree import Tree


@struct
class ForwardBackward:
    r"""Minimise f(x) + g(x) by a gradient step on f and a proximal step on g.

        x ← prox_{α g}(x − α ∇f(x))

    For f μ-strongly convex and L-smooth this contracts by max(|1 − α μ|, |1 − α L|)
    (arXiv 2206.00457, section on splitting methods). With acceleration the same map is evaluated
    at Nesterov's extrapolated points, restarted when they go uphill (Beck and Teboulle 2009;
    O'Donoghue and Candès 2015), which reaches the same fixed point sooner.

    stepsize: α in (0, 2/L), at most 1/L with acceleration. By default 1/L where f knows its
        Lipschitz constant, otherwise found by backtracking.
    acceleration: whether to extrapolate, and to end a solve to ten digits or more with Newton's
        correction on the support, by conjugate gradients (arXiv 2012.12936): the error is then
        that of the correction, and not the residual's times the condition number.
    """

    stepsize: float | Array | None = None
    acceleration: bool = static(default=True)

    def __post_init__(self) -> None:
        stepsize.check(self)

    def prepare(self, problem: Any, x0: Tree) -> "ForwardBackward":
        need(self, problem, "f", "gradient", "use a solver that takes the prox of f")
        need(self, problem, "g", "prox", "use GradientDescent if g is smooth")
        need_plain(self, problem, "use PrimalDual, or DavisYin for h")
        if self.stepsize is not None:
            return self
        constant = stepsize.lipschitz(problem.f)
        if constant is None:
            return self
        return replace(self, stepsize=stepsize.from_lipschitz(constant))

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        if self.stepsize is None:
            guess = stepsize.initial(problem.f.gradient, x)
            return self._searched(problem, x, guess).step(problem, x)
        alpha = self.stepsize
        return problem.g.prox(tree.axpy(-alpha, problem.f.gradient(x), x), alpha)

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def margin(self, problem: Any, x: Tree) -> Array | None:
        alpha = self.stepsize
        if alpha is None:
            guess = stepsize.initial(problem.f.gradient, x)
            return self._searched(problem, x, guess).margin(problem, x)
        v = tree.axpy(-alpha, problem.f.gradient(x), x)
        return kinks.least(kinks.of_prox(problem.g, v, alpha), kinks.of_gradient(problem.f, x))

    def scale(self, problem: Any, x: Tree) -> Any:
        return 0.0 if self.stepsize is None else self.stepsize * tree.norm(problem.f.gradient(x))

    def control(self, problem: Any, x: Tree) -> Any:
        if self.stepsize is None:
            return momentum.start(x, stepsize.initial(problem.f.gradient, x))
        return momentum.start(x) if self.acceleration else None

    def advance(self, problem: Any, y: Tree, control: momentum.Momentum) -> tuple[Tree, Any]:
        solver = self
        if self.stepsize is None:
            solver = self._searched(problem, y, control.stepsize)
        x = solver.step(problem, y)
        return momentum.extrapolate(y, x, control, self.acceleration, solver.stepsize)

    def settle(self, control: momentum.Momentum) -> "ForwardBackward":
        return self if control.stepsize is None else replace(self, stepsize=control.stepsize)

    def linearisation(self, problem: Any, x: Tree) -> linearised.Inverse | None:
        return linearised.forward_backward(problem, x, self.step(problem, x), self.stepsize)

    def correct(self, problem: Any, x: Tree, gap: Tree, max_steps: Any) -> Tree | None:
        if not self.acceleration:
            return None
        image = tree.add(x, gap)
        return linearised.correction(problem, x, image, self.stepsize, gap, max_steps)

    def _searched(self, problem: Any, x: Tree, last: Any) -> "ForwardBackward":
        def move(alpha):
            return replace(self, stepsize=alpha).step(problem, x)

        alpha = stepsize.backtrack(problem.f.gradient, move, x, last)
        return replace(self, stepsize=alpha)
