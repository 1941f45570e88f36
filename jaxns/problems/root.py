"""Systems of equations."""

from collections.abc import Callable
from typing import Any

import jax

from jaxns import tree
from jaxns.closure import Reordered, hoist
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class Root:
    """Find x with fun(x, *data) = 0: as many equations as unknowns, in any two pytrees.

    fun: static, like that of `jaxns.functions.Smooth`: define it at module level and pass what it
        needs as `data`. Arrays in its closure are found by `solve`, and differentiated with respect
        to.
    data: pytrees; leaves, which may be differentiated.
    """

    fun: Callable[..., Tree] = static()
    data: tuple = ()

    def __init__(self, fun: Callable[..., Tree], *data: Any) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be a function of x, got {type(fun).__name__}")
        settle(self, "fun", fun)
        settle(self, "data", data)

    def residual(self, x: Tree) -> Tree:
        """fun(x, *data)."""
        return self.fun(x, *self.data)

    def hoist(self, x: Tree) -> "Root":
        """The same equations, with the arrays that `fun` closes over among their data."""
        given, wanted = tree.size(jax.eval_shape(self.residual, x)), tree.size(x)
        if given != wanted:
            raise ValueError(
                f"fun must give as many equations as x has unknowns, {wanted}; it gives {given}"
            )
        explicit, arrays = hoist(self.fun, x, *self.data)
        return Root(Reordered(explicit), arrays, *self.data) if arrays else self

    def default_solver(self) -> Any:
        from jaxns.solvers import Newton

        return Newton()
