"""Denoising: signals and images that are close to data, and whose differences are few."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns.functions import L1, L2, Differences, ImageGradient, SquaredDistance
from jaxns.problems.composite import Composite
from jaxns.problems.max_penalty import smallest
from jaxns.struct import struct
from jaxns.validate import array


@struct
class TrendFiltering(Composite):
    """See `trend_filtering`."""

    def max_penalty(self) -> Array:
        """The smallest penalty whose solution has Dx = 0 (is a polynomial of degree order − 1).

        The largest of the multipliers u of Dx = 0, for which Dᵀu = y − x.
        """
        y = self.f.b
        D = jax.vmap(self.K, out_axes=1)(jnp.eye(y.shape[0], dtype=y.dtype))
        return smallest(self.g, jnp.linalg.lstsq(D.T, y)[0])


def trend_filtering(y: Any, penalty: Any, order: int = 1) -> TrendFiltering:
    """½ ‖x − y‖² + penalty ‖Dx‖₁ with D the differences of the given order (Kim et al. 2009).

    order 1: x is piecewise constant (total variation);   order 2: piecewise linear;   and so on.

    y: (n,).   penalty: a number, or one for each of the n − order differences.
    """
    y = array("y", y, 1)
    D = Differences(order)
    if y.shape[0] <= order:
        raise ValueError(f"y must have more than order = {order} entries, got shape {y.shape}")
    return TrendFiltering(SquaredDistance(y), L1(penalty), D)


def total_variation(image: Any, penalty: Any, isotropic: bool = True) -> Composite:
    """½ ‖x − image‖² + penalty · the total variation of x (Rudin, Osher and Fatemi 1992).

    Of the differences (down, right) at each pixel, 0 beyond the border, the total variation sums
    the Euclidean lengths if `isotropic`, else the absolute values.

    image: (m, n).   penalty: a number.
    """
    image = array("image", image, 2)
    g = L2(penalty, axis=0) if isotropic else L1(penalty)
    return Composite(SquaredDistance(image), g, ImageGradient())
