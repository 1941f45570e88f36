"""Hypergradients beside those of cvxpylayers (arXiv 2105.01637), experiment F4.

d/d log λ of the mean squared error, on the other half of the samples, of a lasso and of an elastic
net with growing numbers of features. cvxpylayers (arXiv 1910.12430, through diffcp) differentiates
the optimality conditions of a cone program. It is compared where it is installed:
`pip install cvxpylayers diffcp`; else this is said, and nothing is claimed about it.
"""

import dataclasses
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

import jaxns
from jaxns.experiments import closed_form, curves
from jaxns.experiments.config import Base, Count, Fraction
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.datasets import Source, load
from jaxns.experiments.reporting import Table, below, small
from jaxns.experiments.session import Session

PEERS = ("cvxpylayers", "diffcp")
RATIOS = {"lasso": 1.0, "elastic net": 0.8}  # λ (r ‖b‖₁ + (1 − r)/2 ‖b‖²)


class Settings(Base):
    """features: how many, the first of the source's.   levels: λ over λ_max.

    repetitions: timed, after a first.
    """

    source: Source
    features: Annotated[tuple[Count, ...], Field(min_length=2)]
    levels: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.1, 0.01)
    repetitions: Count = 10


@dataclasses.dataclass(frozen=True)
class Measured:
    """errors, seconds: by program, at each number of features; of a value and a gradient."""

    errors: dict[str, np.ndarray]
    seconds: dict[str, np.ndarray]


class Task:
    def __init__(self, X: np.ndarray, y: np.ndarray, ratio: float, level: float) -> None:
        n = len(y) // 2
        self.A, self.b, self.V, self.w, self.ratio = X[:n], y[:n], X[n:], y[n:], ratio
        self.t = float(np.log(level * np.abs(self.A.T @ self.b).max() / (n * ratio)))

    def outer(self, x: Any) -> jax.Array:
        return jnp.mean((self.V @ x - self.w) ** 2)

    def ours(self) -> Callable:
        def value(t):
            problem = jaxns.problems.elastic_net(self.A, self.b, jnp.exp(t), self.ratio)
            return self.outer(jaxns.solve(problem, jaxns.CoordinateDescent()).x)

        return jax.jit(jax.value_and_grad(value))

    def peer(self) -> Callable:
        import cvxpy as cp
        from cvxpylayers.jax import CvxpyLayer  # pyright: ignore[reportMissingImports]

        n, p = self.A.shape
        x, penalty = cp.Variable(p), cp.Parameter(nonneg=True)
        norm = self.ratio * cp.norm1(x) + (1 - self.ratio) / 2 * cp.sum_squares(x)
        fit = cp.sum_squares(self.A @ x - self.b) / (2 * n)
        program = cp.Problem(cp.Minimize(fit + penalty * norm))
        layer = CvxpyLayer(program, parameters=[penalty], variables=[x])
        return jax.value_and_grad(lambda t: self.outer(layer(jnp.exp(t))[0]))

    def exact(self) -> float:
        n, penalty = len(self.b), np.exp(self.t)
        problem = jaxns.problems.elastic_net(self.A, self.b, penalty, self.ratio)
        guess = jaxns.solve(problem, jaxns.CoordinateDescent(), stop=jaxns.Stop(tol=1e-14)).x
        l1, l2 = penalty * self.ratio, penalty * (1 - self.ratio)
        H, c = self.A.T @ self.A / n, self.A.T @ self.b / n
        found = closed_form.reference(H, c, l1, l2, np.asarray(guess))
        assert found.violation <= 1e-10
        slope = 2 * self.V.T @ (self.V @ found.x - self.w) / len(self.w)
        return float(slope @ (l1 * found.d_l1 + l2 * found.d_l2))


def missing() -> list[str]:
    return [name for name in PEERS if importlib.util.find_spec(name) is None]


def run(settings: Settings, session: Session) -> Findings:
    absent = missing()
    units = {
        f"{model}, λ/λ_max = {level:g}": partial(measure, settings, ratio, level, not absent)
        for model, ratio in RATIOS.items()
        for level in settings.levels
    }
    found = dict(zip(units, session.each("problems", units), strict=True))
    every = list(found.values())
    ours = np.array([m.errors["jaxns"] for m in every])
    checks = [below("jaxns: relative error of the hypergradient", ours, 1e-8)]
    if absent:
        notes = (f"not compared: {' and '.join(absent)} not installed",)
    else:
        theirs = np.array([m.errors["cvxpylayers"] for m in every])
        notes = ("seconds: medians, on the machine at hand, compilation excluded",)
        checks.append(below("error of jaxns over that of cvxpylayers", ours / theirs, 1.0))
    rows = tuple(
        (name, program, *(small(e) for e in m.errors[program]),
         *(f"{s:.2g}" for s in m.seconds[program]))
        for name, m in found.items()
        for program in m.errors
    )  # fmt: skip
    table = Table(
        "Hypergradients beside those of cvxpylayers",
        ("problem", "program", *(f"error, p = {p}" for p in settings.features),
         *(f"seconds, p = {p}" for p in settings.features)),
        rows, notes,
    )  # fmt: skip
    p = np.array(settings.features)

    def lines(quantity: str) -> tuple[Curve, ...]:
        return tuple(
            Curve(f"{program}, {name}", getattr(m, quantity)[program], p)
            for program in every[0].errors
            for name, m in found.items()
        )

    panels = (
        Panel("Error", "features p", "relative error of the hypergradient", lines("errors"),
              xscale="log"),
        Panel("Time", "features p", "seconds for a value and a gradient", lines("seconds"),
              xscale="log"),
    )  # fmt: skip
    title = "Hypergradients of a lasso and an elastic net" + (
        f" ({' and '.join(absent)} not installed)" if absent else ", beside cvxpylayers"
    )
    return Findings(title, table, panels, tuple(checks))


def measure(settings: Settings, ratio: float, level: float, compared: bool) -> Measured:
    X, y = load(settings.source)
    errors: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for p in settings.features:
        task = Task(X[:, :p], y, ratio, level)
        exact = task.exact()
        programs = {"jaxns": task.ours} | ({"cvxpylayers": task.peer} if compared else {})
        for name, make in programs.items():
            program, t = make(), jnp.asarray(task.t)
            found = float(program(t)[1])
            errors.setdefault(name, []).append(max(abs(found / exact - 1), 1e-16))
            spent = [timed(program, t) for _ in range(settings.repetitions)]
            seconds.setdefault(name, []).append(float(np.median(spent)))
    return Measured(*({k: np.array(v) for k, v in d.items()} for d in (errors, seconds)))


def timed(program: Callable, t: jax.Array) -> float:
    began = time.perf_counter()
    jax.block_until_ready(program(t))
    return time.perf_counter() - began


EXPERIMENT = curves.experiment(Settings, run)
