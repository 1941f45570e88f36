"""The derivatives of Sinkhorn-Knopp converge (arXiv 2207.12717), on instances of this library.

Plans P_k and their derivatives along a moving cost converge at the rate λ₂(A), the second
eigenvalue of A = diag(1/a) P diag(1/b) Pᵀ, although A has the eigenvalue 1 along constants.
"""

import dataclasses
import itertools
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
from jaxns.experiments.rates import fitted_rate
from jaxns.experiments.reporting import Check, Posed, Table, below, between, small
from jaxns.experiments.session import Session

PLAIN = jaxns.Sinkhorn(acceleration=False)


class Settings(Base):
    """Gaussian points in the plane, cost |x − y − θv|²/2, marginals Dirichlet(5).

    sources, targets: how many.   theta: where.   epsilons: regularisations, from the largest.
    """

    sources: Count = 20
    targets: Count = 30
    theta: float = 0.3
    epsilons: Annotated[tuple[Positive, ...], Field(min_length=2)] = (1.0, 0.5, 0.2)
    steps: Count = 400
    seed: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True)
class Path:
    """For one ε: relative errors of P_k and dP_k, λ₂(A), the row sums of A, one step's error."""

    epsilon: float
    plans: np.ndarray
    dots: np.ndarray
    second: float
    row_sums: np.ndarray
    one_step: float


class Instance:
    def __init__(self, settings: Settings) -> None:
        random = np.random.default_rng(settings.seed)
        n, m = settings.sources, settings.targets
        x, y, v = (jnp.asarray(random.normal(size=(k, 2))) for k in (n, m, m))
        self.cost = lambda theta: 0.5 * jnp.sum((x[:, None] - y - theta * v) ** 2, axis=-1)
        self.a, self.b = (jnp.asarray(random.dirichlet(np.full(k, 5.0))) for k in (n, m))

    def problem(self, theta, epsilon) -> jaxns.Transport:
        return jaxns.Transport(self.cost(theta), self.a, self.b, epsilon)


def run(settings: Settings, session: Session) -> Findings:
    instance = Instance(settings)
    units = {
        f"epsilon = {epsilon:g}": partial(follow, instance, settings, epsilon)
        for epsilon in sorted(settings.epsilons, reverse=True)
    }
    paths = session.each("regularisations", units)
    rates = [(fitted_rate(p.plans), fitted_rate(p.dots)) for p in paths]
    later = [fitted_rate(p.dots, window=(1e-12, 1e-7)) for p in paths]
    moved_dP, shift = start_moved(instance, settings, paths[1].epsilon)
    checks: list[Check] = []
    for path, (rate, dot), late in zip(paths, rates, later, strict=True):
        name, second = f"ε = {path.epsilon:g}", path.second
        nearer = abs(late - second) < abs(dot - second)
        checks += [
            between(f"{name}: rate of P over λ₂", rate / second, 0.99, 1.01),
            between(f"{name}: rate of dP over λ₂", dot / second, 0.999, 1.1),
            Check(f"{name}: later, the rate of dP is nearer to λ₂", f"{late:.4f}", bool(nearer)),
            below(f"{name}: dP from the implicit derivative, relatively", path.dots[-1], 1e-10),
            below(f"{name}: row sums of A from 1", np.abs(path.row_sums - 1), 1e-14),
        ]
    worse = all(fast[0] < slow[0] for fast, slow in itertools.pairwise(rates))
    checks += [
        Check("the rate gets worse as ε decreases", ", ".join(f"{r:.3f}" for r, _ in rates), worse),
        below("a start that moves with θ: change of dP", moved_dP, 1e-14),
        below("… and of d log u, apart from a constant", np.std(shift), 1e-14),
    ]
    rows = tuple(
        (f"{p.epsilon:g}", f"{p.second:.4f}", f"{rate:.4f}", f"{dot:.4f}", small(p.dots[-1]),
         f"{p.one_step:.2g}")
        for p, (rate, dot) in zip(paths, rates, strict=True)
    )  # fmt: skip
    table = Table(
        f"Sinkhorn-Knopp, {settings.sources} × {settings.targets} points",
        ("ε", "λ₂(A)", "rate of P", "rate of dP", "final error of dP", "one-step error"),
        rows,
        ("instances of this library; those of arXiv 2207.12717 are not known",),
    )

    def panel(title, ylabel, values):
        lines = tuple(
            Curve(f"ε = {p.epsilon:g}, λ₂ = {p.second:.3f}", values(p), guide=guide(p.second, 2))
            for p in paths
        )
        return Panel(title, "iteration k (thin: λ₂ᵏ)", ylabel, lines, ylim=(1e-16, 10))

    def guide(rate, constant):
        return constant * rate ** np.arange(settings.steps + 1)

    panels = (
        panel("Plans", r"$\|P_k - P\| \,/\, \|P\|$", lambda p: p.plans),
        panel("Derivatives", r"$\|\dot P_k - \dot P\| \,/\, \|\dot P\|$", lambda p: p.dots),
    )
    title = "The derivatives of Sinkhorn-Knopp converge as fast as its plans"
    return Findings(title, table, panels, tuple(checks))


