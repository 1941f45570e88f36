"""Gradient descent."""

from functools import partial
from typing import Any

from jax import Array

from jaxns import tree
from jaxns.solvers import linearised, momentum, smooth, stepsize
from jaxns.solvers.needs import need_no_penalty, need_plain
from jaxns.struct import replace, struct
from jaxns.tree import Tree


@struct
class GradientDescent:
    r"""Minimise f(x) + g(x), both smooth, by steps along the gradient.

        x ← x − α (∇f(x) + ∇g(x))

    Contracts by max(|1 − α μ|, |1 − α L|); the plain iteration of arXiv 2305.13768. For its
    accelerated form use `Nesterov(GradientDescent())`.

    stepsize: α in (0, 2/L). By default 1/L where f and g know their Lipschitz constants, otherwise
        found by backtracking.
    """

    stepsize: float | Array | None = None

    def __post_init__(self) -> None:
        stepsize.check(self)

    def prepare(self, problem: Any, x0: Tree) -> "GradientDescent":
        need_no_penalty(self, problem)
        need_plain(self, problem, "use PrimalDual")
        if self.stepsize is not None:
            return self
        return replace(self, stepsize=stepsize.from_parts(problem))

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        if self.stepsize is None:
            guess = stepsize.initial(partial(smooth.gradient, problem), x)
            return self._searched(problem, x, guess).step(problem, x)
        return tree.axpy(-self.stepsize, smooth.gradient(problem, x), x)

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def margin(self, problem: Any, x: Tree) -> Array | None:
        return smooth.margin(problem, x)

    def control(self, problem: Any, x: Tree) -> Any:
        if self.stepsize is not None:
            return None
        return momentum.start(x, stepsize.initial(partial(smooth.gradient, problem), x))

    def advance(self, problem: Any, x: Tree, control: momentum.Momentum) -> tuple[Tree, Any]:
        solver = self._searched(problem, x, control.stepsize)
        image = solver.step(problem, x)
        return momentum.extrapolate(x, image, control, False, solver.stepsize)

    def settle(self, control: momentum.Momentum) -> "GradientDescent":
        return replace(self, stepsize=control.stepsize)

    def linearisation(self, problem: Any, x: Tree) -> linearised.Inverse | None:
        return linearised.gradient_descent(problem, x, self.stepsize)

    def _searched(self, problem: Any, x: Tree, last: Any) -> "GradientDescent":
        def move(alpha):
            return replace(self, stepsize=alpha).step(problem, x)

        alpha = stepsize.backtrack(partial(smooth.gradient, problem), move, x, last)
        return replace(self, stepsize=alpha)
