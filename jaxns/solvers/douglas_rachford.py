"""Douglas-Rachford splitting."""

from typing import Any

from jax import Array

from jaxns import tree
from jaxns.solvers import kinks, linearised, stepsize
from jaxns.solvers.needs import need, need_plain
from jaxns.struct import replace, struct
from jaxns.tree import Tree


@struct
class DouglasRachford:
    r"""Minimise f(x) + g(x), both known by their prox.

        Y = prox_{α g}(V),    V ← V + λ (prox_{α f}(2Y − V) − Y)

    (Lions and Mercier 1979; arXiv 2206.00457, section on splitting methods.) V governs the
    iteration; the solution is Y. It converges for every α > 0; for f μ-strongly convex and
    L-smooth it contracts by (1 + t)/2 when λ = 1, t = max((αL − 1)/(αL + 1), (1 − αμ)/(1 + αμ)),
    which is smallest at α = 1/√(μL).

    stepsize: α. By default 1/√(μL), with L/30 for a μ that is smaller or not known; 1 where f
        knows no L.
    relaxation: λ in (0, 2).
    factored: f with what its prox factorises computed once, where it can be; filled in for a solve.
    """

    stepsize: float | Array | None = None
    relaxation: float | Array = 1.0
    factored: Any = None

    def __post_init__(self) -> None:
        stepsize.check(self)
        stepsize.check_relaxation(self)

    def prepare(self, problem: Any, x0: Tree) -> "DouglasRachford":
        need(self, problem, "f", "prox", "use ForwardBackward, which takes the gradient of f")
        need(self, problem, "g", "prox", "use GradientDescent if g is smooth")
        need_plain(self, problem, "use ADMM or PrimalDual for K, DavisYin or PrimalDual for h")
        alpha = stepsize.from_curvature(problem.f) if self.stepsize is None else self.stepsize
        factored = problem.f.factor(alpha) if hasattr(problem.f, "factor") else None
        return replace(self, stepsize=alpha, factored=factored)

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, V: Tree) -> Tree:
        alpha, g = self.stepsize, problem.g
        f = problem.f if self.factored is None else self.factored
        if alpha is None:
            return self.prepare(problem, V).step(problem, V)
        Y = g.prox(V, alpha)
        return tree.axpy(self.relaxation, tree.sub(f.prox(_reflect(Y, V), alpha), Y), V)

    def solution(self, problem: Any, V: Tree) -> Tree:
        if self.stepsize is None:
            return self.prepare(problem, V).solution(problem, V)
        return problem.g.prox(V, self.stepsize)

    def linearisation(self, problem: Any, V: Tree) -> linearised.Inverse | None:
        alpha, f = self.stepsize, problem.f if self.factored is None else self.factored
        if alpha is None:
            return self.prepare(problem, V).linearisation(problem, V)
        Y = problem.g.prox(V, alpha)
        X = f.prox(_reflect(Y, V), alpha)
        return linearised.douglas_rachford(problem, V, Y, X, alpha, self.relaxation)

    def margin(self, problem: Any, V: Tree) -> Array | None:
        """2Y − V, too, brings no two points V further apart."""
        alpha = self.stepsize
        if alpha is None:
            return self.prepare(problem, V).margin(problem, V)
        reflected = _reflect(problem.g.prox(V, alpha), V)
        return kinks.least(
            kinks.of_prox(problem.g, V, alpha), kinks.of_prox(problem.f, reflected, alpha)
        )


def _reflect(Y: Tree, V: Tree) -> Tree:
    """2Y − V."""
    return tree.sub(tree.scale(2, Y), V)