def follow(instance: Instance, settings: Settings, epsilon: float) -> Path:
    def build(theta):
        return instance.problem(theta, epsilon)

    path = jaxns.derivative_path(build, settings.theta, settings.steps, solver=PLAIN, tangent=1.0)
    plans, dots = np.asarray(path.x.plan), np.asarray(path.jacobian.plan)
    P = plans[-1]
    dP, A = closed_form(instance, settings.theta, epsilon, P)
    stop, mode = jaxns.Stop(tol=1e-14), jaxns.OneStep(direction="both")

    def plan(theta):
        return jaxns.solve(build(theta), PLAIN, mode=mode, stop=stop).x.plan

    one_step = jax.jvp(plan, (settings.theta,), (1.0,))[1]
    second = float(np.sort(np.linalg.eigvals(A).real)[-2])
    return Path(
        epsilon, relative(plans, P), relative(dots, dP), second, A.sum(axis=1),
        float(relative(np.asarray(one_step)[None], dP)[0]),
    )  # fmt: skip


def closed_form(
    instance: Instance, theta: float, epsilon: float, P: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """dP/dθ from the linear system of the two marginals, by pseudo-inverse; and A."""
    a, b = np.asarray(instance.a), np.asarray(instance.b)
    C_dot = np.asarray(jax.jvp(instance.cost, (theta,), (1.0,))[1]) / epsilon
    system = np.block([[np.diag(a), P], [P.T, np.diag(b)]])
    right = np.concatenate([np.sum(P * C_dot, 1), np.sum(P * C_dot, 0)])
    dots = np.linalg.pinv(system) @ right
    dP = P * (dots[: len(a), None] + dots[len(a) :] - C_dot)
    return dP, P / a[:, None] @ (P / b).T


def start_moved(instance: Instance, settings: Settings, epsilon: float) -> tuple[float, np.ndarray]:
    """What a start that moves with θ changes in the limits of dP (largest) and of d log u."""
    direction = jnp.asarray(np.random.default_rng(1).normal(size=settings.sources))
    stop = jaxns.Stop(tol=None, max_steps=settings.steps)
    mode = jaxns.Piggyback(direction="both")

    def solution(theta, start):
        problem = instance.problem(theta, epsilon)
        return jaxns.solve(problem, PLAIN, start * direction, mode=mode, stop=stop)

    def derivative(tangent):
        out = jax.jvp(solution, (settings.theta, 0.0), (1.0, tangent))[1]
        return np.asarray(out.x.plan), np.asarray(out.z)

    (dP, df), (dP_moved, df_moved) = derivative(0.0), derivative(1.0)
    return float(np.abs(dP_moved - dP).max()), (df_moved - df) / epsilon


def relative(path: np.ndarray, limit: np.ndarray) -> np.ndarray:
    return np.linalg.norm(path - limit, axis=(1, 2)) / np.linalg.norm(limit)


def problems(settings: Settings) -> dict[str, Posed]:
    instance = Instance(settings)
    return {
        f"epsilon = {epsilon:g}": Posed(instance.problem(settings.theta, epsilon), PLAIN)
        for epsilon in settings.epsilons
    }


EXPERIMENT = curves.experiment(Settings, run, problems)
