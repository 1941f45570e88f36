"""SABA: SOBA with the variance of every product reduced."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.bilevel.stochastic import stepsizes
from jaxns.bilevel.stochastic.directions import directions, inner_terms, outer_terms
from jaxns.bilevel.stochastic.finite_sum import Bilevel, FiniteSum, Term
from jaxns.bilevel.stochastic.stepsizes import Stepsize
from jaxns.struct import struct
from jaxns.tree import Tree


class Memory(NamedTuple):
    """terms: the newest value of each of N products, along a first axis.   mean: over that axis."""

    terms: Any
    mean: Any


class State(NamedTuple):
    """v: the running solution of ∇²₁₁G v = −∇₁F.   inner, outer: memories of their products."""

    theta: Tree
    x: Tree
    v: Tree
    inner: Memory
    outer: Memory


@struct
class SABA:
    r"""Stochastic average bilevel algorithm (arXiv 2201.13409, section 2): SAGA in every variable.

    The steps of `SOBA`, in which each of the five products φ_i = ∇₁G_i, ∇²₁₁G_i v, ∇²₂₁G_i v, ∇₁F_j
    and ∇₂F_j is replaced by

        φ_i(x, v, θ) − φ_i(at i's last visit) + mean_i' φ_i'(at its last visit).

    inner_stepsize: ρ, a number (or a function of k = 0, 1, …).   outer_stepsize: γ, likewise.

    With constant stepsizes, small enough (of the order of N^(−2/3), N minibatches at both levels),
    (1/K) Σ_k E‖∇h(θ_k)‖² = O(N^(2/3)/K); where h satisfies the Polyak-Łojasiewicz inequality,
    E h(θ_k) converges linearly to the minimum.

    The start is a pass through all samples. The memory holds two points like x and one like θ for
    each inner minibatch, one of each for each outer one.
    """

    inner_stepsize: Stepsize
    outer_stepsize: Stepsize

    def __post_init__(self) -> None:
        stepsizes.check(self, "inner_stepsize", "outer_stepsize")

    def init(self, problem: Bilevel, theta: Tree, x: Tree) -> State:
        v = tree.zeros_like(x)
        inner = _visit_all(problem.inner, lambda G: inner_terms(G, x, theta, v))
        outer = _visit_all(problem.outer, lambda F: outer_terms(F, x, theta))
        return State(theta, x, v, inner, outer)

    def step(self, problem: Bilevel, k: Array, state: State, key: Array) -> State:
        theta, x, v, inner, outer = state
        rho = stepsizes.at(self.inner_stepsize, k, x)
        gamma = stepsizes.at(self.outer_stepsize, k, theta)
        key_i, key_j = jax.random.split(key)
        i, j = problem.inner.draw(key_i), problem.outer.draw(key_j)
        G, F = problem.inner.term(i), problem.outer.term(j)
        of_inner, inner = _visit(inner, i, inner_terms(G, x, theta, v))
        of_outer, outer = _visit(outer, j, outer_terms(F, x, theta))
        D = directions(of_inner, of_outer)
        return State(
            theta=tree.axpy(-gamma, D.theta, theta),
            x=tree.axpy(-rho, D.x, x),
            v=tree.axpy(-rho, D.v, v),
            inner=inner,
            outer=outer,
        )


def _visit_all(f: FiniteSum, product: Callable[[Term], Any]) -> Memory:
    terms = lax.map(lambda i: product(f.term(i)), jnp.arange(f.terms))
    return Memory(terms, jax.tree.map(lambda t: jnp.mean(t, axis=0), terms))


def _visit(memory: Memory, i: Array, new: Any) -> tuple[Any, Memory]:
    """The estimate with its variance reduced, and the memory with the new value in place i."""
    terms, mean = memory
    change = jax.tree.map(lambda new, terms: new - terms[i], new, terms)
    estimate = tree.add(change, mean)
    count = jax.tree.leaves(terms)[0].shape[0]
    terms = jax.tree.map(lambda terms, new: terms.at[i].set(new), terms, new)
    return estimate, Memory(terms, tree.axpy(1 / count, change, mean))
