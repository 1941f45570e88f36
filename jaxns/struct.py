"""Carriers: frozen dataclasses that are pytrees.

Everything numeric in a problem, a solver, a stop or a mode is a leaf, so that it can be traced,
batched and differentiated; everything structural is static, and the class says which is which,
once, with `static()`. Nothing is inherited and no metaclass is involved.
"""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

T = TypeVar("T")


def static(default: Any = dataclasses.MISSING, **options: Any) -> Any:
    """A structural field: part of the type seen by `jax.jit`, compared by `==`, never a leaf."""
    return dataclasses.field(default=default, metadata={"static": True}, **options)


def is_static(field: dataclasses.Field) -> bool:
    return field.metadata.get("static", False)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def struct(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass registered as a pytree.

    Rebuilding a pytree bypasses `__init__`, so that `__post_init__` may validate what a person
    wrote without meeting the placeholders that transformations put into leaves.
    Two instances are equal when their structures are, and their leaves hold the same numbers.

    >>> @struct
    ... class Ball:
    ...     radius: float
    ...     axis: int = static(default=0)
    >>> jax.tree.map(lambda r: 2 * r, Ball(3.0))
    Ball(radius=6.0, axis=0)
    """
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    leaves = tuple(f.name for f in fields if not is_static(f))
    statics = tuple(f.name for f in fields if is_static(f))

    def flatten_with_keys(obj):
        children = tuple((jax.tree_util.GetAttrKey(name), getattr(obj, name)) for name in leaves)
        return children, tuple(getattr(obj, name) for name in statics)

    def flatten(obj):
        return tuple(getattr(obj, name) for name in leaves), tuple(
            getattr(obj, name) for name in statics
        )

    def unflatten(aux, children):
        obj = object.__new__(cls)
        for name, value in zip(leaves + statics, tuple(children) + aux, strict=True):
            object.__setattr__(obj, name, value)
        return obj

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    if "__eq__" not in vars(cls):
        cls.__eq__ = _equal
        cls.__hash__ = lambda self: hash(jax.tree.structure(self))
    return cls


def replace(obj: T, **changes: Any) -> T:
    """A copy of a carrier with some fields changed, without running its validation again."""
    new = object.__new__(type(obj))
    values = {f.name: getattr(obj, f.name) for f in dataclasses.fields(obj)}  # pyright: ignore[reportArgumentType]
    if unknown := changes.keys() - values.keys():
        raise TypeError(f"{type(obj).__name__} has no field {sorted(unknown)}; it has {[*values]}")
    for name, value in {**values, **changes}.items():
        object.__setattr__(new, name, value)
    return new


def settle(obj: Any, name: str, value: Any) -> None:
    """Set a field of a carrier under construction (for `__post_init__`)."""
    object.__setattr__(obj, name, value)


def _equal(self: Any, other: Any) -> bool:
    if type(self) is not type(other):
        return NotImplemented
    mine, structure = jax.tree.flatten(self)
    theirs, other_structure = jax.tree.flatten(other)
    return structure == other_structure and all(
        a is b or np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(mine, theirs, strict=True)
    )


@struct
class Stateless:
    """A Python object without state, carried as part of the structure; used like the object."""

    wrapped: Any = static()

    def __getattr__(self, name: str) -> Any:
        if name == "wrapped":  # asked for before it is set, as when copying
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.wrapped(*args, **options)


def seal(tree: Any) -> Any:
    """`tree` with numbers only for leaves.

    Objects that are no pytrees become structure if they hold nothing; if they do hold something it
    could neither be differentiated nor seen to change, so they are refused.
    """

    def seal_leaf(leaf: Any) -> Any:
        if isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
            return leaf
        name = type(leaf).__name__
        if getattr(leaf, "__dict__", None) == {} and not hasattr(leaf, "__slots__"):
            return Stateless(leaf)
        raise TypeError(
            f"{name} must be a pytree, so that what it holds can be traced and differentiated: "
            f"decorate the class with jaxns.struct (got {leaf!r})"
        )

    return jax.tree.map(seal_leaf, tree)
