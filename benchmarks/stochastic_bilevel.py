"""How fast stochastic bilevel methods converge.

Slopes fitted to ‖∇h‖² on three problems: a quadratic one whose ∇h is known in closed form,
regularisation selection on breast cancer data, data cleaning on digits. For the latter two ∇h is
that of `jaxns.solve` with `Implicit`. float64; e_k is the mean over seeds of ‖∇h(θ_k)‖². What the
papers state stands on [the page of the methods](stochastic_bilevel.md).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxns
from benchmarks.frame import Findings, Options, Table
from jaxns.bilevel import stochastic
from jaxns.bilevel.stochastic import SABA, SOBA, AmIGO, PiggybackSGD, Power, StocBiO, Task
from jaxns.functions import Smooth

REPEATS = 1


class Case(NamedTuple):
    """gradient: (θ, x) -> ∇h(θ), from an x near x*(θ).   runs: (method, outer steps).

    decreasing: inner stepsizes c/(t + t₀) with cμ ≥ 2, μ the strong convexity of G at θ0.
    """

    name: str
    task: Task
    gradient: Callable[[Any, Any], jax.Array]
    batch: tuple[int, int]
    seeds: int
    decreasing: jaxns.Decreasing
    runs: tuple[tuple[Any, int], ...]


def quadratic() -> Case:
    """G_i = ½ (a_iᵀx − b_i − c_iᵀθ)² + ¼ ‖x‖²,   F_j = ½ (a'_jᵀx − b'_j)² + 1/20 ‖θ‖²."""
    random = np.random.default_rng(0)
    n, p, q = 1024, 5, 3
    A, A_val = (jnp.asarray(random.choice([-1.0, 1.0], size=(n, p))) for _ in range(2))
    b, b_val = (jnp.asarray(random.normal(size=n)) for _ in range(2))
    C = 0.5 * (jnp.asarray(random.normal(size=(n, q))) + A @ random.normal(size=(p, q)))

    def inner(x, theta, i):
        return jnp.mean((A[i] @ x - b[i] - C[i] @ theta) ** 2) / 2 + jnp.sum(x**2) / 4

    def outer(x, theta, j):
        return jnp.mean((A_val[j] @ x - b_val[j]) ** 2) / 2 + jnp.sum(theta**2) / 20

    def h(theta):
        x = jnp.linalg.solve(A.T @ A / n + jnp.eye(p) / 2, A.T @ (b + C @ theta) / n)
        return outer(x, theta, jnp.arange(n))

    return Case(
        "quadratic",
        Task(outer, inner, jnp.ones(q), jnp.zeros(p), (n, n)),
        lambda theta, x: jax.grad(h)(theta),
        (16, 16),
        32,
        jaxns.Decreasing(1.6, 10),
        (
            (SOBA(Power(0.5), Power(0.3)), 20_000),
            (SABA(0.1, 0.05), 8000),
            (StocBiO(0.2, 0.05, 0.4, neumann_terms=12, inner_steps=5), 2000),
            (AmIGO(0.2, 0.05, inner_steps=5, linear_steps=5), 2000),
            (PiggybackSGD(0.1, 0.05, inner_steps=30), 2000),
        ),
    )


def implicit(task: Task) -> Callable[[Any, Any], jax.Array]:
    n, m = task.samples

    def full(x, theta):
        return task.inner(x, theta, jnp.arange(n))

    def h(theta, x):
        problem = jaxns.Composite(Smooth(full, theta))
        stop = jaxns.Stop(tol=1e-9, max_steps=5000, on_failure="ignore")
        x = jaxns.solve(problem, jaxns.LBFGS(), x, stop=stop).x
        return task.outer(x, theta, jnp.arange(m))

    return jax.grad(h)


def selection() -> Case:
    """Breast cancer, 256 + 256 samples, a tenth of the labels flipped; 8 whitened components.

    Without flips the classes can be separated, and h falls for ever as the penalties vanish and
    with them the strong convexity of G that every theorem supposes.
    """
    X, y = load_breast_cancer(return_X_y=True)
    y = np.where(np.random.default_rng(0).random(len(y)) < 0.1, 1 - 2 * y, 2 * y - 1)
    X, X_val, y, y_val = train_test_split(X, y, train_size=256, test_size=256, random_state=0)
    whiten = make_pipeline(StandardScaler(), PCA(8, whiten=True)).fit(X)
    X, X_val = whiten.transform(X), whiten.transform(X_val)
    task = stochastic.regularisation_selection(X, y, X_val, y_val)
    return Case(
        "regularisation selection",
        task,
        implicit(task),
        (16, 16),
        4,
        jaxns.Decreasing(2, 10),
        (
            (SOBA(Power(0.5), Power(10.0)), 16_000),
            (SABA(0.1, 1.0), 8000),
            (StocBiO(0.1, 1.0, neumann_terms=60), 4000),
            (AmIGO(0.1, 1.0), 4000),
            (PiggybackSGD(0.1, 1.0, inner_steps=60), 4000),
        ),
    )


def cleaning() -> Case:
    """Digits, 256 + 256 images; half of the training labels drawn at random."""
    X, y = load_digits(return_X_y=True)
    X, X_val, y, y_val = train_test_split(X, y, train_size=256, test_size=256, random_state=0)
    scaler = StandardScaler().fit(X)
    random = np.random.default_rng(0)
    y = np.where(random.random(len(y)) < 0.5, random.integers(0, 10, len(y)), y)
    task = stochastic.data_cleaning(scaler.transform(X), y, scaler.transform(X_val), y_val)
    return Case(
        "data cleaning",
        task,
        implicit(task),
        (32, 32),
        4,
        jaxns.Decreasing(5, 50),
        (
            (SOBA(Power(0.5), Power(500.0)), 8000),
            (SABA(0.1, 100.0), 4000),
            (StocBiO(0.1, 100.0, neumann_terms=20), 1000),
            (AmIGO(0.1, 100.0), 1000),
            (PiggybackSGD(0.1, 100.0, inner_steps=20), 1000),
        ),
    )


def errors(case: Case, method: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """k, about evenly spaced in log, and e_k."""
    every = max(1, steps // 1000)

    def run(key):
        return stochastic.minimize(
            *case.task,
            method=method,
            steps=steps,
            key=key,
            batch=case.batch,
            record_every=every,
            evaluate=lambda theta, x: (theta, x),
        )

    result = jax.vmap(run)(jnp.arange(case.seeds))
    k = np.asarray(result.steps[0])
    kept = np.unique(np.searchsorted(k, np.append(0, np.geomspace(every, steps, 40))))
    points = jax.tree.map(lambda r: r[:, kept], result.record)

    @jax.jit
    @jax.vmap
    def squares(points):
        return jax.lax.map(lambda point: jnp.sum(case.gradient(*point) ** 2), points)

    return k[kept], np.asarray(squares(points)).mean(axis=0)


def direction_errors(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """E‖D_K − ∇h‖² at θ0, D_K the direction of PiggybackSGD after K inner steps, F in full."""
    task, gradient = case.task, case.gradient(case.task.theta0, case.task.x0)
    inner_steps = np.array([100, 400, 1600])

    def error(key, method):
        batch = (case.batch[0], task.samples[1])
        after = stochastic.minimize(*task, method=method, steps=1, key=key, batch=batch).theta
        return jnp.sum((task.theta0 - after - gradient) ** 2)

    means = []
    for count in inner_steps:
        method = PiggybackSGD(case.decreasing, 1.0, inner_steps=int(count))
        keys = jnp.arange(2 * case.seeds)
        means.append(float(jnp.mean(jax.vmap(error, (0, None))(keys, method))))
    return inner_steps, np.array(means)


def running_mean(k: np.ndarray, e: np.ndarray) -> np.ndarray:
    """(1/K) Σ_{k<K} e_k, by the trapezoidal rule."""
    areas = np.cumsum((e[1:] + e[:-1]) / 2 * np.diff(k))
    return np.append(e[0], areas / k[1:])


def slope(k: np.ndarray, e: np.ndarray, start: float) -> float:
    """Of log e over log k from k = start on."""
    late = k >= start
    return float(np.polyfit(np.log(k[late]), np.log(e[late]), 1)[0])


def slope_to_floor(k: np.ndarray, e: np.ndarray, start: float) -> tuple[float, float]:
    """s and f of the curve C k^s + f that fits log e best from k = start on."""
    late = k >= start
    log_k, log_e = np.log(k[late]), np.log(e[late])

    def misfit(log_c, s, log_f):
        return np.logaddexp(log_c + s * log_k, log_f) - log_e

    guess = (log_e[0] + log_k[0], -1.0, log_e[-1] - 1)
    _, s, log_f = least_squares(lambda p: misfit(*p), guess).x
    return float(s), float(np.exp(log_f))


def cells(case: Case, method: Any, k: np.ndarray, e: np.ndarray) -> list[str]:
    what, stated = "(1/K) Σ e_k", "1/K + floor"
    if isinstance(method, SOBA):
        what, stated = "min e_k", "log K/√K"
        measured = f"{slope(k, np.minimum.accumulate(e), k[-1] / 30):.2f}"
    elif isinstance(method, SABA):
        stated, measured = "1/K", f"{slope(k, running_mean(k, e), k[-1] / 10):.2f}"
    else:
        s, floor = slope_to_floor(k, running_mean(k, e), k[-1] / 30)
        seen = f"floor {floor:.0e}" if floor > e[-1] / 100 else "no floor yet"
        measured = f"{s:.2f}, {seen}"
        stated = "–" if isinstance(method, PiggybackSGD) else stated
    name, ends = type(method).__name__, f"{e[0]:.0e} → {e[-1]:.0e}"
    return [case.name, f"`{name}`", what, stated, measured, ends]


def draw(curves: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]) -> Any:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(case for case, _ in curves))
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for name, ax in zip(names, axes, strict=True):
        for (case, method), (k, e) in curves.items():
            if case == name:
                ax.loglog(k[1:], e[1:], label=method)
        ax.set(title=name, xlabel="outer steps $k$")
    label = r"$\Vert\nabla h(\theta_k)\Vert^2$, mean over seeds"
    axes[0].set(ylabel=label, ylim=(1e-12, None))
    axes[0].legend()
    return figure


def run(options: Options) -> Findings:
    table = Table(("problem", "method", "quantity", "stated", "measured slope", "e_k"))
    curves = {}
    for case in (quadratic(), selection(), cleaning())[: 1 if options.reduced else 3]:
        for method, steps in case.runs[: 2 if options.reduced else None]:
            k, e = errors(case, method, steps // 10 if options.reduced else steps)
            table.row(*cells(case, method, k, e))
            curves[case.name, type(method).__name__] = k, e
        if options.reduced:
            continue
        count, error = direction_errors(case)
        decay = f"{slope(count, error, 0):.2f}"
        what = "E‖D_K − ∇h‖², K inner steps"
        table.row(case.name, "`PiggybackSGD`", what, "log²K/K", decay, "")
    numbers = [
        {"problem": case, "method": method, "k": k, "e": e}
        for (case, method), (k, e) in curves.items()
    ]
    return Findings(
        (table,), figures={"stochastic_bilevel.png": lambda: draw(curves)}, numbers=numbers
    )
