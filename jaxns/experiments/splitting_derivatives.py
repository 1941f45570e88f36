"""Derivatives of splitting methods converge (arXiv 2206.00457, figure 2, rows 3 and 4).

A3, sparse inverse covariance by Douglas-Rachford, in the penalty; A4, trend filtering by ADMM, in
the signal. On instances of this library; the sizes of the paper's are not known.
"""

import dataclasses
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Positive, Section
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.rates import fitted_rate
from jaxns.experiments.reporting import Check, Posed, Table, below, small
from jaxns.experiments.session import Session
from jaxns.functions import L1, LogDet, SquaredDistance


class Problem(Section):
    """sparse_inverse_covariance: size p, 200 samples of a tridiagonal model.

    trend_filtering: a signal of three levels with noise 0.05, of so many entries, penalised in its
    differences of an order.   stepsize: of Douglas-Rachford, or ADMM's penalty parameter.
    """

    id: str
    kind: Literal["sparse_inverse_covariance", "trend_filtering"]
    size: Count
    penalty: Positive
    stepsize: Positive = 1.0
    steps: Count = 400
    order: Annotated[int, Field(ge=1, le=2)] = 1


class Settings(Base):
    """repetitions: of each problem.   perturbations: of θ by 1e-3, at the first repetition."""

    repetitions: Count = 5
    perturbations: Count = 20
    seed: Annotated[int, Field(ge=0)] = 0
    problems: Annotated[tuple[Problem, ...], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class Instance:
    """What is solved, where, along which direction; closed(solution) is the derivative there."""

    build: Any
    theta: Any
    tangent: Any
    solver: Any
    closed: Any


@dataclasses.dataclass(frozen=True)
class Convergence:
    """Relative errors over repetitions and iterations; the worst at perturbed θ, and of ⟨w, Jt⟩
    against ⟨Jᵀw, t⟩."""

    x: np.ndarray
    J: np.ndarray
    perturbed: float
    transposed: float


def run(settings: Settings, session: Session) -> Findings:
    units = {p.id: partial(measure, p, settings) for p in settings.problems}
    found = dict(zip(units, session.each("problems", units), strict=True))
    checks: list[Check] = []
    rows, lines = [], {"x": [], "J": []}
    for problem in settings.problems:
        c, name = found[problem.id], f"{problem.id} {problem.kind.replace('_', ' ')}"
        of_x, of_J = (np.array([fitted_rate(e) for e in errors]) for errors in (c.x, c.J))
        checks += [
            below(f"{name}: rates of x and J apart, relatively (median)",
                  np.median(np.abs(of_J / of_x - 1)), 0.02),
            below(f"{name}: final error of J", c.J[:, -1], 1e-10),
            below(f"{name}: error of J at perturbed θ", c.perturbed, 1e-10),
            below(f"{name}: ⟨w, Jt⟩ from ⟨Jᵀw, t⟩, relatively", c.transposed, 1e-12),
        ]  # fmt: skip
        rates = f"{np.median(of_x):.4f}", f"{np.median(of_J):.4f}"
        rows.append((name, str(problem.size), *rates, small(c.J[:, -1].max())))
        for of, errors, rate in (("x", c.x, of_x), ("J", c.J, of_J)):
            lines[of].append(Curve(f"{name}, rate {np.median(rate):.4f}", errors))
    table = Table(
        "Convergence of iterates and derivatives, Douglas-Rachford and ADMM",
        ("problem", "size", "rate of x", "rate of J", "final error of J"),
        tuple(rows),
        (f"medians over {settings.repetitions} repetitions; instances of this library",),
    )
    labels = {
        "x": ("Iterates", r"$\|x_k - x^*\| \,/\, \|x^*\|$"),
        "J": ("Derivatives", r"$\|J_k - J^*\| \,/\, \|J^*\|$"),
    }
    panels = tuple(
        Panel(title, "iteration k", ylabel, tuple(lines[of]), ylim=(1e-16, 30))
        for of, (title, ylabel) in labels.items()
    )
    title = "Derivatives of splitting methods converge as fast as their iterates"
    return Findings(title, table, panels, tuple(checks))


def measure(problem: Problem, settings: Settings) -> Convergence:
    instances = [make(problem, (settings.seed, r)) for r in range(settings.repetitions)]
    errors = [follow(instance, problem.steps) for instance in instances]
    first, random = instances[0], np.random.default_rng((settings.seed, 1))
    stop = jaxns.Stop(tol=None, max_steps=problem.steps)
    mode = jaxns.Piggyback(direction="both")

    def value(theta):
        return jaxns.solve(first.build(theta), first.solver, mode=mode, stop=stop).x

    along = jax.jit(lambda theta: jax.jvp(value, (theta,), (first.tangent,)))
    worst = 0.0
    for _ in range(settings.perturbations):
        direction = random.normal(size=jnp.shape(first.theta))
        moved = first.theta * (1 + 1e-3 * direction)
        x, dx = along(moved)
        worst = max(worst, float(relative(dx[None], first.closed(np.asarray(x), moved))[0]))
    x, dx = along(first.theta)
    w = jnp.asarray(random.normal(size=x.shape))
    (back,) = jax.vjp(value, first.theta)[1](w)
    left, right = jnp.vdot(w, dx), jnp.vdot(back, first.tangent)
    size = jnp.linalg.norm(w) * jnp.linalg.norm(dx)
    x_errors, J_errors = (np.stack(e) for e in zip(*errors, strict=True))
    return Convergence(x_errors, J_errors, worst, float(jnp.abs(left - right) / size))


def follow(instance: Instance, steps: int) -> tuple[np.ndarray, np.ndarray]:
    path = jaxns.derivative_path(
        instance.build, instance.theta, steps, solver=instance.solver, tangent=instance.tangent
    )
    exact = jaxns.Stop(tol=1e-15)
    x = np.asarray(jaxns.solve(instance.build(instance.theta), instance.solver, stop=exact).x)
    return relative(path.x, x), relative(path.jacobian, instance.closed(x, instance.theta))


def make(problem: Problem, seed: tuple[int, int]) -> Instance:
    random = np.random.default_rng(seed)
    if problem.kind == "sparse_inverse_covariance":
        return covariance(problem, random)
    return trend(problem, random)


def covariance(problem: Problem, random: np.random.Generator) -> Instance:
    """tr(CX) − log det X + θ ‖X‖₁, C of samples of a tridiagonal model."""
    p = problem.size
    precision = np.eye(p) + 0.3 * (np.eye(p, k=1) + np.eye(p, k=-1))
    samples = random.normal(size=(200, p)) @ np.linalg.cholesky(np.linalg.inv(precision)).T
    C = jnp.asarray(np.cov(samples.T, bias=True))

    def closed(x, theta):
        """(X⁻¹ ⊗ X⁻¹)_SS dX_S = −sign(X_S)."""
        S, inverse, dx = np.flatnonzero(x), np.linalg.inv(x), np.zeros(p * p)
        system = np.kron(inverse, inverse)[np.ix_(S, S)]
        dx[S] = np.linalg.solve(system, -np.sign(np.ravel(x)[S]))
        return dx.reshape(p, p)

    def build(theta):
        return jaxns.Composite(LogDet(C), L1(theta))

    solver = jaxns.DouglasRachford(problem.stepsize)
    return Instance(build, jnp.asarray(problem.penalty), jnp.asarray(1.0), solver, closed)


def trend(problem: Problem, random: np.random.Generator) -> Instance:
    """½ ‖x − θ‖² + λ ‖Dx‖₁, differentiated along a direction in the signal θ."""
    n = problem.size
    theta = np.repeat([0.0, 1.0, 0.3], -(-n // 3))[:n] + 0.05 * random.normal(size=n)
    tangent = jnp.asarray(random.normal(size=n))
    D = np.diff(np.eye(n), n=problem.order, axis=0)

    def closed(x, theta):
        """(I − B⁺B) t, B the rows of D with (Dx)_i = 0."""
        moves = D @ x
        B = D[np.abs(moves) <= 1e-9 * np.abs(moves).max()]
        return np.asarray(tangent) - np.linalg.pinv(B) @ (B @ np.asarray(tangent))

    def build(theta):
        return jaxns.Composite(SquaredDistance(theta), L1(problem.penalty), jnp.asarray(D))

    solver = jaxns.ADMM(problem.stepsize, adaptive=False)
    return Instance(build, jnp.asarray(theta), tangent, solver, closed)


def relative(path: Any, limit: np.ndarray) -> np.ndarray:
    difference = np.asarray(path) - limit
    return np.linalg.norm(difference.reshape(len(difference), -1), axis=1) / np.linalg.norm(limit)


def problems(settings: Settings) -> dict[str, Posed]:
    """The first repetition of each."""
    instances = {p: make(p, (settings.seed, 0)) for p in settings.problems}
    return {
        f"{p.id} {p.kind.replace('_', ' ')}": Posed(one.build(one.theta), one.solver)
        for p, one in instances.items()
    }


EXPERIMENT = curves.experiment(Settings, run, problems)
