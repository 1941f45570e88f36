"""Hypergradients as accurate as asked, and no more: the inner tolerance chosen by what is measured.

At the iterate z that a tolerance τ leaves, Newton's correction of the fixed-point equation,

    z⁺ = z + (I − ∂F(z))⁻¹ (F(z) − z),

is nearer to the solution by a square. The difference of the hypergradients at z and at z⁺ measures
the error of the first (as `jaxns.certify` does); the second is the one that is used. Where z⁺ does
not have a tenth of the residual (its pieces of F, a lasso's support, are then others than the
solution's), nothing is known and τ is tightened.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.bilevel.levels import Bilevel, How, Hypergradient, hypergradient
from jaxns.bilevel.space import constrain
from jaxns.fixed_point import NOWHERE, Solution
from jaxns.solve import set_up, solve
from jaxns.struct import replace
from jaxns.tree import Tree
from jaxns.trust.nearest import corrected

LOOSEST = 1e-2  # tolerance that is tried
SAFETY = 0.5  # of the accuracy asked for is aimed at
SPARE = 1e-2  # of the accuracy asked for: with so little error the tolerance may be looser


def accurate(
    bilevel: Bilevel,
    space: Any,
    u: Tree,
    how: How,
    start: Solution,
    adjoint: Tree,
    tol: Array,
    accuracy: Array | float,
) -> tuple[Hypergradient, Array, Array]:
    """The hypergradient with an error of `accuracy` times its norm at most, beginning at τ = `tol`.

    Returns with it the tolerance that did, and the one to begin with next time. That is never below
    `how.stop.tol`; what is reached there is taken as it is, with the error that was measured.
    """
    floor: Any = how.stop.tol

    def attempt(start, adjoint, tol) -> Hypergradient:
        stop = replace(how.stop, tol=tol, on_failure="ignore")

        def one(problem, start):
            solution = solve(problem, how.solver, start, mode=how.mode, stop=stop)
            iteration, theta, _, _ = set_up(problem, how.solver, solution)
            return solution, corrected(iteration, theta, solution.z)

        theta = constrain(space, u)
        solution, nearer = lax.stop_gradient(bilevel.over(one)(theta, start))
        there = replace(solution, z=nearer.z)

        def at(solution):
            here = replace(how, stop=NOWHERE)
            return hypergradient(bilevel, space, u, here, solution, adjoint)

        both = jax.tree.map(lambda *a: jnp.stack(a), solution, there)
        found = lax.map(at, both)
        first, second = (jax.tree.map(lambda a, i=i: a[i], found) for i in (0, 1))
        off = tree.norm(tree.sub(first.gradient, second.gradient))
        size = tree.norm(second.gradient)
        error = off / jnp.where(size > 0, size, 1)
        known = jnp.all(nearer.ok) & jnp.isfinite(error)
        failed = ~jnp.all(solution.status.ok) & (how.stop.on_failure != "ignore")
        return replace(
            second,
            value=jnp.where(failed, jnp.nan, second.value),
            solution=replace(second.solution, steps=solution.steps, residual=nearer.residual,
                             status=solution.status),
            inner_steps=jnp.sum(solution.steps),
            adjoint_steps=jnp.sum(found.adjoint_steps) + jnp.sum(nearer.steps),
            residual=jnp.max(nearer.residual),
            error=jnp.where(known, error, jnp.inf),
        )  # fmt: skip

    def going(state):
        found, tol, _ = state
        return (found.error > accuracy) & (tol > floor)

    def tighten(state):
        found, tol, first = state
        linear = SAFETY * accuracy / found.error  # as the error is in τ; 0 where it is not known
        factor = jnp.where(linear > 0, jnp.clip(linear, 1e-3, 0.1), 0.1)
        tol = jnp.where(first, tol, jnp.maximum(floor, tol * factor))
        failed = ~jnp.isfinite(tree.norm(found.adjoint))  # the system at a loose z may be singular
        adjoint = tree.where(failed, tree.zeros_like(found.adjoint), found.adjoint)
        again = attempt(found.solution, adjoint, tol)
        again = replace(
            again,
            inner_steps=found.inner_steps + again.inner_steps,
            adjoint_steps=found.adjoint_steps + again.adjoint_steps,
        )
        return again, tol, jnp.zeros((), bool)

    blank = jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(attempt, start, adjoint, tol)
    )
    blank = replace(blank, solution=start, adjoint=adjoint, error=blank.error + jnp.inf)
    tol = jnp.clip(tol, floor, LOOSEST)
    first = (blank, tol, jnp.ones((), bool))
    found, tol, _ = tree.while_loop(lambda s: s[2] | going(s), tighten, first)
    spare = found.error <= SPARE * accuracy
    return found, tol, jnp.where(spare, jnp.minimum(10 * tol, LOOSEST), tol)
