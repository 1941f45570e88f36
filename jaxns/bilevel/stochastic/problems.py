"""Two problems of the benchmark suite of bilevel methods (benchopt/benchmark_bilevel)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import validate
from jaxns.struct import struct
from jaxns.tree import Tree


class Task(NamedTuple):
    """The arguments of `minimize` that say what is minimised: `minimize(*task, method=…, …)`."""

    outer: Callable[[Tree, Tree, Array], Array]
    inner: Callable[[Tree, Tree, Array], Array]
    theta0: Tree
    x0: Tree
    samples: tuple[int, int]


@struct
class Logistic:
    """mean_i log(1 + exp(−y_i a_iᵀx)) over the rows a_i of A in `index`."""

    A: Array
    y: Array

    def __call__(self, x: Array, theta: Array, index: Array) -> Array:
        return jnp.mean(jax.nn.softplus(-self.y[index] * (self.A[index] @ x)))


@struct
class Penalised:
    """Logistic loss + ½ Σ_j exp(θ_j) x_j²."""

    loss: Logistic

    def __call__(self, x: Array, theta: Array, index: Array) -> Array:
        return self.loss(x, theta, index) + jnp.sum(jnp.exp(theta) * x**2) / 2


def regularisation_selection(X: Any, y: Any, X_val: Any, y_val: Any) -> Task:
    """Logistic regression with one ridge penalty exp(θ_j) per coefficient, chosen on held-out data.

        G_i(x, θ) = log(1 + exp(−y_i a_iᵀx)) + ½ Σ_j exp(θ_j) x_j²
        F_j(x) = log(1 + exp(−y'_j a'_jᵀx))

    X, X_val: one row per sample.   y, y_val: −1 or 1.   Starts at x = 0, θ = 0.
    """
    training, held_out = _signs("X", X, "y", y), _signs("X_val", X_val, "y_val", y_val)
    _same_columns(training.A, held_out.A)
    zero = jnp.zeros(training.A.shape[1], training.A.dtype)
    samples = (training.A.shape[0], held_out.A.shape[0])
    return Task(held_out, Penalised(training), zero, zero, samples)


@struct
class Softmax:
    """mean_i ℓ_i over the samples in `index`, ℓ_i(x) = log Σ_c exp(a_iᵀx_c) − a_iᵀx_{y_i}."""

    A: Array
    y: Array

    def losses(self, x: Array, index: Array) -> Array:
        scores = self.A[index] @ x
        chosen = jnp.take_along_axis(scores, self.y[index][:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(scores, axis=1) - chosen

    def __call__(self, x: Array, theta: Array, index: Array) -> Array:
        return jnp.mean(self.losses(x, index))


@struct
class Weighted:
    """mean_i σ(θ_i) ℓ_i(x) + penalty ‖x‖²."""

    loss: Softmax
    penalty: float | Array

    def __call__(self, x: Array, theta: Array, index: Array) -> Array:
        weighted = jax.nn.sigmoid(theta[index]) * self.loss.losses(x, index)
        return jnp.mean(weighted) + self.penalty * jnp.sum(x**2)


def data_cleaning(X: Any, y: Any, X_val: Any, y_val: Any, *, penalty: Any = 0.2) -> Task:
    """Softmax regression on samples some of whose labels are wrong, with a learned weight for each.

        G_i(x, θ) = σ(θ_i) ℓ_i(x) + penalty ‖x‖²,   F_j(x) = ℓ_j(x)

    with ℓ the cross-entropy; F is over held-out samples with right labels.

    X, X_val: one row per sample.   y, y_val: classes 0, 1, …, as integers.
    penalty: positive; 0.2 as in the suite, for standardised columns.
    Starts at x = 0 (columns × classes), θ = 0: half of every sample.
    """
    training, held_out = _classes("X", X, "y", y), _classes("X_val", X_val, "y_val", y_val)
    _same_columns(training.A, held_out.A)
    penalty = validate.positive("penalty", validate.scalar("penalty", penalty))
    classes = 1 + int(max(jnp.max(training.y), jnp.max(held_out.y)))
    n, p = training.A.shape
    theta, x = jnp.zeros(n, training.A.dtype), jnp.zeros((p, classes), training.A.dtype)
    return Task(held_out, Weighted(training, penalty), theta, x, (n, held_out.A.shape[0]))


def _signs(name_X: str, X: Any, name_y: str, y: Any) -> Logistic:
    A, y = validate.array(name_X, X, 2), jnp.asarray(y)
    validate.same_length(name_y, y, name_X, A.shape[0])
    if not bool(jnp.all(jnp.abs(y) == 1)):
        raise ValueError(f"{name_y} must hold −1 and 1")
    return Logistic(A, y.astype(A.dtype))


def _classes(name_X: str, X: Any, name_y: str, y: Any) -> Softmax:
    A, y = validate.array(name_X, X, 2), jnp.asarray(y)
    validate.same_length(name_y, y, name_X, A.shape[0])
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"{name_y} must hold classes as integers, got dtype {y.dtype}")
    validate.nonnegative(name_y, y)
    return Softmax(A, y)


def _same_columns(A: Array, other: Array) -> None:
    if A.shape[1] != other.shape[1]:
        raise ValueError(
            f"X_val must have as many columns as X: expected {A.shape[1]}, got {other.shape[1]}"
        )
