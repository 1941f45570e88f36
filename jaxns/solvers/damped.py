"""Damped Newton for smooth equations: what `Newton` does when nothing has a kink."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.solvers import frozen, smooth
from jaxns.struct import static, struct
from jaxns.tree import Tree

DIRECT_SIZE = 2000  # up to here the Jacobian is factorised
ARMIJO = 1e-4  # fraction of the predicted decrease that is asked for

RUNNING, STALLED, DIVERGED, INFEASIBLE = -1, 1, 4, 5  # codes of `jaxns.Status`


class Equations(NamedTuple):
    """G(v) = 0 on flat vectors.   symmetric: ∂G is, since G is the gradient of `merit`.

    merit: what must decrease: f + g, or ½ ‖G‖².   matrix(v): ∂G(v), not to be differentiated.
    """

    G: Callable[[Array], Array]
    merit: Callable[[Array], Array]
    matrix: Callable[[Array], Array]
    symmetric: bool

    def push(self, v: Array) -> Callable[[Array], Array]:
        """u ↦ ∂G(v) u."""
        return lambda u: jax.jvp(self.G, (v,), (u,))[1]


@struct
class Control:
    """image: the point reached.   size: ‖G‖ where the last step began.   stuck: whether that step
    found nothing better.   verdict: the code of the status that this means, if any."""

    image: Tree
    size: Array
    stuck: Array
    verdict: Array


@struct
class Damped:
    """See `Newton`: x ← x − t ∂G(x)⁻¹ G(x), where `step` is the full step, t = 1."""

    linear: str = static(default="auto")

    def prepare(self, problem: Any, x0: Tree) -> "Damped":
        return self

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        v, unravel = ravel_pytree(x)
        equations = _equations(problem, x)
        return unravel(v - self._solve(equations, v, equations.G(v)))

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def margin(self, problem: Any, x: Tree) -> Array | None:
        if not hasattr(problem, "f"):
            return None
        return smooth.margin(problem, x)

    def control(self, problem: Any, x: Tree) -> Control:
        v, _ = ravel_pytree(x)
        size = tree.norm(_equations(problem, x).G(v))
        return Control(x, size, jnp.zeros((), bool), jnp.asarray(RUNNING, jnp.int32))

    def advance(self, problem: Any, x: Tree, control: Control) -> tuple[Tree, Control]:
        v, unravel = ravel_pytree(x)
        equations = _equations(problem, x)
        g = equations.G(v)
        size = lax.stop_gradient(tree.norm(g))
        # The forcing term of Eisenstat and Walker (1996), for systems solved inexactly.
        ratio = size / jnp.where(control.size > 0, control.size, 1)
        d = -self._solve(equations, v, g, tol=jnp.minimum(0.9 * ratio**2, 0.5), convex=True)
        left = g + equations.push(v)(d)
        noise = 1e2 * tree.eps(v) * tree.norm(equations.push(v)(v))
        solved = lax.stop_gradient(tree.norm(left) <= jnp.maximum(0.75 * size, noise))
        if equations.symmetric:  # the gradient, where there is no curvature, or a negative one
            d = jnp.where(solved, d, d - left)
            d = jnp.where(lax.stop_gradient(g @ d <= 0), d, -g)
        constant = _equations(*lax.stop_gradient((problem, x)))
        t, verdict = _search(constant, *lax.stop_gradient((v, g, d)), solved)
        image = unravel(v + t * d)
        stuck = verdict != RUNNING
        verdict = jnp.where((verdict == STALLED) & ~control.stuck, RUNNING, verdict)
        return image, Control(image, size, stuck, verdict)

    def _solve(
        self, equations: Equations, v: Array, b: Array, tol: Any = None, convex: bool = False
    ) -> Array:
        """∂G(v)⁻¹ b."""
        push = equations.push(v)
        if self.linear == "krylov" or (self.linear == "auto" and v.size > DIRECT_SIZE):
            return frozen.krylov(push, b, tol, "cg" if equations.symmetric else "auto")
        matrix = equations.matrix(v)
        if equations.symmetric:
            return frozen.symmetric(push, b, matrix, convex)
        return frozen.general(push, b, matrix)


def _equations(problem: Any, x: Tree) -> Equations:
    _, unravel = ravel_pytree(x)

    def flat(function):
        return lambda v: ravel_pytree(function(unravel(v)))[0]

    if not hasattr(problem, "f"):
        G = flat(problem.residual)
        constant = flat(lax.stop_gradient(problem).residual)
        return Equations(G, lambda v: 0.5 * tree.norm(G(v)) ** 2, jax.jacfwd(constant), False)

    def gradient(problem):
        return flat(partial(smooth.gradient, problem))

    def matrix(v):
        v, constant = lax.stop_gradient((v, problem))
        hessian = getattr(problem.f, "hessian", None)
        if hessian is None or jax.tree.structure(x) != jax.tree.structure(v) or jnp.ndim(x) != 1:
            return jax.jacfwd(gradient(constant))(v)
        return constant.f.hessian(v) + jax.jacfwd(constant.g.gradient)(v)

    return Equations(gradient(problem), lambda v: problem(unravel(v)), matrix, True)


def _search(equations: Equations, v: Array, g: Array, d: Array, solved: Array) -> tuple:
    """The first t of 1, ½, ¼, … that makes the merit decrease, and what it means if none does.

    Close to a solution, where the merit no longer tells two points apart, t = 1: twice in a row is
    as far as rounding allows. Elsewhere no t is found where ‖G‖ has a local minimum that is no root
    (there ∂G d = −G is not solved), or where the gradient is not that of the objective.
    """
    eps = tree.eps(v)
    here, size, length = equations.merit(v), tree.norm(g), tree.norm(d)
    slope = g @ (d if equations.symmetric else equations.push(v)(d))
    noise = 1e2 * eps * jnp.abs(here)

    def decreases(t):
        there = v + t * d
        merit = equations.merit(there)
        halved = tree.norm(equations.G(there)) <= 0.5 * size
        enough = (merit <= here + ARMIJO * t * slope) & ((slope < 0) | (size == 0))
        return enough | (halved & (merit <= here + noise))

    tiny = solved & (length <= 1e3 * eps * tree.norm(v))
    close = solved & (length <= eps ** (1 / 3) * tree.norm(v))
    least = jnp.maximum(eps**0.5 * tree.norm(v) / jnp.where(length > 0, length, 1), eps)

    def going(search):
        t, found = search
        return ~found & (t > least)

    def halve(search):
        t = 0.5 * search[0]
        return t, decreases(t)

    one = jnp.ones((), v.dtype)
    t, found = tree.while_loop(going, halve, (one, tiny | decreases(one)))
    failed = INFEASIBLE if not equations.symmetric else DIVERGED
    verdict = jnp.where(close, STALLED, failed)
    verdict = jnp.where(found | ~jnp.isfinite(length), RUNNING, verdict)
    return jnp.where(found, t, jnp.where(close, 1, 0)), verdict.astype(jnp.int32)
