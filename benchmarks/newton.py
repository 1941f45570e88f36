"""What second order is worth: Newton against forward-backward, and one step against implicit.

    python benchmarks/newton.py [--repeats 5]

Seconds are medians of whole jitted calls on the machine at hand, measured in turns in one process;
steps and errors are exact. "backward" is what a gradient costs beyond the solve.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxns

jax.config.update("jax_enable_x64", True)


def logistic(n: int = 2000, p: int = 200) -> tuple[Callable, float]:
    """l2-regularised logistic regression on columns of uneven scale."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) * np.geomspace(1, 0.1, p)
    y = np.sign(X @ rng.normal(size=p) + 0.5 * rng.normal(size=n))
    X, y = jnp.asarray(X), jnp.asarray(y)
    return lambda penalty: jaxns.problems.logistic_regression(X, y, penalty), 1e-3


def lasso(n: int = 500, p: int = 5000, correlation: float = 0.9) -> tuple[Callable, float]:
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


PROBLEMS = {"logistic 2000 × 200": logistic, "lasso 500 × 5000": lasso}
SOLVERS = (jaxns.Newton(), jaxns.ForwardBackward())


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(build: Callable, penalty: float, repeats: int) -> list[str]:
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
    rounds = [{key: seconds(call) for key, call in calls.items()} for _ in range(repeats)]
    median = {key: statistics.median(r[key] for r in rounds) for key in calls}
    exact = values["Newton", "Implicit"]
    rows = []
    for solver in SOLVERS:
        name = type(solver).__name__
        solve_time = median[name, "solve"]
        error = {m: abs(values[name, m] / exact - 1) for m in ("Implicit", "OneStep")}
        rows.append(
            f"`{name}` | {int(facts[name].steps)} | {int(jnp.sum(facts[name].x != 0))} | "
            f"{solve_time:.3f} | {median[name, 'Implicit'] - solve_time:.3f} | "
            f"{median[name, 'OneStep'] - solve_time:.3f} | {error['Implicit']:.0e} | "
            f"{error['OneStep']:.0e}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {repeats} repeats\n")
    print(
        "| problem | solver | steps | nonzeros | solve, s | backward `Implicit`, s | "
        "backward `OneStep`, s | error `Implicit` | error `OneStep` |\n" + "|---" * 9 + "|"
    )
    for problem, make in PROBLEMS.items():
        for row in measure(*make(), repeats):
            print(f"| {problem} | {row} |", flush=True)


if __name__ == "__main__":
    main()
