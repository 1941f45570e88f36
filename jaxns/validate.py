"""Checks of what a person passes in: each raises with the argument's name and what was expected.

Values that are not known yet (tracers) pass: only what can be seen is checked.
"""

import difflib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_known(value: Any) -> bool:
    """Whether the number itself can be looked at now, that is, outside any transformation."""
    return not isinstance(value, Tracer)


def array(name: str, value: Any, ndim: int | tuple[int, ...] | None = None) -> Any:
    """A floating-point array (or sparse matrix) with the stated number of dimensions."""
    if isinstance(value, (bool, int, float, np.ndarray, np.generic, list, tuple)):
        value = np.asarray(value)
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(f"{name} must be an array, got {type(value).__name__}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {value.dtype}; "
            f"convert it first, for example with {name}.astype(float)"
        )
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if allowed is not None and value.ndim not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise ValueError(f"{name} must have {wanted} dimension(s), got shape {value.shape}")
    if isinstance(value, np.ndarray):
        with jax.ensure_compile_time_eval():  # an array and not a tracer, inside jit too
            return jnp.asarray(value)
    return value


def matrix(name: str, value: Any) -> Any:
    """A floating-point matrix, dense or of `jax.experimental.sparse`."""
    if hasattr(value, "tocsr"):
        raise TypeError(
            f"{name} must be an array or a matrix of jax.experimental.sparse, got "
            f"{type(value).__name__}; convert it with BCOO.from_scipy_sparse({name})"
        )
    if hasattr(value, "to_bcoo"):
        value = value.to_bcoo()  # compressed rows multiply from the left only
    return array(name, value, 2)


def scalar(name: str, value: Any) -> Any:
    """A real number: Python numbers stay Python floats (a leaf that adapts to any dtype)."""
    if isinstance(value, bool) or not (
        isinstance(value, (int, float, np.number)) or hasattr(value, "dtype")
    ):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if isinstance(value, (int, float, np.number)):
        return float(value)
    value = array(name, value)
    if value.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {value.shape}")
    return value


def coefficients(name: str, value: Any) -> Any:
    """A nonnegative scalar, array, or pytree of them (one number, or one per coordinate)."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return nonnegative(name, float(value))
    if _is_numbers(value) or hasattr(value, "dtype"):
        return nonnegative(name, array(name, value))
    leaves, structure = jax.tree.flatten(value)
    if not leaves or structure == jax.tree.structure(0):
        raise TypeError(f"{name} must be a number, an array or a pytree of them, got {value!r}")
    return jax.tree.unflatten(structure, [coefficients(name, leaf) for leaf in leaves])


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, (int, float, list)) for v in value)


def integer(name: str, value: Any) -> Any:
    """A whole number, or an integer array that is a scalar."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    dtype = getattr(value, "dtype", None)
    if not whole and not (dtype is not None and jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if jnp.ndim(value):
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
    return int(value) if whole else value


def key(name: str, value: Any) -> Any:
    """A seed or a key of `jax.random`, as unsigned integers: a leaf for every transformation."""
    dtype = jax.random.key(0).dtype if isinstance(value, int) else getattr(value, "dtype", None)
    if dtype == jax.random.key(0).dtype:
        return jax.random.key_data(jax.random.key(value) if isinstance(value, int) else value)
    if dtype is not None and jnp.issubdtype(dtype, jnp.integer):
        if not jnp.ndim(value):
            return jax.random.key_data(jax.random.key(value))
        if dtype == jnp.uint32 and jnp.shape(value) == (2,):
            return value
    raise TypeError(f"{name} must be a whole number or a key of jax.random, got {value!r}")


def axis(name: str, value: Any) -> int | None:
    """An axis of an array, or None for all of it."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be an integer or None, got {value!r}")
    return value


def nonnegative(name: str, value: Any) -> Any:
    if is_known(value) and bool(np.any(np.asarray(value) < 0)):
        raise ValueError(f"{name} must be nonnegative, got {_brief(value)}")
    return value


def positive(name: str, value: Any) -> Any:
    if is_known(value) and not bool(np.all(np.asarray(value) > 0)):
        raise ValueError(f"{name} must be positive, got {_brief(value)}")
    return value


def between(name: str, value: Any, low: float, high: float) -> Any:
    if is_known(value) and not low <= float(value) < high:
        raise ValueError(f"{name} must lie in [{low}, {high}), got {value}")
    return value


def within(name: str, value: Any, low: float, high: float) -> Any:
    """Numbers in the closed interval."""
    if is_known(value) and not np.all((low <= np.asarray(value)) & (np.asarray(value) <= high)):
        raise ValueError(f"{name} must lie in [{low}, {high}], got {_brief(value)}")
    return value


def same_length(name: str, value: Any, other: str, length: int) -> None:
    if value.shape[0] != length:
        raise ValueError(
            f"{name} must have one entry per row of {other}: expected {length}, "
            f"got shape {value.shape}"
        )


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    options = tuple(options)
    if value not in options:
        raise ValueError(f"{name} must be one of {options}, got {value!r}{nearest(value, options)}")
    return value


def nearest(value: Any, options: Iterable[str]) -> str:
    """ "; did you mean …?", or nothing when no option is close."""
    close = difflib.get_close_matches(str(value), list(options), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _brief(value: Any) -> str:
    value = np.asarray(value)
    return str(value) if value.size == 1 else f"an array with minimum {value.min()}"
