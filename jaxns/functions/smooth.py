"""A plain differentiable function."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from jaxns import validate
from jaxns.closure import Reordered, hoist
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class Smooth:
    """fun(x, *data), a differentiable function of any pytree x.

    fun: static: two instances share one compilation when it is the same function, so define it at
        module level and pass what it needs as `data`. A new lambda at each call is traced each
        time. Arrays in its closure are found by `solve`, and differentiated with respect to.
    data: pytrees; leaves, which may be differentiated.
    constant: a Lipschitz constant of the gradient, if one is known; without it solvers find their
        stepsize by backtracking.
    """

    fun: Callable[..., Array] = static()
    data: tuple = ()
    constant: float | Array | None = None

    def __init__(
        self, fun: Callable[..., Array], *data: Any, lipschitz: float | Array | None = None
    ) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be a function of x, got {type(fun).__name__}")
        if lipschitz is not None:
            lipschitz = validate.positive("lipschitz", validate.scalar("lipschitz", lipschitz))
        settle(self, "fun", fun)
        settle(self, "data", data)
        settle(self, "constant", lipschitz)

    def __call__(self, x: Tree) -> Array:
        return self.fun(x, *self.data)

    def gradient(self, x: Tree) -> Tree:
        return jax.grad(self.fun)(x, *self.data)

    def lipschitz(self) -> float | Array | None:
        return self.constant

    def hoist(self, x: Tree) -> "Smooth":
        """The same function, with the arrays that `fun` closes over among its data."""
        explicit, arrays = hoist(self.fun, x, *self.data)
        if not arrays:
            return self
        return Smooth(Reordered(explicit), arrays, *self.data, lipschitz=self.constant)
