"""What a hypergradient saves.

[Searches by hypergradient](bilevel.md) against fixed tolerances, grids, one penalty for all, and
scikit-learn's `LassoCV`. A random half of the data to fit, the other to choose by; at most 40
evaluations from a tenth of the penalty that gives zero; "houses" are simulated. First, inner solves
all to 1e-10 against those that `accuracy=0.1` asks for. The adjoint steps, products with Aᵀ (a
dense system counts its size), are what that costs.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LassoCV
from sklearn.preprocessing import PolynomialFeatures

import jaxns
from benchmarks.frame import Findings, Options, Table
from jaxns.bilevel import Positive, Result, minimize
from jaxns.functions import ElasticNet, LeastSquares
from jaxns.struct import static, struct

REPEATS = 3
AGAINST_GRIDS = """\
Against a grid over three decades (100 penalties, or 10 × 10), each point solved to 1e-6 and started
from the one before; inner steps until the search is within 1 % of the grid's best, and of all of
it; "ratio" is the grid's over all of them:"""
MANY_PENALTIES = """\
A penalty for each feature, 20 of which matter, started from the best single one of 30; three times
as many samples to choose by, and as many others to test on:"""
AGAINST_LASSO_CV = """\
Twenty evaluations on one split (four fifths to fit, `accuracy=0.1`) against scikit-learn's
`LassoCV` on all rows with its defaults, in turns, "process" in CPU seconds. `LassoCV` fits five
folds and knows no other criterion; a fold each would multiply our inner products by five:"""


class Task(NamedTuple):
    """A search: its levels, where it starts, and what the grid's axes are."""

    outer: Callable
    inner: Callable
    start: jax.Array
    axes: tuple[np.ndarray, ...]


@struct
class Inner:
    """θ -> the problem on the training half."""

    X: jax.Array
    y: jax.Array
    kind: str = static()

    def __call__(self, theta):
        match self.kind:
            case "elastic net":
                f = LeastSquares(self.X, self.y, scale="mean")
                return jaxns.Composite(f, ElasticNet(theta[0], theta[1]))
            case "sparse logistic":
                return jaxns.problems.sparse_logistic(self.X, self.y, theta)
            case "lasso":
                return jaxns.problems.lasso(self.X, self.y, theta)


@struct
class Outer:
    """The held-out loss of x."""

    X: jax.Array
    y: jax.Array
    kind: str = static()

    def __call__(self, x, theta):
        t = self.X @ x
        if self.kind == "sparse logistic":
            return jnp.mean(jnp.logaddexp(0, -self.y * t))
        return jnp.mean((t - self.y) ** 2)


