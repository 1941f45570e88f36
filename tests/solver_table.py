"""Which solver solves which problem, asked of the code: `python tests/solver_table.py` prints it.

A solver serves a problem when it prepares, starts and steps on it; what it answers is held by the
other tests. The README shows this table between its `problems` markers.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from jaxns import functions, problems

N, P = 8, 3
_rng = np.random.default_rng(0)
X, noise = _rng.normal(size=(N, P)), _rng.normal(size=(N, P))
y = np.sign(X[:, 0] + noise[:, 0])
classes = np.arange(N) % 3
S = np.cov(_rng.normal(size=(P, 40)))
masses = np.full(N, 1 / N)

# How to build one of each, by the name that the table shows.
BUILDERS: dict[str, Callable[[], Any]] = {
    "lasso": lambda: problems.lasso(X, y, 0.1),
    "elastic_net": lambda: problems.elastic_net(X, y, 0.1),
    "ridge": lambda: problems.ridge(X, y, 0.1),
    "nonnegative_least_squares": lambda: problems.nonnegative_least_squares(X, y),
    "group_lasso": lambda: problems.group_lasso(X, y, 0.1, [0, 0, 1]),
    "multitask_lasso": lambda: problems.multitask_lasso(X, noise, 0.1),
    "fused_lasso": lambda: problems.fused_lasso(X, y, 0.1, 0.1),
    "quantile_regression": lambda: problems.quantile_regression(X, y + noise[:, 1], 0.3, 0.1),
    "logistic_regression": lambda: problems.logistic_regression(X, y, 0.1),
    "sparse_logistic": lambda: problems.sparse_logistic(X, y, 0.1),
    "multinomial": lambda: problems.multinomial(X, classes, 0.1),
    "sparse_multinomial": lambda: problems.sparse_multinomial(X, classes, 0.02),
    "svm": lambda: problems.svm(X, y, 1.0),
    "kernel_svm": lambda: problems.kernel_svm(X @ X.T + np.eye(N), y, 1.0),
    "svr": lambda: problems.svr(X, y + noise[:, 1], 1.0),
    "trend_filtering": lambda: problems.trend_filtering(noise[:, 0], 0.5),
    "total_variation": lambda: problems.total_variation(noise, 0.5),
    "sparse_inverse_covariance": lambda: problems.sparse_inverse_covariance(S, 0.05),
    "nonnegative_matrix_factorisation": lambda: problems.nonnegative_matrix_factorisation(
        np.abs(noise), 2
    ),
    "QuadraticProgram": lambda: jaxns.QuadraticProgram(X.T @ X, y[:P], G=X, h=np.abs(y)),
    "SplitForm": lambda: jaxns.SplitForm(functions.LeastSquares(X, y), functions.L1(0.1)),
    "Transport": lambda: jaxns.Transport(np.abs(X @ noise.T), masses, masses, 0.1),
    "Root": lambda: jaxns.Root(lambda x: x + jnp.sin(x) - y),
}


def solvers() -> Iterator[tuple[str, Any]]:
    """The solvers that need no other solver, each as it comes."""
    for name in jaxns.solvers.__all__:
        solver = getattr(jaxns.solvers, name)
        if not inspect.signature(solver).parameters.get("solver"):
            yield name, solver()


def serves(solver: Any, problem: Any) -> bool:
    def first_step(solver, problem, x0):
        if hasattr(solver, "prepare"):
            solver = solver.prepare(problem, x0)
        z = solver.init(problem, x0)
        return solver.step(problem, z), solver.solution(problem, z)

    x0 = problem.start() if hasattr(problem, "start") else jnp.zeros(N)
    try:
        jax.eval_shape(functools.partial(first_step, solver), problem, x0)
    except (TypeError, ValueError):
        return False
    return True


def table() -> str:
    lines = ["| problem | solved by default with | and with |", "|---|---|---|"]
    for name, build in BUILDERS.items():
        problem = build()
        default = type(problem.default_solver()).__name__
        able = [other for other, solver in solvers() if serves(solver, problem)]
        assert default in able, f"{name} names {default}, which refuses it"
        others = " ".join(f"`{other}`" for other in able if other != default)
        lines.append(f"| `{name}` | `{default}` | {others} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
