"""AmIGO: inner SGD for the solution and for the linear system, both continued."""

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
    """v: the running solution of ∇²₁₁G v = −∇₁F."""

    theta: Tree
    x: Tree
    v: Tree


@struct
class AmIGO:
    r"""Amortized implicit gradient optimization (Arbel and Mairal 2022, arXiv 2111.14580).

        x ← x − ρ ∇₁G_i(x, θ)                    inner_steps times
        v ← v − η (∇²₁₁G_i v + ∇₁F_j)            linear_steps times, at the new x
        θ ← θ − γ (∇²₂₁G_i v + ∇₂F_j)

    with a fresh i for every line of every step; j is the same in one outer step. Both x and v go
    on where the last outer step left them, so that constant numbers of steps suffice. The batch
    sizes are constant as well.

    inner_stepsize: ρ, a number or a function of the outer step k = 0, 1, …
    outer_stepsize: γ, in the same way.   linear_stepsize: η, in the same way; by default ρ.
    inner_steps: 10 by default.   linear_steps: 10 by default.

    With constant stepsizes, small enough: (1/K) Σ_k E‖∇h(θ_k)‖² = O(1/K) + a floor of variance
    that is inverse to the batch sizes; where h is strongly convex, linear convergence to the floor.
    """

    inner_stepsize: Stepsize
    outer_stepsize: Stepsize
    linear_stepsize: Stepsize | None = None
    inner_steps: int = static(default=10)
    linear_steps: int = static(default=10)

    def __post_init__(self) -> None:
        if self.linear_stepsize is None:
            settle(self, "linear_stepsize", self.inner_stepsize)
        stepsizes.check(self, "inner_stepsize", "outer_stepsize", "linear_stepsize")
        stepsizes.check_count(self, "inner_steps", "linear_steps")

    def init(self, problem: Bilevel, theta: Tree, x: Tree) -> State:
        return State(theta, x, tree.zeros_like(x))

    def step(self, problem: Bilevel, k: Array, state: State, key: Array) -> State:
        theta, x, v = state
        rho = stepsizes.at(self.inner_stepsize, k, x)
        gamma = stepsizes.at(self.outer_stepsize, k, theta)
        eta = stepsizes.at(self.linear_stepsize, k, x)  # pyright: ignore[reportArgumentType]
        of_x, of_v, of_theta = jax.random.split(key, 3)
        G, F = problem.sample(of_theta)

        x = descend(problem.inner, x, theta, rho, jax.random.split(of_x, self.inner_steps))
        outer = outer_terms(F, x, theta)

        def improve(v: Tree, key: Array) -> tuple[Tree, None]:
            G = problem.inner.sample(key)
            D = directions(inner_terms(G, x, theta, v), outer)
            return tree.axpy(-eta, D.v, v), None

        v, _ = lax.scan(improve, v, jax.random.split(of_v, self.linear_steps))
        D = directions(inner_terms(G, x, theta, v), outer)
        return State(tree.axpy(-gamma, D.theta, theta), x, v)