def standardised(X: np.ndarray, y: np.ndarray, labels: bool) -> tuple[jax.Array, ...]:
    """A random half to train on and the other half, in units of the first."""
    order = np.random.default_rng(0).permutation(len(y))
    train, held_out = order[: len(y) // 2], order[len(y) // 2 :]
    mean, scale = X[train].mean(0), X[train].std(0)
    X = ((X - mean) / np.where(scale > 0, scale, 1))[:, scale > 0]
    y = np.where(y > 0, 1.0, -1.0) if labels else (y - y[train].mean()) / y[train].std()
    return tuple(map(jnp.asarray, (X[train], y[train], X[held_out], y[held_out])))


def task(kind: str, X: np.ndarray, y: np.ndarray) -> Task:
    A, b, V, w = standardised(X, y, kind == "sparse logistic")
    largest = float(Inner(A, b, "lasso")(1.0).max_penalty())
    largest = largest / 2 if kind == "sparse logistic" else largest
    two = kind == "elastic net"
    axis = np.geomspace(largest, largest / 1e3, 10 if two else 100)
    start = jnp.full(2 if two else (), largest / 10)
    return Task(Outer(V, w, kind), Inner(A, b, kind), start, (axis,) * (2 if two else 1))


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Features of degree 2 but the square of `sex`, an affine copy of it."""
    X, y = load_diabetes(return_X_y=True)
    features = PolynomialFeatures(2, include_bias=False)
    Z = features.fit_transform(X)
    names = features.get_feature_names_out()
    return Z[:, names != "x1^2"], y


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Even digits against odd ones."""
    X, y = load_digits(return_X_y=True)
    return X, np.where(y % 2, 1.0, -1.0)


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_breast_cancer(return_X_y=True)
    return X, 2.0 * y - 1


def houses(n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Prices by place and size: eight skewed and correlated features, their products and noise."""
    random = np.random.default_rng(0)
    place = random.normal(size=(n, 2))
    income = np.exp(0.4 * place[:, 0] + 0.4 * random.normal(size=n))
    rooms = 5 + income**0.5 + random.normal(size=n)
    rest = np.exp(random.normal(size=(n, 4)) * 0.7)
    X = np.column_stack([place, income, rooms, rest])
    y = income + 0.3 * rooms - 0.5 * place[:, 1] ** 2 + 0.2 * rest[:, 0] + random.normal(size=n)
    return PolynomialFeatures(2, include_bias=False).fit_transform(X), y


TASKS = {
    "lasso, diabetes": ("lasso", diabetes),
    "elastic net, diabetes": ("elastic net", diabetes),
    "sparse logistic, breast cancer": ("sparse logistic", breast_cancer),
    "sparse logistic, digits": ("sparse logistic", digits),
    "lasso, houses": ("lasso", houses),
}


TIGHT = 1e-10


def by_gradient(task: Task, **how: Any) -> Result:
    return minimize(task.outer, task.inner, task.start, space=Positive(), **how)


class Grid(NamedTuple):
    """The points in the order of their solves, the values there, and the inner steps of each."""

    points: np.ndarray
    values: np.ndarray
    steps: np.ndarray


def on_grid(task: Task, tol: float = 1e-6) -> Grid:
    """Every point of the grid, from large penalties to small ones, each from the one before."""

    @jax.jit
    def evaluate(theta, start):
        solution = jaxns.solve(task.inner(theta), None, start, stop=jaxns.Stop(tol=tol))
        return task.outer(solution.x, theta), solution

    mesh = np.stack([axis.ravel() for axis in np.meshgrid(*task.axes, indexing="ij")], axis=-1)
    points = mesh if len(task.axes) > 1 else mesh[:, 0]
    solution = jaxns.solve(task.inner(jnp.asarray(points[0])))
    values, steps = [], []
    for point in points:
        value, solution = evaluate(jnp.asarray(point), solution)
        values.append(float(value))
        steps.append(int(solution.steps))
    return Grid(points, np.array(values), np.array(steps))


def against_fixed_tolerance(table: Table, name: str, found: Task, loose: Result) -> None:
    tight = by_gradient(found, steps=40, stop=jaxns.Stop(tol=TIGHT))
    a, b = int(tight.history.inner_steps.sum()), int(loose.history.inner_steps.sum())
    adjoint = [int(r.history.adjoint_steps.sum()) for r in (tight, loose)]
    table.row(
        name, a, b, f"{a / b:.1f}", f"{abs(tight.value - loose.value):.0e}", *adjoint,
        f"{len(tight.history.value)}, {len(loose.history.value)}",
    )  # fmt: skip


def against_grid(table: Table, name: str, grid: Grid, found: Result) -> None:
    """Inner steps until the search is within 1 % of the grid's best, and all of them."""
    best, steps = grid.values.min(), np.cumsum(found.history.inner_steps)
    there = np.flatnonzero(found.history.value <= 1.01 * best)
    first = int(steps[there[0]]) if len(there) else "never"
    total = int(grid.steps.sum())
    table.row(
        name, len(grid.values), f"{best:.5f}", f"{float(found.value):.5f}", total, first,
        int(steps[-1]), f"{total / steps[-1]:.1f}",
    )  # fmt: skip


def many_penalties(n: int, p: int) -> Iterator[tuple[str, Task, Callable]]:
    """A penalty for each of p coordinates, and the test error on data that neither level saw."""
    random = np.random.default_rng(0)
    truth = np.where(np.arange(p) < 20, 2 * random.normal(size=p), 0)
    X = random.normal(size=(7 * n, p))  # to fit, and three times as many to choose by and to test
    for kind in ("lasso", "sparse logistic"):
        labels = kind == "sparse logistic"
        y = X @ truth + 2 * (random.logistic if labels else random.normal)(size=7 * n)
        y = np.sign(y) if labels else y
        (A, V, T), (b, w, u) = (map(jnp.asarray, np.split(part, [n, 4 * n])) for part in (X, y))
        largest = float(jnp.abs(A.T @ b).max()) / n / (2 if labels else 1)
        axis = np.geomspace(largest, largest / 30, 30)
        one = Task(Outer(V, w, kind), Inner(A, b, kind), jnp.asarray(largest / 10), (axis,))
        yield f"{kind}, {p} penalties", one, Outer(T, u, kind)


def both_clocks(call: Callable) -> tuple[float, float]:
    wall, process = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - process


def against_lasso_cv(repeats: int, n: int, p: int) -> Table:
    """20 outer steps on 1000 × 5000 against scikit-learn's path on five folds of the same."""
    random = np.random.default_rng(0)
    X = random.normal(size=(n, p))
    for j in range(1, p):
        X[:, j] = 0.5 * X[:, j - 1] + np.sqrt(0.75) * X[:, j]
    truth = np.zeros(p)
    chosen = random.choice(p, min(50, p // 4), replace=False)
    truth[chosen] = random.normal(size=len(chosen))
    y = X @ truth + 2 * random.normal(size=n)
    train = 4 * n // 5
    A, b, V, w = map(jnp.asarray, (X[:train], y[:train], X[train:], y[train:]))
    outer, inner = Outer(V, w, "lasso"), Inner(A, b, "lasso")
    start = float(inner(1.0).max_penalty()) / 10

    def ours():
        solver = jaxns.ForwardBackward(stepsize=1 / inner(1.0).f.lipschitz())  # the same for all θ
        return minimize(
            outer, inner, start, space=Positive(), solver=solver, stop=jaxns.Stop(tol=1e-8),
            accuracy=0.1, steps=20, tol=0.0,
        )  # fmt: skip

    def theirs():
        return LassoCV(cv=5, alphas=100, fit_intercept=False).fit(X, y)

    first = both_clocks(ours)
    rounds = [(both_clocks(ours), both_clocks(theirs)) for _ in range(repeats)]
    (wall, process), (wall_cv, process_cv) = (
        [statistics.median(r[i][j] for r in rounds) for j in range(2)] for i in range(2)
    )
    table = Table(
        (f"{n} × {p}", "wall, s", "process, s", "wall / LassoCV's", "process / LassoCV's"),
        text=AGAINST_LASSO_CV,
        notes=(f"alpha: ours {float(ours().theta):.4f}, `LassoCV` {theirs().alpha_:.4f}.",),
    )
    table.row("`LassoCV`, 5 folds, 100 alphas", f"{wall_cv:.1f}", f"{process_cv:.1f}", "1", "1")
    for what, (a, c) in {"20 outer steps": (wall, process), "with compilation": first}.items():
        table.row(what, f"{a:.1f}", f"{c:.1f}", f"{a / wall_cv:.2f}", f"{c / process_cv:.2f}")
    return table


def draw(results: dict[str, tuple[Grid, Result]]) -> Any:
    """The best value so far against the inner steps, over the best of all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4), layout="constrained")
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for ax, (name, (grid, found)) in zip(axes, results.items(), strict=True):
        best = min(grid.values.min(), float(found.value))
        for steps, values, color, label in (
            (grid.steps, grid.values, "C7", "grid"),
            (found.history.inner_steps, found.history.value, "C0", "gradient"),
        ):
            behind = np.minimum.accumulate(values) / best - 1
            at = np.cumsum(steps)
            ax.step(at, np.maximum(behind, 1e-6), color=color, label=label, where="post")
        ax.axhline(0.01, color="C1", linewidth=1, linestyle=":", label="1 %")
        ax.set(xscale="log", yscale="log", title=name.replace(", ", "\n"))
        ax.set_xlabel("inner iterations")
    axes[0].set_ylabel("held-out loss over the best, − 1")
    axes[0].legend()
    return figure


def run(options: Options) -> Findings:
    names = list(options.chosen(TASKS))[: 1 if options.reduced else None]
    tasks = {name: task(TASKS[name][0], *TASKS[name][1]()) for name in names}
    found = {
        name: by_gradient(each, accuracy=0.1, steps=40, stop=jaxns.Stop(tol=TIGHT))
        for name, each in tasks.items()
    }
    tolerance = Table(
        ("search", "inner steps, tol=1e-10", "accuracy=0.1", "ratio", "values differ by",
         "adjoint steps, tol=1e-10", "accuracy=0.1", "evaluations"),
    )  # fmt: skip
    for name, each in tasks.items():
        against_fixed_tolerance(tolerance, name, each, found[name])

    grids = {name: on_grid(each) for name, each in tasks.items()}
    grid = Table(
        ("search", "grid points", "their best", "gradient's", "grid's inner steps",
         "gradient's to 1 %", "all of them", "ratio"),
        text=AGAINST_GRIDS,
    )  # fmt: skip
    for name, each in grids.items():
        against_grid(grid, name, each, found[name])

    many = Table(
        ("search", "test loss, best single penalty", "test loss, one for each", "evaluations"),
        text=MANY_PENALTIES,
    )
    for name, one, test in many_penalties(*(60, 50) if options.reduced else (300, 1000)):
        on = on_grid(one)
        single = on.points[on.values.argmin()]
        x = jaxns.solve(one.inner(jnp.asarray(single))).x
        each = one._replace(start=jnp.full(x.shape, single))
        best = by_gradient(each, accuracy=0.1, steps=20)
        many.row(name, f"{float(test(x, None)):.4f}", f"{float(test(best.x, None)):.4f}",
                 len(best.history.value))  # fmt: skip
    size = (100, 200) if options.reduced else (1000, 5000)
    tables = (tolerance, grid, many, against_lasso_cv(options.repeats, *size))
    results = {name: (grids[name], found[name]) for name in tasks}
    return Findings(tables, figures={"bilevel.png": lambda: draw(results)})
