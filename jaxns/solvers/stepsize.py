"""Stepsizes: from a Lipschitz constant where one is known, by backtracking where none is."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.struct import settle
from jaxns.tree import Tree

SHRINK = 0.5  # factor of a rejected stepsize
GROW = 1.5  # factor tried while the iterate still travels
TRAVELS = 1e-2  # … that is, moves by more than this fraction of its size


def check(solver: Any) -> None:
    """Refuse a stepsize that is not a positive number (for `__post_init__`)."""
    if solver.stepsize is not None:
        alpha = validate.positive("stepsize", validate.scalar("stepsize", solver.stepsize))
        settle(solver, "stepsize", alpha)


def check_relaxation(solver: Any) -> None:
    """Refuse a relaxation outside (0, 2) (for `__post_init__`)."""
    relaxation = validate.scalar("relaxation", solver.relaxation)
    validate.positive("relaxation", relaxation)
    settle(solver, "relaxation", validate.between("relaxation", relaxation, 0, 2))


def lipschitz(function: Any) -> Any:
    """A Lipschitz constant of the function's gradient; None where it knows none."""
    return function.lipschitz() if hasattr(function, "lipschitz") else None


def from_lipschitz(constant: Any) -> Array:
    """1/L, a constant of the solve: no derivative flows through it."""
    constant = lax.stop_gradient(jnp.asarray(constant))
    return 1 / jnp.where(constant > 0, constant, 1)  # a constant f has L = 0: any stepsize will do


def from_parts(problem: Any) -> Array | None:
    """1/L of f + g, both smooth; None where one of them knows no Lipschitz constant."""
    of_f, of_g = lipschitz(problem.f), lipschitz(problem.g)
    return None if of_f is None or of_g is None else from_lipschitz(of_f + of_g)


def required(solver: Any, function: Any, otherwise: str, argument: str = "stepsize=…") -> Any:
    """The function's Lipschitz constant, for a solver that does not backtrack."""
    constant = lipschitz(function)
    if constant is None:
        name = type(solver).__name__
        raise ValueError(
            f"{name} needs a stepsize: {type(function).__name__} knows no Lipschitz constant; "
            f"pass {name}({argument}), or {otherwise}"
        )
    return constant


def from_curvature(function: Any) -> Array | float:
    """1/√(μL), for the prox of f: with μ = L/30 where f knows none, or a smaller one; 1 without L.

    A minimiser with zeros or active bounds sees more curvature than the smallest one.
    """
    L, mu = lipschitz(function), strong_convexity(function)
    if L is None:
        return 1.0
    L, mu = lax.stop_gradient((jnp.asarray(L), 0.0 if mu is None else mu))
    return from_lipschitz(jnp.sqrt(jnp.clip(mu, L / 30, L) * L))


def strong_convexity(function: Any) -> Any:
    """A μ for which f − μ/2 ‖·‖² is convex; None where the function knows none."""
    return function.strong_convexity() if hasattr(function, "strong_convexity") else None


def initial(gradient: Callable[[Tree], Tree], x: Tree) -> Array:
    """A first guess of 1/L from the change of the gradient along itself."""
    g = gradient(x)
    size, small = tree.norm(g), tree.eps(x) ** 0.5
    h = small * jnp.maximum(tree.norm(x), 1) / jnp.where(size > 0, size, 1)
    change = tree.norm(tree.sub(gradient(tree.axpy(h, g, x)), g))
    usable = jnp.isfinite(change) & (change > 0)
    guess = jnp.where(usable, h * size / jnp.where(usable, change, 1), 1)
    return lax.stop_gradient(guess)


def backtrack(
    gradient: Callable[[Tree], Tree], move: Callable[[Array], Tree], x: Tree, last: Any
) -> Array:
    """The largest of the last stepsize, half of it, … that suits the curvature met on the way:

        ⟨∇f(x⁺) − ∇f(x), x⁺ − x⟩ ≤ ‖x⁺ − x‖² / step,   x⁺ = move(step).

    For a quadratic f this is the usual descent condition, and for any convex f it implies that
    condition with twice the slack; unlike it, it does not compare nearly equal values of f, which
    rounding makes meaningless near the solution. A larger stepsize is
    tried only while the iterate still travels: close to the solution the steps no longer see the
    steep directions, and a stepsize that grew there would not suit the map F that it leaves behind.
    """
    at_x = gradient(x)

    def stride(step):
        change = tree.sub(move(step), x)
        return change, tree.norm(change)

    def too_long(step):
        change, length = stride(step)
        curvature = tree.vdot(tree.sub(gradient(tree.add(x, change)), at_x), change)
        noise = 10 * tree.eps(x) * tree.norm(at_x) * length
        return ~(curvature <= length**2 / step + noise) & (step > tree.eps(x) * last)

    last = lax.stop_gradient(last)
    travels = stride(last)[1] > TRAVELS * tree.norm(x)
    first = jnp.where(travels, GROW * last, last)
    return lax.stop_gradient(tree.while_loop(too_long, lambda step: SHRINK * step, first))
