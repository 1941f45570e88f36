"""Limited-memory BFGS."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree, validate
from jaxns.solvers import linearised, smooth, stepsize
from jaxns.solvers.needs import need_no_penalty, need_plain
from jaxns.struct import Stateless, replace, settle, static, struct
from jaxns.tree import Tree

ARMIJO = 1e-4  # fraction of the predicted decrease that is asked for
SHORTEST = 2.0**-6  # of the quasi-Newton step; where less would be needed, along the gradient
NOISE = 1e2  # roundings that a value, or a difference of gradients, may be off by


@struct
class Pairs:
    """Secant pairs s = x⁺ − x, y = ∇(x⁺) − ∇(x), as flat rows, the newest last; 0 for none."""

    s: Array
    y: Array

    def push(self, s: Array, y: Array) -> "Pairs":
        """With one more pair, in the place of the oldest."""
        return Pairs(jnp.vstack([self.s[1:], s]), jnp.vstack([self.y[1:], y]))

    def apply(self, v: Array, initial: Array) -> Array:
        """H v by the two-loop recursion (Nocedal 1980): BFGS from H₀ = `initial`, a number.

        Each pair makes H ← (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ, with ρ = 1/sᵀy.
        """
        curvature = jnp.sum(self.s * self.y, axis=1)
        rho = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), 0)
        rows = (self.s, self.y, rho)

        def down(q, row):
            s, y, rho = row
            alpha = rho * (s @ q)
            return q - alpha * y, alpha

        def up(r, row):
            (s, y, rho), alpha = row
            return r + (alpha - rho * (y @ r)) * s, None

        q, alphas = lax.scan(down, v, rows, reverse=True)
        return lax.scan(up, initial * q, (rows, alphas))[0]

    def scaling(self, otherwise: Array) -> Array:
        """sᵀy/yᵀy of the newest pair, which lies between the ends of the spectrum of H."""
        curvature, squared = self.s[-1] @ self.y[-1], self.y[-1] @ self.y[-1]
        known = squared > 0
        return jnp.where(known, curvature / jnp.where(known, squared, 1), otherwise)


@struct
class Search:
    """A line search under way, from the best point so far.

    image: F at the point visited last.   point, gradient, value: where the search starts.
    direction, t: the next point is point + t direction.
    pairs: the memory.   accepted: points so far.   alpha: the stepsize of F.
    """

    image: Tree
    point: Array
    gradient: Array
    value: Array
    direction: Array
    t: Array
    pairs: Pairs
    accepted: Array
    alpha: Array


@struct
class LBFGS:
    r"""Minimise f(x) + g(x), both smooth, by the quasi-Newton method BFGS with limited memory.

        x ← x − t H (∇f(x) + ∇g(x)),   H from the last m pairs s = x⁺ − x, y = ∇(x⁺) − ∇(x)

    (Nocedal 1980; Liu and Nocedal 1989). A point is accepted where the objective decreases enough,
    or, where rounding hides that, the slope along the step does (Hager and Zhang 2005); otherwise
    t is halved, and the direction is that of the gradient if that does not help. A pair without
    positive curvature is not stored (Li and Fukushima 2001). Each step costs one value and one
    gradient.

    The map that stops the run and is differentiated is the gradient step F(x) = x − α ∇(f + g)(x),
    whose I − ∂F = α ∇²(f + g). So H/α estimates (I − ∂F)⁻¹, and `Shine` uses it.

    memory: m.   stepsize: α > 0. By default 1/L where f and g know their Lipschitz constants,
        otherwise the least sᵀy/yᵀy met on the way.
    initial: H before any pair, a number; by default sᵀy/yᵀy of the newest pair, which suits the
        steps. What H says of directions that no step went along is this number: 1/penalty says
        there that the penalty is all the curvature there is.
    opa: outer-problem awareness (arXiv 2106.00553): the vector v that a derivative will ask H for,
        a pytree like x, or a function of x that gives it, such as the gradient of the outer loss
        (without arrays of its own; `jax.tree_util.Partial` carries some). At every `every`-th
        point one more pair is stored, s = ‖x⁺ − x‖ Hv / ‖Hv‖ and y = ∇(x + s) − ∇(x), at the cost
        of one gradient. It takes memory, and does not move the fixed point.
    """

    memory: int = static(default=10)
    stepsize: float | Array | None = None
    initial: float | Array | None = None
    opa: Tree | Callable[[Tree], Tree] | None = None
    every: int = static(default=5)

    def __post_init__(self) -> None:
        for name in ("memory", "every"):
            count = validate.integer(name, getattr(self, name))
            settle(self, name, validate.positive(name, count))
        stepsize.check(self)
        if callable(self.opa) and jax.tree.leaves(self.opa) == [self.opa]:  # a plain function
            settle(self, "opa", Stateless(self.opa))
        if self.initial is not None:
            initial = validate.positive("initial", validate.scalar("initial", self.initial))
            settle(self, "initial", initial)

    def prepare(self, problem: Any, x0: Tree) -> "LBFGS":
        need_no_penalty(self, problem)
        need_plain(self, problem, "use PrimalDual")
        wanted = jax.eval_shape(self.opa, x0) if callable(self.opa) else self.opa
        if wanted is not None:
            got, expected = jax.tree.map(jnp.shape, wanted), jax.tree.map(jnp.shape, x0)
            if got != expected:
                raise ValueError(f"opa must have the shape of x, {expected}, got {got}")
        if self.stepsize is not None:
            return self
        return replace(self, stepsize=stepsize.from_parts(problem))

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        return tree.axpy(-self._start(problem, x), smooth.gradient(problem, x), x)

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def control(self, problem: Any, x: Tree) -> Search:
        v, _ = ravel_pytree(x)
        none, blank = jnp.zeros_like(v), jnp.zeros((self.memory, v.size), v.dtype)
        infinity, one = jnp.asarray(jnp.inf, v.dtype), jnp.ones((), v.dtype)
        nothing, alpha = jnp.zeros((), jnp.int32), jnp.asarray(self._start(problem, x), v.dtype)
        return Search(x, v, none, infinity, none, one, Pairs(blank, blank), nothing, alpha)

    def advance(self, problem: Any, x: Tree, control: Search) -> tuple[Tree, Search]:
        v, unravel = ravel_pytree(x)
        here, gradient = problem(x), smooth.gradient(problem, x)
        image = tree.axpy(-control.alpha, gradient, x)
        g, _ = ravel_pytree(gradient)
        enough = _decreases(control, here, g)
        pairs, alpha = tree.where(
            enough, self._learn(problem, v, g, unravel, control), (control.pairs, control.alpha)
        )
        v, g, here = tree.where(
            enough, (v, g, here), (control.point, control.gradient, control.value)
        )
        t = jnp.where(enough, 1, 0.5 * control.t)
        d = -self._apply(pairs, g, alpha)
        d = jnp.where((g @ d < 0) & (t >= SHORTEST), d, -alpha * g)
        accepted = control.accepted + enough
        return unravel(v + t * d), Search(image, v, g, here, d, t, pairs, accepted, alpha)

    def settle(self, control: Search) -> "LBFGS":
        return replace(self, stepsize=control.alpha)

    def estimate(self, problem: Any, x: Tree, control: Search) -> linearised.Inverse:
        """b ↦ H b / α, symmetric."""
        _, unravel = ravel_pytree(x)

        def solve(b):
            Hb = self._apply(control.pairs, ravel_pytree(b)[0], control.alpha)
            return unravel(Hb / control.alpha)

        return linearised.Inverse(solve, solve)

    def linearisation(self, problem: Any, x: Tree) -> linearised.Inverse | None:
        return linearised.gradient_descent(problem, x, self.stepsize)

    def _apply(self, pairs: Pairs, v: Array, alpha: Array) -> Array:
        initial = pairs.scaling(alpha) if self.initial is None else self.initial
        return pairs.apply(v, jnp.asarray(initial, v.dtype))

    def _start(self, problem: Any, x: Tree) -> Any:
        """α, or a first guess of it."""
        if self.stepsize is not None:
            return self.stepsize
        return stepsize.initial(partial(smooth.gradient, problem), x)

    def _learn(self, problem: Any, v: Array, g: Array, unravel: Any, control: Search) -> tuple:
        """The pairs with the one of this step, and in its turn one for the outer problem; and α."""
        alpha = control.alpha
        s, y = v - control.point, g - control.gradient
        usable = (control.accepted > 0) & _curved(s, y, v, alpha)
        pairs = tree.where(usable, control.pairs.push(s, y), control.pairs)
        if self.stepsize is None:
            least = lax.stop_gradient(s @ y / jnp.where(usable, y @ y, 1))
            alpha = jnp.where(usable, jnp.minimum(alpha, least), alpha)
        if self.opa is None:
            return pairs, alpha
        wanted = self.opa(unravel(v)) if callable(self.opa) else self.opa
        flat = ravel_pytree(wanted)[0].astype(v.dtype)

        def aware(pairs):
            e = self._apply(pairs, flat, alpha)
            size = tree.norm(e)
            e = e * lax.stop_gradient(tree.norm(s) / jnp.where(size > 0, size, 1))
            y = ravel_pytree(smooth.gradient(problem, unravel(v + e)))[0] - g
            return tree.where(due & _curved(e, y, v, alpha), pairs.push(e, y), pairs)

        due = (control.accepted > 0) & (control.accepted % self.every == 0)
        return lax.cond(tree.any_lane(due), aware, lambda pairs: pairs, pairs), alpha


def _decreases(search: Search, value: Array, gradient: Array) -> Array:
    """Whether a point with this value and gradient is accepted."""
    slope = search.gradient @ search.direction
    armijo = value <= search.value + ARMIJO * search.t * slope
    flatter = gradient @ search.direction <= (1 - 2 * ARMIJO) * jnp.abs(slope)
    noise = NOISE * tree.eps(gradient) * jnp.abs(search.value)
    return armijo | (flatter & (value <= search.value + noise))


def _curved(s: Array, y: Array, x: Array, alpha: Array) -> Array:
    """Whether sᵀy > 0, by more than rounding in y, which is of the size of eps ‖x‖ / α."""
    noise = NOISE * tree.eps(x) * tree.norm(x) / alpha
    return (s @ y > tree.eps(x) * tree.norm(s) * tree.norm(y)) & (tree.norm(y) > noise)
