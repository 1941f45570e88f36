"""The fixed point near a point, and what ∂F is like there."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import linear, tree
from jaxns.fixed_point import Iteration, Stop, iterate
from jaxns.tree import Tree
from jaxns.trust.spectrum import Spectrum, spectrum

FURTHER = 100_000  # steps that may be made to find the fixed point
CORRECTIONS = 8  # by Newton's method
CORRECTION = 1e-6  # residual asked of the linear system of one
MOST = 10_000  # products with ∂F in it
SAMPLES = 4
JUMP = 1e-3  # of ∂F, relative to what it does to a random direction


class _Search(NamedTuple):
    """For the fixed point: the best point so far, its correction and residual, and the next."""

    v: Array
    d: Array
    r: Array
    there: Array
    near: Array  # whether the correction is small: one more, and that is all
    iterated: Array  # whether the solver has been run on
    tries: Array


class Found(NamedTuple):
    """A fixed point, one correction further, and what ∂F is like there."""

    z: Tree
    nearer: Tree
    ok: Array
    distance: Array  # bound on that of the point given
    residual: Array  # relative, of the point given
    jumps: Array  # whether ∂F does, within that distance
    spectrum: Spectrum


@partial(jax.jit, static_argnums=0)
def find(iteration: Iteration, theta: Any, z: Tree, key: Array) -> Found:
    """By Newton's corrections as long as they halve the residual, or else by iterating on."""
    start, unravel = ravel_pytree(z)
    eps = tree.eps(z)

    def F(v):
        return ravel_pytree(iteration.step(theta, unravel(v)))[0]

    def correction(v):
        d, r, report = _newton(iteration, theta, unravel(v), 0.0)
        return jnp.where(report.converged, d, jnp.nan), jnp.linalg.norm(r)

    def rounding(v):
        return _rounding(iteration, theta, unravel(v))

    def onward():
        stop = Stop(tol=0.0, max_steps=FURTHER, on_failure="ignore")
        run = iterate(iteration, theta, z, stop)
        return ravel_pytree(run.image)[0]

    def look(search: _Search) -> _Search:
        """Judge the candidate by its residual, and name the next one."""
        v, d, r, there, _, iterated, tries = search
        d_there, r_there = correction(there)
        better = r_there <= jnp.where(search.near, r, 0.5 * r)
        v, d, r = tree.where(better, (there, d_there, r_there), (v, d, r))
        near = jnp.linalg.norm(d) <= 1e-6 * jnp.linalg.norm(v) + rounding(v)  # not so for NaN
        stuck = ~better & ~near
        lost = stuck & ~iterated
        there = lax.cond(
            tree.any_lane(lost), lambda: jnp.where(lost, onward(), v + d), lambda: v + d
        )
        r = jnp.where(lost, jnp.inf, r)
        tries = jnp.where(lost, 0, jnp.where(stuck | search.near, CORRECTIONS, tries + 1))
        return _Search(v, d, r, there, near, iterated | lost, tries)

    no = jnp.zeros((), bool)
    infinity = jnp.asarray(jnp.inf, start.dtype)
    first = _Search(start, start, infinity, start, no, no, jnp.zeros((), jnp.int32))
    found = tree.while_loop(lambda search: search.tries < CORRECTIONS, look, first)
    best, d, r, settled = found.v, found.d, found.r, found.near
    ok = jnp.all(jnp.isfinite(best)) & jnp.isfinite(r)
    ok &= settled | (r <= rounding(best))
    move = jnp.where(jnp.isfinite(d), d, 0)
    nearer = best + move
    _, push = jax.linearize(F, best)
    _, pull = jax.vjp(F, best)
    of_map = spectrum(push, lambda w: pull(w)[0], best, key)
    noise = 10 * eps * jnp.linalg.norm(best) * of_map.inverse
    distance = jnp.linalg.norm(start - best) + 2 * jnp.linalg.norm(move) + noise

    residual = jnp.linalg.norm(F(start) - start)
    size = jnp.maximum(jnp.linalg.norm(start), jnp.linalg.norm(F(start)))
    jumps = _jumps(F, best, jnp.maximum(distance, rounding(best) / (1e2 * eps**0.5)), key)
    return Found(
        unravel(best),
        unravel(nearer),
        ok,
        distance,
        residual / jnp.where(size > 0, size, 1),
        jumps,
        of_map,
    )


def _jumps(F: Any, z: Array, reach: Array, key: Array) -> Array:
    """Whether ∂F differs on two sides of z, in some of a few random directions.

    Between points at a distance of `reach`, and of a 16th of it: what is smooth then differs less.
    """
    reach = jnp.clip(reach, tree.eps(z), 1e-4 * (1 + jnp.linalg.norm(z)))

    def change(direction, along, t):
        sides = [jax.jvp(F, (z + s * t * direction,), (along,))[1] for s in (-1.0, 1.0)]
        size = jnp.linalg.norm(along)
        return jnp.linalg.norm(sides[0] - sides[1]) / size

    def look(key):
        u, v = jax.random.normal(key, (2, z.size), z.dtype)
        u = u / jnp.linalg.norm(u)
        wide, narrow = change(u, v, reach), change(u, v, reach / 16)
        return (wide > JUMP) & (narrow > 0.5 * wide)

    return jnp.any(lax.map(look, jax.random.split(key, SAMPLES)))


class Corrected(NamedTuple):
    """z⁺ = z + (I − ∂F(z))⁻¹ (F(z) − z), or z where its residual is not a tenth of that of z.

    ok: whether it does, or z is at rounding level.   residual: relative.   steps: products with ∂F.
    """

    z: Tree
    ok: Array
    residual: Array
    steps: Array


def corrected(iteration: Iteration, theta: Any, z: Tree) -> Corrected:
    """Newton's correction of the fixed-point equation."""
    v, unravel = ravel_pytree(z)
    d, r, report = _newton(iteration, theta, z, CORRECTION)
    there, before = v + d, jnp.linalg.norm(r)
    image = ravel_pytree(iteration.step(theta, unravel(there)))[0]
    after, size = jnp.linalg.norm(image - there), jnp.linalg.norm(there)
    smaller = after <= 0.1 * before
    residual = jnp.where(smaller, after, before) / jnp.where(size > 0, size, 1)
    ok = smaller | (before <= _rounding(iteration, theta, z))
    return Corrected(unravel(jnp.where(smaller, there, v)), ok, residual, report.steps + 2)


def _newton(iteration: Iteration, theta: Any, z: Tree, tol: float) -> tuple:
    """d with (I − ∂F(z)) d = r = F(z) − z, both as vectors, and how that went."""
    v, unravel = ravel_pytree(z)
    image, push = jax.linearize(lambda v: ravel_pytree(iteration.step(theta, unravel(v)))[0], v)
    r = image - v
    found = iteration.linearisation(theta, z) if v.size > linear.DENSE_SIZE else None
    inverse = None if found is None else lambda b: ravel_pytree(found.solve(unravel(b)))[0]
    d, report = linear.solve("auto", lambda u: u - push(u), r, tol, MOST, inverse=inverse)
    return d, r, report


def _rounding(iteration: Iteration, theta: Any, z: Tree) -> Array:
    """What F(z) may be off by."""
    scale = lax.stop_gradient(iteration.scale(theta, z))
    return 1e2 * tree.eps(z) * (tree.norm(z) + scale)
