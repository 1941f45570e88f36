"""Proximal Newton in the metric of a self-concordant smoothing of g."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree, validate
from jaxns.solvers import dual_newton, frozen, stepsize
from jaxns.solvers.manifold import has_few_rows
from jaxns.solvers.needs import need, need_plain
from jaxns.solvers.proximal_newton import ProximalNewton, search
from jaxns.struct import replace, settle, static, struct
from jaxns.tree import Tree


@struct
class Anchored:
    """Near x: the slope of f there, and the curvature (∇²f + D)/α, D diagonal."""

    f: Any
    x: Tree
    D: Tree
    alpha: Any

    def gradient(self, u: Tree) -> Tree:
        """∇f(x) + (∇f(u) − ∇f(x) + D (u − x))/α, at u = x and to first order."""
        here = self.f.gradient(self.x)
        pulled = jax.tree.map(jnp.multiply, self.D, tree.sub(u, self.x))
        change = tree.add(tree.sub(self.f.gradient(u), here), pulled)
        return tree.axpy(1 / self.alpha, change, here)

    @property
    def hessian(self) -> Any:
        known = getattr(self.f, "hessian", None)
        if known is None:
            return None

        def hessian(u, index=None):
            d = self.D if index is None else self.D[index]
            return (known(u, index) + jnp.diag(d)) / self.alpha

        return hessian

    @property
    def low_rank(self) -> Any:
        """u ↦ (D, B)/α with ∇²f(u) = BᵀB, of few rows, where f knows such a B."""
        known = getattr(self.f, "hessian_rows", None)
        if known is None:
            return None
        return lambda u: (ravel_pytree(self.D)[0] / self.alpha, known(u) / jnp.sqrt(self.alpha))


@struct
class Problem:
    """min f + g."""

    f: Any
    g: Any


@struct
class Control:
    """image: the point reached.   eta, alpha: η after the last step, and its α."""

    image: Tree
    eta: Array
    alpha: Array


def from_dual(f: Anchored, g_s: Any, x: Tree) -> Tree:
    """The minimiser of f's model at x plus g, nearly."""
    point, unravel = ravel_pytree(x)
    slope, _ = ravel_pytree(f.gradient(x))
    penalty, _ = ravel_pytree(g_s.weighted(jax.tree.map(jnp.ones_like, x)))
    D, B = f.low_rank(x)
    u = dual_newton.minimiser(slope, point, frozen.floored(D, B), B, penalty)
    return unravel(jnp.where(jnp.all(jnp.isfinite(u)), u, point))


