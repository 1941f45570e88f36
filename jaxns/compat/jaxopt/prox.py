"""`jaxopt.prox`: prox(x, hyperparams, scaling), here of the functions of `jaxns.functions`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.functions import L1, L2, ElasticNet, NonNegative, SquaredL2
from jaxns.tree import Tree


def prox_none(x: Tree, hyperparams: Any = None, scaling: Any = 1.0) -> Tree:
    """x, the prox of 0."""
    return x


def prox_lasso(x: Tree, l1reg: Any = None, scaling: Any = 1.0) -> Tree:
    """The prox of scaling · l1reg ‖·‖₁.   l1reg: a number, an array or a pytree; by default 1."""
    x = floats(x)
    return L1(matched(l1reg, x)).prox(x, scaling)


def prox_non_negative_lasso(x: Tree, l1reg: Any = None, scaling: Any = 1.0) -> Tree:
    """The prox of scaling · l1reg ‖·‖₁ among y ≥ 0: max(x − scaling · l1reg, 0)."""
    x = floats(x)
    lowered = jax.tree.map(
        lambda xi, r: (xi - scaling * r).astype(xi.dtype), x, tree.spread(matched(l1reg, x), x)
    )
    return NonNegative().prox(lowered, scaling)


def prox_elastic_net(x: Tree, hyperparams: Any = None, scaling: Any = 1.0) -> Tree:
    """The prox of scaling · lam (‖·‖₁ + gam/2 ‖·‖₂²).

    hyperparams: (lam, gam), each a number, an array or a pytree; by default (1, 1).
    """
    x = floats(x)
    lam, gam = (1.0, 1.0) if hyperparams is None else hyperparams
    lam, gam = (tree.spread(matched(part, x), x) for part in (lam, gam))
    return ElasticNet(lam, jax.tree.map(jnp.multiply, lam, gam)).prox(x, scaling)


def prox_group_lasso(x: Tree, l2reg: Any = 1.0, scaling: Any = 1.0) -> Tree:
    """The prox of scaling · l2reg ‖·‖₂, all of x being one group. At x = 0 its derivative is 0."""
    flat, unravel = ravel_pytree(floats(x))
    return unravel(L2(_one(l2reg)).prox(flat, scaling))


def prox_ridge(x: Tree, l2reg: Any = 1.0, scaling: Any = 1.0) -> Tree:
    """The prox of scaling · l2reg/2 ‖·‖₂²: x/(1 + scaling · l2reg)."""
    x = floats(x)
    return SquaredL2(matched(l2reg, x)).prox(x, scaling)


def prox_non_negative_ridge(x: Tree, l2reg: Any = 1.0, scaling: Any = 1.0) -> Tree:
    """The prox of scaling · l2reg/2 ‖·‖₂² among y ≥ 0."""
    return NonNegative().prox(prox_ridge(x, l2reg, scaling), scaling)


def make_prox_from_projection(projection: Callable) -> Callable:
    """The projection as a prox, which no scaling changes."""

    def prox(x: Tree, hyperparams: Any = None, scaling: Any = 1.0) -> Tree:
        return projection(x, hyperparams)

    return prox


def floats(x: Tree) -> Tree:
    """x with arrays of floating-point numbers for leaves."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, float)), x)


def matched(parameter: Any, x: Tree) -> Any:
    """A parameter of a function of x: with arrays for leaves if it has the structure of x."""
    parameter = _one(parameter)
    same = jax.tree.structure(parameter) == jax.tree.structure(x)
    return floats(parameter) if same and not jnp.isscalar(parameter) else parameter


def _one(parameter: Any) -> Any:
    return 1.0 if parameter is None else parameter
