"""The subgradient method, with the average of its iterates (arXiv 2404.19517)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jaxns import tree
from jaxns.optimizers.buffers import Rate, at, cast, check_rate, present, widen
from jaxns.tree import Tree


class SubgradientState(NamedTuple):
    """count: k.   total: Σ_{i<k} α_i.   average: x̄_k, when averaging."""

    count: Any
    total: Array
    average: Tree | None


def subgradient(learning_rate: Rate, averaging: bool = False) -> optax.GradientTransformation:
    r"""The subgradient method of arXiv 2404.19517 and its average,

        x_{k+1} = x_k − α_k v_k,   v_k ∈ ∂f(x_k),   x̄_K = Σ_{k<K} α_k x_k / Σ_{k<K} α_k.

    With persistent errors, v_k + e_k in place of v_k and ‖e_k‖ ≤ ε, and α_k → 0, Σ α_k = ∞, the
    iterates of a semialgebraic f end up within C ε^ρ of its critical points; with a constant step
    also, if it is small enough for ε. If f is convex and L-Lipschitz, for a minimiser x*,

        f(x̄_K) − f* ≤ (‖x_0 − x*‖² + (L + ε)² Σ α_k²) / (2 Σ α_k) + ε max_{k<K} ‖x_k − x*‖.

    learning_rate: α_k, a number or a schedule such as `jaxns.Decreasing(0.5, 10, 0.6)`.
    averaging: keep x̄ too, in one buffer; `update` then needs the parameters. It is read by
        `optax.tree_utils.tree_get(state, "average")`, also from within a chain.

    Raises ValueError for a negative rate, and if `update` lacks the `params` that it needs.
    """
    rate = check_rate("learning_rate", learning_rate)

    def init(params: Tree) -> Any:
        average = widen(params) if averaging else None
        total = jnp.zeros((), jnp.promote_types(tree.dtype(params), jnp.float32))
        return SubgradientState(jnp.zeros((), jnp.int32), total, average)

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        alpha = at(rate, state.count)
        total = jnp.asarray(state.total + alpha, state.total.dtype)
        average = state.average
        if average is not None:
            x = widen(present(params, "subgradient with averaging"))
            weight = alpha / jnp.where(total > 0, total, 1)
            average = cast(tree.axpy(weight, tree.sub(x, average), average), average)
        after = SubgradientState(optax.safe_increment(state.count), total, average)
        return cast(tree.scale(-alpha, widen(updates)), updates), after

    return optax.GradientTransformation(init, update)
