"""What a prediction is charged, and how one is made.

loss(y, t): the targets, (n,) or (n, k), and what was predicted for them -> (n,).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def linear(X: Any, x: Any) -> Array:
    """Xx; for the solution of a support vector machine, Xw + b."""
    return X @ x.weights + x.intercept if hasattr(x, "weights") else X @ x


def squared(y: Array, t: Array) -> Array:
    """(y − t)², a mean over several targets."""
    return jnp.mean(((y - t) ** 2).reshape(y.shape[0], -1), axis=1)


def logistic(y: Array, t: Array) -> Array:
    """log(1 + exp(−y t)), y in {−1, 1}."""
    return jax.nn.softplus(-y * t)


def cross_entropy(y: Array, t: Array) -> Array:
    """log Σ_c exp t_c − Σ_c y_c t_c, for rows y of class probabilities."""
    return jax.nn.logsumexp(t, axis=1) - jnp.sum(y * t, axis=1)


def hinge(y: Array, t: Array) -> Array:
    """max(0, 1 − y t), y in {−1, 1}, with derivative 0 at its kink."""
    short = 1 - y * t
    return jnp.where(short <= 0, 0, short)


def squared_hinge(y: Array, t: Array) -> Array:
    """max(0, 1 − y t)², y in {−1, 1}."""
    return hinge(y, t) ** 2
