# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Lineax: its operators where a matrix is taken, and its solvers for the implicit derivative.

Importing lineax changes how JAX transposes some of its primitives, everywhere in the process.
"""

from typing import Any

import equinox as eqx
import jax
import lineax as lx
from jax import Array, lax

from jaxns import linear, modes
from jaxns.fixed_point import refuse
from jaxns.modes.rule import System
from jaxns.struct import settle, static, struct


@struct
class Operator:
    """A linear operator of lineax between vectors, where a design A or an operator K is taken.

    It is only multiplied by; entries are computed where they are asked for (the columns of a
    Hessian, the margin of a kink, a stochastic solver's rows).
    """

    arrays: Any
    rest: Any = static()
    ndim = 2

    def __init__(self, operator: lx.AbstractLinearOperator) -> None:
        if not isinstance(operator, lx.AbstractLinearOperator):
            raise TypeError(
                f"operator must be a linear operator of lineax, got {type(operator).__name__}"
            )
        for side in (operator.in_structure(), operator.out_structure()):
            if getattr(side, "ndim", 0) != 1:
                raise ValueError(f"operator must map vectors to vectors, not from or to {side}")
        arrays, rest = eqx.partition(operator, eqx.is_array)
        settle(self, "arrays", arrays)
        settle(self, "rest", rest)

    @property
    def operator(self) -> lx.AbstractLinearOperator:
        return eqx.combine(self.arrays, self.rest)

    @property
    def shape(self) -> tuple[int, int]:
        return self.operator.out_size(), self.operator.in_size()

    @property
    def dtype(self) -> Any:
        return self.operator.in_structure().dtype

    @property
    def T(self) -> "Operator":
        return Operator(self.operator.T)

    def __call__(self, x: Array) -> Array:
        return self @ x

    def __matmul__(self, x: Array) -> Array:
        mv = self.operator.mv
        return mv(x) if x.ndim == 1 else jax.vmap(mv, in_axes=1, out_axes=1)(x)

    def __rmatmul__(self, r: Array) -> Array:
        return (self.T @ r.T).T

    def __mul__(self, other: "Operator") -> Array:
        """The product of the entries."""
        return self.todense() * other.todense()

    def todense(self) -> Array:
        return self.operator.as_matrix()


@struct
class Implicit(modes.Implicit):
    """`jaxns.Implicit` whose linear system, with I − ∂F or its transpose, is solved by lineax.

    solver: of lineax, static, such as `GMRES(rtol, atol)`. What it answers is judged as any other
        answer is, by the residual that it leaves, and improved by it: see `tol`, `on_failure`.
        `method`, `max_steps`, `restart`, `start` and `precondition` have no effect.
    """

    solver: Any = static(default=lx.AutoLinearSolver(well_posed=None))

    def known(self, iteration: Any, theta: Any, z: Any, control: Any) -> None:
        return None

    def invert(self, system: System, b: Array) -> tuple[Array, linear.Report]:
        policy = "ignore" if self.on_failure == "ignore" else "nan"

        def solve(matvec, b):
            operator = lx.FunctionLinearOperator(matvec, jax.eval_shape(lambda: b))

            def inverse(r):
                return lx.linear_solve(operator, r, self.solver, throw=False).value

            x, report = linear.solve(
                "structured", matvec, b, self.tol, self.max_steps, inverse=inverse
            )
            return refuse(report.converged, x, policy, str), report

        return lax.custom_linear_solve(system.matvec, b, solve, transpose_solve=solve, has_aux=True)
