"""One-step differentiation of gradient descent (arXiv 2305.13768): weighted ridge, K last steps.

    min_w ½ Σᵢ θᵢ (xᵢᵀw − yᵢ)² + a/2 ‖w‖²,   ∂w/∂θ at θ = 1, stepsize 1/L or 2/(μ + L).

Differentiating the last K steps leaves an error of at most ρᴷ L_F/(1 − ρ). X has the sizes of the
paper's notes and singular values from 1 to 10³, not the data set of the paper.
"""

import dataclasses
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Check, Table, below, between, small
from jaxns.experiments.session import Session
from jaxns.functions import LeastSquares, SquaredL2

STEPSIZES = {"1/L": lambda mu, L: 1 / L, "2/(μ + L)": lambda mu, L: 2 / (mu + L)}


class Settings(Base):
    """rows, columns: of X.   ratios: a/‖X‖², the reciprocals of the condition numbers.

    last: the K that are tried.
    """

    rows: Count = 500
    columns: Count = 12
    ratios: Annotated[tuple[Positive, ...], Field(min_length=2)] = (1e-3, 1e-2)
    last: Annotated[tuple[Count, ...], Field(min_length=4)] = (
        1, 3, 10, 30, 100, 300, 700, 1000, 1500, 2000, 5000, 10_000, 15_000,
    )  # fmt: skip
    seed: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True)
class Run:
    """errors: ‖J_K − J*‖ for each K, in the operator norm.   scale: ‖J*‖.   lipschitz: ‖∂_θ F‖."""

    condition: float
    stepsize: str
    rho: float
    lipschitz: float
    scale: float
    errors: np.ndarray
    expected: np.ndarray


def run(settings: Settings, session: Session) -> Findings:
    units = {
        f"ratio {ratio:g}, stepsize {name}": partial(measure, settings, ratio, name)
        for ratio in settings.ratios
        for name in STEPSIZES
    }
    runs = session.each("runs", units)
    K = np.array(settings.last)
    checks: list[Check] = []
    for r in runs:
        name = f"κ = {r.condition:.0f}, {r.stepsize}"
        bound = r.rho**K * r.lipschitz / (1 - r.rho) + 1e-12 * r.scale
        checks.append(below(f"{name}: error over its bound, every K", r.errors / bound, 1.0))
        exactly = np.abs(r.errors - r.expected) / r.scale
        checks.append(below(f"{name}: error from ‖Aᴷ J*‖, over ‖J*‖", exactly, 1e-10))
        far = (r.rho**K < 1e-4) & (r.errors > 1e-11 * r.scale)
        if far.sum() >= 2:
            slope = np.polyfit(K[far], np.log(r.errors[far]), 1)[0] / np.log(r.rho)
            checks.append(between(f"{name}: slope of log error in K over log ρ", slope, 0.95, 1.05))
    pairs = [runs[i : i + len(STEPSIZES)] for i in range(0, len(runs), len(STEPSIZES))]
    for short, long in pairs:
        checks.append(
            Check(
                f"κ = {short.condition:.0f}: the larger step is better, every K",
                "where above rounding",
                bool(np.all(long.errors <= np.maximum(short.errors, 1e-12 * long.scale))),
            )
        )
    rows = tuple(
        (f"{r.condition:.0f}", r.stepsize, f"{r.rho:.5f}", *(small(e / r.scale) for e in r.errors))
        for r in runs
    )
    table = Table(
        f"Relative error of the derivative through the last K steps, {settings.rows} × "
        f"{settings.columns}",
        ("κ", "stepsize", "ρ", *(f"K = {k}" for k in K)),
        rows,
        ("synthetic X with singular values from 1 to 1e3; the paper's data set is not used",),
    )
    panels = tuple(
        Panel(
            f"κ = {pair[0].condition:.0f}", "K", r"$\|J_K - J^*\| \,/\, \|J^*\|$ (thin: bound)",
            tuple(
                Curve(f"stepsize {r.stepsize}, ρ = {r.rho:.4f}", r.errors / r.scale, K,
                      r.rho**K * r.lipschitz / (1 - r.rho) / r.scale)
                for r in pair
            ),
            xscale="log", ylim=(1e-15, 100),
        )
        for pair in pairs
    )  # fmt: skip
    title = "Differentiating the last K steps of gradient descent: an error like ρᴷ"
    return Findings(title, table, panels, tuple(checks))


def measure(settings: Settings, ratio: float, stepsize: str) -> Run:
    random = np.random.default_rng(settings.seed)
    n, p = settings.rows, settings.columns
    U, V = (np.linalg.qr(random.normal(size=(k, p)))[0] for k in (n, p))
    singular = np.geomspace(1, 1e3, p)
    X = jnp.asarray(U * singular @ V.T)
    y = X @ jnp.ones(p) + 100 * jnp.asarray(random.normal(size=n))
    a = ratio * singular[-1] ** 2
    L, mu = singular[-1] ** 2 + a, singular[0] ** 2 + a
    alpha = STEPSIZES[stepsize](mu, L)
    rho = max(abs(1 - alpha * mu), abs(1 - alpha * L))
    hessian = X.T @ X + a * jnp.eye(p)
    w = jnp.linalg.solve(hessian, X.T @ y)
    cross = X.T * (X @ w - y)  # ∂²/∂w∂θ, column i = xᵢ (xᵢᵀw − yᵢ)
    exact = -jnp.linalg.solve(hessian, cross)

    @partial(jax.jit, static_argnums=1)
    def jacobian(theta, K):
        def solution(theta):
            ridge = jaxns.Composite(LeastSquares(X, y, weights=theta), SquaredL2(a))
            solver, mode = jaxns.GradientDescent(stepsize=alpha), jaxns.OneStep(K)
            return jaxns.solve(ridge, solver, w, mode=mode, stop=jaxns.Stop(tol=1e-12)).x

        return jax.jacrev(solution)(theta)

    errors = [float(jnp.linalg.norm(jacobian(jnp.ones(n), K) - exact, 2)) for K in settings.last]
    A = np.eye(p) - alpha * np.asarray(hessian)
    expected = [np.linalg.norm(np.linalg.matrix_power(A, K) @ exact, 2) for K in settings.last]
    return Run(
        L / mu, stepsize, rho, float(alpha * jnp.linalg.norm(cross, 2)),
        float(jnp.linalg.norm(exact, 2)), np.array(errors), np.array(expected),
    )  # fmt: skip


EXPERIMENT = curves.experiment(Settings, run)
