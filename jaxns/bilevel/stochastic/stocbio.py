"""StocBiO: inner SGD, and a Neumann series for the inverse Hessian."""

from typing import NamedTuple

import jax
from jax import Array, lax

from jaxns import tree
from jaxns.bilevel.stochastic import stepsizes
from jaxns.bilevel.stochastic.directions import descend, directions, inner_terms, outer_terms
from jaxns.bilevel.stochastic.finite_sum import Bilevel
from jaxns.bilevel.stochastic.stepsizes import Stepsize
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


class State(NamedTuple):
    theta: Tree
    x: Tree


@struct
class StocBiO:
    r"""Stochastic bilevel optimizer (Ji, Yang, Liang 2021, arXiv 2010.07962, algorithms 2 and 3).

        x ← x − ρ ∇₁G_i(x, θ)                                   inner_steps times
        r_0 = ∇₁F_j,   r_q = r_{q−1} − η ∇²₁₁G_i r_{q−1},       q = 1 … neumann_terms
        v = −η Σ_q r_q
        θ ← θ − γ (∇²₂₁G_i v + ∇₂F_j)

    with a fresh i for every step of x, every q and the last line; j is the same in one outer step.
    x goes on where the last outer step left it; v starts anew. All minibatches are of one size;
    the paper lets those of the later r_q shrink geometrically.

    inner_stepsize: ρ, a number or a function of the outer step k = 0, 1, …
    outer_stepsize: γ, in the same way.
    neumann_stepsize: η, in the same way; 0 < η ∇²₁₁G_i < 1. By default ρ.
    inner_steps: 10 by default.   neumann_terms: 10 by default.

    With constant stepsizes, small enough, (1/K) Σ_k E‖∇h(θ_k)‖² = O(1/K) + a floor: a bias of the
    order of (1 − ημ)^(2 neumann_terms) and a variance inverse to the batch sizes.
    """

    inner_stepsize: Stepsize
    outer_stepsize: Stepsize
    neumann_stepsize: Stepsize | None = None
    inner_steps: int = static(default=10)
    neumann_terms: int = static(default=10)

    def __post_init__(self) -> None:
        if self.neumann_stepsize is None:
            settle(self, "neumann_stepsize", self.inner_stepsize)
        stepsizes.check(self, "inner_stepsize", "outer_stepsize", "neumann_stepsize")
        stepsizes.check_count(self, "inner_steps", "neumann_terms")

    def init(self, problem: Bilevel, theta: Tree, x: Tree) -> State:
        return State(theta, x)

    def step(self, problem: Bilevel, k: Array, state: State, key: Array) -> State:
        theta, x = state
        rho = stepsizes.at(self.inner_stepsize, k, x)
        gamma = stepsizes.at(self.outer_stepsize, k, theta)
        eta = stepsizes.at(self.neumann_stepsize, k, x)  # pyright: ignore[reportArgumentType]
        of_x, of_v, of_theta = jax.random.split(key, 3)
        G, F = problem.sample(of_theta)

        x = descend(problem.inner, x, theta, rho, jax.random.split(of_x, self.inner_steps))
        outer = outer_terms(F, x, theta)

        def lengthen(series: tuple[Tree, Tree], key: Array) -> tuple[tuple[Tree, Tree], None]:
            r, total = series
            G = problem.inner.sample(key)
            r = tree.axpy(-eta, inner_terms(G, x, theta, r).hessian, r)
            return (r, tree.add(total, r)), None

        keys = jax.random.split(of_v, self.neumann_terms)
        (_, total), _ = lax.scan(lengthen, (outer.x, outer.x), keys)
        v = tree.scale(-eta, total)
        D = directions(inner_terms(G, x, theta, v), outer)
        return State(tree.axpy(-gamma, D.theta, theta), x)