@struct
class SelfConcordant:
    r"""Minimise f(x) + g(x) by proximal Newton steps in the metric of a smoothing g_s of g.

        x⁺ = argmin_u  ∇f(x)ᵀ(u − x) + 1/(2α) (u − x)ᵀ (∇²f(x) + ∇²g_s(x)) (u − x) + g(u)
        α = 1/(1 + M η),   η² = dᵀ∇²s(x) d,   d the step before

    after Prox-N-SCORE (arXiv 2309.01781). f is convex or a `ModelLoss`, and g is `L1`, smoothed to
    the pseudo-Huber function g_s = Σⱼ penaltyⱼ s(xⱼ). ∇²g_s is penaltyⱼ/μ where xⱼ is within μ of
    zero and vanishes beyond: it holds back what may change its sign, and nothing else. M is the
    constant of the self-concordance of s: at distances η < 1/M the metric is still about that at x.
    α → 1 as the steps vanish. From x towards x⁺, the iteration goes the first of 1, ½, … of the way
    that makes the objective decrease; what is differentiated is the full step with α = 1.

    The paper makes a Newton step on f + g_s, and then a prox of g in the metric ∇²g_s, which counts
    g twice: with neither reading of the prox's threshold, αλ/hⱼ or αλhⱼ with h = diag ∇²s, is its
    fixed point the solution. Here the slope of g_s is left to the prox, whose metric is that of the
    whole step: x⁺ = x exactly where −∇f(x) ∈ ∂g(x). The price is an inner problem, which is solved
    as by `ProximalNewton`.

    With more unknowns than outputs the systems have the size of the outputs (Prox-GGN-SCORE). They
    are those of f's rows, ∇²f = BᵀB: for the losses of a linear predictor the Hessian, for a
    `ModelLoss` ℓ(φ(x)) the Gauss-Newton matrix JᵀQJ, which takes its place there. (Since what it
    leaves out has to be less than the metric, the last steps may need a larger μ where the loss
    stays large.) An inner problem is begun from its dual, and a step with m outputs takes O(m² n)
    operations and O(m n) numbers.

    On the support F contracts by (∇²f + ∇²g_s)⁻¹∇²g_s, at most penalty μ²/|x|³ over the least
    curvature of f; the error of `OneStep()` is of this order.

    mu: μ > 0, less than the entries of x that matter. As μ → 0 this is `ProximalNewton`.
    stepsize: of forward-backward steps on the inner problem, by default 1/(L + maxⱼ penaltyⱼ/μ).
    linear: as for `Newton`.
    """

    sequential: ClassVar[bool] = True

    mu: float | Array = 0.1
    stepsize: float | Array | None = None
    linear: str = static(default="auto")

    def __post_init__(self) -> None:
        stepsize.check(self)
        settle(self, "mu", validate.positive("mu", validate.scalar("mu", self.mu)))
        validate.choice("linear", self.linear, ("auto", "direct", "krylov"))

    def prepare(self, problem: Any, x0: Tree) -> "SelfConcordant":
        need_plain(self, problem, "use PrimalDual, or DavisYin for h")
        need(self, problem, "f", "gradient", "use a solver that takes the prox of f")
        need(self, problem, "g", "smoothed", "use ProximalNewton")
        L = stepsize.lipschitz(problem.f)
        if self.stepsize is not None or L is None:
            return self
        steepest = L + problem.g.smoothed(self.mu).lipschitz()
        return replace(self, stepsize=stepsize.from_lipschitz(steepest))

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        return self._damped(problem, x, 1.0)

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def scale(self, problem: Any, x: Tree) -> Any:
        return 0.0 if self.stepsize is None else self.stepsize * tree.norm(problem.f.gradient(x))

    def control(self, problem: Any, x: Tree) -> Control:
        zero = jnp.zeros((), tree.dtype(x))
        return Control(x, zero, zero + 1)

    def advance(self, problem: Any, x: Tree, control: Control) -> tuple[Tree, Control]:
        M = problem.g.smoothed(self.mu).constant()
        alpha = lax.stop_gradient(1 / (1 + M * control.eta))
        d = tree.sub(self._damped(problem, x, alpha), x)
        t = lax.stop_gradient(search(problem, x, d))
        image = tree.axpy(t, d, x)
        return image, Control(image, self._length(problem, image, d), alpha)

    def _damped(self, problem: Any, x: Tree, alpha: Any) -> Tree:
        g_s = problem.g.smoothed(self.mu)
        f = problem.f.linearised(x) if hasattr(problem.f, "linearised") else problem.f
        anchored = Anchored(f, x, g_s.weighted(g_s.second(x)), alpha)
        size = None if self.stepsize is None else alpha * self.stepsize
        start = None
        if self.linear == "auto" and has_few_rows(anchored, x):
            start = from_dual(*lax.stop_gradient((anchored, g_s, x)))
        return ProximalNewton(size, self.linear).step(Problem(anchored, problem.g), x, start)

    def _length(self, problem: Any, x: Tree, d: Tree) -> Array:
        """‖d‖ in the metric ∇²s(x)."""
        h = problem.g.smoothed(self.mu).second(x)
        return tree.norm(jax.tree.map(lambda hj, dj: jnp.sqrt(hj) * dj, h, lax.stop_gradient(d)))
