"""Log determinants of linearised Laplace approximations, by neural tangent kernels of blocks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree, validate
from jaxns.tree import Tree


def tangent_log_det(
    apply: Callable[[Tree, Any], Array],
    params: Tree,
    inputs: Any,
    hessians: Array,
    precision: Tree,
    *,
    block: int | None = None,
    outputs: str = "joint",
    key: Any = None,
) -> Array:
    r"""log det(I + K), K = L^(1/2) J P₀⁻¹ Jᵀ L^(1/2), or a bound of it (arXiv 2306.03968).

    J is the Jacobian of the N outputs of C numbers each, (NC, P). The evidence of the linearised
    model is log-likelihood − ½ ‖θ‖²_{P₀} − ½ log det(I + K), at a mode θ. By Fischer's inequality

        log det(I + K) ≤ Σ_b log det(I + K_bb)

    for any partition into blocks b, tighter the larger they are; so a random block, times their
    number, is an unbiased estimate of (the mean over partitions of) a lower bound of the evidence,
    at a cost of O(M²P) for a block of size M, whatever N is (beside drawing it).

    apply: (params, x) ↦ the output (C,) of one input x.
    inputs: a pytree of arrays with a first axis of length N.
    hessians: (N, C, C), positive semidefinite: of the loss in the outputs; the blocks of L.
    precision: P₀ > 0, a number, or a pytree that ends before `params` (one number per layer).
    block: M, inputs in a block, a divisor of N: consecutive ones. By default N.
    outputs: "joint", blocks of M inputs with all their outputs; "separate", of M inputs and one
        output, C kernels of size M × M.
    key: a seed, or a key of `jax.random`, to draw one block of these at random (uniformly: M inputs
        without replacement) and multiply by their number; by default all blocks are summed.

    Differentiable in everything numeric, in the Hessians too.
    """
    hessians = validate.array("hessians", hessians, 3)
    n, outs = hessians.shape[:2]
    if hessians.shape != (n, outs, outs):
        raise ValueError(f"hessians must have shape (N, C, C), got {hessians.shape}")
    for leaf in jax.tree.leaves(inputs):
        validate.same_length("inputs", leaf, "hessians", n)
    for leaf in jax.tree.leaves(precision):
        validate.positive("precision", leaf)
    validate.choice("outputs", outputs, ("joint", "separate"))
    size = n if block is None else validate.integer("block", block)
    if size < 1 or n % size:
        raise ValueError(f"block must divide the number of inputs, {n}, got {block}")

    def deviation(p: Array, s: Any) -> Array:
        return jnp.full_like(p, 1 / jnp.sqrt(s))

    scale = ravel_pytree(jax.tree.map(deviation, params, tree.spread(precision, params)))[0]

    def features(i: Array, c: Array) -> Array:
        """P₀^(−1/2) Jᵢᵀ Lᵢ^(1/2) e_c: the inner products of these are K."""
        x = jax.tree.map(lambda leaf: jnp.asarray(leaf)[i], inputs)
        _, pull = jax.vjp(lambda params: apply(params, x), params)
        return scale * ravel_pytree(pull(_root(jnp.asarray(hessians)[i])[:, c])[0])[0]

    def log_det(pairs: tuple[Array, Array]) -> Array:
        Phi = jax.vmap(features)(*pairs)
        C = jnp.linalg.cholesky(jnp.eye(Phi.shape[0], dtype=Phi.dtype) + Phi @ Phi.T)
        return 2 * jnp.sum(jnp.log(jnp.diagonal(C)))

    return _over_blocks(log_det, n, outs, size, outputs, key)


def _over_blocks(log_det: Callable, n: int, outs: int, size: int, outputs: str, key: Any) -> Array:
    """Of the blocks of pairs (input, output): the sum, or one times their number."""
    index, which = jnp.arange(n).reshape(-1, size), jnp.arange(outs)
    if key is not None:
        draw, choose = jax.random.split(jax.random.wrap_key_data(validate.key("key", key)))
        index = jax.random.choice(draw, n, (1, size), replace=False)
        which = which if outputs == "joint" else jax.random.randint(choose, (1,), 0, outs)
    if outputs == "joint":
        number = n // size
        i = jnp.repeat(index, outs, axis=1)
        c = jnp.broadcast_to(jnp.tile(which, size), i.shape)
    else:
        number = n // size * outs
        i = jnp.repeat(index, which.size, axis=0)
        c = jnp.broadcast_to(jnp.tile(which, index.shape[0])[:, None], i.shape)
    return number / i.shape[0] * jnp.sum(lax.map(jax.checkpoint(log_det), (i, c)))


@jax.custom_jvp
def _root(A: Array) -> Array:
    """A^(1/2), symmetric, of A ⪰ 0."""
    s, V = _eigen(A)
    return (V * s) @ V.T


@_root.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """S dS + dS S = dA in the eigenvectors of A; zero within its null space."""
    (A,), (dA,) = primals, tangents
    s, V = _eigen(lax.stop_gradient(A))
    total = s[:, None] + s
    inside = total > 0
    inner = V.T @ ((dA + dA.T) / 2) @ V
    dS = jnp.where(inside, inner / jnp.where(inside, total, 1), 0)
    return (V * s) @ V.T, V @ dS @ V.T


def _eigen(A: Array) -> tuple[Array, Array]:
    """The square roots of the eigenvalues that are not rounding, and the eigenvectors."""
    values, V = jnp.linalg.eigh(A)
    real = values > 10 * values.size * tree.eps(A) * jnp.max(values)
    return jnp.where(real, jnp.sqrt(jnp.where(real, values, 1)), 0), V
