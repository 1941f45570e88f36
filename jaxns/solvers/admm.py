"""The alternating direction method of multipliers."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import operators, tree, validate
from jaxns.operators import adjoint, apply, is_multiple
from jaxns.solvers import balance, kinks, stepsize
from jaxns.solvers.argmin import argmin, argmin_margin, factorise, factorises, is_exact
from jaxns.solvers.needs import need, need_plain
from jaxns.struct import replace, settle, static, struct
from jaxns.tree import Tree


@struct
class ADMM:
    r"""Minimise f(x) + g(z) subject to Ax + Bz = c, with the scaled dual variable u.

        x = argmin_x f(x) + r/2 ‖Ax + Bz − c + u‖²
        z ← argmin_z g(z) + r/2 ‖Ax + Bz − c + u‖²
        u ← u + Ax + Bz − c

    (Boyd et al. 2011; arXiv 2206.00457, section on splitting methods.) It takes `SplitForm`, and
    `Composite(f, g, K)` as f(x) + g(z) with z = Kx; it is Douglas-Rachford on the dual problem.
    (z, u) governs the iteration. Each update must have a closed form: A (or B) a multiple of the
    identity and f (or g) with a prox, or a matrix and a quadratic; then one factorisation serves
    the whole solve. Otherwise the update of x is linearised,

        x ← x − τ (∇f(x) + r Aᵀ(Ax + Bz − c + u)),       τ = 1/(L + r ‖A‖²)
        x ← prox_{τ f}(x − τ r Aᵀ(Ax + Bz − c + u)),     τ = 1/(r ‖A‖²), for f without L,

    and (x, z, u) governs it.

    penalty: r. By default one that suits the curvature of f, where it is known, and 1 otherwise.
    relaxation: λ in (0, 2): Ax is replaced by λAx − (1 − λ)(Bz − c) in the last two lines.
    x_update: (f, r, d) -> argmin_x f(x) + r/2 ‖Ax − d‖², for a user who knows better.
    linearised: whether to linearise; by default where the update of x has no closed form.
    adaptive: whether r is balanced, so that z and u move equally far (Boyd's section 3.4.1), at
        fewer and fewer steps. Not where f or g factorises its prox for one r.
    """

    penalty: float | Array | None = None
    relaxation: float | Array = 1.0
    x_update: Callable | None = static(default=None)
    linearised: bool | None = static(default=None)
    adaptive: bool = static(default=True)
    factors: Any = None

    def __post_init__(self) -> None:
        if self.penalty is not None:
            penalty = validate.positive("penalty", validate.scalar("penalty", self.penalty))
            settle(self, "penalty", penalty)
        stepsize.check_relaxation(self)

    def prepare(self, problem: Any, x0: Tree) -> "ADMM":
        form, r = self._form(problem), self.penalty
        if self._linearises(form):
            L = stepsize.lipschitz(form.f) if hasattr(form.f, "gradient") else None
            if L is None:
                need(self, form, "f", "prox", "or a Lipschitz constant of its gradient")
            for_x = L, size = lax.stop_gradient((L, operators.norm(form.A, x0)))
            suited = 1.0 if L is None else jnp.where(L > 0, L, 1) / size**2
        elif self.x_update is not None:
            for_x, suited = None, 1.0
        else:
            for_x, suited = factorise(form.f, form.A, r, x0)
        r = suited if r is None else r
        for_z, _ = factorise(form.g, form.B, r, form.start_z(x0))
        return replace(self, penalty=r, factors=(for_x, for_z))

    def init(self, problem: Any, x0: Tree) -> tuple[Tree, ...]:
        form = self._form(problem)
        z = form.start_z(x0)
        u = tree.zeros_like(apply(form.B, z))
        return (x0, z, u) if self._linearises(form) else (z, u)

    def step(self, problem: Any, state: tuple[Tree, ...]) -> tuple[Tree, ...]:
        if self.factors is None:
            return self._prepared(problem, state).step(problem, state)
        form, r = self._form(problem), self.penalty
        *before, z, u = state
        x, Ax = self._relaxed(form, state)
        z = argmin(form.g, form.B, r, tree.scale(-1, form.gap(Ax, u)), self.factors[1])
        u = tree.add(u, form.gap(Ax, apply(form.B, z)))
        return (x, z, u) if before else (z, u)

    def solution(self, problem: Any, state: tuple[Tree, ...]) -> Tree:
        if self.factors is None:
            return self._prepared(problem, state).solution(problem, state)
        form = self._form(problem)
        *before, z, u = state
        x = before[0] if before else self._x(form, state)
        return problem.read(x, z, tree.scale(self.penalty, u))

    def margin(self, problem: Any, state: tuple[Tree, ...]) -> Array | None:
        """Both updates minimise to a target that is a function of (z, u) with Lipschitz constant
        √(1 + ‖B‖²), since Ax brings no two targets further apart."""
        if self.factors is None:
            return self._prepared(problem, state).margin(problem, state)
        form, r = self._form(problem), self.penalty
        if self.x_update is not None or self._linearises(form) or not is_multiple(form.B):
            return None
        z, u = state
        _, Ax = self._relaxed(form, state)
        for_x = argmin_margin(form.f, form.A, r, tree.scale(-1, form.gap(apply(form.B, z), u)))
        for_z = argmin_margin(form.g, form.B, r, tree.scale(-1, form.gap(Ax, u)))
        return kinks.over(kinks.least(for_x, for_z), jnp.hypot(1, form.B))

    def control(self, problem: Any, state: tuple[Tree, ...]) -> balance.Balance | None:
        form = self._form(problem)
        exact = self.x_update is None and not self._linearises(form)
        fixed = (exact and factorises(form.f, form.A)) or factorises(form.g, form.B)
        return balance.start(state, self.penalty) if self.adaptive and not fixed else None

    def advance(
        self, problem: Any, state: tuple[Tree, ...], control: balance.Balance
    ) -> tuple[tuple[Tree, ...], balance.Balance]:
        r = balance.weight(control)
        *before, z, u = state
        state = (*before, z, tree.scale(control.weight / r, u))
        image = replace(self, penalty=r).step(problem, state)
        if before:  # linearised: ‖A‖ stands in for A
            primal = balance.move(before[0], image[0], self.factors[0][1])
        else:
            B = problem.split_form().B
            primal = balance.move(apply(B, z), apply(B, image[0]))
        dual = balance.move(state[-1], image[-1])
        return image, control.after(image, r, primal, dual)

    def settle(self, control: balance.Balance) -> "ADMM":
        return replace(self, penalty=control.weight)

    def _form(self, problem: Any) -> Any:
        need_plain(self, problem, "use PrimalDual or DavisYin", without=("h",))
        if not hasattr(problem, "split_form"):
            raise TypeError(
                "ADMM solves min f(x) + g(z) subject to Ax + Bz = c, such as SplitForm(f, g, A, B, "
                f"c) or Composite(f, g, K), got {type(problem).__name__}"
            )
        form = problem.split_form()
        if not is_exact(form.g, form.B):
            remedy = "exchange the two, or use PrimalDual"
            need(self, form, "g", "prox", remedy)
            raise TypeError(
                f"ADMM needs B to be a multiple of the identity, or g quadratic; {remedy}"
            )
        return form

    def _linearises(self, form: Any) -> bool:
        if self.linearised is None:
            return self.x_update is None and not is_exact(form.f, form.A)
        return self.linearised

    def _relaxed(self, form: Any, state: tuple[Tree, ...]) -> tuple[Tree, Tree]:
        """x, and λAx − (1 − λ)(Bz − c)."""
        x, Bz = self._x(form, state), apply(form.B, state[-2])
        Ax = apply(form.A, x)
        return x, tree.axpy(self.relaxation - 1, form.gap(Ax, Bz), Ax)

    def _x(self, form: Any, state: tuple[Tree, ...]) -> Tree:
        """The update of x."""
        *before, z, u = state
        r, factor = self.penalty, self.factors[0]
        s = form.gap(apply(form.B, z), u)  # Bz − c + u
        if not before:
            d = tree.scale(-1, s)
            if self.x_update is not None:
                return self.x_update(form.f, r, d)
            return argmin(form.f, form.A, r, d, factor)
        (x,), (L, size) = before, factor
        slope = tree.scale(r, adjoint(form.A, tree.add(apply(form.A, x), s)))
        if L is None:
            tau = 1 / (r * size**2)
            return form.f.prox(tree.axpy(-tau, slope, x), tau)
        tau = 1 / (L + r * size**2)
        return tree.axpy(-tau, tree.add(form.f.gradient(x), slope), x)

    def _prepared(self, problem: Any, state: tuple[Tree, ...]) -> "ADMM":
        form = self._form(problem)
        x = state[0] if self._linearises(form) else form.start()
        return self.prepare(problem, x)
