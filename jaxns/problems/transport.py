"""Entropic optimal transport, balanced and unbalanced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import validate
from jaxns.problems.ground_cost import ROOM, CostMatrix, PointCloud, PositiveFeatures
from jaxns.struct import replace, settle, struct

GROUND_COSTS = (CostMatrix, PointCloud, PositiveFeatures)
SAME_SUM = 1e-6  # relative difference of two masses that counts as rounding (or √eps, if larger)


@struct
class Transport:
    r"""min_P ⟨P, C⟩ + ε KL(P | abᵀ) + ρ KL(P1 | a) + ρ KL(Pᵀ1 | b),

    with KL(p | q) = Σ p log(p/q) − p + q. Without ρ the problem is balanced: P1 = a, Pᵀ1 = b.
    The solution is P = abᵀ·exp((f + g − C)/ε), and the potentials f, g are fixed points of

        g_j = −τε log Σᵢ aᵢ exp((fᵢ − C_ij)/ε),   f_i = −τε log Σⱼ bⱼ exp((gⱼ − C_ij)/ε),

    τ = ρ/(ρ + ε), or 1 in the balanced case.

    cost: C, an (n, m) matrix, +∞ where a pair is forbidden; or `PointCloud(x, y)`, computed on the
        fly, or `PositiveFeatures(phi, psi)`.
    a, b: (n,) and (m,), nonnegative, of equal sum (not necessarily 1) in the balanced case. Points
        without mass contribute nothing.
    epsilon, rho: positive, independent of each other.

    `solve` returns a `TransportPlan`, or for costs that are no matrix a `LazyPlan`. `x0` is f.
    """

    cost: Any
    a: Array
    b: Array
    epsilon: float | Array
    rho: float | Array | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cost, GROUND_COSTS):
            settle(self, "cost", validate.array("cost", self.cost, 2))
        for name, length in zip("ab", self.cost.shape, strict=True):
            mass = validate.nonnegative(name, validate.array(name, getattr(self, name), 1))
            side = "row" if name == "a" else "column"
            if mass.shape != (length,):
                raise ValueError(
                    f"{name} must have one entry per {side} of cost: expected {length}, "
                    f"got shape {mass.shape}"
                )
            settle(self, name, mass)
        for name in ("epsilon",) if self.rho is None else ("epsilon", "rho"):
            value = validate.scalar(name, getattr(self, name))
            settle(self, name, validate.positive(name, value))
        if self.rho is None and validate.is_known(self.a) and validate.is_known(self.b):
            of_a, of_b = np.sum(np.asarray(self.a)), np.sum(np.asarray(self.b))
            if abs(of_a - of_b) > self._rounding * max(of_a, of_b):
                raise ValueError(
                    f"a and b must have the same sum in a balanced problem, got {of_a} and {of_b}; "
                    "pass rho=… to let the marginals differ from them"
                )

    @property
    def ground(self) -> Any:
        """The cost as one of `GROUND_COSTS`."""
        return self.cost if isinstance(self.cost, GROUND_COSTS) else CostMatrix(self.cost)

    @property
    def T(self) -> "Transport":
        """From b to a."""
        return replace(self, cost=self.ground.T, a=self.b, b=self.a)

    @property
    def tau(self) -> Any:
        return 1.0 if self.rho is None else self.rho / (self.rho + self.epsilon)

    @property
    def dtype(self) -> Any:
        return jnp.result_type(self.cost.dtype, self.a, self.b)

    @property
    def _rounding(self) -> float:
        return max(SAME_SUM, float(jnp.finfo(self.dtype).eps) ** 0.5)

    def start(self) -> Array:
        return jnp.zeros(self.cost.shape[0], self.dtype)

    def potential(self, f: Array) -> Array:
        """g(f) = −τε log Σᵢ aᵢ exp((fᵢ − Cᵢ)/ε); 0 where no mass can arrive."""
        log_sum = self.ground.log_sum(f, self.a, self.epsilon)
        return -self.tau * self.epsilon * jnp.where(log_sum == -jnp.inf, 0, log_sum)

    def density(self, f: Array, g: Array) -> Array:
        """exp((f + g − C)/ε), so that P = abᵀ·density. (n, m)."""
        return jnp.exp(jnp.minimum(self._log_density(f, g), ROOM))

    def infeasible(self, p: Array) -> Array:
        """Whether p proves that no plan lives on the allowed pairs (Farkas).

        With q the largest such that p_i + q_j ≤ 0 wherever mass may go, every plan would have
        ⟨a, p⟩ + ⟨b, q⟩ = Σ P_ij (p_i + q_j) ≤ 0.
        """
        p = jnp.where(self.a > 0, p, 0)
        top = jnp.where(self.b > 0, self.ground.highest(p, self.a), 0)
        size = jnp.sum(self.a) * jnp.max(jnp.abs(p), initial=0)
        return jnp.vdot(self.a, p) - jnp.vdot(self.b, top) > self._rounding * size

    def impossible(self) -> Array:
        """Whether a balanced problem asks for unequal sums, or for mass to go where none may."""
        if self.rho is not None:
            return jnp.zeros((), bool)
        of_a, of_b = jnp.sum(self.a), jnp.sum(self.b)
        unequal = jnp.abs(of_a - of_b) > self._rounding * jnp.maximum(of_a, of_b)
        a, b = jnp.zeros_like(self.a), jnp.zeros_like(self.b)
        return unequal | self.infeasible(a) | self.T.infeasible(b)

    def plan(self, f: Array, g: Array) -> "TransportPlan | LazyPlan":
        """The solution with these potentials. Balanced ones are shifted to ⟨a, f⟩ = ⟨b, g⟩."""
        if self.rho is None:
            mass = jnp.sum(self.a) + jnp.sum(self.b)
            shift = (jnp.vdot(self.a, f) - jnp.vdot(self.b, g)) / jnp.where(mass > 0, mass, 1)
            f, g = f - shift, g + shift
        if not isinstance(self.ground, CostMatrix):
            R = jnp.exp(f / self.epsilon + self.T.ground.log_sum(g, self.b, self.epsilon))
            S = jnp.exp(g / self.epsilon + self.ground.log_sum(f, self.a, self.epsilon))
            return LazyPlan(self, f, g, self._value(f, g, R, S))
        E = self.density(f, g)
        plan = self.a[:, None] * E * self.b
        C = jnp.where(self.ground.matrix != jnp.inf, self.ground.matrix, 0)
        return TransportPlan(
            f, g, plan, jnp.sum(plan * C), self._value(f, g, E @ self.b, self.a @ E)
        )

    def _value(self, f: Array, g: Array, R: Array, S: Array) -> Array:
        """The objective at P, with P1 = a·R and Pᵀ1 = b·S.

        The balanced one through its dual, whose error is quadratic in that of the potentials.
        """
        r, c = self.a * R, self.b * S
        entropy = self.epsilon * (jnp.sum(self.a) * jnp.sum(self.b) - jnp.sum(c))
        if self.rho is None:
            return jnp.vdot(self.a, f) + jnp.vdot(self.b, g) + entropy
        kept = jnp.vdot(self.a, _divergence(R)) + jnp.vdot(self.b, _divergence(S))
        return jnp.vdot(r, f) + jnp.vdot(c, g) + entropy + self.rho * kept

    def _log_density(self, f: Array, g: Array) -> Array:
        exponents = self.ground.exponents(self.epsilon)
        return f[:, None] / self.epsilon + g / self.epsilon + exponents

    def default_solver(self) -> Any:
        from jaxns.solvers import Sinkhorn

        return Sinkhorn()


@struct
class TransportPlan:
    """What solving a `Transport` gives.

    f: (n,), g: (m,) potentials.   plan: P, (n, m).   cost: ⟨P, C⟩.   value: the objective.
    """

    f: Array
    g: Array
    plan: Array
    cost: Array
    value: Array

    def apply(self, v: Array) -> Array:
        """P v, for v of shape (m,)."""
        return self.plan @ v

    def apply_transpose(self, u: Array) -> Array:
        """Pᵀ u, for u of shape (n,)."""
        return u @ self.plan


@struct
class LazyPlan:
    """A `TransportPlan` whose matrix is not stored: `plan` and `cost` are computed when asked for.

    problem: what was solved.   f, g: potentials.   value: the objective.
    """

    problem: Transport
    f: Array
    g: Array
    value: Array

    @property
    def plan(self) -> Array:
        problem = self.problem
        return problem.a[:, None] * problem.density(self.f, self.g) * problem.b

    @property
    def cost(self) -> Array:
        """⟨P, C⟩."""
        exponents = self.problem.ground.exponents(self.problem.epsilon)
        exponents = jnp.where(exponents != -jnp.inf, exponents, 0)
        return -self.problem.epsilon * jnp.sum(self.plan * exponents)

    def apply(self, v: Array) -> Array:
        """P v, for v of shape (m,), in the memory of the cost."""
        return _apply(self.problem.T, self.g, self.f, v)

    def apply_transpose(self, u: Array) -> Array:
        """Pᵀ u, for u of shape (n,)."""
        return _apply(self.problem, self.f, self.g, u)


def _apply(problem: Transport, f: Array, g: Array, u: Array) -> Array:
    """Σᵢ P_ij uᵢ, as what g's log-sum becomes when f moves along u, times the column's mass."""
    epsilon = problem.epsilon
    log_sum, slope = jax.jvp(
        lambda h: problem.ground.log_sum(h, problem.a, epsilon), (f,), (epsilon * u,)
    )
    return problem.b * jnp.exp(g / epsilon + log_sum) * slope


def _divergence(ratio: Array) -> Array:
    """KL(p | q)/q for p/q = ratio."""
    some = ratio > 0
    return jnp.where(some, ratio * jnp.log(jnp.where(some, ratio, 1)) - ratio, 0) + 1
