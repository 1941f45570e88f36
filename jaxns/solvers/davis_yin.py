"""Davis-Yin splitting of three functions."""

from typing import Any

from jax import Array

from jaxns import tree
from jaxns.solvers import kinks, stepsize
from jaxns.solvers.needs import need, need_composite, need_plain
from jaxns.struct import replace, struct
from jaxns.tree import Tree


@struct
class DavisYin:
    r"""Minimise f(x) + g(x) + h(x): f by its gradient, g and h by their prox.

        x_g = prox_{γ g}(z)
        x_h = prox_{γ h}(2 x_g − z − γ ∇f(x_g))
        z ← z + λ (x_h − x_g)

    (Davis and Yin 2017, arXiv 1504.01032.) The solution is x_g. With f = 0 it is Douglas-Rachford,
    and with g = 0 or h = 0 forward-backward.

    stepsize: γ in (0, 2/L). By default 1/L; f must know its Lipschitz constant, or γ be given.
    relaxation: λ in (0, 2 − γL/2).
    """

    stepsize: float | Array | None = None
    relaxation: float | Array = 1.0

    def __post_init__(self) -> None:
        stepsize.check(self)
        stepsize.check_relaxation(self)

    def prepare(self, problem: Any, x0: Tree) -> "DavisYin":
        need_composite(self, problem)
        need(self, problem, "f", "gradient", "use DouglasRachford, or PrimalDual for three")
        need(self, problem, "g", "prox", "put the function without a prox first, as f")
        need_plain(self, problem, "use PrimalDual", without=("K",))
        if problem.h is not None:
            need(self, problem, "h", "prox", "put the function without a prox first, as f")
        if self.stepsize is not None:
            return self
        constant = stepsize.required(self, problem.f, "use ForwardBackward if h is none")
        return replace(self, stepsize=stepsize.from_lipschitz(constant))

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, z: Tree) -> Tree:
        gamma = self.stepsize
        if gamma is None:
            return self.prepare(problem, z).step(problem, z)
        x_g, forward = self._forward(problem, z)
        x_h = forward if problem.h is None else problem.h.prox(forward, gamma)
        return tree.axpy(self.relaxation, tree.sub(x_h, x_g), z)

    def solution(self, problem: Any, z: Tree) -> Tree:
        if self.stepsize is None:
            return self.prepare(problem, z).solution(problem, z)
        return problem.g.prox(z, self.stepsize)

    def margin(self, problem: Any, z: Tree) -> Array | None:
        """The prox of h is taken of (x_g − γ ∇f(x_g)) + (x_g − z): Lipschitz constant 2."""
        gamma = self.stepsize
        if gamma is None:
            return self.prepare(problem, z).margin(problem, z)
        x_g, forward = self._forward(problem, z)
        of_f, of_g = kinks.of_gradient(problem.f, x_g), kinks.of_prox(problem.g, z, gamma)
        if problem.h is None:
            return kinks.least(of_f, of_g)
        return kinks.least(of_f, of_g, kinks.over(kinks.of_prox(problem.h, forward, gamma), 2))

    def _forward(self, problem: Any, z: Tree) -> tuple[Tree, Tree]:
        """x_g, and what the prox of h is taken of."""
        gamma: Any = self.stepsize
        x_g = problem.g.prox(z, gamma)
        reflected = tree.sub(tree.scale(2, x_g), z)
        return x_g, tree.axpy(-gamma, problem.f.gradient(x_g), reflected)
