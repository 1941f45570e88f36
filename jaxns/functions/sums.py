"""Sums: over branches of a pytree, and of two functions of one unknown."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.functions.affine import Linear
from jaxns.functions.balls import L1Ball, L2Ball, LinfBall
from jaxns.functions.calculus import Scale, Translate
from jaxns.functions.cones import SecondOrderCone
from jaxns.functions.conjugates import conjugate
from jaxns.functions.inherited import MissingError, inherited, need_function
from jaxns.functions.isotonic import Isotonic
from jaxns.functions.margins import nearest
from jaxns.functions.norms import L1, ElasticNet, SquaredL2, Zero
from jaxns.functions.sequences import TotalVariation1D
from jaxns.functions.sets import Box, NonNegative
from jaxns.struct import replace, struct
from jaxns.tree import Tree


@struct
class Separable:
    """Σ fₖ(xₖ) over the branches of x.

    functions: a dict, list or tuple (or nested ones) of functions, one for each branch of x, which
        has the same keys or length: `Separable({"weights": L1(0.1), "bias": Zero()})`.
    """

    functions: Any

    def __post_init__(self) -> None:
        for f in self.parts():
            need_function("functions", f)

    def parts(self) -> list:
        return jax.tree.leaves(self.functions, is_leaf=callable)

    def __call__(self, x: Tree) -> Array:
        values = jax.tree.leaves(self._map(lambda f, xk: f(xk), x))
        return sum(values, start=jnp.zeros((), tree.dtype(x)))

    @inherited
    def gradient(self, x: Tree) -> Tree:
        return self._map(lambda f, xk: f.gradient(xk), x)

    @inherited
    def prox(self, x: Tree, step: Any) -> Tree:
        return self._map(lambda f, xk: f.prox(xk, step), x)

    @inherited
    def prox_margin(self, x: Tree, step: Any) -> Array:
        return nearest(self._map(lambda f, xk: f.prox_margin(xk, step), x))

    @inherited
    def gradient_margin(self, x: Tree) -> Array:
        return nearest(self._map(lambda f, xk: f.gradient_margin(xk), x))

    @inherited
    def lipschitz(self) -> Any:
        constants = [f.lipschitz() for f in self.parts()]
        return None if any(c is None for c in constants) else reduce(jnp.maximum, constants)

    @inherited
    def support(self, x: Tree) -> Tree:
        return self._map(lambda f, xk: f.support(xk), x)

    @inherited
    def curvature(self, x: Tree, v: Tree) -> Tree:
        return self._map(lambda f, xk, vk: f.curvature(xk, vk), x, v)

    @inherited
    def start(self) -> Tree:
        return self._map(lambda f: f.start())

    def hoist(self, x: Tree) -> "Separable":
        return replace(self, functions=self._map(_hoisted, x))

    def _map(self, method: Callable, *trees: Tree) -> Tree:
        return jax.tree.map(method, self.functions, *trees, is_leaf=callable)


@conjugate.register
def _(f: Separable, y: Tree) -> Array:
    return sum(jax.tree.leaves(f._map(conjugate, y)), start=jnp.zeros((), tree.dtype(y)))


@struct
class Sum:
    """f(x) + g(x), with a prox where one is known for the two, in either order:

    - any f with `Zero`, `Linear` or `SquaredL2` (of one penalty);
    - a function of each coordinate (`L1`, `ElasticNet`, …) with `Box`, `NonNegative` or `LinfBall`:
      its prox, then the projection;
    - `TotalVariation1D` with `L1` of one penalty, `Isotonic` with a `Box` of two numbers: the
      sequence first;
    - `NonNegative` with `L1Ball` or `L2Ball`, `SecondOrderCone` with `L2Ball`: the cone first.

    Elsewhere it has none: `hasattr(…, "prox")` is False.
    """

    f: Any
    g: Any

    def __post_init__(self) -> None:
        need_function("f", self.f)
        need_function("g", self.g)

    def parts(self) -> tuple:
        return self.f, self.g

    def __call__(self, x: Tree) -> Array:
        return self.f(x) + self.g(x)

    @property
    def prox(self) -> Callable[[Tree, Any], Tree]:
        rule = known_prox(self.f, self.g) or known_prox(self.g, self.f)
        if rule is None:
            f, g = (type(part).__name__ for part in self.parts())
            raise MissingError(
                f"no prox is known for the sum of {f} and {g}; give them to a solver apart, as "
                "Composite(f, g) to DouglasRachford, or Composite(f, g, h=h) to DavisYin"
            )
        return rule

    @property
    def prox_margin(self) -> Callable[[Tree, Any], Array]:
        rule = known_margin(self.f, self.g) or known_margin(self.g, self.f)
        if rule is None:
            raise MissingError("no margin is known for the prox of this sum")
        return rule

    @inherited
    def gradient_margin(self, x: Tree) -> Array:
        return jnp.minimum(self.f.gradient_margin(x), self.g.gradient_margin(x))

    @inherited
    def gradient(self, x: Tree) -> Tree:
        return tree.add(self.f.gradient(x), self.g.gradient(x))

    @inherited
    def lipschitz(self) -> Any:
        f, g = self.f.lipschitz(), self.g.lipschitz()
        return None if f is None or g is None else f + g

    @inherited
    def hessian(self, x: Tree, index: Array | None = None) -> Array:
        return self.f.hessian(x, index) + self.g.hessian(x, index)

    @inherited
    def support(self, x: Tree) -> Tree:
        return jax.tree.map(jnp.logical_and, self.f.support(x), self.g.support(x))

    @inherited
    def curvature(self, x: Tree, v: Tree) -> Tree:
        return tree.add(self.f.curvature(x, v), self.g.curvature(x, v))

    @property
    def start(self) -> Callable[[], Tree]:
        for part in self.parts():
            if hasattr(part, "start"):
                return part.start
        raise MissingError("neither part of the sum knows the shape of the unknown")

    def hoist(self, x: Tree) -> "Sum":
        return replace(self, f=_hoisted(self.f, x), g=_hoisted(self.g, x))


def known_prox(f: Any, g: Any) -> Callable[[Tree, Any], Tree] | None:
    """The prox of f + g, in this order, if it follows from theirs."""
    if not hasattr(f, "prox"):
        return None
    if isinstance(g, Zero):
        return f.prox
    if isinstance(g, Linear):
        return lambda x, step: f.prox(g.prox(x, step), step)  # at x − step c
    if isinstance(g, SquaredL2) and _is_number(g.penalty):
        return partial(_shrunk, f, g)
    if _then(f, g):
        return lambda x, step: g.prox(f.prox(x, step), step)
    return None


def known_margin(f: Any, g: Any) -> Callable[[Tree, Any], Array] | None:
    """A lower bound of the prox_margin of f + g, where `known_prox` knows the prox in this order.

    The prox of f, which comes first, brings no two points further apart.
    """
    if not hasattr(f, "prox_margin") or not hasattr(g, "prox_margin"):
        return None
    if isinstance(g, Zero):
        return f.prox_margin
    if isinstance(g, Linear):
        return lambda x, step: f.prox_margin(g.prox(x, step), step)
    if isinstance(g, SquaredL2) and _is_number(g.penalty):
        return partial(_shrunk_margin, f, g)
    if _then(f, g):
        return lambda x, step: jnp.minimum(
            f.prox_margin(x, step), g.prox_margin(f.prox(x, step), step)
        )
    return None


def _then(f: Any, g: Any) -> bool:
    """Whether the prox of f + g is that of g after that of f."""
    if isinstance(f, NonNegative):
        return isinstance(g, (L1Ball, L2Ball))
    if isinstance(f, SecondOrderCone):
        return isinstance(g, L2Ball) and g.axis == -1
    if isinstance(f, TotalVariation1D):
        return isinstance(g, L1) and _is_number(g.penalty)
    if isinstance(f, Isotonic):
        return isinstance(g, Box) and _is_number(g.lower) and _is_number(g.upper)
    return _coordinatewise(f) and isinstance(g, (Box, NonNegative, LinfBall))


def _shrunk(f: Any, g: SquaredL2, x: Tree, step: Any) -> Tree:
    """prox of step (f + ½ p‖·‖²): that of t f at x t/step, t = step/(1 + step p)."""
    step, ratio = _shrinkage(g, x, step)
    return f.prox(tree.scale(ratio, x), step * ratio)


def _shrunk_margin(f: Any, g: SquaredL2, x: Tree, step: Any) -> Array:
    step, ratio = _shrinkage(g, x, step)
    return f.prox_margin(tree.scale(ratio, x), step * ratio) / ratio


def _shrinkage(g: SquaredL2, x: Tree, step: Any) -> tuple[Array, Array]:
    """step and 1/(1 + step p)."""
    step = jnp.asarray(step, tree.dtype(x))
    return step, 1 / (1 + step * jnp.asarray(g.penalty, tree.dtype(x)))


def _coordinatewise(f: Any) -> bool:
    """Whether f is a sum of convex functions of one coordinate each."""
    if isinstance(f, (Scale, Translate)):
        return _coordinatewise(f.f)
    if isinstance(f, Sum):
        return _coordinatewise(f.f) and _coordinatewise(f.g)
    return isinstance(f, (Zero, Linear, L1, ElasticNet, SquaredL2))


def _is_number(penalty: Any) -> bool:
    return isinstance(penalty, float) or getattr(penalty, "ndim", None) == 0


def _hoisted(f: Any, x: Tree) -> Any:
    return f.hoist(x) if hasattr(f, "hoist") else f
