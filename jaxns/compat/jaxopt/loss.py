"""`jaxopt.loss`: losses of one label and one score. Natively `jaxns.functions`, and optax.losses.

Each is written so that its value and derivative are right at large and infinite scores too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

from jaxns.compat.jaxopt.projection import projection_simplex
from jaxns.compat.jaxopt.prox import floats


def huber_loss(target: Any, pred: Any, delta: Any = 1.0) -> Array:
    """r²/2 for |r| ≤ delta, else delta (|r| − delta/2), with r = target − pred."""
    residual = jnp.asarray(target - pred)
    near = jnp.clip(residual, -delta, delta)  # not of |r|, whose second derivative is lost at 0
    return near**2 / 2 + delta * (jnp.abs(residual) - jnp.abs(near))


def binary_logistic_loss(label: Any, logit: Any) -> Array:
    """log(1 + exp(∓logit)) for a label of 1 or 0."""
    return jax.nn.softplus(jnp.where(label, -logit, logit))


def binary_sparsemax_loss(label: Any, logit: Any) -> Array:
    """sparse_plus(∓logit) for a label of 1 or 0 (Blondel, Martins and Niculae 2020, JMLR 21)."""
    return sparse_plus(jnp.where(label, -logit, logit))


def sparse_plus(x: Any) -> Array:
    """0 for x ≤ −1, (x + 1)²/4 between, x for x ≥ 1."""
    x = jnp.asarray(x)
    return (_within_one(x) + 1) ** 2 / 4 + jnp.where(x >= 1, x - 1, 0)


def sparse_sigmoid(x: Any) -> Array:
    """The derivative of `sparse_plus`: 0 for x ≤ −1, (x + 1)/2 between, 1 for x ≥ 1."""
    return (_within_one(jnp.asarray(x)) + 1) / 2


def binary_hinge_loss(label: Any, score: Any) -> Array:
    """max(0, 1 ∓ score) for a label of 1 or 0."""
    return jnp.maximum(0, 1 - score * (2.0 * label - 1.0))


def binary_perceptron_loss(label: Any, score: Any) -> Array:
    """max(0, ∓score) for a label of 1 or 0."""
    return jnp.maximum(0, -score * (2.0 * label - 1.0))


def multiclass_logistic_loss(label: Any, logits: Any) -> Array:
    """log Σⱼ exp(logitsⱼ − logits_label).   logits: (classes,)."""
    return logsumexp(_relative(label, logits))


def multiclass_sparsemax_loss(label: Any, scores: Any) -> Array:
    """max ⟨p, s − s_label⟩ + (1 − ‖p‖²)/2 over p on the simplex (arXiv 1602.02068)."""
    return _gini_max(_relative(label, scores), floats(scores))


@jax.custom_jvp
def _gini_max(gaps: Array, scores: Array) -> Array:
    p = projection_simplex(scores)
    return jnp.vdot(p, jnp.where(p == 0, 0, gaps)) + (1 - jnp.vdot(p, p)) / 2


@_gini_max.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """By Danskin's theorem, p times the change of s − s_label."""
    (gaps, scores), (dgaps, _) = primals, tangents
    return _gini_max(gaps, scores), jnp.vdot(projection_simplex(scores), dgaps)


def multiclass_hinge_loss(label: Any, scores: Any) -> Array:
    """max_j (s_j + 1 − [j = label]) − s_label (Crammer and Singer)."""
    scores = floats(scores)
    return jnp.max(scores + 1 - jax.nn.one_hot(label, len(scores))) - scores[label]


def multiclass_perceptron_loss(label: Any, scores: Any) -> Array:
    """max_j s_j − s_label."""
    scores = floats(scores)
    return jnp.max(scores) - scores[label]


def make_fenchel_young_loss(max_fun: Callable) -> Callable:
    """(y_true, scores, …) ↦ max_fun(scores, …) − ⟨y_true, scores⟩ (arXiv 1901.02324)."""

    def fy_loss(y_true: Any, scores: Any, *args: Any, **kwargs: Any) -> Array:
        return max_fun(scores, *args, **kwargs) - jnp.vdot(y_true, scores)

    return fy_loss


def _within_one(x: Array) -> Array:
    return jnp.where(x <= -1, -1, jnp.where(x >= 1, 1, x)).astype(jnp.result_type(x, float))


def _relative(label: Any, scores: Any) -> Array:
    """s − s_label, with 0 at the label itself even where that is infinite."""
    scores = floats(scores)
    return (scores - scores[label]).at[label].set(0.0)
