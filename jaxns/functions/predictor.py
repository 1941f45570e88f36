"""Losses with a kink, as functions of the predictor t = Ax: the g of g(Kx) with K = A."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns import validate
from jaxns.functions.losses import signs
from jaxns.functions.margins import nearest
from jaxns.struct import settle, struct


@struct
class Pinball:
    r"""Σᵢ wᵢ max(level (bᵢ − tᵢ), (level − 1) (bᵢ − tᵢ)): quantiles; half the ℓ₁ norm at level ½.

    b: the targets, an array.   level: in (0, 1).   weights: ≥ 0, of the shape of b, or None.
    """

    b: Array
    level: float | Array = 0.5
    weights: Array | None = None

    def __post_init__(self) -> None:
        settle(self, "b", validate.array("b", self.b))
        level = validate.positive("level", validate.scalar("level", self.level))
        settle(self, "level", validate.between("level", level, 0, 1))
        settle(self, "weights", _weights(self.weights, "b", self.b))

    def __call__(self, t: Array) -> Array:
        r = self.b - t
        return jnp.sum(_weighted(self.weights, jnp.where(r > 0, self.level, self.level - 1) * r))

    def prox(self, t: Array, step: Any) -> Array:
        """Move towards b by step·level from below, by step·(1 − level) from above, or onto it."""
        step = step if self.weights is None else step * self.weights
        below, above = step * self.level, step * (1 - self.level)
        r = t - self.b
        onto = (-below <= r) & (r <= above) & (jnp.asarray(step) > 0)
        moved = jnp.where(r < 0, r + below, r - above)
        return (self.b + jnp.where(onto, 0, moved)).astype(t.dtype)

    def prox_margin(self, t: Array, step: Any) -> Array:
        """To the ends of the interval that is moved onto b."""
        step = step if self.weights is None else step * self.weights
        below, above = step * self.level, step * (1 - self.level)
        return _from_ends(t - self.b, -below, above)


@struct
class Hinge:
    r"""Σᵢ wᵢ max(0, 1 − yᵢ tᵢ).

    y: the labels −1 and 1.   weights: ≥ 0, of the shape of y, or None.
    """

    y: Array
    weights: Array | None = None

    def __post_init__(self) -> None:
        settle(self, "y", signs("y", validate.array("y", self.y)))
        settle(self, "weights", _weights(self.weights, "y", self.y))

    def __call__(self, t: Array) -> Array:
        short = 1 - self.y * t
        return jnp.sum(_weighted(self.weights, jnp.where(short <= 0, 0, short)))

    def prox(self, t: Array, step: Any) -> Array:
        """Move by step towards the margin y, or onto it; what is beyond it stays."""
        step = step if self.weights is None else step * self.weights
        short = 1 - self.y * t
        onto = (short >= 0) & (short <= step * self.y**2) & (jnp.asarray(step) > 0)
        moved = jnp.where(short < 0, t, t + step * self.y)
        return jnp.where(onto, 1 / self.y, moved).astype(t.dtype)

    def prox_margin(self, t: Array, step: Any) -> Array:
        """To the ends of the interval that is moved onto the margin."""
        step = step if self.weights is None else step * self.weights
        return _from_ends(1 - self.y * t, 0, step)


def _from_ends(r: Array, low: Any, high: Any) -> Array:
    """To the nearest end of an interval; one without interior has none."""
    gaps = jnp.minimum(jnp.abs(r - low), jnp.abs(r - high))
    return nearest(jnp.where(low < high, gaps, jnp.inf).astype(r.dtype))


def _weights(weights: Any, name: str, target: Array) -> Any:
    if weights is None:
        return None
    weights = validate.nonnegative("weights", validate.array("weights", weights))
    if weights.shape != target.shape:
        raise ValueError(
            f"weights must have the shape of {name}, {target.shape}, got {weights.shape}"
        )
    return weights


def _weighted(weights: Array | None, r: Array) -> Array:
    return r if weights is None else weights * r
