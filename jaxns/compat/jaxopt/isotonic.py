"""`jaxopt.isotonic`: `jaxns.functions.isotonic.isotonic_regression`, clipped."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns.compat.jaxopt.prox import floats
from jaxns.functions import Box
from jaxns.functions.isotonic import isotonic_regression


def isotonic_l2_pav(
    y: Array, y_min: Any = -jnp.inf, y_max: Any = jnp.inf, increasing: bool = True
) -> Array:
    """argmin ‖v − y‖₂ over y_min ≤ v₁ ≤ v₂ ≤ … ≤ y_max, or the reverse order.

    Along the last axis, on the device: nothing calls back to the host.
    """
    return Box(y_min, y_max).prox(isotonic_regression(floats(y), increasing=increasing), 1.0)
