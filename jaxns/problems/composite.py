"""The composite problem min f(x) + g(x)."""

from typing import Any

import jax

from jaxns.functions.norms import Zero
from jaxns.struct import replace, struct
from jaxns.tree import Tree


@struct
class Composite:
    """min_x f(x) + g(x), with f smooth and g known by its prox (by default 0).

    f, g: functions as in `jaxns.functions`: anything callable with `gradient`, `prox`, `lipschitz`
        where it has them, and registered as a pytree.
    """

    f: Any
    g: Any = Zero()

    def __post_init__(self) -> None:
        for name, function in (("f", self.f), ("g", self.g)):
            if isinstance(function, type) or not callable(function):
                raise TypeError(
                    f"{name} must be a function such as those in jaxns.functions, got {function!r}"
                )
            if not (hasattr(function, "gradient") or hasattr(function, "prox")):
                raise TypeError(
                    f"{name} must have a gradient or a prox; wrap a plain function as "
                    f"Smooth({getattr(function, '__name__', 'fun')}, *data)"
                )

    def __call__(self, x: Tree) -> jax.Array:
        return self.f(x) + self.g(x)

    def start(self) -> Tree | None:
        """Zero, in the shape and type of the unknown; None where its functions do not know them."""
        for function in (self.f, self.g):
            if hasattr(function, "start"):
                return function.start()
        return None

    def hoist(self, x: Tree) -> "Composite":
        """With the arrays that its functions close over made visible."""
        functions = {"f": self.f, "g": self.g}
        hoistable = {k: v.hoist(x) for k, v in functions.items() if hasattr(v, "hoist")}
        return replace(self, **hoistable) if hoistable else self

    def default_solver(self) -> Any:
        from jaxns.solvers import ForwardBackward

        return ForwardBackward()
