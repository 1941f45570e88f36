"""`jaxopt.CvxpyQP`: the same programs by the same solver as `OSQP`, without CVXPY."""

from collections.abc import Callable

from jaxns.compat.jaxopt.osqp import OSQP


class CvxpyQP(OSQP):
    """min ½ xᵀQx + cᵀx subject to Ax = b, Gx ≤ h: `OSQP`, also under `jit` and `vmap`.

    solver, implicit_diff_solve: not used.
    """

    def __init__(self, solver: str = "OSQP", implicit_diff_solve: Callable | None = None) -> None:
        super().__init__()
