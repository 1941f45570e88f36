"""The composite problem min f(x) + g(Kx) + h(x)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxns import tree, validate
from jaxns.functions.norms import Zero
from jaxns.struct import replace, settle, struct
from jaxns.tree import Tree


@struct
class Composite:
    """min_x f(x) + g(x), or min_x f(x) + g(Kx) + h(x).

    f, g, h: functions as in `jaxns.functions`: anything callable with `gradient`, `prox`,
        `lipschitz` where it has them, and registered as a pytree. Which of them must be smooth, and
        which known by their prox, the solver says.
    K: a matrix, or an operator with `K(x)` and an adjoint `K.T(u)`; None for the identity.
        x is then an array; g is a function of Kx.
    """

    f: Any
    g: Any = Zero()
    K: Any = None
    h: Any = None

    def __post_init__(self) -> None:
        functions = {"f": self.f, "g": self.g}
        if self.h is not None:
            functions["h"] = self.h
        for name, function in functions.items():
            if isinstance(function, type) or not callable(function):
                raise TypeError(
                    f"{name} must be a function such as those in jaxns.functions, got {function!r}"
                )
            if not (hasattr(function, "gradient") or hasattr(function, "prox")):
                raise TypeError(
                    f"{name} must have a gradient or a prox; wrap a plain function as "
                    f"Smooth({getattr(function, '__name__', 'fun')}, *data)"
                )
        if self.K is not None and not callable(self.K):
            settle(self, "K", validate.array("K", self.K, 2))

    def __call__(self, x: Tree) -> jax.Array:
        value = self.f(x) + self.g(self.apply(x))
        return value if self.h is None else value + self.h(x)

    def apply(self, x: Tree) -> Tree:
        """Kx."""
        if self.K is None:
            return x
        return self.K(x) if callable(self.K) else self.K @ x

    def adjoint(self, u: Tree) -> Tree:
        """Kᵀu."""
        if self.K is None:
            return u
        if callable(self.K):
            return self.K.T(u)  # pyright: ignore[reportFunctionMemberAccess]
        return u @ self.K if u.ndim == 1 else (u.T @ self.K).T

    def start(self) -> Tree | None:
        """Zero, in the shape and type of the unknown; None where its functions do not know them."""
        for function in (self.f, self.g, self.h) if self.K is None else (self.f, self.h):
            if hasattr(function, "start"):
                return function.start()
        if self.K is not None and hasattr(self.K, "shape"):
            return jnp.zeros(self.K.shape[1:], tree.dtype(self.K))
        return None

    def hoist(self, x: Tree) -> "Composite":
        """With the arrays that its functions close over made visible."""
        functions = {"f": self.f, "g": self.g, "h": self.h}
        hoistable = {
            name: function.hoist(self.apply(x) if name == "g" else x)
            for name, function in functions.items()
            if hasattr(function, "hoist")
        }
        return replace(self, **hoistable) if hoistable else self

    def default_solver(self) -> Any:
        from jaxns.solvers import ForwardBackward

        return ForwardBackward()
