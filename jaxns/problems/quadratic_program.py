"""Quadratic programs."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns import tree, validate
from jaxns.struct import settle, struct


@struct
class QuadraticProgram:
    r"""min_x ½ xᵀQx + qᵀx  subject to  Ax = b,  Gx ≤ h.

    Q: (n, n), symmetric positive semidefinite (its symmetric part is used); zero for a linear
        program.   q: (n,).
    A, b: (m, n), (m,), or both None.   G, h: (p, n), (p,), or both None; h may hold +inf.

    The solution has `x`, `y` (multipliers of Ax = b) and `z` ≥ 0 (of Gx ≤ h), with
    Qx + q + Aᵀy + Gᵀz = 0 and z (h − Gx) = 0.
    """

    Q: Any
    q: Any
    A: Any = None
    b: Any = None
    G: Any = None
    h: Any = None

    def __post_init__(self) -> None:
        settle(self, "Q", validate.array("Q", self.Q, 2))
        settle(self, "q", validate.array("q", self.q, 1))
        n = self.q.shape[0]
        if self.Q.shape != (n, n):
            raise ValueError(f"Q must have shape {(n, n)}, got {self.Q.shape}")
        for matrix, vector in (("A", "b"), ("G", "h")):
            self._check_rows(matrix, vector, n)

    def _check_rows(self, matrix: str, vector: str, n: int) -> None:
        rows, right = getattr(self, matrix), getattr(self, vector)
        if (rows is None) != (right is None):
            missing = matrix if rows is None else vector
            raise ValueError(f"{matrix} and {vector} must be given together, {missing} is None")
        if rows is None:
            rows, right = jnp.zeros((0, n), self.q.dtype), jnp.zeros((0,), self.q.dtype)
        rows, right = validate.array(matrix, rows, 2), validate.array(vector, right, 1)
        if rows.shape[1] != n:
            raise ValueError(f"{matrix} must have {n} columns, got shape {rows.shape}")
        validate.same_length(vector, right, matrix, rows.shape[0])
        settle(self, matrix, rows)
        settle(self, vector, right)

    def __call__(self, x: Array) -> Array:
        """½ xᵀQx + qᵀx, whether x meets the constraints or not."""
        return 0.5 * jnp.vdot(x, self.Q @ x) + jnp.vdot(self.q, x)

    def start(self) -> Array:
        return jnp.zeros(self.q.shape, tree.dtype(self))

    def default_solver(self) -> Any:
        from jaxns.solvers import InteriorPoint

        return InteriorPoint()
