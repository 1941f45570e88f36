"""`jaxopt.tree_util`: arithmetic of pytrees. Natively `jax.tree` and `optax.tree`."""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxns.nonsmooth import norm
from jaxns.tree import Tree

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten
tree_leaves, tree_map, tree_reduce = jax.tree.leaves, jax.tree.map, jax.tree.reduce

_vdot = partial(jnp.vdot, precision=jax.lax.Precision.HIGHEST)


def broadcast_pytrees(*trees: Tree) -> tuple[Tree, ...]:
    """The trees, each that is a single leaf repeated to the structure of the others.

    Raises `ValueError` if two that are no single leaf differ in structure.
    """
    leaf = jax.tree.structure(0)
    structures = {jax.tree.structure(tree) for tree in trees} - {leaf}
    if len(structures) > 1:
        raise ValueError(f"trees must have one structure, or be single leaves; got {structures}")
    if not structures:
        return trees
    (structure,) = structures

    def spread(tree: Tree) -> Tree:
        single = jax.tree.structure(tree) == leaf
        return structure.unflatten([tree] * structure.num_leaves) if single else tree

    return tuple(map(spread, trees))


def _entrywise(operation: Callable, what: str) -> Callable[[Tree, Tree], Tree]:
    def apply(tree_x: Tree, tree_y: Tree) -> Tree:
        return jax.tree.map(operation, tree_x, tree_y)

    apply.__doc__ = f"{what}, leaf by leaf."
    return apply


tree_add = _entrywise(operator.add, "x + y")
tree_sub = _entrywise(operator.sub, "x − y")
tree_mul = _entrywise(operator.mul, "x y")
tree_div = _entrywise(operator.truediv, "x / y")
tree_dot = _entrywise(jnp.dot, "The product of a matrix and a vector")


def tree_scalar_mul(scalar: Any, tree_x: Tree) -> Tree:
    """scalar · x."""
    return jax.tree.map(lambda x: scalar * x, tree_x)


def tree_add_scalar_mul(tree_x: Tree, scalar: Any, tree_y: Tree) -> Tree:
    """x + scalar · y."""
    return jax.tree.map(lambda x, y: x + scalar * y, tree_x, tree_y)


def tree_negative(tree: Tree) -> Tree:
    """−x."""
    return tree_scalar_mul(-1, tree)


def tree_vdot(tree_x: Tree, tree_y: Tree) -> Any:
    """⟨x, y⟩, the conjugate of x times y where they are complex."""
    return tree_reduce(operator.add, jax.tree.map(_vdot, tree_x, tree_y))


def tree_vdot_real(tree_x: Tree, tree_y: Tree) -> Any:
    """Re ⟨x, y⟩."""
    return jnp.real(tree_vdot(tree_x, tree_y))


def tree_sum(tree_x: Tree) -> Any:
    """Σ of all entries."""
    return tree_reduce(operator.add, jax.tree.map(jnp.sum, tree_x))


def tree_l2_norm(tree_x: Tree, squared: bool = False) -> Any:
    """‖x‖₂, whose derivative at 0 is 0, or its square."""
    flat = jnp.abs(ravel_pytree(tree_x)[0])
    return _vdot(flat, flat) if squared else norm(flat)


def tree_inf_norm(tree_x: Tree) -> Any:
    """‖x‖∞."""
    return jnp.max(jnp.abs(ravel_pytree(tree_x)[0]), initial=0)


def tree_zeros_like(tree_x: Tree) -> Tree:
    """0 in the shape of x."""
    return jax.tree.map(jnp.zeros_like, tree_x)


def tree_ones_like(tree_x: Tree) -> Tree:
    """1 in the shape of x."""
    return jax.tree.map(jnp.ones_like, tree_x)


def tree_where(cond: Tree, a: Tree, b: Tree) -> Tree:
    """a where cond, else b; each a pytree or a single array that broadcasts."""
    return jax.tree.map(jnp.where, *broadcast_pytrees(cond, a, b))


def tree_conj(tree: Tree) -> Tree:
    """The complex conjugate."""
    return jax.tree.map(jnp.conj, tree)


def tree_real(tree: Tree) -> Tree:
    """The real part."""
    return jax.tree.map(jnp.real, tree)


def tree_imag(tree: Tree) -> Tree:
    """The imaginary part."""
    return jax.tree.map(jnp.imag, tree)


def tree_average(trees: Tree, weights: Array) -> Tree:
    """Σᵢ weightsᵢ xᵢ for leaves that hold the xᵢ along their first axis."""
    return jax.tree.map(lambda x: jnp.tensordot(weights, x, axes=1), trees)


def tree_gram(a: Tree) -> Array:
    """(⟨xᵢ, xⱼ⟩)ᵢⱼ for leaves that hold the xᵢ along their first axis."""
    return jax.vmap(jax.vmap(tree_vdot, (0, None)), (None, 0))(a, a)


def tree_mean(tree: Tree) -> Any:
    """The mean of the means of the leaves."""
    return tree_sum(jax.tree.map(jnp.mean, tree)) / len(jax.tree.leaves(tree))


def tree_single_dtype(tree: Tree, convert_in_jax_dtype: bool = True) -> Any:
    """The type that all numbers of the tree have; None if there are none.

    convert_in_jax_dtype: after conversion to an array of JAX, as whose types NumPy's may be longer.
    Raises `ValueError` if there are several.
    """
    numbers = (bool, int, float, complex, np.ndarray, jax.Array)
    convert = jnp.asarray if convert_in_jax_dtype else np.asarray
    dtypes = {convert(leaf).dtype for leaf in jax.tree.leaves(tree) if isinstance(leaf, numbers)}
    if len(dtypes) > 1:
        raise ValueError(f"tree must hold numbers of one dtype, got {dtypes}")
    return next(iter(dtypes), None)


def get_real_dtype(dtype: Any) -> Any:
    """The type of the real part."""
    return np.zeros((), dtype).real.dtype
