"""The two levels: min_θ outer(x(θ), θ) where x(θ) solves inner(θ)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.bilevel.space import constrain
from jaxns.fixed_point import Solution, Status, Stop
from jaxns.modes import Implicit, Probe
from jaxns.solve import read, set_up, solve
from jaxns.struct import replace, struct
from jaxns.tree import Tree


@struct
class Bilevel:
    """min_θ outer(x(θ), θ), where x(θ) is the solution of the problem inner(θ).

    outer: (x, θ) -> scalar.   inner: θ -> problem; plain functions, or callable pytrees.
    each: where there are many inner problems (folds, tasks), a pytree of arrays that tells them
        apart along its first axis. Then inner(θ, part) is the problem of one part, all are solved
        together (`vmap`), and outer is given x with that first axis.
    """

    outer: Callable
    inner: Callable
    each: Tree = None

    def over(self, function: Callable) -> Callable:
        """(θ, *others) ↦ function(problem, *others), for every part at once where there are."""
        if self.each is None:
            return lambda theta, *others: function(self.inner(theta), *others)

        def all_parts(theta, *others):
            def one(part, *others):
                return function(self.inner(theta, part), *others)

            return jax.vmap(one)(self.each, *others)

        return all_parts

    def __call__(
        self, theta: Tree, solver: Any = None, *, mode: Any = Implicit(), stop: Stop = Stop()
    ) -> Array:
        """outer(x(θ), θ), differentiable; the arguments are those of `jaxns.solve`."""

        def one(problem):
            return solve(problem, solver, mode=mode, stop=stop).x

        return self.outer(self.over(one)(theta), theta)

    def minimize(self, theta0: Tree, **options: Any) -> Any:
        """`jaxns.bilevel.minimize`, of these two levels."""
        from jaxns.bilevel.minimize import minimize

        return minimize(self.outer, self.inner, theta0, each=self.each, **options)

    def grid_search(self, thetas: Tree, **options: Any) -> Any:
        """`jaxns.bilevel.grid_search`, of these two levels."""
        from jaxns.bilevel.search import grid_search

        return grid_search(self.outer, self.inner, thetas, each=self.each, **options)

    def random_search(self, theta0: Tree, **options: Any) -> Any:
        """`jaxns.bilevel.random_search`, of these two levels."""
        from jaxns.bilevel.search import random_search

        return random_search(self.outer, self.inner, theta0, each=self.each, **options)


@struct
class How:
    """How the inner problems are solved and differentiated: the arguments of `jaxns.solve`."""

    solver: Any
    mode: Any
    stop: Stop

    def watched(self, probe: Probe, start: Tree) -> Any:
        """The mode with a probe, and its linear system started at an earlier adjoint."""
        if not hasattr(self.mode, "probe") or self.mode.direction != "reverse":
            return self.mode
        mode = replace(self.mode, probe=probe)
        return replace(mode, start=start) if hasattr(mode, "start") else mode


@struct
class Hypergradient:
    """What one evaluation of u ↦ outer(x(θ), θ) has found.

    value, gradient: of that function.   solution: of the inner problem or problems.
    adjoint: w of (I − A)ᵀ w = z̄, like solution.z: where the next one may start.
    inner_steps, adjoint_steps: made, in all.   residual, adjoint_residual: the largest.
    error: an estimate of that of the gradient, relative; NaN where none was made.
    """

    value: Array
    gradient: Tree
    solution: Solution
    adjoint: Tree
    inner_steps: Array
    adjoint_steps: Array
    residual: Array
    adjoint_residual: Array
    error: Array


def starting(bilevel: Bilevel, theta: Tree, solver: Any, x0: Tree | None = None) -> Solution:
    """Where the solves of the inner problems begin, as a `Solution` of no steps."""

    def begin(problem):
        iteration, full, z0, _ = set_up(problem, solver, x0)
        x = read(iteration, full, z0, iteration.control(full, z0))
        steps = jnp.zeros((), jnp.int32)
        return Solution(x, z0, steps, jnp.full((), jnp.inf, tree.dtype(z0)), Status(steps))

    return bilevel.over(begin)(theta)


def hypergradient(
    bilevel: Bilevel,
    space: Any,
    u: Tree,
    how: How,
    start: Solution,
    adjoint: Tree,
) -> Hypergradient:
    """The value of u ↦ outer(x(θ), θ), θ = constrain(u), and its gradient by the mode."""
    zero = start.residual * 0
    probes = Probe(zero, zero, zero, tree.zeros_like(start.z))

    def loss(u, probes):
        theta = constrain(space, u)

        def one(problem, start, probe, adjoint):
            mode = how.watched(probe, adjoint)
            return solve(problem, how.solver, start, mode=mode, stop=how.stop)

        solution = bilevel.over(one)(theta, start, probes, adjoint)
        return bilevel.outer(solution.x, theta), solution

    derivative = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, solution), (gradient, seen) = derivative(u, probes)
    return Hypergradient(
        value,
        gradient,
        lax.stop_gradient(solution),
        seen.adjoint,
        jnp.sum(solution.steps),
        jnp.sum(seen.steps),
        jnp.max(solution.residual),
        jnp.max(seen.residual),
        jnp.full((), jnp.nan, value.dtype),
    )
