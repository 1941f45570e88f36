"""The inverse that a quasi-Newton solve has learned (SHINE, arXiv 2106.00553), experiment G2.

ℓ₂-penalised logistic regression on breast cancer data by L-BFGS: H v against (∇²)⁻¹ v, where v is a
direction prescribed to the run (OPA: every few steps a secant pair along H v) or any other. The
linear term sᵀx is there to be differentiated in s: the vector-Jacobian products of the solution are
H v. Not shown: the paper's third direction, the last secant pair, which is the solver's own.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Fraction, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Table, below, between, number, small
from jaxns.experiments.session import Session
from jaxns.functions import Logistic, Quadratic

DIRECTIONS: tuple[str, ...] = ("prescribed", "random", "random, without OPA")


class Settings(Base):
    """fraction: of the data, drawn by `split`.   penalty: of ‖x‖²/2.   draws: of v, by `seed`.

    steps: of L-BFGS, which then has converged.   every: steps between two of OPA's pairs.
    """

    fraction: Fraction = 0.2
    split: Annotated[int, Field(ge=0)] = 3
    penalty: Positive = 1.0
    draws: Annotated[int, Field(ge=10)] = 100
    steps: Annotated[int, Field(ge=2)] = 52
    every: Annotated[int, Field(ge=2)] = 5
    memory: Count = 60
    seed: Annotated[int, Field(ge=0)] = 42


@dataclasses.dataclass(frozen=True)
class Drawn:
    """ratios, angles: (draws, directions): ‖a‖/‖b‖ and 1 − cos(a, b).   products: conjugate
    gradients' Hessian-vector products for one b.   slopes: ‖∇‖ at the end over that at 0."""

    ratios: np.ndarray
    angles: np.ndarray
    products: int
    slopes: np.ndarray


class Instance:
    def __init__(self, settings: Settings) -> None:
        X, labels = load_breast_cancer(return_X_y=True)
        X = StandardScaler(with_mean=False).fit_transform(X)
        X, _, labels, _ = train_test_split(
            X, 2.0 * labels - 1, train_size=settings.fraction, random_state=settings.split
        )
        self.settings, self.X, self.labels = settings, jnp.asarray(X), jnp.asarray(labels)
        self.zero = jnp.zeros_like(self.X[0])

    def problem(self, s) -> jaxns.Composite:
        ridge = self.settings.penalty * jnp.eye(self.zero.size)
        return jaxns.Composite(Logistic(self.X, self.labels), Quadratic(ridge, -s))

    def solve(self, s, opa: Array | None, steps: int, mode=jaxns.Shine()) -> Array:
        solver = jaxns.LBFGS(self.settings.memory, initial=1.0, opa=opa, every=self.settings.every)
        stop = jaxns.Stop(tol=None, max_steps=steps)
        return jaxns.solve(self.problem(s), solver, mode=mode, stop=stop).x

    def draw(self, v: Array, other: Array) -> tuple[Array, Array, Array]:
        steps, gradient = self.settings.steps, jax.grad(self.problem(self.zero))
        x, aware = jax.vjp(lambda s: self.solve(s, v, steps), self.zero)
        _, unaware = jax.vjp(lambda s: self.solve(s, None, steps), self.zero)
        hessian = jax.hessian(self.problem(self.zero))(x)
        compared = [
            compare(estimate(u)[0], jnp.linalg.solve(hessian, u))
            for estimate, u in ((aware, v), (aware, other), (unaware, other))
        ]
        ratios, angles = jnp.asarray(compared).T
        size = jnp.linalg.norm
        return ratios, angles, size(gradient(x)) / size(gradient(self.zero))

    def products(self, v: Array) -> int:
        """Steps of conjugate gradients for the derivative along v."""

        def value(s, mode):
            return v @ jaxns.solve(self.problem(s), jaxns.LBFGS(), mode=mode).x

        mode = jaxns.Implicit(method="cg", probe=jaxns.Probe())
        report = jax.grad(value, argnums=1, allow_int=True)(self.zero, mode)
        return int(report.probe.steps)


def compare(found: Array, exact: Array) -> tuple[Array, Array]:
    sizes = jnp.linalg.norm(found), jnp.linalg.norm(exact)
    return sizes[0] / sizes[1], 1 - found @ exact / (sizes[0] * sizes[1])


def run(settings: Settings, session: Session) -> Findings:
    found = session.each("draws", {"all": lambda: measure(settings, session)})[0]
    ratios, angles = (dict(zip(DIRECTIONS, a.T, strict=True)) for a in (found.ratios, found.angles))
    middle = {name: float(np.median(angles[name])) for name in DIRECTIONS}
    checks = (
        below("the runs have converged: ‖∇‖ over that at the start", found.slopes, 1e-4),
        below("prescribed: median of 1 − cos", middle["prescribed"], 2e-4),
        below("prescribed over random: median of 1 − cos",
              middle["prescribed"] / middle["random"], 0.2),
        below("prescribed: median of ‖a‖/‖b‖ from 1", abs(np.median(ratios["prescribed"]) - 1),
              2e-3),
        between("random: median of ‖a‖/‖b‖", np.median(ratios["random"]), 1.01, 1.1),
        between("conjugate gradients: Hessian-vector products, of which SHINE needs none",
                found.products, 10, 1000),
    )  # fmt: skip
    rows = tuple(
        (name, f"{np.median(ratios[name]):.5f}", small(middle[name]),
         small(float(np.quantile(angles[name], 0.9))))
        for name in DIRECTIONS
    )  # fmt: skip
    table = Table(
        f"H v against the exact (∇²)⁻¹ v, {settings.draws} draws, {settings.steps} steps of L-BFGS",
        ("direction v", "median ‖a‖/‖b‖", "median 1 − cos", "last decile of 1 − cos"),
        rows,
        (f"conjugate gradients: {number(found.products)} Hessian-vector products",),
    )
    share = np.arange(1, settings.draws + 1) / settings.draws

    def panel(title: str, ylabel: str, values: dict[str, np.ndarray]) -> Panel:
        lines = tuple(Curve(name, np.sort(np.abs(values[name])), share) for name in DIRECTIONS)
        return Panel(title, "share of the draws below", ylabel, lines, ylim=(1e-9, 1))

    panels = (
        panel("Direction", "1 − cos(a, b)", angles),
        panel("Size", "distance of ‖a‖/‖b‖ from 1", {n: ratios[n] - 1 for n in DIRECTIONS}),
    )
    title = "A quasi-Newton solve knows the inverse in the directions that it was told"
    return Findings(title, table, panels, checks)


def measure(settings: Settings, session: Session) -> Drawn:
    it = Instance(settings)
    shape = (2, settings.draws, it.zero.size)
    v, other = jnp.asarray(np.random.default_rng(settings.seed).normal(size=shape))
    ratios, angles, slopes = (np.asarray(a) for a in session.vmap(it.draw)(v, other))
    return Drawn(ratios, angles, it.products(v[0]), slopes)


EXPERIMENT = curves.experiment(Settings, run)
