"""`jaxopt.EqualityConstrainedQP`, by one factorisation of its optimality conditions."""

from collections.abc import Callable
from typing import Any

from jaxns.compat.jaxopt.base import KKTSolution, OptStep, Solver
from jaxns.compat.jaxopt.osqp import OSQP
from jaxns.tree import Tree


class EqualityConstrainedQP(Solver):
    """min ½ xᵀQx + cᵀx subject to Ax = b.

    run(init_params, params_obj, params_eq), params_obj = (Q, c) and params_eq = (A, b), as `OSQP`.
    The state is an `OSQPState`, where JAXopt's is None. Constraints may repeat each other.

    solve, refine_regularization, refine_maxiter, tol, implicit_diff_solve: not used.
    jit: False to raise `ValueError` for a program without solution.
    """

    def __init__(
        self,
        matvec_Q: Callable | None = None,
        matvec_A: Callable | None = None,
        fun: Callable | None = None,
        solve: Callable | None = None,
        refine_regularization: float = 0.0,
        refine_maxiter: int = 10,
        maxiter: int = 1000,
        tol: float = 1e-5,
        implicit_diff_solve: Callable | None = None,
        jit: bool = True,
    ) -> None:
        self._qp = OSQP(matvec_Q=matvec_Q, matvec_A=matvec_A, fun=fun, maxiter=maxiter, jit=jit)
        self.matvec_Q, self.matvec_A, self.fun = matvec_Q, matvec_A, fun

    def run(
        self,
        init_params: KKTSolution | None = None,
        params_obj: Any = None,
        params_eq: Any = None,
    ) -> OptStep:
        """The solution (x, y, None), which does not depend on init_params."""
        if params_eq is None:
            raise ValueError("params_eq must be a pair (A, b)")
        return self._qp.run(init_params, params_obj, params_eq)

    def optimality_fun(
        self, params: KKTSolution, params_obj: Any, params_eq: Any
    ) -> tuple[Tree, Tree]:
        """Qx + c + Aᵀy and Ax − b."""
        dual, met, _ = self._qp.optimality_fun(params, params_obj, params_eq)
        return dual, met
