"""The outer optimiser used when none is given: L-BFGS with steps that adapt themselves."""

from functools import lru_cache
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.tree import Tree

ARMIJO = 1e-4  # fraction of the predicted decrease that is asked for
SHORTEST = 1e-4  # of a direction, before it is given up


class State(NamedTuple):
    """The last point that was accepted, and where the search from it is."""

    point: Array
    value: Array
    gradient: Array
    direction: Array
    length: Array
    moves: Array
    changes: Array


@lru_cache
def adaptive(memory: int = 10, reach: float = 1.0) -> Any:
    """An optax transformation, `init(u)` and `update(gradient, state, u, value=value)`:

        u⁺ = u + t d,   d = −H ∇h(u),   H from the last `memory` pairs (Liu and Nocedal 1989),

    no coordinate moving by more than `reach`, the first step moving the steepest by that much. One
    evaluation a step: a point that does not decrease h enough (Armijo) is left for one between it
    and the last good one, by quadratic interpolation. Values need to be exact to what the descent
    gains; a value that is not finite is a bad one.

    memory: pairs that are kept.   reach: in u; with `Positive`, 1 is a factor of e in θ.
    """
    import optax

    descent = _Descent(memory, reach)
    return optax.GradientTransformationExtraArgs(descent.init, cast(Any, descent.update))


class _Descent(NamedTuple):
    memory: int
    reach: float

    def init(self, params: Tree) -> State:
        u, _ = ravel_pytree(params)
        pairs = jnp.zeros((self.memory, u.size), u.dtype)
        one = jnp.ones((), u.dtype)
        return State(u, one * jnp.inf, 0 * u, 0 * u, one, pairs, pairs)

    def update(
        self,
        updates: Tree,
        state: State,
        params: Tree | None = None,
        *,
        value: Array,
        **others: Any,
    ) -> tuple[Tree, State]:
        u, unravel = ravel_pytree(params)
        g, _ = ravel_pytree(updates)
        slope, t = state.gradient @ state.direction, state.length
        enough = value <= state.value + ARMIJO * t * slope
        good = enough & jnp.isfinite(value) & jnp.all(jnp.isfinite(g))
        after = tree.where(good, self._accept(state, u, g, value), self._shorten(state, value))
        return unravel(after.point + after.length * after.direction - u), after

    def _accept(self, state: State, u: Array, g: Array, value: Array) -> State:
        s, y = u - state.point, g - state.gradient
        curved = (s @ y > 1e-8 * tree.norm(s) * tree.norm(y)) & jnp.isfinite(state.value)
        moves = jnp.where(curved, jnp.roll(state.moves, -1, 0).at[-1].set(s), state.moves)
        changes = jnp.where(curved, jnp.roll(state.changes, -1, 0).at[-1].set(y), state.changes)
        d = self._limited(-_two_loops(moves, changes, g))
        return State(u, value, g, d, jnp.ones_like(value), moves, changes)

    def _shorten(self, state: State, value: Array) -> State:
        t, slope = state.length, state.gradient @ state.direction
        bend = value - state.value - t * slope  # of the parabola through both values
        least = jnp.where(bend > 0, -slope * t / (2 * bend), 0.5)
        t = t * jnp.clip(jnp.where(jnp.isfinite(least), least, 0.1), 0.1, 0.5)
        lost = t < SHORTEST
        steepest = self._limited(-state.gradient)
        return state._replace(
            direction=jnp.where(lost, SHORTEST * steepest, state.direction),
            length=jnp.where(lost, 1, t),
            moves=jnp.where(lost, 0, state.moves),
            changes=jnp.where(lost, 0, state.changes),
        )

    def _limited(self, d: Array) -> Array:
        longest = jnp.max(jnp.abs(d), initial=0)
        return d * jnp.where(longest > self.reach, self.reach / longest, 1)


def _two_loops(moves: Array, changes: Array, g: Array) -> Array:
    """H g; pairs of zeros are none. Without any, g as long as `Descent` allows."""
    products = jnp.sum(moves * changes, axis=1)
    used = products > 0
    rho = jnp.where(used, 1 / jnp.where(used, products, 1), 0)

    def back(q, pair):
        s, y, r = pair
        a = r * (s @ q)
        return q - a * y, a

    q, a = jax.lax.scan(back, g, (moves, changes, rho), reverse=True)
    last = tree.norm(changes[-1])
    scale = jnp.where(used[-1], products[-1] / jnp.where(last > 0, last, 1) ** 2, jnp.inf)
    largest = jnp.max(jnp.abs(g), initial=0)
    steepest = g / jnp.where(largest > 0, largest, 1)
    q = jnp.where(used[-1], q * jnp.where(used[-1], scale, 1), steepest)

    def forth(q, pair):
        s, y, r, a = pair
        return q + s * (a - r * (y @ q)), None

    return jax.lax.scan(forth, q, (moves, changes, rho, a))[0]
