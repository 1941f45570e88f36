"""Broyden's method."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree, validate
from jaxns.solvers import linearised, stepsize
from jaxns.struct import replace, settle, static, struct
from jaxns.tree import Tree

DAMPED = 0.1  # the least |sᵀHy| / sᵀs with which H is updated as it stands
SHORTER, LONGER = 0.5, 10.0  # than the last attempt, at most, if it was rejected or accepted
NOISE = 1e2  # roundings that a difference of residuals may be off by


@struct
class LowRank:
    """H = α I + Σᵢ uᵢ vᵢᵀ.   u, v: flat rows, the newest last; 0 for none."""

    u: Array
    v: Array
    alpha: Array

    def apply(self, b: Array) -> Array:
        """H b."""
        return self.alpha * b + (self.v @ b) @ self.u

    def transpose(self, b: Array) -> Array:
        """Hᵀ b."""
        return self.alpha * b + (self.u @ b) @ self.v

    def update(self, s: Array, y: Array) -> "LowRank":
        """H + (s − Hy) sᵀH / sᵀHy, so that Hy = s: Broyden's good update, without the oldest row.

        Where sᵀHy is nearly 0 a part of the change is made, which leaves H invertible: y is
        replaced by θ y + (1 − θ) H⁻¹ s (Moré and Trangenstein 1976).
        """
        kept = LowRank(self.u.at[0].set(0), self.v.at[0].set(0), self.alpha)
        Hy, squared = kept.apply(y), s @ s
        squared = jnp.where(squared > 0, squared, 1)
        ratio = s @ Hy / squared
        least = jnp.where(ratio < 0, -DAMPED, DAMPED)
        small = jnp.abs(ratio) < DAMPED
        theta = jnp.where(small, (1 - least) / jnp.where(small, 1 - ratio, 1), 1)
        u = theta * (s - Hy) / (squared * jnp.where(small, least, ratio))
        v = kept.transpose(s)
        return LowRank(jnp.vstack([self.u[1:], u]), jnp.vstack([self.v[1:], v]), self.alpha)


@struct
class Attempt:
    """A step from the best point so far.

    image: F at the point visited last.   point, residual: where the step starts, and G there.
    inverse: H.   steps: evaluations of G so far.
    """

    image: Tree
    point: Array
    residual: Array
    inverse: LowRank
    steps: Array


@struct
class Broyden:
    r"""Solve G(x) = 0, as many equations as unknowns, by Broyden's (good) method.

        x ← x − H G(x),   H ← H + (s − H y) sᵀH / sᵀH y,   s = x⁺ − x,  y = G(x⁺) − G(x)

    (Broyden 1965), with H = α I at the start and the last m updates remembered. One evaluation of G
    a step, and no Jacobian. A point is accepted where ‖G‖ has not grown, but for a factor whose
    product over all steps is bounded (Li and Fukushima 2000); otherwise H, which has learned from
    it, proposes another step from the point before, at most half as long. It is a local method:
    where it does not get away from its start use `Newton`.

    The map that stops the run and is differentiated is F(x) = x − α G(x), whose I − ∂F = α ∂G. So
    H/α estimates (I − ∂F)⁻¹, and `Shine` uses it.

    memory: m.   stepsize: α, by default ±1/‖∂G(x0) u‖ along u = G(x0)/‖G(x0)‖, with the sign of
        uᵀ ∂G u.
    """

    memory: int = static(default=30)
    stepsize: float | Array | None = None

    def __post_init__(self) -> None:
        memory = validate.integer("memory", self.memory)
        settle(self, "memory", validate.positive("memory", memory))
        if self.stepsize is not None:
            settle(self, "stepsize", validate.scalar("stepsize", self.stepsize))

    def prepare(self, problem: Any, x0: Tree) -> "Broyden":
        if not hasattr(problem, "residual"):
            raise TypeError(
                f"Broyden solves equations, such as Root(fun); {type(problem).__name__} has no "
                "residual; use LBFGS for smooth objectives"
            )
        if self.stepsize is not None:
            return self
        return replace(self, stepsize=_first_stepsize(problem, x0))

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        v, unravel = ravel_pytree(x)
        alpha = _first_stepsize(problem, x) if self.stepsize is None else self.stepsize
        return unravel(v - alpha * _residual(problem, x))

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def control(self, problem: Any, x: Tree) -> Attempt:
        v, _ = ravel_pytree(x)
        blank = jnp.zeros((self.memory, v.size), v.dtype)
        alpha = _first_stepsize(problem, x) if self.stepsize is None else self.stepsize
        inverse = LowRank(blank, blank, jnp.asarray(alpha, v.dtype))
        nowhere = jnp.full_like(v, jnp.inf)
        return Attempt(x, v, nowhere, inverse, jnp.zeros((), jnp.int32))

    def advance(self, problem: Any, x: Tree, control: Attempt) -> tuple[Tree, Attempt]:
        v, unravel = ravel_pytree(x)
        G = _residual(problem, x)
        first = control.steps == 0
        s, y = v - control.point, G - jnp.where(first, 0, control.residual)
        noise = NOISE * tree.eps(v) * tree.norm(v) / jnp.abs(control.inverse.alpha)
        usable = ~first & (tree.norm(y) > noise)
        H = tree.where(usable, control.inverse.update(s, y), control.inverse)
        growth = 1 + 1 / (1.0 + control.steps) ** 2
        accepted = first | (tree.norm(G) <= growth * tree.norm(control.residual))
        point, residual = tree.where(accepted, (v, G), (control.point, control.residual))
        d = -H.apply(residual)
        length, last = tree.norm(lax.stop_gradient(d)), tree.norm(lax.stop_gradient(s))
        longest = jnp.where(first, length, jnp.where(accepted, LONGER, SHORTER) * last)
        t = jnp.where(length <= longest, 1, longest / jnp.where(length > 0, length, 1))
        image = unravel(v - H.alpha * G)
        return unravel(point + t * d), Attempt(image, point, residual, H, control.steps + 1)

    def estimate(self, problem: Any, x: Tree, control: Attempt) -> linearised.Inverse:
        """b ↦ H b / α, and b ↦ Hᵀ b / α."""
        _, unravel = ravel_pytree(x)

        def by(product):
            return lambda b: unravel(product(ravel_pytree(b)[0]) / control.inverse.alpha)

        return linearised.Inverse(by(control.inverse.apply), by(control.inverse.transpose))


def _residual(problem: Any, x: Tree) -> Array:
    return ravel_pytree(problem.residual(x))[0]


def _first_stepsize(problem: Any, x: Tree) -> Array:
    """±1/‖∂G u‖ along u = G/‖G‖, by a difference, with the sign of uᵀ ∂G u."""
    v, unravel = ravel_pytree(x)
    G = _residual(problem, x)
    alpha = stepsize.initial(lambda v: _residual(problem, unravel(v)), v)
    change = G - _residual(problem, unravel(v - alpha * G))
    return lax.stop_gradient(jnp.where(G @ change < 0, -alpha, alpha))
