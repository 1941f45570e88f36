"""Elementary functions with a kink, whose derivative there is an argument.

That argument is an element of an interval, the Clarke derivative; one element serves all variables
of a function together, so that what results is a selection of its Clarke Jacobian, and programs
made of these functions compute conservative Jacobians (Bolte and Pauwels 2021; arXiv 2206.00457).
Away from kinks, derivatives of all orders are those of the function; at a kink, of the affine
function with the chosen slope. The element is a constant of the program: it has no derivative.

Each takes arrays that broadcast, and elements that broadcast against them: one for all entries, or
one for each, also at random, `relu(x, jax.random.uniform(key, x.shape))`. An element may be traced;
then it is not checked. NaN stays NaN.

A kink is where the argument, as it is stored, is one: the sign is tested after rounding. Elsewhere
the derivative does not depend on the element, not in one bit (arXiv 2106.12915).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxns import validate
from jaxns.functions import norms

REALS = (-np.inf, np.inf)


def relu(x: Any, at_zero: Any = 0.0, conservative: bool = True) -> Array:
    """max(x, 0).   at_zero: its derivative at 0, in [0, 1].

    conservative: with False, at_zero may be any real number, as arXiv 2106.12915 tries (2, 50):
        what results is then no conservative Jacobian, and no theorem on those holds for it.
    """
    x, s = prepare("at_zero", at_zero, (0, 1) if conservative else REALS, x)
    return _larger(x, jnp.zeros_like(x), s)


def relu6(x: Any, at_zero: Any = 0.0, at_six: Any = 0.0, conservative: bool = True) -> Array:
    """min(max(x, 0), 6).   at_zero, at_six: its derivatives at 0 and at 6, as for `relu`."""
    interval = (0, 1) if conservative else REALS
    x, s = prepare("at_zero", at_zero, interval, x)
    x, t = prepare("at_six", at_six, interval, x)
    return -_larger(-_larger(x, jnp.zeros_like(x), s), jnp.full_like(x, -6), t)


def leaky_relu(x: Any, slope: Any = 0.01, at_zero: Any = 1.0, conservative: bool = True) -> Array:
    """x for x > 0 and slope · x for x < 0; also a function of the slope.

    at_zero: its derivative at 0, between the slope and 1; as for `relu`.
    """
    known = conservative and validate.is_known(slope)
    interval = (np.minimum(slope, 1), np.maximum(slope, 1)) if known else REALS
    x, slope, s = prepare("at_zero", at_zero, interval, x, slope)
    return jnp.where(x == 0, s * x, jnp.where(x < 0, slope * x, x))


def absolute(x: Any, at_zero: Any = 0.0) -> Array:
    """|x|.   at_zero: its derivative at 0, in [−1, 1]."""
    x, s = prepare("at_zero", at_zero, (-1, 1), x)
    return jnp.where(x == 0, s * x, jnp.abs(x))


def maximum(a: Any, b: Any, at_tie: Any = 0.5) -> Array:
    """max(a, b).   at_tie: ∂/∂a where a = b, in [0, 1]; ∂/∂b is 1 − at_tie."""
    a, b, s = prepare("at_tie", at_tie, (0, 1), a, b)
    return _larger(a, b, s)


def minimum(a: Any, b: Any, at_tie: Any = 0.5) -> Array:
    """min(a, b).   at_tie: ∂/∂a where a = b, in [0, 1]; ∂/∂b is 1 − at_tie."""
    a, b, s = prepare("at_tie", at_tie, (0, 1), a, b)
    return -_larger(-a, -b, s)


def clip(x: Any, lower: Any, upper: Any, at_bounds: Any = 0.0) -> Array:
    """max(min(x, upper), lower).

    at_bounds: ∂/∂x where x = lower or x = upper, in [0, 1]; that in the bound is 1 − at_bounds.
    """
    x, lower, upper, s = prepare("at_bounds", at_bounds, (0, 1), x, lower, upper)
    return _larger(-_larger(-x, -upper, s), lower, s)


def soft_threshold(x: Any, threshold: Any, at_kink: Any = 0.0) -> Array:
    """sign(x) max(|x| − threshold, 0), for threshold ≥ 0.

    at_kink: s = ∂/∂x where |x| = threshold > 0, in [0, 1]; ∂/∂threshold is −sign(x) s. A threshold
        of 0 has no kink in x: it is the identity.
    """
    x, threshold, s = prepare("at_kink", at_kink, (0, 1), x, threshold)
    return norms.soft_threshold(x, threshold, s)


def norm(x: Any, axis: int | tuple[int, ...] | None = None, at_zero: Any = 0.0) -> Array:
    """‖x‖₂ along one axis, several, or all: x/‖x‖ is its derivative, and at 0 that is not NaN.

    at_zero: its derivative where x = 0, of norm at most 1, an array that broadcasts to x.
    The squares neither overflow nor vanish.
    """
    x, s = prepare("at_zero", at_zero, (-1, 1), x)
    if validate.is_known(at_zero):
        squares = np.sum(np.broadcast_to(np.square(at_zero), x.shape), axis)
        validate.within("the squared norm of at_zero", squares, 0, 1 + 1e-6)
    size = lax.stop_gradient(jnp.max(jnp.abs(x), axis, keepdims=True, initial=0))
    size = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    zero = jnp.all(x == 0, axis, keepdims=True)
    squares = jnp.sum((jnp.where(zero, 1, x) / size) ** 2, axis, keepdims=True)
    length = jnp.where(zero, jnp.sum(s * x, axis, keepdims=True), size * jnp.sqrt(squares))
    return jnp.squeeze(length, axis)


def prepare(name: str, element: Any, interval: tuple[Any, Any], *arguments: Any) -> list[Array]:
    """The arguments and the element, in one floating-point type."""
    dtype = jnp.result_type(*arguments, float)
    validate.within(name, element, *interval)
    arrays = [jnp.asarray(argument, dtype) for argument in arguments]
    return [*arrays, lax.stop_gradient(jnp.asarray(element, dtype))]


@jax.custom_jvp
def _larger_of(a: Array, b: Array, s: Array) -> Array:
    return jnp.maximum(a, b)


@_larger_of.defjvp
def _larger_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """One factor and one selection, so that nothing depends on s unless a = b."""
    a, b, s = primals
    da, db, _ = tangents
    tie = a == b
    da = jnp.where(a < b, 0, jnp.where(tie, s, 1) * da)
    db = jnp.where(a > b, 0, jnp.where(tie, 1 - s, 1) * db)
    return _larger_of(a, b, s), da + db


def _larger(a: Array, b: Array, s: Array) -> Array:
    """max(a, b), with derivative (s, 1 − s) where a = b."""
    return _larger_of(*jnp.broadcast_arrays(a, b, s))
