"""Smooth losses of a linear predictor: how one sample is charged (see `design.LinearModel`)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import validate
from jaxns.functions.design import LinearModel
from jaxns.struct import settle, static, struct


@struct
class Huber(LinearModel):
    r"""Σᵢ wᵢ h(aᵢᵀx − bᵢ),  h(r) = ½ r² where |r| ≤ delta, else delta (|r| − ½ delta).

    Divided by n when `scale="mean"`. A, b, scale, weights: as for `LeastSquares`.   delta: > 0.
    """

    A: Array
    b: Array
    delta: float | Array = 1.0
    scale: str = static(default="sum")
    weights: Array | None = None

    def __post_init__(self) -> None:
        delta = validate.positive("delta", validate.scalar("delta", self.delta))
        settle(self, "delta", delta)
        self._check("b", (1, 2))

    @property
    def target(self) -> Array:
        return self.b

    def charge(self, t: Array) -> Array:
        r = t - self.b
        far = self.delta * (jnp.abs(r) - 0.5 * self.delta)
        return jnp.where(jnp.abs(r) < self.delta, 0.5 * r**2, far)

    def slope(self, t: Array) -> Array:
        r = t - self.b
        return jnp.where(jnp.abs(r) < self.delta, r, self.delta * jnp.sign(r))

    def bend(self, t: Array) -> Array:
        return (jnp.abs(t - self.b) < self.delta).astype(t.dtype)

    def gap(self, t: Array) -> Array:
        return jnp.abs(jnp.abs(t - self.b) - self.delta)


@struct
class Poisson(LinearModel):
    r"""Σᵢ wᵢ (exp(aᵢᵀx) − yᵢ aᵢᵀx), divided by n when `scale="mean"`: counts with mean exp(aᵢᵀx).

    Its gradient has no Lipschitz constant: solvers find their stepsize by backtracking.

    A: (n, p).   y: (n,) ≥ 0.   scale, weights: as for `LeastSquares`.
    """

    A: Array
    y: Array
    scale: str = static(default="sum")
    weights: Array | None = None
    steepest = None

    def __post_init__(self) -> None:
        self._check("y")
        validate.nonnegative("y", self.y)

    @property
    def target(self) -> Array:
        return self.y

    def charge(self, t: Array) -> Array:
        return jnp.exp(t) - self.y * t

    def slope(self, t: Array) -> Array:
        return jnp.exp(t) - self.y

    def bend(self, t: Array) -> Array:
        return jnp.exp(t)


@struct
class Logistic(LinearModel):
    r"""Σᵢ wᵢ log(1 + exp(−yᵢ aᵢᵀx)), divided by n when `scale="mean"`.

    A: (n, p).   y: (n,), each −1 or 1.   scale, weights: as for `LeastSquares`.
    """

    A: Array
    y: Array
    scale: str = static(default="sum")
    weights: Array | None = None
    steepest = 0.25

    def __post_init__(self) -> None:
        self._check("y")
        settle(self, "y", signs("y", self.y))

    @property
    def target(self) -> Array:
        return self.y

    def charge(self, t: Array) -> Array:
        return jax.nn.softplus(-self.y * t)

    def slope(self, t: Array) -> Array:
        return -self.y * jax.nn.sigmoid(-self.y * t)

    def bend(self, t: Array) -> Array:
        return jax.nn.sigmoid(t) * jax.nn.sigmoid(-t)


@struct
class SquaredHinge(LinearModel):
    r"""Σᵢ wᵢ max(0, 1 − yᵢ aᵢᵀx)², divided by n when `scale="mean"`.

    A: (n, p).   y: (n,), each −1 or 1.   scale, weights: as for `LeastSquares`.
    """

    A: Array
    y: Array
    scale: str = static(default="sum")
    weights: Array | None = None
    steepest = 2.0

    def __post_init__(self) -> None:
        self._check("y")
        settle(self, "y", signs("y", self.y))

    @property
    def target(self) -> Array:
        return self.y

    def charge(self, t: Array) -> Array:
        return self._shortfall(t) ** 2

    def slope(self, t: Array) -> Array:
        return -2 * self.y * self._shortfall(t)

    def bend(self, t: Array) -> Array:
        return jnp.where(self._shortfall(t) == 0, 0, 2).astype(t.dtype)

    def gap(self, t: Array) -> Array:
        return jnp.abs(1 - self.y * t)

    def _shortfall(self, t: Array) -> Array:
        """max(0, 1 − y t), with derivative 0 at 0; NaN stays."""
        short = 1 - self.y * t
        return jnp.where(short <= 0, 0, short)


@struct
class Multinomial(LinearModel):
    r"""Σᵢ wᵢ (log Σ_c exp(tᵢ_c) − Σ_c yᵢ_c tᵢ_c),  t = Ax, for an unknown x of shape (p, classes).

    Divided by n when `scale="mean"`.

    A: (n, p).   scale, weights: as for `LeastSquares`.
    y: (n, classes), rows ≥ 0 with sum 1; or (n,) integer labels 0, 1, …, of which there are then as
        many classes as the largest says. Labels become rows with one 1.
    """

    A: Array
    y: Array
    scale: str = static(default="sum")
    weights: Array | None = None
    steepest = 0.5

    def __post_init__(self) -> None:
        settle(self, "y", one_hot("y", self.y, validate.matrix("A", self.A).dtype))
        self._check("y", 2)

    @property
    def target(self) -> Array:
        return self.y

    def charge(self, t: Array) -> Array:
        return jax.nn.logsumexp(t, axis=1) - jnp.sum(self.y * t, axis=1)

    def slope(self, t: Array) -> Array:
        return jax.nn.softmax(t, axis=1) - self.y

    def hessian(self, x: Array, index: Array | None = None) -> Array:
        """∇²f in the coordinates of x.ravel(), or its rows and columns in `index`."""
        index = jnp.arange(x.size) if index is None else index
        row, column = jnp.divmod(index, x.shape[1])
        A, P = self.columns(row), jax.nn.softmax(self.A @ x, axis=1)[:, column]
        within = A.T @ self.weighted(P * A)
        same = column[:, None] == column
        return jnp.where(same, within, 0) - (P * A).T @ self.weighted(P * A)


def signs(name: str, y: Array) -> Array:
    """Labels, each −1 or 1."""
    if validate.is_known(y):
        known = np.asarray(y)
        if not np.all(np.isnan(known) | (np.abs(known) == 1)):
            raise ValueError(f"{name} must hold the labels -1 and 1 only")
    return y


def one_hot(name: str, y: Any, dtype: Any) -> Any:
    """A row of class probabilities for each sample, from these or from integer labels."""
    if np.ndim(y) != 1:
        y = validate.array(name, y, 2)
        if validate.is_known(y):
            known = np.asarray(y)
            if np.any(known < 0) or np.any(np.abs(known.sum(1) - 1) > 1e-5):
                raise ValueError(f"{name} must have rows ≥ 0 with sum 1")
        return y
    if not validate.is_known(y):
        raise TypeError(f"{name} must have one column per class where labels are not known yet")
    labels = np.asarray(y)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{name} must hold integer labels, or one column per class")
    if labels.size == 0 or labels.min() < 0:
        raise ValueError(f"{name} must hold labels 0, 1, …, got {labels}")
    return validate.array(name, np.eye(labels.max() + 1, dtype=dtype)[labels])
