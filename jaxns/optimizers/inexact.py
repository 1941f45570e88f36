"""Subgradients with persistent errors, and who makes them (arXiv 2404.19517).

    x_{k+1} = x_k − α_k (v_k + e_k),   v_k ∈ ∂f(x_k),   ‖e_k‖ ≤ ε,

is `optax.chain(inexact.perturbed(eps, adversary), subgradient(rate))`, and `run` makes its steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jaxns import tree, validate
from jaxns.optimizers.buffers import cast
from jaxns.tree import Tree

Adversary = Callable[[Any, Tree], Tree]  # (x, v) -> a direction: any length, cut to 1


def perturbed(
    eps: float | Array, adversary: Adversary | None = None
) -> optax.GradientTransformation:
    """Add to the gradient v an error e = ε d / max(1, ‖d‖), d = adversary(x, v): ‖e‖ ≤ ε.

    eps: ε ≥ 0.
    adversary: a function of the parameters (None if `update` is not given them) and the gradient.
        By default `opposing`, the worst one for descent.

    Raises ValueError for a negative ε.
    """
    eps = validate.nonnegative("eps", validate.scalar("eps", eps))
    towards = opposing if adversary is None else adversary

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        error = tree.scale(eps, _cut(towards(params, updates)))
        return cast(tree.add(updates, error), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def opposing(x: Tree, v: Tree) -> Tree:
    """d = −v/‖v‖: no descent where ‖v‖ = ε, ascent where ‖v‖ < ε.

    So what attracts is where ‖∂f‖ = ε: at |x| = (ε/q)^{1/(q − 1)} for f(x) = |x|^q.
    """
    size = tree.norm(v)
    return tree.scale(-1 / jnp.where(size > 0, size, 1), v)


class Run(NamedTuple):
    """x: iterates, along a new first axis.   state: of the optimiser at the end."""

    x: Tree
    state: Any


def run(
    gradient: Callable[[Tree], Tree],
    x0: Tree,
    optimizer: optax.GradientTransformation,
    steps: int,
    keep: int | None = None,
) -> Run:
    """x_1, …, x_K by x_{k+1} = x_k + update(gradient(x_k)), K = steps, or the last `keep` of them.

    gradient: of one's objective, for example `jax.grad(f)`; exact or not.

    Raises ValueError unless 1 ≤ keep ≤ steps.
    """
    steps = validate.positive("steps", validate.integer("steps", steps))
    kept = steps if keep is None else validate.integer("keep", keep)
    validate.within("keep", kept, 1, steps)

    def step(carry: tuple[Tree, Any], _: Any) -> tuple[tuple[Tree, Any], Tree]:
        x, state = carry
        updates, state = optimizer.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    x0 = jax.tree.map(jnp.asarray, x0)
    carry = x0, optimizer.init(x0)
    carry, _ = lax.scan(lambda c, i: (step(c, i)[0], None), carry, length=steps - kept)
    (_, state), x = lax.scan(step, carry, length=kept)
    return Run(x, state)


def _cut(d: Tree) -> Tree:
    return tree.scale(1 / jnp.maximum(1, tree.norm(d)), d)
