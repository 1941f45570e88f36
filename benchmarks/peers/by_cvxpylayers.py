"""cvxpylayers, through diffcp: Clarabel solves, and a dense system is solved for the derivative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.method import Answer, Method, Task

MOST = 100  # unknowns


def boxed(model: Any) -> dict[str, Callable[[Task], Method]]:
    """Of the quadratic programs in a box: `Boxed`."""

    def make(task):
        import cvxpy as cp

        Q, q, low, _ = (np.asarray(each) for each in model.terms(task.data, task.theta))
        x, linear, top = cp.Variable(len(q)), cp.Parameter(len(q)), cp.Parameter(len(q))
        root = np.linalg.cholesky(Q + 1e-14 * np.trace(Q) * np.eye(len(q))).T
        objective = cp.Minimize(0.5 * cp.sum_squares(root @ x) + linear @ x)
        problem = cp.Problem(objective, [x >= low, x <= top])

        def parameters(theta):
            terms = model.terms(task.data, theta)
            return terms.q, terms.high

        return layer(task, problem, [linear, top], [x], parameters)

    return {"cvxpylayers": make}


def linear(model: Any) -> dict[str, Callable[[Task], Method]]:
    """Of the penalised linear models: lasso and elastic net of up to `MOST` features."""
    X, y = model.split.X, model.split.y
    if model.kind not in ("lasso", "elastic net") or X.shape[1] > MOST:
        return {}

    def make(task):
        import cvxpy as cp

        x, l1, l2 = cp.Variable(X.shape[1]), cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
        penalties = l1 * cp.norm1(x) + l2 / 2 * cp.sum_squares(x)
        fit = cp.sum_squares(X @ x - y) / (2 * len(y))
        problem = cp.Problem(cp.Minimize(fit + penalties))

        def values(theta):
            return tuple(jnp.asarray(each, float) for each in model.weights(theta))

        return layer(task, problem, [l1, l2], [x], values)

    return {"cvxpylayers": make}


def trends(order: int, n: int) -> dict[str, Callable[[Task], Method]]:
    """Of trend filtering, θ the logarithm of the penalty."""

    def make(task):
        import cvxpy as cp

        x, penalty = cp.Variable(n), cp.Parameter(nonneg=True)
        D = np.diff(np.eye(n), order, axis=0)
        fit = 0.5 * cp.sum_squares(x - np.asarray(task.data["y"]))
        problem = cp.Problem(cp.Minimize(fit + penalty * cp.norm1(D @ x)))
        return layer(task, problem, [penalty], [x], lambda theta: (jnp.exp(theta),))

    return {"cvxpylayers": make}


def layer(task: Task, problem: Any, parameters: Any, variables: Any, values: Any) -> Method:
    from cvxpylayers.jax import CvxpyLayer

    solve = CvxpyLayer(problem, parameters=parameters, variables=variables)
    theta = jnp.asarray(task.theta)

    def program(theta, tol, **mode):
        names = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
        how = dict.fromkeys(names, tol) | {"solve_method": "Clarabel"} | mode
        return solve(*values(theta), solver_args=how)[0]

    def loss(theta, tol):
        x = program(theta, tol, mode="dense")
        return task.criterion(task.data, x), x

    def both(tol):
        slope, x = jax.grad(loss, has_aux=True)(theta, tol)
        return Answer(x, slope)

    both(1e-2)
    return Method(lambda tol: Answer(program(theta, tol)), both, 0.0)
