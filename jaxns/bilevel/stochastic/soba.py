"""SOBA: one stochastic step in every variable at once."""

from typing import NamedTuple

from jax import Array

from jaxns import tree
from jaxns.bilevel.stochastic import stepsizes
from jaxns.bilevel.stochastic.directions import directions, inner_terms, outer_terms
from jaxns.bilevel.stochastic.finite_sum import Bilevel
from jaxns.bilevel.stochastic.stepsizes import Stepsize
from jaxns.struct import struct
from jaxns.tree import Tree


class State(NamedTuple):
    """v: the running solution of ∇²₁₁G v = −∇₁F."""

    theta: Tree
    x: Tree
    v: Tree


@struct
class SOBA:
    r"""Stochastic bilevel algorithm (Dagréou, Ablin, Vaiter, Moreau 2022, arXiv 2201.13409).

        x ← x − ρ_k ∇₁G_i
        v ← v − ρ_k (∇²₁₁G_i v + ∇₁F_j)
        θ ← θ − γ_k (∇²₂₁G_i v + ∇₂F_j)

    all three at the old (x, v, θ), with i and j drawn uniformly (its algorithm 1).

    inner_stepsize: ρ_k, a number or a function of k = 0, 1, …
    outer_stepsize: γ_k, in the same way.

    With ρ_k and γ_k both proportional to `Power(c, 1/2)`, γ/ρ small enough, F and G smooth enough
    and G strongly convex in x: min_{k ≤ K} E‖∇h(θ_k)‖² = O(log K/√K). With constant stepsizes of
    the order of 1/√K the mean over the K steps is O(1/√K); with any constant ones the iterates end
    in noise proportional to them.
    """

    inner_stepsize: Stepsize
    outer_stepsize: Stepsize

    def __post_init__(self) -> None:
        stepsizes.check(self, "inner_stepsize", "outer_stepsize")

    def init(self, problem: Bilevel, theta: Tree, x: Tree) -> State:
        return State(theta, x, tree.zeros_like(x))

    def step(self, problem: Bilevel, k: Array, state: State, key: Array) -> State:
        theta, x, v = state
        rho = stepsizes.at(self.inner_stepsize, k, x)
        gamma = stepsizes.at(self.outer_stepsize, k, theta)
        G, F = problem.sample(key)
        D = directions(inner_terms(G, x, theta, v), outer_terms(F, x, theta))
        return State(
            theta=tree.axpy(-gamma, D.theta, theta),
            x=tree.axpy(-rho, D.x, x),
            v=tree.axpy(-rho, D.v, v),
        )
