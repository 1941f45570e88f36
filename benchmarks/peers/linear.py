"""Penalised linear models: loss(Xβ) + penalties, by every library that has them.

A model says what is fitted in the plainest terms; the functions below turn it into a `Task`: the
problem in this library, the smooth part and the prox for JAXopt and Optimistix, the problem on the
support for what is certified and for solvers without a derivative.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO
from scipy import sparse

import jaxns
from benchmarks.frame import Options
from benchmarks.peers import by_cvxpylayers, by_hand, by_jaxns, by_jaxopt, by_optimistix
from benchmarks.peers.compare import Comparison, compare
from benchmarks.peers.data import (
    Split,
    breast_cancer,
    correlated,
    diabetes,
    digits,
    words,
)
from benchmarks.peers.method import Method, Reduced, Task
from jaxns.functions import L1, ElasticNet, GroupL2, LeastSquares, Logistic, SquaredL2

DATA: dict[str, Callable[[], Split]] = {
    "corr20x5": lambda: correlated(20, 5),
    "corr500x5000": lambda: correlated(500, 5000),
    "corr2000x20000": lambda: correlated(2000, 20_000),
    "words2000x20000": lambda: words(2000, 20_000),
    "diab2": lambda: diabetes(2),
    "diab3": lambda: diabetes(3),
    "bcancer": breast_cancer,
    "digits": digits,
}
SPARSE = ("Newton", "CoordinateDescent", "WorkingSet")
SOLVERS = {  # beside each problem's own
    "lasso": SPARSE,
    "elastic net": SPARSE,
    "weighted lasso": SPARSE,
    "sparse logistic": SPARSE,
    "group lasso": SPARSE,
    "ridge": ("Newton", "LBFGS"),
}


@dataclasses.dataclass(frozen=True)
class Model:
    """kind: lasso, elastic net, weighted lasso, sparse logistic, group lasso or ridge.

    θ holds logarithms: of the penalty; of the l1 and the l2 penalty for the elastic net; of each
    coordinate's for the weighted lasso. Losses are means over the rows.   group: features in each
    group of a group lasso.
    """

    kind: str
    split: Split
    theta: np.ndarray
    group: int = 5

    @property
    def logistic(self) -> bool:
        return self.kind == "sparse logistic"

    def weights(self, theta: Any) -> tuple[Any, Any]:
        """(l1, l2): of λ₁ ‖β‖₁ (or Σ_g ‖β_g‖₂) and of λ₂/2 ‖β‖²."""
        match self.kind:
            case "elastic net":
                return jnp.exp(theta[0]), jnp.exp(theta[1])
            case "ridge":
                return 0.0, jnp.exp(theta)
        return jnp.exp(theta), 0.0

    def loss(self, t: Any, y: Any) -> Any:
        return jnp.mean(jnp.logaddexp(0, -y * t) if self.logistic else (t - y) ** 2 / 2)

    def smooth(self, x: Any, data: Any) -> Any:
        return self.loss(data["X"] @ x, data["y"])

    def prox(self, v: Any, theta: Any, step: Any) -> Any:
        l1, l2 = self.weights(theta)
        if self.kind == "group lasso":
            blocks = v.reshape(-1, self.group)
            lengths = jnp.sqrt(jnp.sum(blocks**2, axis=1, keepdims=True))
            safe = jnp.where(lengths > step * l1, lengths, 1)
            return jnp.where(lengths > step * l1, (1 - step * l1 / safe) * blocks, 0).ravel()
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - step * l1, 0) / (1 + step * l2)

    def lipschitz(self) -> float:
        """Of the gradient of the loss."""
        X = self.split.X
        largest = sparse.linalg.norm(X, 2) if sparse.issparse(X) else np.linalg.norm(X, 2)
        return float(largest) ** 2 / X.shape[0] / (4 if self.logistic else 1)

    def problem(self, data: Any, theta: Any) -> jaxns.Composite:
        loss = Logistic if self.logistic else LeastSquares
        l1, l2 = self.weights(theta)
        match self.kind:
            case "elastic net":
                g = ElasticNet(l1, l2)
            case "ridge":
                g = SquaredL2(l2)
            case "group lasso":
                g = GroupL2(l1, np.arange(data["X"].shape[1]) // self.group)
            case _:
                g = L1(l1)
        return jaxns.Composite(loss(data["X"], data["y"], scale="mean"), g)

    def support(self, x: np.ndarray) -> np.ndarray:
        if self.kind == "ridge":
            return np.arange(len(x))
        if self.kind == "group lasso":
            return np.flatnonzero(
                np.repeat(np.any(x.reshape(-1, self.group) != 0, axis=1), self.group)
            )
        return np.flatnonzero(x)

    def reduced(self, x: np.ndarray) -> Reduced:
        """On the support, with the signs that x has."""
        S = self.support(x)
        columns = self.split.X[:, S]
        X = jnp.asarray(columns.toarray() if sparse.issparse(columns) else columns)
        y, signs = jnp.asarray(self.split.y), jnp.sign(jnp.asarray(x[S]))

        def objective(u, theta):
            l1, l2 = self.weights(theta)
            l1 = l1[S] if self.kind == "weighted lasso" else l1
            if self.kind == "group lasso":
                sizes = jnp.sum(jnp.sqrt(jnp.sum(u.reshape(-1, self.group) ** 2, axis=1)))
            else:
                sizes = signs * u
            return self.loss(X @ u, y) + jnp.sum(l1 * sizes) + l2 / 2 * jnp.sum(u**2)

        return Reduced(x[S], objective, lambda u, _: jnp.zeros(len(x)).at[S].set(u))


def in_jax_arrays(split: Split) -> dict[str, Any]:
    def array(Z):
        return BCOO.from_scipy_sparse(Z) if sparse.issparse(Z) else jnp.asarray(Z)

    start = jnp.zeros(split.X.shape[1])
    return {name: array(Z) for name, Z in zip("XyVw", split, strict=True)} | {"start": start}


def penalty_of(kind: str, split: Split, divided: float) -> np.ndarray:
    """log of the penalty, the smallest that gives zero divided so."""
    slope = np.abs(split.X.T @ split.y) / len(split.y) / (2 if kind == "sparse logistic" else 1)
    if kind == "group lasso":
        slope = np.sqrt(np.sum(slope.reshape(-1, Model.group) ** 2, axis=1))
    log = np.log(slope.max() / divided)
    match kind:
        case "elastic net":
            return np.array([log, log + np.log(0.1)])
        case "weighted lasso":
            return np.full(split.X.shape[1], log)
    return np.asarray(log)


def compared(cases: Sequence[tuple[str, str, float]], options: Options) -> list[Comparison]:
    """Of those (kind, data, divisor of the penalty) that the options choose."""
    named = {f"{kind}/{data}/{divided:g}": (kind, data, divided) for kind, data, divided in cases}
    return [
        compare(task(kind, data, DATA[data](), divided), options)
        for kind, data, divided in map(named.__getitem__, options.chosen(named))
    ]


def task(kind: str, name: str, split: Split, divided: float) -> Task:
    """The task named `kind/name/divided`."""
    if kind == "group lasso":
        p = split.X.shape[1] // Model.group * Model.group
        split = Split(split.X[:, :p], split.y, split.V[:, :p], split.w)
    model = Model(kind, split, penalty_of(kind, split, divided))
    data = in_jax_arrays(split)
    step = 1 / model.lipschitz()
    theta = jnp.asarray(model.theta)

    @jax.jit
    def moved(x, data):
        return model.prox(x - step * jax.grad(model.smooth)(x, data), theta, step)

    def gap(x):
        x = jnp.asarray(x)
        return float(jnp.linalg.norm(moved(x, data) - x) / jnp.linalg.norm(x))

    return Task(
        f"{kind}/{name}/{divided:g}",
        data,
        model.theta,
        lambda data, x: model.loss(data["V"] @ x, data["w"]) * (1 if model.logistic else 2),
        model.reduced,
        gap,
        methods(model, step),
        lambda data, v: step * ((data["X"] @ v) @ data["X"]) / len(split.y),
        jnp.ones(split.X.shape[1]),
        f"X v and Xᵀ r, {split.X.shape[0]} × {split.X.shape[1]}",
    )


def methods(model: Model, step: float) -> dict[str, Callable[[Task], Method]]:
    """This library's solvers, the default first, then its peers'."""
    return (
        by_jaxns.methods(model.problem, SOLVERS[model.kind])
        | by_jaxopt.proximal(model, step)
        | by_optimistix.fixed_point(model, step)
        | by_hand.linear(model)
        | by_cvxpylayers.linear(model)
    )
