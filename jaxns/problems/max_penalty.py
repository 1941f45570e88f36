"""The smallest penalty that leaves nothing: 0 = prox_{c g}(v) at v = −∇f(0).

For c · a norm, that is the dual norm of v. A penalty given as one number for all of x is asked for
itself; one given per coordinate, group or sequence as what multiplies it.
"""

from functools import singledispatch
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns.functions import L1, L2, ElasticNet, FusedLasso, GroupL2, Nuclear
from jaxns.functions.groups import block_norms
from jaxns.functions.sequences import denoise


@singledispatch
def smallest(g: Any, v: Array) -> Array:
    """The smallest c with v ∈ c ∂g(0)."""
    raise TypeError(f"no closed form is known for the largest penalty of {type(g).__name__}")


@smallest.register
def _(g: L1, v: Array) -> Array:
    return _largest(jnp.abs(v), g.penalty)


@smallest.register
def _(g: ElasticNet, v: Array) -> Array:
    """Of penalty (l1_ratio ‖·‖₁ + (1 − l1_ratio)/2 ‖·‖²), as in `elastic_net`: l1 + l2."""
    if jnp.ndim(g.l1) or jnp.ndim(g.l2):
        return _largest(jnp.abs(v), g.l1 + jnp.zeros_like(v))
    return (g.l1 + g.l2) / g.l1 * jnp.max(jnp.abs(v))


@smallest.register(L2)
@smallest.register(GroupL2)
def _(g: Any, v: Array) -> Array:
    return _largest(block_norms(g.blocks, v), g.penalty)


@smallest.register
def _(g: Nuclear, v: Array) -> Array:
    return _largest(jnp.linalg.norm(v, 2, axis=(-2, -1)), g.penalty)


@smallest.register
def _(g: FusedLasso, v: Array) -> Array:
    """The smallest l1, at this tv."""
    return jnp.max(jnp.abs(denoise(v, g.tv)))


def _largest(norms: Array, weights: Any) -> Array:
    """max normⱼ/weightⱼ, with weight 1 for a penalty that is one number; infinite where a
    coordinate that moves is free."""
    if jnp.ndim(weights) == 0:
        return jnp.max(norms)
    free = weights == 0
    ratios = norms / jnp.where(free, 1, weights)
    return jnp.max(jnp.where(free & (norms > 0), jnp.inf, ratios))
