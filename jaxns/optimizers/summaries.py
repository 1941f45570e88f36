"""Derivatives of a loss along a direction, group by group (arXiv 2312.03885, summary tensors)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.optimizers.partition import Partition, partition
from jaxns.tree import Tree


class Summary(NamedTuple):
    """H: H̄, of shape (S, S).   g: ḡ, (S,).   d3: the diagonal of the third order, (S,)."""

    H: Array
    g: Array
    d3: Array


def summaries(
    loss: Callable[[Tree], Array],
    params: Tree,
    direction: Tree,
    groups: str | int | Tree | Partition = "tensors",
    batch: int | None = None,
) -> Summary:
    r"""The derivatives at η = 0 of φ(η) = L(θ − Σ_s η_s u_s), with u_s what u is in group s:

        ḡ = Iᵀ Diag(u) ∇L = −∇φ(0),   H̄ = Iᵀ Diag(u) ∇²L Diag(u) I = ∇²φ(0),   −∂³φ(0)/∂η_s³.

    They are exact, H̄ with all its entries off the diagonal; a step θ − Diag(u) I η changes L by
    −ḡᵀη + ½ ηᵀH̄η − ⅙ Σ d3_s η_s³ + …, other terms of the third order left out.

    loss: L, of a pytree of arrays, three times differentiable (tanh or ELU rather than ReLU, whose
        curvature automatic differentiation does not see).
    direction: u, like `params`; the step is along −u.
    groups: as of `partition`.
    batch: how many groups are worked on together, which takes as many times the memory of a
        gradient; by default all of them.
    Costs about S times three gradients.
    """
    I = groups if isinstance(groups, Partition) else partition(params, groups)
    theta, u = params, direction
    if jax.tree.structure(u) != jax.tree.structure(theta):
        raise ValueError("direction must have the structure of params")

    def phi(eta: Array) -> Array:
        step = jax.tree.map(jnp.multiply, I.spread(eta, theta), u)
        return loss(tree.sub(theta, step))

    zero = jnp.zeros(I.S, tree.dtype(theta))

    def along(e: Array) -> tuple[Array, Array]:
        """H̄ e, and the third derivative along e."""

        def product(t: Array) -> Array:
            return jax.jvp(jax.grad(phi), (t * e,), (e,))[1]

        He, change = jax.jvp(product, (zero[0],), (zero[0] + 1,))
        return He, change @ e

    basis = jnp.eye(I.S, dtype=zero.dtype)
    H, third = jax.vmap(along)(basis) if batch is None else lax.map(along, basis, batch_size=batch)
    return Summary(H, -jax.grad(phi)(zero), -third)
