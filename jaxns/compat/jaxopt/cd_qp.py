"""`jaxopt.BoxCDQP`: coordinate descent for quadratic programs in a box."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxns.compat.jaxopt.base import AutoOrBoolean, IterativeSolver, OptStep
from jaxns.compat.jaxopt.projection import projection_box


class BoxCDQPState(NamedTuple):
    """error: Σ |change of x_i| in the last epoch."""

    iter_num: Array
    error: Array


@dataclass(eq=False)
class BoxCDQP(IterativeSolver):
    """min ½ xᵀQx + cᵀx subject to l ≤ x ≤ u, Q symmetric.

    run(init_params, params_obj=(Q, c), params_ineq=(l, u)). Natively
    `jaxns.solve(Composite(Quadratic(Q, c), Box(l, u)), CoordinateDescent())`.
    """

    maxiter: int = 500
    tol: float = 1e-4
    verbose: bool | int = False
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    jit: bool = True
    unroll: AutoOrBoolean = "auto"
    on_failure: str = "warn"

    def init_state(
        self, init_params: Array, params_obj: Any = None, params_ineq: Any = None
    ) -> BoxCDQPState:
        return BoxCDQPState(jnp.asarray(0), jnp.asarray(jnp.inf))

    def update(
        self, params: Array, state: BoxCDQPState, params_obj: Any, params_ineq: Any
    ) -> OptStep:
        """One epoch: x_i ← clip(x_i − (Qx + c)_i/Q_ii, l_i, u_i), i = 1, …, n in turn.

        Where Q_ii = 0 the objective is linear in x_i, whose place is at a bound.
        """
        Q, c = map(jnp.asarray, params_obj)
        lower, upper = (jnp.broadcast_to(bound, params.shape) for bound in params_ineq)

        def visit(i: Any, x: Array) -> Array:
            slope, curvature = Q[i] @ x + c[i], Q[i, i]
            newton = x[i] - slope / jnp.where(curvature == 0, 1, curvature)
            edge = jnp.where(slope > 0, lower[i], jnp.where(slope < 0, upper[i], x[i]))
            free = jnp.where(curvature == 0, edge, newton)
            return x.at[i].set(projection_box(free, (lower[i], upper[i])).astype(x.dtype))

        after = jax.lax.fori_loop(0, len(params), visit, params)
        state = BoxCDQPState(state.iter_num + 1, jnp.sum(jnp.abs(after - params)))
        if self.verbose:
            self.log_info(state)
        return OptStep(after, state)

    def optimality_fun(self, sol: Array, params_obj: Any, params_ineq: Any) -> Array:
        """clip(x − (Qx + c), l, u) − x."""
        (Q, c), bounds = params_obj, params_ineq
        return projection_box(sol - (Q @ sol + c), bounds) - sol
