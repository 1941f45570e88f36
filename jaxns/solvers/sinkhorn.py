"""Sinkhorn's algorithm for entropic optimal transport."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, tree
from jaxns.solvers import kinks
from jaxns.solvers.annealing import anneal, marginal_error, sweep
from jaxns.solvers.semidual import ascent, length
from jaxns.struct import static, struct

RUNNING, STALLED, INFEASIBLE = -1, 1, 5  # codes of `jaxns.Status`
FACTORISED = 1500  # size of the smaller side up to which the linear system is factorised
DOUBTFUL = (
    1e-3  # marginal error above which Newton's direction, and that there is a plan, is checked
)


@struct
class Progress:
    """image: the newest value of the map.   gap: how far it was.   verdict: see `Status`."""

    image: Array
    gap: Array
    verdict: Array


@struct
class Sinkhorn:
    r"""Solve a `Transport` problem. Sinkhorn's map and, by default, Newton's on top of it:

        F(f) = f(g(f)),   g_j(f) = −τε log Σᵢ aᵢ exp((fᵢ − C_ij)/ε),   and the same for f(g);
        f ← f + (I − A)⁻¹ (F(f) − f),   A = ∂F = τ² diag(1/P1) P diag(1/Pᵀ1) Pᵀ

    (recursion and A: arXiv 2207.12717). With N = P/√(P1 · Pᵀ1) the system is the symmetric
    I − τ²NNᵀ. In the balanced case A1 = 1: potentials matter up to a constant, ⟨a, f⟩ = 0 is kept,
    and the null vector u ∝ √(P1) is lifted, I − NNᵀ + uuᵀ. The unknown is the potential of the
    smaller side.

    The start is annealed (see `annealing`): ε brought down in stages, over-relaxation at the end.
    Newton's map has ∂F = 0 at its fixed point, so `OneStep` is as exact as `Implicit`, and each
    costs one symmetric linear system; neither the start nor the matrix (I − A)⁻¹ carries a
    derivative, nor needs to. (For second derivatives use `Implicit`: `OneStep` has the first only.)

    acceleration: False for the plain map F from x0 = f, as in the paper: no anchor, and slow where
        ε is small. `OneStep` then misses a share of about ρ of the
        derivative, ρ the second eigenvalue of A, however long the run.
    """

    acceleration: bool = static(default=True)

    @property
    def sequential(self) -> bool:
        """Newton's steps have a factorisation; Sinkhorn's are elementwise."""
        return self.acceleration

    def prepare(self, problem: Any, x0: Array) -> "Sinkhorn":
        if not hasattr(problem, "potential"):
            name = type(problem).__name__
            raise TypeError(f"Sinkhorn solves Transport(cost, a, b, epsilon); {name} is another")
        return self

    def init(self, problem: Any, x0: Array) -> Array:
        if not self.acceleration:
            return x0
        problem, x0 = lax.stop_gradient((problem, x0))
        f = problem.potential(x0) if self._flipped(problem) else x0
        problem = self._oriented(problem)
        return _anchor(problem, anneal(problem, f))

    def step(self, problem: Any, f: Array) -> Array:
        problem = self._oriented(problem)
        if not self.acceleration:
            return sweep(problem, f)
        residual = sweep(problem, f) - f
        return _anchor(problem, f + _inverse(problem, f)(residual))

    def solution(self, problem: Any, f: Array) -> Any:
        if self._flipped(problem):
            return problem.plan(problem.T.potential(f), f)
        return problem.plan(f, problem.potential(f))

    def margin(self, problem: Any, f: Array) -> Array:
        return kinks.no_kink(f)

    def control(self, problem: Any, f: Array) -> Progress:
        verdict = jnp.where(problem.impossible(), INFEASIBLE, RUNNING).astype(jnp.int32)
        return Progress(f, jnp.asarray(jnp.inf, f.dtype), verdict)

    def advance(self, problem: Any, f: Array, control: Progress) -> tuple[Array, Progress]:
        """A Newton step, shortened where the whole one goes too far."""
        if not self.acceleration:
            image = self.step(problem, f)
            return image, Progress(image, control.gap, control.verdict)
        problem = self._oriented(problem)
        residual = sweep(problem, f) - f
        newton = _inverse(problem, f)(residual)
        error = lax.stop_gradient(marginal_error(problem, f, f + residual))
        uphill = (ascent(problem, f, residual, newton) > 0) | (error <= DOUBTFUL)
        direction = jnp.where(uphill & jnp.all(jnp.isfinite(newton)), newton, residual)
        image = _anchor(problem, f + direction)
        after = _anchor(problem, f + length(problem, f, residual, direction) * direction)

        gap = lax.stop_gradient(jnp.linalg.norm(image - f))
        stalled = (error <= _rounding(problem, f)) & (gap >= 0.5 * control.gap)
        hopeless = lax.cond(
            tree.any_lane(error > DOUBTFUL),
            lambda: (error > DOUBTFUL) & _infeasible(problem, residual, newton),
            lambda: jnp.zeros((), bool),
        )
        found = jnp.select([hopeless, stalled], [INFEASIBLE, STALLED], RUNNING)
        verdict = jnp.where(control.verdict == RUNNING, found, control.verdict)
        return after, Progress(image, gap, verdict.astype(jnp.int32))

    def _flipped(self, problem: Any) -> bool:
        n, m = problem.ground.shape
        return self.acceleration and m < n

    def _oriented(self, problem: Any) -> Any:
        return problem.T if self._flipped(problem) else problem


def _anchor(problem: Any, f: Array) -> Array:
    """f + constant such that ⟨a, f⟩ = 0, if the problem is balanced."""
    if problem.rho is not None:
        return f
    a = lax.stop_gradient(problem.a)
    mass = jnp.sum(a)
    return f - jnp.vdot(a, f) / jnp.where(mass > 0, mass, 1)


def _inverse(problem: Any, f: Array) -> Callable[[Array], Array]:
    """r ↦ (I − A)⁻¹ r at f, up to a constant if the problem is balanced.

    A is similar to a symmetric matrix: with s = √(P1), diag(s) A diag(1/s) = τ²NNᵀ.
    """
    problem, f = lax.stop_gradient((problem, f))
    factorised = problem.ground.fits and f.size <= FACTORISED
    A, s, H, solve = (_factorised if factorised else _matrix_free)(problem, f)

    def inverse(r: Array) -> Array:
        x = lax.custom_linear_solve(H, s * r, solve, symmetric=True)
        # One application of A more, which also reaches the rows without mass, where s = 0.
        return r + A(jnp.where(s > 0, x / jnp.where(s > 0, s, 1), 0))

    return inverse


def _factorised(problem: Any, f: Array) -> tuple:
    a, b, tau = problem.a, problem.b, problem.tau
    E = problem.density(f, problem.potential(f))
    R, S = E @ b, a @ E  # P1 = a R, Pᵀ1 = b S
    R, S = jnp.where(R > 0, R, 1), jnp.where(S > 0, S, 1)
    s = jnp.sqrt(a * R)
    N = jnp.sqrt(a / R)[:, None] * E * jnp.sqrt(b / S)
    H = jnp.eye(f.size, dtype=f.dtype) - tau**2 * N @ N.T
    if problem.rho is None:
        u = _unit(s)
        H = H + u[:, None] * u
    L = jnp.linalg.cholesky(H)
    # Supports that are nearly disconnected make H singular to rounding.
    singular = ~jnp.all(jnp.isfinite(L))
    ridge = tree.eps(f) ** 0.5 * jnp.eye(f.size, dtype=f.dtype)
    L = lax.cond(
        tree.any_lane(singular),
        lambda: jnp.where(singular, jnp.linalg.cholesky(H + ridge), L),
        lambda: L,
    )

    def A(v):
        return tau**2 * (E @ (b / S * ((a * v) @ E))) / R

    def solve(_, r):
        return jax.scipy.linalg.cho_solve((L, True), r)

    return A, s, lambda x: H @ x, solve


def _matrix_free(problem: Any, f: Array) -> tuple:
    swept, A = jax.linearize(lambda f: sweep(problem, f), f)
    s = jnp.sqrt(problem.a) * jnp.exp((f - swept / problem.tau) / (2 * problem.epsilon))
    u = _unit(s)

    def H(x):
        x_over_s = jnp.where(s > 0, x / jnp.where(s > 0, s, 1), 0)
        x = x - s * A(x_over_s)
        return x if problem.rho is not None else x + u * jnp.vdot(u, x)

    def solve(H, r):
        return linear.solve("cg", H, r, 0.0, 10 * f.size)[0]

    return A, s, H, solve


def _unit(s: Array) -> Array:
    length = jnp.linalg.norm(s)
    return s / jnp.where(length > 0, length, 1)


def _rounding(problem: Any, f: Array) -> Array:
    """The marginal error that rounding alone makes."""
    f, g = lax.stop_gradient((f, problem.potential(f)))
    size = jnp.max(jnp.abs(f)) + jnp.max(jnp.abs(g)) + problem.epsilon
    return 4 * tree.eps(f) * lax.stop_gradient(size / problem.epsilon)


def _infeasible(problem: Any, *directions: Array) -> Array:
    """Whether one of the directions into which f escapes proves that there is no plan."""
    if problem.rho is not None:
        return jnp.zeros((), bool)
    problem, directions = lax.stop_gradient((problem, directions))
    found = jnp.zeros((), bool)
    for p in directions:
        found |= problem.infeasible(p)
    return found
