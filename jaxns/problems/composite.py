"""The composite problem min f(x) + g(Kx) + h(x)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxns import operators, tree, validate
from jaxns.functions.norms import Zero
from jaxns.problems.max_penalty import smallest
from jaxns.problems.split_form import SplitForm
from jaxns.struct import replace, settle, struct
from jaxns.tree import Tree


@struct
class Composite:
    """min_x f(x) + g(x), or min_x f(x) + g(Kx) + h(x).

    f, g, h: functions as in `jaxns.functions`: anything callable with `gradient`, `prox`,
        `lipschitz` where it has them, and registered as a pytree. Which of them must be smooth, and
        which known by their prox, the solver says.
    K: a matrix, dense or sparse, or an operator with `K(x)` and an adjoint `K.T(u)`; None for the
        identity. x is then an array; g is a function of Kx.
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
            settle(self, "K", validate.matrix("K", self.K))

    def __call__(self, x: Tree) -> jax.Array:
        value = self.f(x) + self.g(self.apply(x))
        return value if self.h is None else value + self.h(x)

    def apply(self, x: Tree) -> Tree:
        """Kx."""
        return operators.apply(self.K, x)

    def adjoint(self, u: Tree) -> Tree:
        """Kᵀu."""
        return operators.adjoint(self.K, u)

    def split_form(self) -> SplitForm:
        """min f(x) + g(z) subject to Kx − z = 0 (without h)."""
        return SplitForm(self.f, self.g, 1.0 if self.K is None else self.K)

    def read(self, x: Tree, z: Tree, y: Tree) -> Tree:
        """The solution, from x, z = Kx and the multiplier y of that equation.

        x; without K it is z, which has the zeros that g asks for and lies in its domain.
        """
        return z if self.K is None else x

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

    def max_penalty(self) -> jax.Array:
        """The smallest penalty g whose solution is zero (infinite if none is).

        For a penalty that is one number, that number; for one per coordinate or group, what
        multiplies it; for `elastic_net` its penalty at the same l1_ratio, for `fused_lasso` l1 at
        the same tv. Raises `TypeError` where no closed form is known.
        """
        zero = self.start()
        if self.K is not None or self.h is not None or zero is None:
            raise TypeError("max_penalty needs a problem f(x) + g(x) whose f knows its unknown")
        return smallest(self.g, jax.tree.map(jnp.negative, self.f.gradient(zero)))

    def default_solver(self) -> Any:
        from jaxns.solvers import DavisYin, ForwardBackward, PrimalDual

        if self.K is None and self.h is None:
            return ForwardBackward()
        three = self.K is None and hasattr(self.f, "gradient")
        return DavisYin() if three else PrimalDual()
