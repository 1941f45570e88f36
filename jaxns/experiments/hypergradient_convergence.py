"""Coordinate descent and its derivative converge at one rate (arXiv 2105.01637), experiment F1.

Epochs of proximal coordinate descent on f(x) + Σⱼ gⱼ(xⱼ, λ), and piggyback's J_k = ∂x_k/∂log λ.
Once the generalised support S is found, where every gⱼ is smooth, x_k is the iteration of Gauss
and Seidel on S. With H = ∇²f(x) and 1/Lⱼ the stepsizes, D = diag(Lⱼ),

    rate: ρ(I − (D + tril(H_SS, −1))⁻¹ H_SS),    H_SS J_S = −(∂_λ ∇g_S + H_{S,off} J_off),

and off S, Jⱼ is the derivative of the prox: 0 for ℓ₁; 0 or C at the ends of the box [0, C].
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Positive, Section
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.datasets import Source, labels, load
from jaxns.experiments.rates import fitted_rate, identification
from jaxns.experiments.reporting import Check, Table, below, between, small
from jaxns.experiments.session import Session
from jaxns.functions import Box, Gram

SOLVER = jaxns.CoordinateDescent(working_sets=False)
MODELS = {"lasso": "lasso", "sparse_logistic": "sparse logistic", "svm": "SVM, dual"}
LINE = (1e-10, 1e-2)  # relative errors to which a line is fitted


class Problem(Section):
    """model: `svm` is the dual, without intercept.   epochs: that are made.

    level: the penalty over the smallest whose solution is 0; for `svm`, C.
    """

    model: Literal["lasso", "sparse_logistic", "svm"]
    data: Source
    level: Positive
    epochs: Annotated[int, Field(ge=20)]


class Settings(Base):
    problems: Annotated[tuple[Problem, ...], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class Followed:
    """x_errors, J_errors: relative, k = 0 … epochs.   identified: when S is final.   size: of S.

    rho: of the Gauss-Seidel matrix on S.   violation: of optimality, by the reference.
    """

    shape: tuple[int, int]
    x_errors: np.ndarray
    J_errors: np.ndarray
    identified: int
    size: int
    rho: float
    violation: float

    @property
    def rates(self) -> tuple[float, float]:
        x, J = (fitted_rate(e, self.identified, LINE) for e in (self.x_errors, self.J_errors))
        return x, J

    @property
    def rises(self) -> bool:
        return bool(np.any(np.diff(self.J_errors[: self.identified + 1]) > 0))

    @property
    def straightness(self) -> float:
        """Correlation of log ‖J_k − J‖ with k, once S is found."""
        k, e = np.arange(len(self.J_errors)), self.J_errors
        line = (k >= self.identified) & (e > LINE[0]) & (e < LINE[1])
        return float(-np.corrcoef(k[line], np.log(e[line]))[0, 1])


def run(settings: Settings, session: Session) -> Findings:
    units = {name_of(p): partial(follow, p) for p in settings.problems}
    found = dict(zip(units, session.each("problems", units), strict=True))
    every = found.values()
    ratios = np.array([np.array(f.rates) / f.rho for f in every])
    rises = sum(f.rises for f in every)
    checks = (
        below("the references are optimal: violation", [f.violation for f in every], 1e-12),
        Check("error of J: not monotone before the support is found",
              f"{rises} of {len(found)} problems", rises == len(found)),
        between("error of J: a straight line after that (correlation)",
                [f.straightness for f in every], 0.99, 1),
        between("rate of J over Gauss and Seidel's on the support", ratios[:, 1], 0.9, 1.1),
        between("rate of x over Gauss and Seidel's on the support", ratios[:, 0], 0.9, 1.1),
        below("limit of piggyback from the solve restricted to the support, relatively",
              [f.J_errors[-1] for f in every], 1e-10),
    )  # fmt: skip
    rows = tuple(
        (name, "{} × {}".format(*f.shape), str(f.size), str(f.identified), f"{f.rho:.4f}",
         *(f"{rate:.4f}" for rate in f.rates), small(f.J_errors[-1]))
        for name, f in found.items()
    )  # fmt: skip
    table = Table(
        "Coordinate descent and piggyback, rates per epoch",
        ("problem", "size", "|S|", "S at epoch", "ρ(Gauss-Seidel)", "rate of x", "rate of J",
         "final error of J"),
        rows,
        ("bundled and random data in place of leukemia, rcv1, news20 and real-sim",),
    )  # fmt: skip
    panels = []
    for symbol, what in (("x", "Iterates"), ("J", "Derivatives")):
        for model, title in MODELS.items():
            lines = tuple(
                line(f, getattr(f, f"{symbol}_errors"), name.partition(": ")[2])
                for (name, f), p in zip(found.items(), settings.problems, strict=True)
                if p.model == model
            )
            ylabel = rf"$\|{symbol}_k - {symbol}^*\| \,/\, \|{symbol}^*\|$"
            xlabel = "epoch k (dashed: support found; thin: ρᵏ)"
            panels.append(Panel(f"{what}: {title}", xlabel, ylabel, lines, ylim=(1e-17, 10)))
    title = "After the support is found, the derivative converges like Gauss and Seidel's iteration"
    return Findings(title, table, tuple(panels), checks, columns=len(MODELS))


def name_of(p: Problem) -> str:
    level = "C" if p.model == "svm" else "λ/λ_max"
    return f"{MODELS[p.model]}: {p.data.name}, {level} = {p.level:g}"


def line(f: Followed, errors: np.ndarray, label: str) -> Curve:
    """With what theory says from the identification on."""
    k, start = np.arange(len(errors)), f.identified
    guide = np.where(k < start, np.nan, errors[start] * f.rho ** np.maximum(k - start, 0))
    return Curve(label, errors, guide=guide, event=start)


def builder(p: Problem) -> tuple[Callable, float, tuple[int, int]]:
    """log λ ↦ the problem, where it is taken, and the shape of the data."""
    X, y = load(p.data)
    if p.model == "svm":
        f = Gram(jnp.asarray((labels(y)[:, None] * X).T), -jnp.ones(len(y)))
        return (lambda t: jaxns.Composite(f, Box(0.0, jnp.exp(t)))), float(np.log(p.level)), X.shape
    make = getattr(jaxns.problems, p.model)
    target = y if p.model == "lasso" else labels(y)
    largest = float(make(X, target, 1.0).max_penalty())
    return (lambda t: make(X, target, jnp.exp(t))), float(np.log(p.level * largest)), X.shape


def follow(p: Problem) -> Followed:
    build, t, shape = builder(p)
    path = jaxns.derivative_path(build, t, p.epochs, solver=SOLVER)
    x, J = np.asarray(path.x), np.asarray(path.jacobian)
    piece = (x > 0) + 1 * (x >= np.exp(t)) if p.model == "svm" else np.sign(x)
    exact = Limit(build(t), float(np.exp(t)), p.model, x[-1])
    return Followed(
        shape,
        relative(x, exact.x),
        relative(J, exact.J),
        identification(piece),
        len(exact.S),
        exact.rho,
        exact.violation,
    )


def relative(a: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - exact, axis=1) / np.linalg.norm(exact)


class Limit:
    """The solution on the piece of a good guess, by Newton's method; J; and the rate."""

    def __init__(self, problem: Any, penalty: float, model: str, guess: np.ndarray) -> None:
        f, x = problem.f, guess.copy()
        top = (x >= penalty) if model == "svm" else np.zeros(len(x), bool)
        S = np.flatnonzero((x != 0) & ~top)
        slope = np.zeros(len(S)) if model == "svm" else penalty * np.sign(x[S])  # ∇g_S
        gradient, hessian = jax.jit(f.gradient), jax.jit(jax.hessian(f))
        for _ in range(3):
            HSS = np.asarray(hessian(x))[np.ix_(S, S)]
            x[S] -= np.linalg.solve(HSS, np.asarray(gradient(x))[S] + slope)
        H, J = np.asarray(hessian(x)), np.where(top, penalty, 0.0)
        HSS = H[np.ix_(S, S)]
        J[S] = -np.linalg.solve(HSS, slope + H[S] @ J)  # ∂∇g_S/∂log λ = ∇g_S: linear in λ
        moved = problem.g.prox(x - gradient(x), 1.0) - x
        L = 1 / np.asarray(SOLVER.prepare(problem, jnp.asarray(x)).stepsizes)[S]
        seidel = np.eye(len(S)) - np.linalg.solve(np.diag(L) + np.tril(HSS, -1), HSS)
        self.x, self.J, self.S = x, J, S
        self.rho = float(np.abs(np.linalg.eigvals(seidel)).max())
        self.violation = float(np.abs(moved).max() / np.abs(x).max())


EXPERIMENT = curves.experiment(Settings, run)
