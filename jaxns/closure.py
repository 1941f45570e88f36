"""Functions with their closed-over arrays made visible.

JAX's custom rules and the cache of `jax.jit` see the arguments of a function, not what its closure
holds. `hoist` turns `fun` into a function of its arguments *and* of every array it closes over,
tracers included, so that both can be differentiated and batched. (`jax.closure_convert` leaves
concrete arrays and integers behind, and keeps what a closure held when it was first seen.)
"""

import dataclasses
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

_cache: weakref.WeakKeyDictionary[Callable, dict] = weakref.WeakKeyDictionary()


def hoist(fun: Callable, *args: Any) -> tuple[Callable, list[Any]]:
    """`(explicit, arrays)` with `explicit(arrays, *args) == fun(*args)`.

    `explicit` is the same object for the same function and argument types, hence a stable key:
    calling twice with one function traces it once. A function that closes over nothing is only
    wrapped. What may have changed unseen since the last call (a list or an object in the closure,
    a bound method, a callable object) is traced anew; globals are taken to be constant, as by
    `jax.jit`.
    """
    known = _snapshot(fun)
    if known == ():
        return _Plain(fun), []
    leaves, structure = jax.tree.flatten(args)
    key = (structure, tuple(jax.typeof(leaf) for leaf in leaves))
    entries = {} if known is None else _cache.setdefault(fun, {})
    if key in entries and entries[key][0] == known:
        return entries[key][1:]
    # The fresh lambda keeps JAX from finding an earlier trace of the same function.
    jaxpr, out = jax.make_jaxpr(lambda *args: fun(*args), return_shape=True)(*args)
    explicit, arrays = _Explicit(jaxpr, jax.tree.structure(out)), list(jaxpr.consts)
    entries[key] = (known, explicit, arrays)
    return explicit, arrays


def _snapshot(fun: Callable) -> tuple | None:
    """What `fun` closes over, in a form that tells whether it changed; None if that cannot be."""
    if not isinstance(fun, types.FunctionType):
        return None
    cells = [cell.cell_contents for cell in fun.__closure__ or ()]
    values = [_freeze(v) for v in (*cells, *(fun.__defaults__ or ()), fun.__kwdefaults__ or ())]
    return None if _CHANGEABLE in values else tuple(values) if any(v != () for v in values) else ()


class _Same:
    """Equal to another holding the very same immutable object."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # pyright: ignore[reportAssignmentType]


class _Copy:
    """Equal to another whose array had the same contents when it was seen."""

    def __init__(self, value: np.ndarray) -> None:
        self.value = value.copy()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Copy) and np.array_equal(self.value, other.value)

    __hash__ = None  # pyright: ignore[reportAssignmentType]


_CHANGEABLE = object()


def _freeze(value: Any) -> Any:
    if isinstance(value, (jax.Array, types.ModuleType, types.BuiltinFunctionType, type)):
        return _Same(value)
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        return (type(value), value)
    if isinstance(value, np.ndarray):
        return _Copy(value)
    if type(value) is tuple:
        parts = tuple(map(_freeze, value))
        return _CHANGEABLE if _CHANGEABLE in parts else parts
    if dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        return _freeze(tuple(getattr(value, f.name) for f in dataclasses.fields(value)))
    function = getattr(value, "__wrapped__", value)  # what jax.jit and its like were given
    if isinstance(function, types.FunctionType):
        inner = _snapshot(function)
        return _CHANGEABLE if inner is None else (_Same(value), inner)
    return _CHANGEABLE


class _Plain:
    """A function with an empty closure; equal when the function is the same."""

    def __init__(self, fun: Callable) -> None:
        self.fun = fun

    def __call__(self, arrays: list[Any], *args: Any) -> Any:
        return self.fun(*args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Plain) and self.fun is other.fun

    def __hash__(self) -> int:
        return hash(self.fun)


class _Explicit:
    """A traced function whose constants have become its first argument; equal to itself only."""

    def __init__(self, jaxpr: ClosedJaxpr, out_structure: Any) -> None:
        self.jaxpr = jaxpr.jaxpr
        self.out_structure = out_structure

    def __call__(self, arrays: list[Any], *args: Any) -> Any:
        fun = jaxpr_as_fun(ClosedJaxpr(self.jaxpr, arrays))
        return jax.tree.unflatten(self.out_structure, fun(*jax.tree.leaves(args)))


class Reordered:
    """x, arrays, *data -> explicit(arrays, x, *data); equal when `explicit` is."""

    def __init__(self, explicit: Callable) -> None:
        self.explicit = explicit

    def __call__(self, x: Any, arrays: list, *data: Any) -> Any:
        return self.explicit(arrays, x, *data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reordered) and self.explicit == other.explicit

    def __hash__(self) -> int:
        return hash(self.explicit)
