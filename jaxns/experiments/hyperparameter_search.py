"""Penalties by gradient, by grid and at random (arXiv 2105.01637), experiment F3.

Five-fold cross-validation of a lasso and of an elastic net with two penalties; and multiclass
sparse logistic regression, one against the rest with a penalty for each class, judged by the cross
entropy on the other half. By gradient: the paper's rule, and that of `jaxns.bilevel.minimize`.
"""

import dataclasses
from functools import partial
from typing import Annotated, Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field
from sklearn.linear_model import ElasticNet as SklearnElasticNet
from sklearn.linear_model import Lasso
from sklearn.model_selection import KFold, cross_val_score

import jaxns
from jaxns import bilevel
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.datasets import Source, classes, load
from jaxns.experiments.reporting import Check, Table, below, number
from jaxns.experiments.session import Session
from jaxns.functions import ElasticNet, LeastSquares

Kind = Literal["lasso", "elastic_net", "sparse_logistic"]
FOLDS = KFold(5, shuffle=True, random_state=42)
STOP = jaxns.Stop(tol=1e-8)
OURS, THEIRS = "gradient, jaxns", "gradient, the paper's rule"


class Settings(Base):
    """grid: its points, in all (a square number).   steps: of the gradient methods.

    random: points of the random search.
    """

    tasks: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("lasso", "elastic_net")
    grid: Annotated[int, Field(ge=4)] = 100
    random: Count = 30
    steps: Count = 30
    seed: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True)
class Searched:
    """values, work: by method, of every evaluation; work so far, in inner and adjoint steps of all
    folds or classes.   reference: the value at our penalties by scikit-learn, or NaN."""

    shape: tuple[int, ...]
    parameters: int
    values: dict[str, np.ndarray]
    work: dict[str, np.ndarray]
    reference: float

    def best(self, method: str) -> float:
        return float(np.nanmin(self.values[method]))

    def behind(self, method: str) -> np.ndarray:
        """How far the best value so far is above the best of all, relatively."""
        least = min(map(self.best, self.values))
        return np.maximum(np.fmin.accumulate(self.values[method]) / least - 1, 1e-9)

    def work_to(self, value: float, method: str) -> float:
        there = self.values[method] <= value
        return float(self.work[method][np.argmax(there)]) if there.any() else float("inf")


def papers_descent() -> optax.GradientTransformationExtraArgs:
    """Steps of 1/‖∇‖ at first, and of a tenth of that whenever the objective has gone up."""

    def init(params):
        return jnp.zeros(()), jnp.inf * jnp.ones(())

    def update(gradient, state, params=None, *, value, **_):
        step, last = state
        step = jnp.where(step == 0, 1 / optax.global_norm(gradient), step)
        step = jnp.where(value > last, step / 10, step)
        return jax.tree.map(lambda g: -step * g, gradient), (step, value)

    return optax.GradientTransformationExtraArgs(init, cast(Any, update))


def elastic_net(X: Any, y: Any, theta: Any, sample_weight: Any) -> jaxns.Composite:
    f = LeastSquares(X, y, scale="mean", weights=sample_weight)
    return jaxns.Composite(f, ElasticNet(theta[0], theta[1]))


class CrossValidated:
    """The mean over folds of the mean squared error on diabetes data, features of degree 2."""

    def __init__(self, kind: Kind) -> None:
        self.X, self.y = load(Source(name="diabetes"))
        n = len(self.y)
        held_out = np.stack([np.isin(np.arange(n), held) for _, held in FOLDS.split(self.X)])
        model = jaxns.problems.lasso if kind == "lasso" else elastic_net
        self.levels = bilevel.cross_validation(model, self.X, self.y, folds=held_out)
        self.shape, self.largest = (
            () if kind == "lasso" else (2,),
            np.abs(self.X.T @ self.y).max() / n,
        )

    def reference(self, theta: np.ndarray) -> float:
        how = {"fit_intercept": False, "tol": 1e-10, "max_iter": 10**6}
        if theta.size == 1:
            model = Lasso(float(theta), **how)
        else:
            model = SklearnElasticNet(theta.sum(), l1_ratio=theta[0] / theta.sum(), **how)
        scores = cross_val_score(model, self.X, self.y, cv=FOLDS, scoring="neg_mean_squared_error")
        return float(-scores.mean())

    def grid(self, count: int) -> np.ndarray:
        if not self.shape:
            return np.geomspace(self.largest, self.largest / 1e4, count)
        axis = np.geomspace(self.largest, self.largest / 1e4, round(count**0.5))
        return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)

    @property
    def start(self) -> np.ndarray:
        return np.full(self.shape, self.largest / 100)


