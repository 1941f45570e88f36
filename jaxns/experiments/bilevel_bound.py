"""One-step hypergradients in an outer gradient descent (arXiv 2305.13768, bilevel corollary).

    min_t ½ mean (A' x(t) − b')²,   x(t) = argmin_x ½ mean (Ax − b)² + eᵗ/2 ‖x‖².

The last K steps of the inner gradient descent, contracting by ρ, give an outer gradient that is off
by at most ρᴷ L_F L_g/(1 − ρ), L_F = ‖∂_t F‖ and L_g the length of the criterion's gradient. Outer
descent along it ends where it vanishes, near a minimiser; along Newton's one step, at one.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Check, Table, below, small
from jaxns.experiments.session import Session
from jaxns.functions import LeastSquares, SquaredL2

EXACT, NEWTON = "implicit", "Newton, K = 1"
ROUNDING = 1e-13  # of the inner solution, which is not exactly the fixed point


class Settings(Base):
    """rows, columns: of A; held_out: rows of A'.   last: the K that are tried.

    noise: in b and b', beside A x of size √columns.   steps: of the outer descent, with stepsize 1
    from t = 1.
    """

    rows: Count = 60
    columns: Count = 20
    held_out: Count = 200
    noise: Positive = 1.0
    last: Annotated[tuple[Count, ...], Field(min_length=2)] = (1, 10, 50)
    steps: Annotated[int, Field(ge=100)] = 6000
    seed: Annotated[int, Field(ge=0)] = 1


@dataclasses.dataclass(frozen=True)
class Descent:
    """Along the outer steps: t, the gradient as estimated, the true one, and the bound of its error
    (0 where the map has no derivative at its fixed point)."""

    t: np.ndarray
    estimated: np.ndarray
    true: np.ndarray
    bound: np.ndarray


class Instance:
    def __init__(self, settings: Settings) -> None:
        random = np.random.default_rng(settings.seed)
        p = settings.columns
        truth = random.normal(size=p)
        self.A, self.A_new = (
            random.normal(size=(n, p)) for n in (settings.rows, settings.held_out)
        )
        self.b, self.b_new = (
            A @ truth + settings.noise * random.normal(size=len(A)) for A in (self.A, self.A_new)
        )
        self.hessian, self.c = self.A.T @ self.A / len(self.A), self.A.T @ self.b / len(self.A)
        self.eigenvalues = np.linalg.eigvalsh(self.hessian)

    @property
    def stepsize(self) -> float:
        """1/L of the inner problem at t = 1, where the descent starts."""
        return float(1 / (self.eigenvalues[-1] + np.e))

    def solution(self, t, x0, solver, mode):
        ridge = jaxns.Composite(
            LeastSquares(jnp.asarray(self.A), jnp.asarray(self.b), scale="mean"),
            SquaredL2(jnp.exp(t)),
        )
        return jaxns.solve(ridge, solver, x0, mode=mode, stop=jaxns.Stop(tol=1e-15)).x

    def criterion(self, x):
        return jnp.mean((self.A_new @ x - self.b_new) ** 2) / 2

    def descend(
        self, solver: Callable[[Any], Any], mode: Any, last: int | None, steps: int
    ) -> Descent:
        def loss(t, x):
            x = self.solution(t, x, solver(t), mode)
            return self.criterion(x), x

        def step(carry, _):
            t, x = carry
            slope, x = jax.grad(loss, has_aux=True)(t, x)
            return (t - slope, x), (t, slope)

        start = jnp.asarray(1.0), jnp.zeros(self.A.shape[1])
        t, slope = jax.jit(lambda: lax.scan(step, start, length=steps)[1])()
        t = np.asarray(t)
        true, bound = np.array([self.closed_form(s, last) for s in t]).T
        return Descent(t, np.asarray(slope), true, bound)

    def closed_form(self, t: float, last: int | None) -> tuple[float, float]:
        """The outer gradient at t, and ρᴷ L_F L_g/(1 − ρ)."""
        system = self.hessian + np.exp(t) * np.eye(len(self.c))
        x = np.linalg.solve(system, self.c)
        dx = -np.exp(t) * np.linalg.solve(system, x)
        outer = self.A_new.T @ (self.A_new @ x - self.b_new) / len(self.b_new)
        if last is None:
            return outer @ dx, 0.0
        rho = self.rho(t)
        lipschitz = self.stepsize * np.exp(t) * np.linalg.norm(x)
        return outer @ dx, rho**last * lipschitz * np.linalg.norm(outer) / (1 - rho)

    def rho(self, t: float) -> float:
        return float(1 - self.stepsize * (self.eigenvalues[0] + np.exp(t)))


def run(settings: Settings, session: Session) -> Findings:
    it = Instance(settings)
    descend = partial(it.descend, steps=settings.steps)

    def inner(t):
        return jaxns.GradientDescent(it.stepsize)

    def newton(t):
        return jaxns.Newton()

    units = {
        f"K = {K}": partial(descend, inner, jaxns.OneStep(K), K) for K in sorted(settings.last)
    }
    units[NEWTON] = partial(descend, newton, jaxns.OneStep(), None)
    units[EXACT] = partial(descend, newton, jaxns.Implicit(), None)
    found = dict(zip(units, session.each("outer descents", units), strict=True))
    exact = found.pop(EXACT)
    truncated = [d for name, d in found.items() if name != NEWTON]
    best = found[NEWTON]
    ends = [abs(d.true[-1]) for d in truncated]
    checks = (
        below("every estimate vanishes: its size at the end",
              [abs(d.estimated[-1]) for d in found.values()], 1e-13),
        *(
            below(f"{name}, every outer step: error of the estimate over its bound",
                  np.abs(d.estimated - d.true) / (d.bound + ROUNDING), 1)
            for name, d in found.items() if name != NEWTON
        ),
        below("at the end: true gradient over the bound",
              [abs(d.true[-1]) / d.bound[-1] for d in truncated], 1),
        Check("the true gradient at the end shrinks with K", ", ".join(map(small, ends)),
              ends == sorted(ends, reverse=True)),
        below("Newton: true gradient at the end", abs(best.true[-1]), 1e-13),
        below("Newton: distance of t from implicit's", np.abs(best.t - exact.t), 1e-10),
    )  # fmt: skip
    rows = tuple(
        (name, f"{d.t[-1]:.6f}", small(abs(d.estimated[-1])), small(abs(d.true[-1])),
         small(d.bound[-1]) if d.bound[-1] else "")
        for name, d in [*found.items(), (EXACT, exact)]
    )  # fmt: skip
    table = Table(
        f"Outer gradient descent after {settings.steps} steps",
        ("inner derivative", "t", "estimated gradient", "true gradient", "bound"),
        rows,
        (
            f"ρ = {it.rho(exact.t[-1]):.4f} at the end; an instance of this library: the bound "
            "shrinks with K on every one, the true gradient on some",
        ),
    )
    panels = (
        Panel("Gradient as estimated", "outer step", "size",
              tuple(Curve(name, np.abs(d.estimated)) for name, d in found.items()),
              ylim=(1e-16, 10)),
        Panel("True gradient", "outer step", "size (thin: bound of the error)",
              tuple(Curve(name, np.abs(d.true), guide=d.bound if d.bound.any() else None)
                    for name, d in found.items()),
              ylim=(1e-16, 10)),
    )  # fmt: skip
    title = "Descent along a truncated gradient ends where the true one is below its bound"
    return Findings(title, table, panels, checks)


EXPERIMENT = curves.experiment(Settings, run)
