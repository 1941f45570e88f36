"""Heavy-ball: inertial forward-backward."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.solvers import kinks, stepsize
from jaxns.solvers.needs import need, need_plain
from jaxns.struct import replace, settle, struct
from jaxns.tree import Tree

PLAIN = 0.5  # inertia where Polyak's is not known


@struct
class HeavyBall:
    r"""Minimise f(x) + g(x) by forward-backward steps with inertia.

        x_{k+1} = prox_{α g}(x_k − α ∇f(x_k) + β (x_k − x_{k−1}))

    Polyak's heavy ball when g = 0 (arXiv 2206.00457, heavy-ball section), iPiano otherwise (Ochs,
    Chen, Brox and Pock 2014). The governing variable is z = (x_k, x_{k−1}).

    Derivatives converge with the iterates where f is twice differentiable; for a gradient that is
    only Lipschitz, piggyback has no guarantee.

    For a quadratic f with eigenvalues between μ and L, and g = 0 or quadratic too, Polyak's
    constants make it contract by √β, the best that a first-order method can do:

        α = 4/(√L + √μ)²,     β = ((√L − √μ)/(√L + √μ))²

    stepsize: α. By default Polyak's with Polyak's β, otherwise (1 − β)·1.5/L, inside iPiano's bound
        2(1 − β)/L. f must know its Lipschitz constant, or α be given.
    inertia: β in [0, 1). By default Polyak's where f and g are quadratic and f knows μ > 0,
        otherwise 0.5.
    strong_convexity: μ > 0, to use Polyak's constants for any f and g: for those that are not
        quadratic they may not converge (Lessard, Recht and Packard 2016).
    """

    stepsize: float | Array | None = None
    inertia: float | Array | None = None
    strong_convexity: float | Array | None = None

    def __post_init__(self) -> None:
        stepsize.check(self)
        if self.inertia is not None:
            beta = validate.between("inertia", validate.scalar("inertia", self.inertia), 0, 1)
            settle(self, "inertia", beta)
        if self.strong_convexity is not None:
            mu = validate.scalar("strong_convexity", self.strong_convexity)
            settle(self, "strong_convexity", validate.positive("strong_convexity", mu))

    def prepare(self, problem: Any, x0: Tree) -> "HeavyBall":
        need(self, problem, "f", "gradient", "use a solver that takes the prox of f")
        need(self, problem, "g", "prox", "use GradientDescent if g is smooth")
        need_plain(self, problem, "use PrimalDual, or DavisYin for h")
        beta = PLAIN if self.inertia is None else self.inertia
        if self.stepsize is not None:
            return replace(self, inertia=beta)
        L = stepsize.required(self, problem.f, "use ForwardBackward, which backtracks")
        alpha, mu = 1.5 * (1 - beta) * stepsize.from_lipschitz(L), self._curvature(problem)
        if self.inertia is None and mu is not None:
            L, mu = lax.stop_gradient((jnp.asarray(L), mu))
            known = mu > 1e2 * tree.eps(x0) * L
            root_L, root_mu = jnp.sqrt(L), jnp.sqrt(jnp.where(known, jnp.minimum(mu, L), L))
            alpha = jnp.where(known, 4 / (root_L + root_mu) ** 2, alpha)
            beta = jnp.where(known, ((root_L - root_mu) / (root_L + root_mu)) ** 2, beta)
        return replace(self, stepsize=alpha, inertia=beta)

    def init(self, problem: Any, x0: Tree) -> tuple[Tree, Tree]:
        return x0, x0

    def step(self, problem: Any, z: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        x, _ = z
        if self.stepsize is None or self.inertia is None:
            return self.prepare(problem, x).step(problem, z)
        return problem.g.prox(self._forward(problem, z), self.stepsize), x

    def solution(self, problem: Any, z: tuple[Tree, Tree]) -> Tree:
        x, _ = z
        return x

    def margin(self, problem: Any, z: tuple[Tree, Tree]) -> Array | None:
        """The prox is taken of a function of z with Lipschitz constant √((1 + β)² + β²)."""
        x, _ = z
        alpha, beta = self.stepsize, self.inertia
        if alpha is None or beta is None:
            return self.prepare(problem, x).margin(problem, z)
        of_prox = kinks.of_prox(problem.g, self._forward(problem, z), alpha)
        return kinks.least(
            kinks.over(of_prox, jnp.hypot(1 + beta, beta)), kinks.of_gradient(problem.f, x)
        )

    def scale(self, problem: Any, z: tuple[Tree, Tree]) -> Any:
        x, _ = z
        return 0.0 if self.stepsize is None else self.stepsize * tree.norm(problem.f.gradient(x))

    def _forward(self, problem: Any, z: tuple[Tree, Tree]) -> Tree:
        """What the prox is taken of."""
        x, x_before = z
        alpha: Any = self.stepsize
        inertia = tree.axpy(self.inertia, tree.sub(x, x_before), x)
        return tree.axpy(-alpha, problem.f.gradient(x), inertia)

    def _curvature(self, problem: Any) -> Any:
        """μ, where Polyak's constants are sound or asked for; otherwise None."""
        if self.strong_convexity is not None:
            return self.strong_convexity
        quadratic = all(getattr(part, "quadratic", False) for part in (problem.f, problem.g))
        return stepsize.strong_convexity(problem.f) if quadratic else None
