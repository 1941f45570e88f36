"""Elementary functions with a kink, whose derivative there is an argument.

That argument is an element of an interval, the Clarke derivative; one element serves all variables
of a function together, so that what results is a selection of its Clarke Jacobian, and programs
made of these functions compute conservative Jacobians (Bolte and Pauwels 2021; arXiv 2206.00457).
Away from kinks, derivatives of all orders are those of the function; at a kink, of the affine
function with the chosen slope. The element is a constant of the program: it has no derivative.

Each takes arrays that broadcast, and elements that broadcast against them. NaN stays NaN.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import validate
from jaxns.functions import norms


def relu(x: Any, at_zero: Any = 0.0) -> Array:
    """max(x, 0).   at_zero: its derivative at 0, in [0, 1]."""
    x, s = _prepare("at_zero", at_zero, 0, x)
    return _larger(x, jnp.zeros_like(x), s)


def absolute(x: Any, at_zero: Any = 0.0) -> Array:
    """|x|.   at_zero: its derivative at 0, in [−1, 1]."""
    x, s = _prepare("at_zero", at_zero, -1, x)
    return jnp.where(x == 0, s * x, jnp.abs(x))


def maximum(a: Any, b: Any, at_tie: Any = 0.5) -> Array:
    """max(a, b).   at_tie: ∂/∂a where a = b, in [0, 1]; ∂/∂b is 1 − at_tie."""
    a, b, s = _prepare("at_tie", at_tie, 0, a, b)
    return _larger(a, b, s)


def minimum(a: Any, b: Any, at_tie: Any = 0.5) -> Array:
    """min(a, b).   at_tie: ∂/∂a where a = b, in [0, 1]; ∂/∂b is 1 − at_tie."""
    a, b, s = _prepare("at_tie", at_tie, 0, a, b)
    return -_larger(-a, -b, s)


def clip(x: Any, lower: Any, upper: Any, at_bounds: Any = 0.0) -> Array:
    """max(min(x, upper), lower).

    at_bounds: ∂/∂x where x = lower or x = upper, in [0, 1]; that in the bound is 1 − at_bounds.
    """
    x, lower, upper, s = _prepare("at_bounds", at_bounds, 0, x, lower, upper)
    return _larger(-_larger(-x, -upper, s), lower, s)


def soft_threshold(x: Any, threshold: Any, at_kink: Any = 0.0) -> Array:
    """sign(x) max(|x| − threshold, 0), for threshold ≥ 0.

    at_kink: s = ∂/∂x where |x| = threshold > 0, in [0, 1]; ∂/∂threshold is −sign(x) s. A threshold
        of 0 has no kink in x: it is the identity.
    """
    x, threshold, s = _prepare("at_kink", at_kink, 0, x, threshold)
    return norms.soft_threshold(x, threshold, s)


def _larger(a: Array, b: Array, s: Array) -> Array:
    """max(a, b), with derivative (s, 1 − s) where a = b."""
    tie = (a == b) & jnp.isfinite(a)
    return jnp.where(tie, b + s * (a - b), jnp.maximum(a, b))


def _prepare(name: str, element: Any, least: float, *arguments: Any) -> list[Array]:
    """The arguments and the element, in one floating-point type."""
    dtype = jnp.result_type(*arguments, float)
    validate.within(name, element, least, 1)
    arrays = [jnp.asarray(argument, dtype) for argument in arguments]
    return [*arrays, lax.stop_gradient(jnp.asarray(element, dtype))]
