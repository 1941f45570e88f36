"""Sinkhorn's iteration from afar: ε brought down in stages, then over-relaxed.

What it returns is a start for a faster method, so no derivative goes through it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.struct import replace

COOLING = 0.25  # factor of ε from a stage to the next
SWEEPS = 30  # sweeps of a stage
STAGES = 40  # stages at most
NEAR = 0.1  # marginal error at which a start needs no annealing, and a rate can be observed


class Stage(NamedTuple):
    """f, and the ε it was computed for.   error: of the marginals, at the end.   rate: ρ, the
    contraction of a plain sweep as observed (0 as long as it was not).   done: stages so far.
    """

    f: Array
    epsilon: Array
    error: Array
    rate: Array
    done: Array


def anneal(problem: Any, f: Array) -> Array:
    """f with marginals correct to about √eps, or as far as rounding or `STAGES` stages allow."""
    problem, f = lax.stop_gradient((problem, f))
    target = jnp.asarray(problem.epsilon, f.dtype)
    near = marginal_error(problem, f, sweep(problem, f)) < NEAR
    spread = problem.ground.spread().astype(f.dtype)
    epsilon = jnp.where(near, target, jnp.maximum(target, spread))
    goal = jnp.maximum(tree.eps(f) ** 0.5, 10 * tree.eps(f) * spread / target)
    zero = jnp.zeros((), f.dtype)
    start = Stage(f, epsilon, zero + jnp.inf, zero, jnp.zeros((), jnp.int32))

    def going(stage: Stage) -> Array:
        cold = (stage.epsilon <= target) & (stage.error <= goal)
        return ~cold & (stage.done < STAGES) & jnp.isfinite(jnp.sum(stage.f))

    def body(stage: Stage) -> Stage:
        after = relax(replace(problem, epsilon=stage.epsilon), stage)
        cooled = jnp.maximum(target, COOLING * stage.epsilon)
        arrived = stage.epsilon <= target
        return after._replace(
            epsilon=cooled, error=jnp.where(arrived, after.error, jnp.inf), done=stage.done + 1
        )

    return tree.while_loop(going, body, start).f


def relax(problem: Any, stage: Stage) -> Stage:
    """`SWEEPS` sweeps at the problem's ε, over-relaxed by the factor that suits the rate ρ,

        f ← f + ω (F(f) − f),   ω = 2/(1 + √(1 − ρ)),

    and the same for g (Thibault, Chizat, Dossal and Papadakis, arXiv 1711.01851). The rate λ seen
    with ω says what ρ is by (λ + ω − 1)² = λ ω² ρ (Young). Sweeps that made the error larger are
    taken back, and ω is 1 after them.
    """
    omega = 2 / (1 + jnp.sqrt(1 - stage.rate))
    g = problem.potential(stage.f)
    f = problem.T.potential(g)
    to_g, to_f = half_sweeps(problem, f, g)

    def body(k, carry):
        f, g, errors = carry
        g = g + omega * (to_g(f) - g)
        swept = to_f(g)
        errors = errors.at[k].set(marginal_error(problem, f, swept))
        return f + omega * (swept - f), g, errors

    errors = tree.vary_like(jnp.zeros(SWEEPS, f.dtype), f)
    f, g, errors = lax.fori_loop(0, SWEEPS, body, (f, g, errors))
    first, middle, last = errors[0], errors[SWEEPS // 2], errors[-1]
    better = last <= first
    seen = (last / jnp.where(middle > 0, middle, 1)) ** (1 / (SWEEPS - 1 - SWEEPS // 2))
    young = (seen + omega - 1) ** 2 / (jnp.where(seen > 0, seen, 1) * omega**2)
    rate = jnp.where(seen > omega - 1, young, stage.rate)
    usable = better & (last < NEAR) & (rate < 1)
    rate = jnp.where(usable, rate, 0)
    f = jnp.where(better, f, stage.f)
    return Stage(f, stage.epsilon, last, rate.astype(f.dtype), stage.done)


def half_sweeps(problem: Any, f: Array, g: Array) -> tuple[Callable, Callable]:
    """f ↦ g(f) and g ↦ f(g), on the kernel exp((f + g − C)/ε) if it fits in memory.

    Near the point (f, g) at which it is absorbed, each then costs one matrix product and no
    exponential of a matrix.
    """
    if not problem.ground.fits:
        return problem.potential, problem.T.potential
    tau, epsilon, E = problem.tau, problem.epsilon, problem.density(f, g)

    def log(x):
        return jnp.where(x == 0, 0, jnp.log(jnp.where(x == 0, 1, x)))

    def to_g(moved):
        return tau * (g - epsilon * log((problem.a * jnp.exp((moved - f) / epsilon)) @ E))

    def to_f(moved):
        return tau * (f - epsilon * log(E @ (problem.b * jnp.exp((moved - g) / epsilon))))

    return to_g, to_f


def sweep(problem: Any, f: Array) -> Array:
    """F(f), Sinkhorn's map: f ↦ g(f) ↦ f."""
    return problem.T.potential(problem.potential(f))


def marginal_error(problem: Any, f: Array, swept: Array) -> Array:
    """About Σ|P1 − a| / Σa, from |log(P1/a)| = |F(f) − f| / ε (if balanced)."""
    mass = jnp.sum(problem.a)
    moved = jnp.abs(swept - f) / (problem.tau * problem.epsilon)
    return jnp.vdot(problem.a, moved) / jnp.where(mass > 0, mass, 1)
