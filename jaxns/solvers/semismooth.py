"""Semismooth Newton for composite problems: what `Newton` does when g has kinks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.solvers import kinks, momentum
from jaxns.solvers.forward_backward import ForwardBackward
from jaxns.solvers.manifold import newton_step
from jaxns.struct import replace, static, struct
from jaxns.tree import Tree

PATIENCE = 2  # steps that leave the support as it is before a Newton step is tried
MOST_PATIENCE = 64  # … doubled up to this each time one was rejected
LEVENBERG = 1e-3  # the largest regularisation of a Newton step that is tried, times L
LEAST = 2**-5  # the shortest of these steps, as a fraction


@struct
class Control:
    """image: the point reached.   momentum: of the forward-backward iteration.

    support: where that can move.   steady: steps for which it has been the same.   patience: for
    how many it has to be before a Newton step is tried.
    """

    image: Tree
    momentum: momentum.Momentum
    support: Array
    steady: Array
    patience: Array


@struct
class Semismooth:
    """See `Newton`.   first: the forward-backward iteration that finds the support."""

    first: ForwardBackward = ForwardBackward()
    linear: str = static(default="auto")

    def prepare(self, problem: Any, x0: Tree) -> "Semismooth":
        return replace(self, first=self.first.prepare(problem, x0))

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        """p = prox_{αg}(x − α∇f(x)),   x⁺ = p − E (H_SS + C_SS)⁻¹ Eᵀ (∇f(p) + v),   v ∈ ∂g(p)."""
        p, v = self._forward_backward(problem, x)
        slope = tree.add(problem.f.gradient(p), v)
        return tree.add(p, newton_step(problem, p, slope, self.linear))

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def stationary(self, problem: Any) -> ForwardBackward:
        return self.first

    def margin(self, problem: Any, x: Tree) -> Array | None:
        """As long as p stays on its manifold, and there f is twice differentiable, so is F."""
        p, _ = self._forward_backward(problem, x)
        return kinks.least(self.first.margin(problem, x), kinks.of_gradient(problem.f, p))

    def scale(self, problem: Any, x: Tree) -> Any:
        return self.first.scale(problem, x)

    def control(self, problem: Any, x: Tree) -> Control:
        support, _ = ravel_pytree(problem.g.support(x))
        steady = jnp.zeros((), jnp.int32)
        return Control(x, self.first.control(problem, x), support, steady, steady + PATIENCE)

    def settle(self, control: Control) -> "Semismooth":
        return replace(self, first=self.first.settle(control.momentum))

    def advance(self, problem: Any, y: Tree, control: Control) -> tuple[Tree, Control]:
        y_next, moving = self.first.advance(problem, y, control.momentum)
        p, how = moving.image, replace(self, first=self.first.settle(moving))
        support, _ = ravel_pytree(problem.g.support(lax.stop_gradient(p)))
        steady = jnp.where(jnp.all(support == control.support), control.steady + 1, 0)
        gap = lax.stop_gradient(tree.norm(tree.sub(y, p)))
        due = (steady >= control.patience) & (gap > 10 * tree.eps(p) * tree.norm(p))
        # Decided for all lanes together: under vmap both branches would run.
        found, better = lax.cond(
            tree.any_lane(due), lambda: how._along_newton(problem, y), lambda: (p, due)
        )
        better = better & due
        restarted = momentum.start(found, moving.stepsize)
        z, moving = tree.where(better, (found, restarted), (y_next, moving))
        rejected = jnp.minimum(2 * control.patience, MOST_PATIENCE)
        patience = jnp.where(better, PATIENCE, jnp.where(due, rejected, control.patience))
        steady = jnp.where(better, PATIENCE - 1, jnp.where(due, 0, steady))
        return z, Control(moving.image, moving, support, steady, patience)

    def _forward_backward(self, problem: Any, x: Tree) -> tuple[Tree, Tree]:
        """p and the subgradient v = (x − p)/α − ∇f(x) of g at p that its prox has found."""
        first: Any = self.first
        if first.stepsize is None:
            _, moving = first.advance(problem, x, first.control(problem, x))
            first = first.settle(moving)
        p = first.step(problem, x)
        alpha: Any = first.stepsize
        towards = tree.scale(1 / alpha, tree.sub(x, p))
        return p, tree.sub(towards, problem.f.gradient(x))

    def _along_newton(self, problem: Any, y: Tree) -> tuple[Tree, Array]:
        """A point better than p in the Newton direction, and whether there is one.

        First the Newton step itself is tried, then t = 1, ½, ¼, … along the curve

            prox_{σg}(p + σv + t (I + σC) s),

        which leaves p with velocity s and stays on the manifold: with L1, a coordinate that would
        change its sign becomes zero.
        """
        f, g = problem.f, problem.g
        alpha = lax.stop_gradient(jnp.asarray(self.first.stepsize, tree.dtype(y)))
        p, v = self._forward_backward(problem, y)
        slope = tree.add(f.gradient(p), v)
        reach = tree.largest(p)
        inward = tree.norm(jax.tree.map(lambda on, d: jnp.where(on, d, 0), g.support(p), slope))
        relative = alpha * inward / jnp.where(reach > 0, reach, 1)
        ridge = jnp.clip(relative, tree.eps(p) ** (2 / 3), LEVENBERG) / alpha
        s = newton_step(problem, p, slope, self.linear, lax.stop_gradient(ridge))
        whole = tree.add(p, s)
        steep = tree.largest(v)
        sigma = lax.stop_gradient(jnp.where(steep > 0, tree.largest(whole) / steep, alpha))
        bent = tree.axpy(sigma, g.curvature(p, s), s)

        def curve(t, problem, p, v, bent):
            return problem.g.prox(tree.axpy(t, bent, tree.axpy(sigma, v, p)), sigma)

        moving = (problem, p, v, bent)
        still = lax.stop_gradient(moving)
        straight, t, found = self._search(
            *lax.stop_gradient((problem, y, p, whole)), lambda t: curve(t, *still)
        )
        return tree.where(straight, whole, curve(t, *moving)), found

    def _search(
        self, problem: Any, y: Tree, p: Tree, whole: Tree, curve: Callable[[Array], Tree]
    ) -> tuple[Array, Array, Array]:
        """Whether the Newton step itself is better than p, or else at which t the curve is; found.

        Where rounding hides a change of the objective, the step has to halve the residual.
        """
        here, there = problem(p), problem(whole)
        noise = 1e2 * tree.eps(p) * jnp.abs(here)
        beyond, _ = self._forward_backward(problem, whole)
        halved = tree.norm(tree.sub(whole, beyond)) <= 0.5 * tree.norm(tree.sub(y, p))
        straight = (there < here - noise) | ((there <= here + noise) & halved)

        def going(search):
            t, found = search
            return ~found & (t > LEAST)

        def halve(search):
            t = 0.5 * search[0]
            return t, problem(curve(t)) < here - noise

        t, found = tree.while_loop(going, halve, (jnp.full_like(here, 2), straight))
        return straight, t, found
