"""Solvers of quadratic programs: qpax, MPAX and proxsuite.

qpax differentiates a relaxed problem; how relaxed it is follows the tolerance. MPAX differentiates
by unrolling alone and proxsuite by a call of its own for q and the bounds: both are given the solve
on the coordinates at no bound.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.method import Method, Task, in_jax, on_host


def boxed(model: Any) -> dict[str, Callable[[Task], Method]]:
    """model: `Boxed`."""
    return {
        "qpax": lambda task: in_jax(task, _qpax(model)),
        "proxsuite": lambda task: on_host(_proxsuite(task, model), _gradient(task, model)),
        "MPAX": lambda task: on_host(_mpax(task, model), _gradient(task, model)),
    }


def _gradient(task: Task, model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """w_F = Q_FF⁻¹ ∇C_F on the coordinates F at no bound; dC/dq = −w, dC/du = ∇C_A − Q_AF w_F."""
    terms = model.terms(task.data, task.theta)
    Q, _, low, high = (np.asarray(each) for each in terms)
    slope_of = jax.jit(jax.grad(lambda x: task.criterion(task.data, x)))
    slope_of(task.data["start"])

    def gradient(x):
        slope = np.asarray(slope_of(jnp.asarray(x)))
        room = 1e-6 * (high - low)
        F, upper = (x > low + room) & (x < high - room), x >= high - room
        w = np.zeros(len(x))
        w[F] = np.linalg.solve(Q[np.ix_(F, F)], slope[F])
        if model.kind == "svm":
            return high[0] * np.sum((slope - Q @ w)[upper])
        return -w

    return gradient


def _qpax(model: Any) -> Callable[[Any, Any, Any], Any]:
    def program(data, theta, tol):
        import qpax

        Q, q, low, high = model.terms(data, theta)
        one = jnp.eye(q.shape[0])
        G, h = jnp.concatenate([one, -one]), jnp.concatenate([high, -low])
        A, b = jnp.zeros((0, q.shape[0])), jnp.zeros(0)
        return qpax.solve_qp_primal(Q, q, A, b, G, h, solver_tol=tol, target_kappa=tol)

    return program


def _proxsuite(task: Task, model: Any) -> Callable[[float], np.ndarray]:
    from proxsuite import proxqp

    Q, q, low, high = (np.asarray(each) for each in model.terms(task.data, task.theta))

    def fit(tol):
        qp = proxqp.dense.QP(len(q), 0, 0, True)
        qp.settings.eps_abs, qp.settings.eps_rel, qp.settings.max_iter = tol, 0.0, 100_000
        qp.init(Q, q, None, None, None, None, None, low, high)
        qp.solve()
        return np.array(qp.results.x)

    return fit


def _mpax(task: Task, model: Any) -> Callable[[float], np.ndarray]:
    import mpax

    Q, q, low, high = model.terms(task.data, task.theta)
    n = len(q)
    nothing = jnp.zeros((0, n)), jnp.zeros(0)
    program = mpax.create_qp(Q, q, *nothing, jnp.eye(n), low, low, high, use_sparse_matrix=False)

    @functools.cache
    def solver(tol):
        return jax.jit(mpax.raPDHG(eps_abs=tol, eps_rel=tol, iteration_limit=20_000).optimize)

    return lambda tol: np.asarray(solver(tol)(program).primal_solution)
