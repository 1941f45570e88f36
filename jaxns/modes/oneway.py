"""Identities that can be differentiated in one direction, and say what to do about the other.

A `custom_vjp` has no forward derivative and a loop of unknown length no reverse one; what JAX says
then, often far from here, names neither the mode nor the remedy. These are met first.
"""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxns.tree import Tree


def reverse_only(tree: Tree, remedy: str) -> Tree:
    """`tree`; its derivative can be transposed and not pushed forward: a TypeError with `remedy`.

    Applied to what enters a `custom_vjp`.
    """
    return _apply(_reverse_only, tree, remedy)


def forward_only(tree: Tree, remedy: str) -> Tree:
    """`tree`; its derivative can be pushed forward and not transposed: a TypeError with `remedy`.

    Applied to what leaves a loop.
    """
    return _apply(_forward_only, tree, remedy)


def _apply(primitive: Primitive, tree: Tree, remedy: str) -> Tree:
    def mark(leaf: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return primitive.bind(leaf, remedy=remedy) if floating else leaf

    return jax.tree.map(mark, tree)


def _keep(x: Any, *, remedy: str) -> Any:
    return x


def _refuse(*_: Any, remedy: str) -> NoReturn:
    raise TypeError(remedy)


def _primitive(name: str) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(_keep)
    primitive.def_abstract_eval(_keep)
    batching.defvectorized(primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(_keep, multiple_results=False))
    return primitive


def _reverse_only_jvp(primals: tuple, tangents: tuple, *, remedy: str) -> tuple[Any, Any]:
    """The value passes unmarked: a derivative of the reverse pass may be a forward one."""
    (x,), (t,) = primals, tangents
    return x, t if isinstance(t, ad.Zero) else _transposable.bind(t, remedy=remedy)


def _forward_only_jvp(primals: tuple, tangents: tuple, *, remedy: str) -> tuple[Any, Any]:
    (x,), (t,) = primals, tangents
    tangent = t if isinstance(t, ad.Zero) else _evaluable.bind(t, remedy=remedy)
    return _forward_only.bind(x, remedy=remedy), tangent


_reverse_only, _forward_only = _primitive("reverse_only"), _primitive("forward_only")
ad.primitive_jvps[_reverse_only] = _reverse_only_jvp
ad.primitive_jvps[_forward_only] = _forward_only_jvp

# What they do to tangents: linear maps, of which one can only be transposed, one only evaluated.
_transposable, _evaluable = _primitive("transposable"), _primitive("evaluable")
ad.deflinear2(_transposable, lambda bar, _, remedy: [bar])
ad.deflinear2(_evaluable, _refuse)
_transposable.def_impl(_refuse)
batching.primitive_batchers[_transposable] = _refuse
mlir.register_lowering(_transposable, mlir.lower_fun(_refuse, multiple_results=False))
