"""Derivatives of stochastic gradient descent (arXiv 2405.15894), on instances of this library.

f_i(x, θ) = ½ (a_iᵀx − b_i(θ))², b(θ) = b₀ + θ db, one row a step. Where b₀ is not in the range of
A the iterates are noisy, where db is not, their derivatives are: the four columns of experiment D1.
"""

import dataclasses
import itertools
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Check, Table, below, between, small
from jaxns.experiments.session import Session
from jaxns.functions import LeastSquares

SHOWN = 400  # points of a curve that are kept


class Settings(Base):
    """rows, columns: of A.   runs: over which squares are averaged.

    steps: with a constant stepsize; decreasing_steps: with c/(k + k₀).   window: from which step on
    the slope in log k is fitted.
    """

    rows: Count = 100
    columns: Count = 10
    runs: Count = 50
    steps: Count = 6000
    decreasing_steps: Count = 100_000
    window: Count = 5000
    seed: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True)
class Errors:
    """Mean squared errors of x_k and of J_k after every step."""

    x: np.ndarray
    J: np.ndarray


class Instance:
    def __init__(self, settings: Settings) -> None:
        random = np.random.default_rng(settings.seed)
        n, p = settings.rows, settings.columns
        self.A = jnp.asarray(random.normal(size=(n, p)))
        self.off = jnp.asarray(random.normal(size=(2, n)))
        self.on = jnp.asarray(random.normal(size=(2, p))) @ self.A.T
        steepest = float(jnp.max(jnp.sum(self.A**2, axis=1)))
        mu = float(jnp.linalg.eigvalsh(self.A.T @ self.A / n)[0])
        self.constant = 1 / (2 * steepest)
        self.decreasing = jaxns.Decreasing(2 / mu, 4 / mu * steepest)

    def errors(
        self, b0: Any, db: Any, stepsize: Any, steps: int, runs: int, session: Session
    ) -> Errors:
        x, J = (jnp.linalg.lstsq(self.A, b)[0] for b in (b0, db))

        def build(theta):
            return jaxns.Composite(LeastSquares(self.A, b0 + theta * db, scale="mean"))

        def one(key):
            solver = jaxns.StochasticGradient(stepsize, key=key)
            path = jaxns.derivative_path(build, 0.0, steps, solver=solver)
            return jnp.sum((path.x - x) ** 2, 1), jnp.sum((path.jacobian - J) ** 2, 1)

        keys = jax.random.split(jax.random.key(0), runs)
        total = [np.zeros(steps + 1), np.zeros(steps + 1)]
        of_some = session.vmap(one)
        for some in np.array_split(np.arange(runs), max(1, runs * steps // 10**6)):
            for sum_, found in zip(total, of_some(keys[some]), strict=True):
                sum_ += np.asarray(found).sum(axis=0)
        return Errors(*(sum_ / runs for sum_ in total))


def run(settings: Settings, session: Session) -> Findings:
    it = Instance(settings)
    off, on, eta = it.off, it.on, it.constant
    short, long = (
        (settings.steps, settings.runs, session),
        (settings.decreasing_steps, settings.runs, session),
    )
    units = {
        "constant, η": partial(it.errors, *off, eta, *short),
        "constant, η/2": partial(it.errors, *off, eta / 2, *short),
        "constant, η/4": partial(it.errors, *off, eta / 4, *short),
        "decreasing": partial(it.errors, *off, it.decreasing, *long),
        "double interpolation": partial(it.errors, *on, eta, *short),
        "simple interpolation": partial(it.errors, on[0], off[1], eta, *short),
        "simple, decreasing": partial(it.errors, on[0], off[1], it.decreasing, *long),
    }
    found = dict(zip(units, session.each("columns", units), strict=True))
    plateaus = {
        of: [getattr(found[f"constant, η{part}"], of)[settings.steps // 2 :].mean()
             for part in ("", "/2", "/4")]
        for of in "xJ"
    }  # fmt: skip
    simple = found["simple interpolation"].J
    half = len(simple) // 3
    slopes = {
        "x, decreasing": slope(found["decreasing"].x, settings.window),
        "J, decreasing": slope(found["decreasing"].J, settings.window),
        "J, simple interpolation, decreasing": slope(
            found["simple, decreasing"].J, settings.window
        ),
    }
    checks: list[Check] = [
        between(f"{of}: plateau over that of half the stepsize", coarse / fine, 1.7, 2.4)
        for of, levels in plateaus.items()
        for coarse, fine in itertools.pairwise(levels)
    ]
    checks += [between(f"slope of {name}", s, -1.15, -0.85) for name, s in slopes.items()]
    for of in "xJ":
        checks += straight(
            f"double interpolation, {of}", getattr(found["double interpolation"], of)
        )
    checks += straight("simple interpolation, x", found["simple interpolation"].x)
    stays = simple[half : 2 * half].mean() / simple[2 * half :].mean()
    checks.append(between("simple interpolation, J: a plateau, early over late", stays, 0.7, 1.4))
    rows = tuple(
        (name, small(e.x[-1]), small(e.J[-1]), str(len(e.x) - 1)) for name, e in found.items()
    )
    table = Table(
        f"SGD on least squares, {settings.rows} × {settings.columns}, {settings.runs} runs",
        ("column", "mean square error of x", "of J", "steps"),
        rows,
        ("η = 1/(2 max ‖aᵢ‖²); instances of this library, those of arXiv 2405.15894 are unknown",),
    )
    panels = tuple(
        Panel(
            f"{what}: {title}", "step k", label,
            tuple(curve(name, getattr(found[name], of)) for name in names),
            xscale=xscale, ylim=(1e-30, 1e2) if "interp" in title else None,
        )
        for what, of, label in (
            ("x", "x", r"mean $\|x_k - x^*\|^2$"),
            ("J", "J", r"mean $\|J_k - J^*\|^2$"),
        )
        for title, xscale, names in (
            ("constant", "log", ("constant, η", "constant, η/2", "constant, η/4")),
            ("decreasing", "log", ("decreasing",)),
            ("double interp.", "linear", ("double interpolation",)),
            ("simple interp.", "log", ("simple interpolation", "simple, decreasing")),
        )
    )  # fmt: skip
    title = "Derivatives of SGD behave as its iterates do, with a noise of their own"
    return Findings(title, table, panels, tuple(checks), columns=4)


def curve(name: str, errors: np.ndarray) -> Curve:
    k = np.unique(np.geomspace(1, len(errors) - 1, SHOWN).astype(int))
    return Curve(name, errors[k], k)


def slope(errors: np.ndarray, start: int) -> float:
    """Of log error over log k."""
    k = np.unique(np.geomspace(min(start, len(errors) // 20), len(errors) - 1, 200).astype(int))
    return float(np.polyfit(np.log(k), np.log(errors[k]), 1)[0])


def straight(name: str, errors: np.ndarray) -> list[Check]:
    """A straight line of log error over k, down to 1e-20."""
    k = np.arange(len(errors))
    window = (k > 100) & (np.cumsum(errors < 1e-20) == 0)
    correlation = np.corrcoef(k[window], np.log(errors[window]))[0, 1]
    return [
        below(f"{name}: down to", errors.min(), 1e-20),
        between(f"{name}: correlation of log error with k", correlation, -1, -0.99),
    ]


EXPERIMENT = curves.experiment(Settings, run)
