"""Primal-dual splitting: Chambolle-Pock, and Condat-Vũ with a smooth term."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import operators, tree, validate
from jaxns.solvers import balance, kinks, stepsize
from jaxns.solvers.needs import need, need_composite
from jaxns.struct import replace, settle, static, struct
from jaxns.tree import Tree

WITHIN = 0.99  # of the largest stepsizes allowed


@struct
class PrimalDual:
    r"""Minimise f(x) + g(Kx) + h(x) with the dual variable v of Kx.

        x⁺ = prox_{τ p}(x − τ ∇s(x) − τ Kᵀv)
        v⁺ = prox_{σ g*}(v + σ K(2x⁺ − x))

    where s is the smooth one of f and h, used by its gradient, and p the other one, used by its
    prox. Condat-Vũ (arXiv 1110.5277); Chambolle-Pock (arXiv 2206.00457 calls it by that name) when
    s = 0. prox_{σ g*}(w) = w − σ prox_{g/σ}(w/σ) by Moreau's identity.

    f is the smooth one if it has a gradient and knows a Lipschitz constant L of it; else its prox
    is taken, and h, if there is one, must be smooth. `smooth` overrules this.

    tau, sigma: both, with 1/τ − σ ‖K‖² ≥ L/2. By default 1/τ = L/2 + ω‖K‖ and σ = ω/‖K‖ (but for
        one per cent), ω balanced so that x and v move equally far, at fewer and fewer steps.
    smooth: whether f is used by its gradient.
    """

    tau: float | Array | None = None
    sigma: float | Array | None = None
    smooth: bool | None = static(default=None)
    weight: float | Array | None = None
    constants: Any = None

    def __post_init__(self) -> None:
        if (self.tau is None) != (self.sigma is None):
            raise ValueError("tau and sigma must be given together")
        for name in ("tau", "sigma", "weight"):
            value = getattr(self, name)
            if value is not None:
                value = validate.positive(name, validate.scalar(name, value))
                settle(self, name, value)

    def prepare(self, problem: Any, x0: Tree) -> "PrimalDual":
        need_composite(self, problem)
        smooth, simple = self._parts(problem)
        remedy = "it takes one of f and h by its gradient and the other, and g, by their prox"
        need(self, problem, "g", "prox", remedy)
        for function, ability in ((smooth, "gradient"), (simple, "prox")):
            if function is not None:
                need(self, problem, "f" if function is problem.f else "h", ability, remedy)
        if self.tau is not None:
            return self
        L = 0.0
        if smooth is not None:
            L = stepsize.required(self, smooth, "use ADMM where h is none", "tau=…, sigma=…")
        L, size = lax.stop_gradient(L), operators.norm(problem.K, x0)
        size = jnp.where(size > 0, size, 1)
        weight = jnp.where(L > 0, L, 1) / size if self.weight is None else self.weight
        return replace(self, weight=weight, constants=(L, size))

    def init(self, problem: Any, x0: Tree) -> tuple[Tree, Tree]:
        return x0, tree.zeros_like(operators.apply(problem.K, x0))

    def step(self, problem: Any, z: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        x, _ = z
        if self.tau is None and self.constants is None:
            return self.prepare(problem, x).step(problem, z)
        _, sigma = self._stepsizes()
        _, x_next, w = self._arguments(problem, z)
        return x_next, tree.axpy(-sigma, problem.g.prox(tree.scale(1 / sigma, w), 1 / sigma), w)

    def solution(self, problem: Any, z: tuple[Tree, Tree]) -> Tree:
        x, _ = z
        return x

    def control(self, problem: Any, z: tuple[Tree, Tree]) -> balance.Balance | None:
        return None if self.weight is None else balance.start(z, self.weight)

    def advance(
        self, problem: Any, z: tuple[Tree, Tree], control: balance.Balance
    ) -> tuple[tuple[Tree, Tree], balance.Balance]:
        omega = balance.weight(control)
        image = replace(self, weight=omega).step(problem, z)
        primal = balance.move(z[0], image[0], omega)
        return image, control.after(image, omega, primal, balance.move(z[1], image[1]))

    def settle(self, control: balance.Balance) -> "PrimalDual":
        return replace(self, weight=control.weight)

    def margin(self, problem: Any, z: tuple[Tree, Tree]) -> Array | None:
        """What the proxes are taken of, x − τ∇s(x) − τKᵀv and v + σK(2x⁺ − x), has the Lipschitz
        constants c = √(1 + τ²‖K‖²) and at most 1 + σ‖K‖(2c + 1)."""
        x, _ = z
        if self.tau is None and self.constants is None:
            return self.prepare(problem, x).margin(problem, z)
        (tau, sigma), (s, p) = self._stepsizes(), self._parts(problem)
        size = operators.norm(problem.K, x) if self.constants is None else self.constants[1]
        moved, _, w = self._arguments(problem, z)
        first = jnp.hypot(1, tau * size)
        of_g = kinks.of_prox(problem.g, tree.scale(1 / sigma, w), 1 / sigma)
        margins = [kinks.over(of_g, (1 + sigma * size * (2 * first + 1)) / sigma)]
        if s is not None:
            margins.append(kinks.of_gradient(s, x))
        if p is not None:
            margins.append(kinks.over(kinks.of_prox(p, moved, tau), first))
        return kinks.least(*margins)

    def _arguments(self, problem: Any, z: tuple[Tree, Tree]) -> tuple[Tree, Tree, Tree]:
        """What the prox of p is taken of, x⁺, and σ times what that of g is taken of."""
        x, v = z
        (tau, sigma), (s, p) = self._stepsizes(), self._parts(problem)
        slope = operators.adjoint(problem.K, v)
        if s is not None:
            slope = tree.add(slope, s.gradient(x))
        moved = tree.axpy(-tau, slope, x)
        x_next = moved if p is None else p.prox(moved, tau)
        ahead = tree.sub(tree.scale(2, x_next), x)
        return moved, x_next, tree.axpy(sigma, operators.apply(problem.K, ahead), v)

    def _stepsizes(self) -> tuple[Any, Any]:
        """τ and σ."""
        if self.tau is not None:
            return self.tau, self.sigma
        L, size = self.constants
        omega: Any = self.weight
        return WITHIN / (L / 2 + omega * size), WITHIN * omega / size

    def _parts(self, problem: Any) -> tuple[Any, Any]:
        """(s, p): the function used by its gradient and the one used by its prox, or None."""
        f, h = problem.f, getattr(problem, "h", None)
        smooth = self.smooth
        if smooth is None:
            known = self.tau is not None or stepsize.lipschitz(f) is not None
            smooth = hasattr(f, "gradient") and (known or not hasattr(f, "prox"))
        return (f, h) if smooth else (h, f)