class ManyClasses:
    """Cross entropy on the half of the digits not fitted; a grid has one level for all classes."""

    def __init__(self) -> None:
        X, y = classes(Source(name="digits"))
        n = len(y) // 2
        self.X, held = X[:n], y[n:]
        signs = np.where(y[:n] == np.arange(10)[:, None], 1.0, -1.0)
        self.largest = np.abs(signs @ self.X).max(1) / (2 * n)
        A, V = jnp.asarray(self.X), jnp.asarray(X[n:])

        def inner(theta, part):
            return jaxns.problems.sparse_logistic(A, part["signs"], theta[part["class"]])

        def outer(x, theta):
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(V @ x.T, held))

        parts = {"signs": jnp.asarray(signs), "class": jnp.arange(10)}
        self.levels = bilevel.Bilevel(outer, inner, parts)

    def reference(self, theta: np.ndarray) -> float:
        return float("nan")

    def grid(self, count: int) -> np.ndarray:
        return np.geomspace(1, 1e-3, count)[:, None] * self.largest

    @property
    def start(self) -> np.ndarray:
        return self.largest / 10


def run(settings: Settings, session: Session) -> Findings:
    units = {kind: partial(search, kind, settings) for kind in settings.tasks}
    found = dict(zip(units, session.each("searches", units), strict=True))
    checks: list[Check] = []
    for kind, s in found.items():
        name = kind.replace("_", " ")
        for method in (OURS, THEIRS):
            value = s.best(method) / s.best("grid") - 1
            checks.append(below(f"{name}: best of {method} over the grid's, − 1", value, 1e-2))
        value = s.best(OURS) / s.best(THEIRS) - 1
        checks.append(below(f"{name}: best of ours over the paper's rule's, − 1", value, 1e-3))
        cheaper = s.work_to(1.01 * s.best("grid"), OURS) / s.work["grid"][-1]
        claim = f"{name}: our work to within 1 % of the grid's best, over the grid's in all"
        checks.append(below(claim, cheaper, 0.2))
        if kind == "sparse_logistic":
            value = s.best(OURS) / min(s.best("grid"), s.best("random")) - 1
            claim = (
                f"{name}: {s.parameters} penalties by gradient over grid's and random's best, − 1"
            )
            checks.append(below(claim, value, 0.0))
        else:
            off = abs(s.reference / s.best(OURS) - 1)
            checks.append(below(f"{name}: our value from scikit-learn's, relatively", off, 1e-6))
    rows = tuple(
        (kind.replace("_", " "), "{} × {}".format(*s.shape), str(s.parameters), method,
         f"{s.best(method):.6f}", str(len(s.values[method])), f"{s.work[method][-1]:,.0f}",
         number(s.work_to(1.01 * min(map(s.best, s.values)), method), 6))
        for kind, s in found.items()
        for method in s.values
    )  # fmt: skip
    table = Table(
        "Penalties by gradient, by grid and at random",
        ("model", "size", "penalties", "method", "best value", "evaluations", "work",
         "to 1 % above the least"),
        rows,
        ("work: inner steps and adjoint products, of all folds or classes; not shown: the paper's "
         "Bayesian search",),
    )  # fmt: skip
    titles = {"lasso": "Lasso, CV", "elastic_net": "Elastic net, CV",
              "sparse_logistic": "10 sparse classifiers, hold-out"}  # fmt: skip
    panels = tuple(
        Panel(titles[kind], "inner and adjoint steps", "best value so far over the least, − 1",
              tuple(Curve(m, s.behind(m), s.work[m]) for m in s.values),
              xscale="log", ylim=(1e-7, 2))
        for kind, s in found.items()
    )  # fmt: skip
    title = "Searches for penalties: what a gradient is worth"
    return Findings(title, table, panels, tuple(checks))


def search(kind: Kind, settings: Settings) -> Searched:
    task: Any = ManyClasses() if kind == "sparse_logistic" else CrossValidated(kind)
    levels, start = task.levels, jnp.asarray(task.start)
    by_gradient = partial(levels.minimize, start, space=bilevel.Positive(), stop=STOP)
    box = bilevel.Box(jnp.min(task.largest) / 1e4, jnp.max(task.largest), log=True)
    ours = by_gradient(accuracy=0.1, steps=settings.steps)
    found = {
        OURS: ours,
        THEIRS: by_gradient(optimizer=papers_descent(), steps=settings.steps, tol=0.0),
        "grid": levels.grid_search(jnp.asarray(task.grid(settings.grid)), stop=STOP),
        "random": levels.random_search(start, key=jax.random.key(settings.seed), space=box,
                                       points=settings.random, stop=STOP),
    }  # fmt: skip
    return Searched(
        task.X.shape,
        start.size,
        {name: np.asarray(result.history.value) for name, result in found.items()},
        {name: np.cumsum(result.history.inner_steps + result.history.adjoint_steps)
         for name, result in found.items()},
        task.reference(np.asarray(ours.theta)),
    )  # fmt: skip


EXPERIMENT = curves.experiment(Settings, run)
