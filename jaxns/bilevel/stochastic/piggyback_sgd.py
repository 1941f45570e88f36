"""Bilevel descent through inner SGD, differentiated by piggyback."""

from typing import Any, NamedTuple

import jax
from jax import Array

from jaxns import tree
from jaxns.bilevel.stochastic import stepsizes
from jaxns.bilevel.stochastic.finite_sum import Bilevel, FiniteSum
from jaxns.bilevel.stochastic.stepsizes import Stepsize
from jaxns.fixed_point import Stop
from jaxns.modes import Piggyback
from jaxns.problems import Composite
from jaxns.solve import solve
from jaxns.solvers import StochasticGradient
from jaxns.struct import static, struct
from jaxns.tree import Tree


class State(NamedTuple):
    theta: Tree
    x: Tree


@struct
class PiggybackSGD:
    r"""Descend along the derivative of inner SGD as it ran (arXiv 2405.15894).

        x_{t+1} = x_t − η_t ∇₁G_i(x_t, θ),   t = 0 … inner_steps − 1
        θ ← θ − γ_k d/dθ F_j(x_K(θ), θ),   K = inner_steps

    with a fresh i for every t, and x_0, where the last outer step left x, taken as constant: the
    derivative is that of `jaxns.solve` with `StochasticGradient` and `Piggyback`,

        J_{t+1} = J_t − η_t (∇²₁₁G_i J_t + ∇²₁₂G_i),   J_0 = 0.

    inner_stepsize: η_t, a number or a function of t = 0, 1, … (`jaxns.Decreasing`), which starts
        anew with every outer step.
    outer_stepsize: γ_k, a number or a function of the outer step k = 0, 1, …
    inner_steps: K; 50 by default. A J_0 of 0 biases the direction by a factor (1 − ημ)^K.

    E‖J_t − J*‖² = O(log²(t)/t) with η_t = c/(t + t₀), cμ > 1; with constant η it decreases linearly
    to a noise proportional to η (theorem 2.2 there). The direction inherits both.
    """

    inner_stepsize: Stepsize
    outer_stepsize: Stepsize
    inner_steps: int = static(default=50)

    def __post_init__(self) -> None:
        stepsizes.check(self, "inner_stepsize", "outer_stepsize")
        stepsizes.check_count(self, "inner_steps")

    def init(self, problem: Bilevel, theta: Tree, x: Tree) -> State:
        return State(theta, x)

    def step(self, problem: Bilevel, k: Array, state: State, key: Array) -> State:
        theta, x0 = state
        gamma = stepsizes.at(self.outer_stepsize, k, theta)
        of_x, of_theta = jax.random.split(key)
        _, F = problem.sample(of_theta)
        sgd = StochasticGradient(self.inner_stepsize, key=of_x)
        stop = Stop(tol=None, max_steps=self.inner_steps)

        def value(theta: Tree) -> tuple[Array, Tree]:
            G = Composite(AtTheta(problem.inner, theta))
            x = solve(G, sgd, x0, mode=Piggyback(), stop=stop).x
            return F(x, theta), x

        D, x = jax.grad(value, has_aux=True)(theta)
        return State(tree.axpy(-gamma, D, theta), x)


@struct
class AtTheta:
    """G(·, θ), a loss whose samples are the minibatches G_i."""

    G: FiniteSum
    theta: Tree

    def __call__(self, x: Tree) -> Array:
        return self.G(x, self.theta)

    def gradient(self, x: Tree) -> Tree:
        return jax.grad(self.G)(x, self.theta)

    @property
    def samples(self) -> int:
        return self.G.terms

    def rows(self, index: Array) -> Any:
        return AtTheta(FiniteSum(self.G.data, self.G.blocks[index], self.G.fun), self.theta)
