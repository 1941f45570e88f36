"""Polyhedra: projection by a dual active set, differentiated on the rows that turn out active."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import cho_factor, cho_solve

from jaxns import tree
from jaxns.functions.affine import check_rows, onto_affine, rank_tolerance, rounding
from jaxns.functions.sets import indicator
from jaxns.struct import struct


@struct
class Polyhedron:
    """{x : Gx ≤ h, Ax = b} for x of shape (…, p).   G: (m, p).   h: (m,).   A: (n, p).   b: (n,).

    Projection by the finite method of Goldfarb and Idnani (1983, Mathematical Programming 27); NaN
    if the set is empty. Near a solution the set is affine: {Ax = b, and Gx = h on the active rows},
    and so is the derivative. Rows that are met without effort count as active as long as they are
    linearly independent (docs/kinks.md).
    """

    G: Array
    h: Array
    A: Array | None = None
    b: Array | None = None

    def __post_init__(self) -> None:
        check_rows(self, "G", "h")
        if (self.A is None) != (self.b is None):
            raise TypeError("A and b must be given together")
        if self.A is not None:
            check_rows(self, "A", "b")
            if self.A.shape[1] != self.G.shape[1]:
                raise ValueError(
                    f"A must have as many columns as G, {self.G.shape[1]}, got shape {self.A.shape}"
                )

    def __call__(self, x: Array) -> Array:
        G, h, A, b = self._rows(x)
        size = jnp.linalg.norm(x, axis=-1, keepdims=True)
        met = jnp.abs(x @ A.T - b) <= rounding(A, b, size)
        return indicator(jnp.all(x @ G.T - h <= rounding(G, h, size)) & jnp.all(met), x)

    def prox(self, x: Array, step: Any) -> Array:
        return jnp.vectorize(self._project, signature="(p)->(p)")(x)

    def _project(self, x: Array) -> Array:
        G, h, A, b = self._rows(x)
        active = active_rows(*map(lax.stop_gradient, (x, G, h, A, b)))
        rows = jnp.concatenate([A, jnp.where(active[:, None], G, 0)])
        u = onto_affine(x, rows, jnp.concatenate([b, jnp.where(active, h, 0)]))
        slack = rounding(G, h, jnp.linalg.norm(x) + jnp.linalg.norm(u))
        return jnp.where(jnp.all(G @ u - h <= slack), u, jnp.nan)

    def _rows(self, x: Array) -> tuple[Array, Array, Array, Array]:
        none = jnp.zeros((0, self.G.shape[1])), jnp.zeros(0)
        equations = none if self.A is None else (self.A, self.b)
        return tuple(jnp.asarray(part, x.dtype) for part in (self.G, self.h, *equations))  # pyright: ignore[reportReturnType]


def active_rows(x: Array, G: Array, h: Array, A: Array, b: Array) -> Array:
    """Which rows of Gx ≤ h hold with equality at the projection; independent of each other."""
    start, along = x, G
    if len(b):
        _, s, V = jnp.linalg.svd(A, full_matrices=False)
        V = jnp.where((s > rank_tolerance(A) * s[0])[:, None], V, 0)
        start, along = onto_affine(x, A, b), G - (G @ V.T) @ V  # rows within {Ax = 0}
    size, full = jnp.linalg.norm(along, axis=1), jnp.linalg.norm(G, axis=1)
    size = jnp.where(size > 1e2 * tree.eps(x) * full, size, 0)
    unit = jnp.where(size > 0, size, jnp.where(full > 0, full, 1))
    normals = jnp.where(size[:, None] > 0, along / unit[:, None], 0)
    slack = rounding(G, h, jnp.linalg.norm(x) + jnp.linalg.norm(start))
    return dual_active_set(normals, (G @ start - h) / unit, slack / unit)


class _State(NamedTuple):
    d: Array  # the move so far
    multipliers: Array
    active: Array
    redundant: Array  # met, and dependent on active rows
    entering: Array  # the row whose multiplier grows, -1 for none
    going: Array
    steps: Array


def dual_active_set(N: Array, excess: Array, slack: Array) -> Array:
    """The active rows of min ½‖d‖² subject to N d + excess ≤ 0, for rows of length 1 or 0.

    One step: the multiplier of the most violated row n grows by t while d moves by −t z, where
    z = n − Nᵀr is n without its part in the active rows and r changes their multipliers; until n
    is met, or an active row's multiplier vanishes and the row is dropped.
    """
    m = len(excess)
    index, identity = jnp.arange(m, dtype=jnp.int32), jnp.eye(m, dtype=N.dtype)
    dependent = 10 * tree.eps(N)  # of sin² of the angle between n and the active rows

    def tolerance(d):
        return slack + 1e2 * tree.eps(N) * jnp.linalg.norm(d)

    def waiting(state):
        gap = excess + N @ state.d
        return jnp.where(state.active | state.redundant, -jnp.inf, gap + tolerance(state.d))

    def step(state):
        j = jnp.where(state.entering >= 0, state.entering, index[jnp.argmax(waiting(state))])
        n, gap = N[j], excess[j] + N[j] @ state.d
        violated = gap > tolerance(state.d)[j]

        on = state.active
        factor = cho_factor(jnp.where(on[:, None] & on, N @ N.T, identity))
        r = cho_solve(factor, jnp.where(on, N @ n, 0))
        r = r + cho_solve(factor, jnp.where(on, N @ (n - r @ N), 0))
        z = n - r @ N
        independent = z @ z > dependent

        falling = on & (r > 0)
        ratios = jnp.where(falling, state.multipliers / jnp.where(falling, r, 1), jnp.inf)
        leaving = jnp.argmin(ratios)
        meet = jnp.where(violated, gap / jnp.where(independent, z @ z, 1), 0)
        meet = jnp.where(independent, meet, jnp.inf)
        t = jnp.minimum(ratios[leaving], meet)
        enter = independent & (meet <= ratios[leaving])
        reject = ~violated & ~independent
        empty = violated & ~jnp.isfinite(t)  # n is a combination of rows that excludes it
        drop = ~enter & ~reject & ~empty

        moves = jnp.where(reject | empty, 0, t)
        multipliers = state.multipliers + moves * ((index == j) - jnp.where(on, r, 0))
        gone = drop & (index == leaving)
        moved = _State(
            d=state.d - jnp.where(independent, moves, 0) * z,
            multipliers=jnp.where(gone, 0, jnp.maximum(multipliers, 0)),
            active=(on | (enter & (index == j))) & ~gone,
            redundant=jnp.where(violated, False, state.redundant | (reject & (index == j))),
            entering=jnp.where(drop, j, -1),
            going=~empty & (state.steps < 20 * m + 100),
            steps=state.steps + 1,
        )
        return moved._replace(going=moved.going & (drop | jnp.any(waiting(moved) >= 0)))

    false = jnp.zeros(m, bool)
    zero = jnp.zeros((), jnp.int32)
    start = _State(
        jnp.zeros_like(N[0]), jnp.zeros_like(excess), false, false, zero - 1, zero == 0, zero
    )
    start = start._replace(going=jnp.any(waiting(start) >= 0))
    return tree.while_loop(lambda state: state.going, step, start).active
