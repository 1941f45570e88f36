"""The split problem min f(x) + g(z) subject to Ax + Bz = c."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxns import operators, tree, validate
from jaxns.struct import replace, settle, struct
from jaxns.tree import Tree


class SplitSolution(NamedTuple):
    """x and z, and the multiplier y of Ax + Bz = c: 0 ∈ ∂f(x) + Aᵀy and 0 ∈ ∂g(z) + Bᵀy."""

    x: Tree
    z: Tree
    y: Tree


@struct
class SplitForm:
    """min_{x, z} f(x) + g(z) subject to Ax + Bz = c.

    f, g: functions as in `jaxns.functions`.
    A, B: numbers (that many times the identity), matrices, or operators with `A(x)` and an adjoint
        `A.T(u)`.   c: a number, or an array (or pytree) like Ax.
    By default x = z.
    """

    f: Any
    g: Any
    A: Any = 1.0
    B: Any = -1.0
    c: Any = 0.0

    def __post_init__(self) -> None:
        for name, function in {"f": self.f, "g": self.g}.items():
            if isinstance(function, type) or not callable(function):
                raise TypeError(
                    f"{name} must be a function such as those in jaxns.functions, got {function!r}"
                )
        for name in ("A", "B"):
            value = getattr(self, name)
            if callable(value):
                continue
            number = jnp.ndim(value) == 0
            value = validate.scalar(name, value) if number else validate.matrix(name, value)
            settle(self, name, value)
        if isinstance(self.c, (int, float, list)):
            c = validate.array("c", self.c) if isinstance(self.c, list) else float(self.c)
            settle(self, "c", c)

    def __call__(self, x: Tree, z: Tree) -> jax.Array:
        return self.f(x) + self.g(z)

    def gap(self, Ax: Tree, Bz: Tree) -> Tree:
        """Ax + Bz − c."""
        return tree.sub(tree.add(Ax, Bz), tree.spread(self.c, Ax))

    def start(self) -> Tree | None:
        """x = 0, in its shape and type; None where neither f nor A knows them."""
        if hasattr(self.f, "start"):
            return self.f.start()
        if hasattr(self.A, "shape") and jnp.ndim(self.A) == 2:
            return jnp.zeros(self.A.shape[1:], self.A.dtype)
        return None

    def start_z(self, x: Tree) -> Tree:
        """z to start from beside x: what Ax + Bz = c says if B is a number, and 0 otherwise."""
        Ax = operators.apply(self.A, x)
        rest = tree.sub(tree.spread(self.c, Ax), Ax)
        if operators.is_multiple(self.B):
            return tree.scale(1 / self.B, rest)
        return tree.zeros_like(operators.adjoint(self.B, rest))

    def hoist(self, x: Tree) -> "SplitForm":
        """With the arrays that its functions close over made visible."""
        points = {"f": x, "g": self.start_z(x)}
        hoistable = {
            name: getattr(self, name).hoist(point)
            for name, point in points.items()
            if hasattr(getattr(self, name), "hoist")
        }
        return replace(self, **hoistable) if hoistable else self

    def split_form(self) -> "SplitForm":
        return self

    def read(self, x: Tree, z: Tree, y: Tree) -> SplitSolution:
        return SplitSolution(x, z, y)

    def default_solver(self) -> Any:
        from jaxns.solvers import ADMM

        return ADMM()
