"""What second order is worth.

Newton against forward-backward, and one step's derivative on a superlinear map against the implicit
one. "Backward" is a gradient's time beyond the solve's; "error" is relative, of the gradient to
that of `Newton` with `Implicit`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from benchmarks.frame import Findings, Options, Table
from benchmarks.timing import in_turns, medians

REPEATS = 5


def logistic(n: int, p: int) -> tuple[Callable, float]:
    """l2-regularised logistic regression on columns of uneven scale."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) * np.geomspace(1, 0.1, p)
    y = np.sign(X @ rng.normal(size=p) + 0.5 * rng.normal(size=n))
    X, y = jnp.asarray(X), jnp.asarray(y)
    return lambda penalty: jaxns.problems.logistic_regression(X, y, penalty), 1e-3


def lasso(n: int, p: int, correlation: float = 0.9) -> tuple[Callable, float]:
    """A lasso on an autoregressive design, at a twentieth of the penalty that gives zero."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    for j in range(1, p):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    truth = np.zeros(p)
    truth[rng.choice(p, 20, replace=False)] = rng.normal(size=20)
    y = X @ truth + 0.5 * rng.normal(size=n)
    penalty = float(np.abs(X.T @ y).max() / n / 20)
    X, y = jnp.asarray(X), jnp.asarray(y)
    return lambda penalty: jaxns.problems.lasso(X, y, penalty), penalty


SOLVERS = (jaxns.Newton(), jaxns.ForwardBackward())


def measure(build: Callable, penalty: float, repeats: int) -> list[tuple]:
    def solve(penalty, solver, mode=jaxns.Implicit()):
        return jaxns.solve(build(penalty), solver, mode=mode)

    calls, facts = {}, {}
    for solver in SOLVERS:
        name = type(solver).__name__
        forward = jax.jit(lambda penalty, solver=solver: solve(penalty, solver))
        calls[name, "solve"] = lambda f=forward: f(penalty).x
        facts[name] = forward(penalty)
        for mode in (jaxns.Implicit(), jaxns.OneStep()):
            loss = lambda p, s=solver, m=mode: jnp.sum(jnp.sin(solve(p, s, m).x))  # noqa: E731
            gradient = jax.jit(jax.grad(loss))
            calls[name, type(mode).__name__] = lambda f=gradient: f(penalty)
    values = {key: jax.block_until_ready(call()) for key, call in calls.items()}
    times = in_turns(calls, repeats)
    exact = values["Newton", "Implicit"]
    rows = []
    for solver in SOLVERS:
        name = type(solver).__name__
        spent = {m: medians(times)[name, m] for m in ("solve", "Implicit", "OneStep")}
        error = {m: abs(values[name, m] / exact - 1) for m in ("Implicit", "OneStep")}
        rows.append((
            f"`{name}`", int(facts[name].steps), int(jnp.sum(facts[name].x != 0)),
            f"{spent['solve']:.3f}",
            *(f"{spent[m] - spent['solve']:.3f}" for m in ("Implicit", "OneStep")),
            *(f"{error[m]:.0e}" for m in ("Implicit", "OneStep")),
        ))  # fmt: skip
    return rows


def run(options: Options) -> Findings:
    table = Table(
        ("problem", "solver", "steps", "nonzeros", "solve, s", "backward `Implicit`, s",
         "backward `OneStep`, s", "error `Implicit`", "error `OneStep`")
    )  # fmt: skip
    full = ((logistic, 2000, 200), (lasso, 500, 5000))
    for make, n, p in ((lasso, 50, 200),) if options.reduced else full:
        for cells in measure(*make(n, p), options.repeats):
            table.row(f"{make.__name__} {n} × {p}", *cells)
    return Findings((table,), numbers=table.rows)
