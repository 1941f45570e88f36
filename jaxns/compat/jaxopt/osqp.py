"""`jaxopt.OSQP` and `BoxOSQP`: quadratic programs, exactly. Natively `jaxns.QuadraticProgram`.

The options of JAXopt's ADMM are accepted, and have nothing to do here: there is no stepsize, no
inner solver and no tolerance, and whether the program has a solution is always found out. What is
not solved is NaN; `state.status` says why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxns import tree, validate
from jaxns.compat.jaxopt import quadratic
from jaxns.compat.jaxopt.base import AutoOrBoolean, KKTSolution, OptStep, Solver
from jaxns.compat.jaxopt.quadratic import (
    Objective,
    QPState,
    Rows,
    check_functions,
    extract_Qc_from_obj,
    objective,
    rows,
    solve_box,
    solve_program,
)
from jaxns.functions.sets import clip
from jaxns.tree import Tree

__all__ = ["BoxOSQP", "BoxOSQPState", "OSQP", "OSQPState", "extract_Qc_from_obj"]

OSQPState = QPState
Pair = tuple[Rows, Array] | tuple[None, None]


class BoxOSQPState(NamedTuple):
    """A `QPState`, with Ax − z and Qx + c + Aᵀy."""

    iter_num: Array
    error: Array
    status: Array
    primal_residuals: Tree
    dual_residuals: Tree


@dataclass(eq=False)
class BoxOSQP(Solver):
    """min ½ xᵀQx + cᵀx subject to Ax = z, l ≤ z ≤ u.

    run(init_params, params_obj, params_eq, params_ineq), params_obj = (Q, c), params_eq = A and
    params_ineq = (l, u), or the parameters of `matvec_Q(params_Q, x)` and `matvec_A(params_A, x)`
    in their places; pytrees too. `fun(x, params_obj)`: the objective, a convex quadratic function;
    init_params must then be given. Matrices are formed in each case.

    Solved to ((x, z), y, (mu, phi)), with multipliers y = mu − phi of l ≤ Ax ≤ u.

    maxiter: steps of the interior point method, of which some 20 do.
    jit: False to raise `ValueError` for a program without solution.   verbose: print how it ended.
    """

    matvec_Q: Callable | None = None  # noqa: N815
    matvec_A: Callable | None = None  # noqa: N815
    fun: Callable | None = None
    check_primal_dual_infeasability: AutoOrBoolean = "auto"
    sigma: float = 1e-6
    momentum: float = 1.6
    eq_qp_solve: str = "cg"
    rho_start: float = 0.1
    rho_min: float = 1e-6
    rho_max: float = 1e6
    stepsize_updates_frequency: int = 10
    primal_infeasible_tol: float = 1e-3
    dual_infeasible_tol: float = 1e-3
    maxiter: int = 4000
    tol: float = 1e-3
    termination_check_frequency: int = 5
    verbose: bool | int = False
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    jit: bool = True
    unroll: AutoOrBoolean = "auto"

    UNSOLVED: ClassVar[int] = quadratic.UNSOLVED
    SOLVED: ClassVar[int] = quadratic.SOLVED
    DUAL_INFEASIBLE: ClassVar[int] = quadratic.DUAL_INFEASIBLE
    PRIMAL_INFEASIBLE: ClassVar[int] = quadratic.PRIMAL_INFEASIBLE

    def __post_init__(self) -> None:
        check_functions(self.matvec_Q, self.fun)
        validate.choice("eq_qp_solve", self.eq_qp_solve.lower(), ("cg", "cg+jacobi", "lu"))

    def init_params(
        self, init_x: Tree | None, params_obj: Any, params_eq: Any, params_ineq: Any
    ) -> KKTSolution:
        """init_x, by default 0, with z = clip(Ax, l, u) and multipliers 0."""
        of = objective(self.matvec_Q, self.fun, params_obj, init_x)
        x = tree.zeros_like(of.x) if init_x is None else init_x
        of_A, l, u = self._box(of, params_eq, params_ineq)
        z = of_A.unravel(clip(of_A.matrix @ ravel_pytree(x)[0].astype(of.c.dtype), l, u))
        y = tree.zeros_like(z)
        return KKTSolution((x, z), y, (y, y))

    def run(
        self,
        init_params: KKTSolution | None = None,
        params_obj: Any = None,
        params_eq: Any = None,
        params_ineq: Any = None,
    ) -> OptStep:
        """The solution, which does not depend on init_params, and a `BoxOSQPState`."""
        x = None if init_params is None else init_params.primal[0]
        of = objective(self.matvec_Q, self.fun, params_obj, x)
        of_A, l, u = self._box(of, params_eq, params_ineq)
        A = of_A.matrix
        x, mu, phi, state = solve_box(of, A, l, u, self)
        y, z = mu - phi, A @ x
        params = KKTSolution(
            (of.unravel(x), of_A.unravel(z)),
            of_A.unravel(y),
            (of_A.unravel(mu), of_A.unravel(phi)),
        )
        dual, primal, _ = self.optimality_fun(params, params_obj, params_eq, params_ineq)
        return OptStep(params, BoxOSQPState(*state, primal, dual))

    def optimality_fun(
        self, params: KKTSolution, params_obj: Any, params_eq: Any, params_ineq: Any
    ) -> tuple[Tree, Tree, Tree]:
        """Qx + c + Aᵀy, Ax − z and z − clip(z + y, l, u), all 0 at a solution and only there."""
        of = objective(self.matvec_Q, self.fun, params_obj, params.primal[0])
        of_A, l, u = self._box(of, params_eq, params_ineq)
        x, z, y = (ravel_pytree(floats)[0] for floats in (*params.primal, params.dual_eq))
        dual = of.Q @ x + of.c + y @ of_A.matrix
        parts = of_A.matrix @ x - z, z - clip(z + y, l, u)
        return of.unravel(dual), *map(of_A.unravel, parts)

    def _box(self, of: Objective, params_eq: Any, params_ineq: Any) -> tuple[Rows, Array, Array]:
        if params_ineq is None:
            raise ValueError("params_ineq must be a pair (l, u) of bounds on Ax")
        of_A = rows(self.matvec_A, params_eq, of.x)
        l, u = map(of_A.values, params_ineq)
        return of_A, l, u


class OSQP(Solver):
    """min ½ xᵀQx + cᵀx subject to Ax = b, Gx ≤ h.

    run(init_params, params_obj, params_eq, params_ineq), params_obj = (Q, c), params_eq = (A, b)
    or None, params_ineq = (G, h) or None, or the parameters of `matvec_Q`, `matvec_A` and
    `matvec_G` in the places of Q, A and G; otherwise as `BoxOSQP`, whose options it takes.

    Solved to (x, y, z): y the multipliers of Ax = b, z ≥ 0 those of Gx ≤ h.
    """

    def __init__(
        self,
        *,
        matvec_Q: Callable | None = None,
        matvec_A: Callable | None = None,
        matvec_G: Callable | None = None,
        fun: Callable | None = None,
        **options: Any,
    ) -> None:
        self.matvec_Q, self.matvec_A, self.matvec_G = matvec_Q, matvec_A, matvec_G
        self.fun = fun
        self._options = BoxOSQP(matvec_Q=matvec_Q, fun=fun, **options)

    def init_params(
        self, init_x: Tree | None, params_obj: Any, params_eq: Any, params_ineq: Any
    ) -> KKTSolution:
        """init_x, by default 0, with multipliers 0."""
        of = objective(self.matvec_Q, self.fun, params_obj, init_x)
        x = tree.zeros_like(of.x) if init_x is None else init_x
        (of_A, _), (of_G, _) = self._constraints(of, params_eq, params_ineq)
        return KKTSolution(x, *(None if part is None else part.like for part in (of_A, of_G)))

    def run(
        self,
        init_params: KKTSolution | None = None,
        params_obj: Any = None,
        params_eq: Any = None,
        params_ineq: Any = None,
    ) -> OptStep:
        """The solution, which does not depend on init_params, and an `OSQPState`."""
        x = None if init_params is None else init_params.primal
        of = objective(self.matvec_Q, self.fun, params_obj, x)
        (of_A, b), (of_G, h) = self._constraints(of, params_eq, params_ineq)
        A, G = (None if part is None else part.matrix for part in (of_A, of_G))
        solution, state = solve_program(of, A, b, G, h, self._options)
        x, _, z, y = solution.x
        dual_eq = None if of_A is None else of_A.unravel(y)
        dual_ineq = None if of_G is None else of_G.unravel(z)
        return OptStep(KKTSolution(of.unravel(x), dual_eq, dual_ineq), state)

    def optimality_fun(
        self, params: KKTSolution, params_obj: Any, params_eq: Any = None, params_ineq: Any = None
    ) -> tuple[Tree, Tree, Tree]:
        """Qx + c + Aᵀy + Gᵀz, Ax − b and min(z, h − Gx), all 0 at a solution and only there."""
        of = objective(self.matvec_Q, self.fun, params_obj, params.primal)
        (of_A, b), (of_G, h) = self._constraints(of, params_eq, params_ineq)
        x = ravel_pytree(params.primal)[0]
        dual, met, slack = of.Q @ x + of.c, None, None
        if of_A is not None and b is not None:
            dual = dual + ravel_pytree(params.dual_eq)[0] @ of_A.matrix
            met = of_A.unravel(of_A.matrix @ x - b)
        if of_G is not None and h is not None:
            z = ravel_pytree(params.dual_ineq)[0]
            dual = dual + z @ of_G.matrix
            slack = of_G.unravel(jnp.minimum(z, h - of_G.matrix @ x))
        return of.unravel(dual), met, slack

    def _constraints(self, of: Objective, params_eq: Any, params_ineq: Any) -> tuple[Pair, Pair]:
        return _pair(self.matvec_A, params_eq, of), _pair(self.matvec_G, params_ineq, of)


def _pair(matvec: Callable | None, params: Any, of: Objective) -> Pair:
    """The rows, and the right side, of (matrix or parameters of a matvec, vector)."""
    if params is None:
        return None, None
    matrix, right = params
    of_matrix = rows(matvec, matrix, of.x)
    return of_matrix, of_matrix.values(right)
