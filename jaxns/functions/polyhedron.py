"""Polyhedra: projection by a dual active set, differentiated on the rows that turn out active."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from jaxns import tree
from jaxns.functions.affine import check_rows, onto_affine, rank_tolerance, rounding
from jaxns.functions.margins import nearest
from jaxns.functions.sets import indicator
from jaxns.struct import struct


@struct
class Polyhedron:
    """{x : Gx ≤ h, Ax = b} for x of shape (…, p).   G: (m, p).   h: (m,).   A: (n, p).   b: (n,).

    Projection by the finite method of Goldfarb and Idnani (1983, Mathematical Programming 27); NaN
    if the set is empty. Near a solution the set is affine: {Ax = b, and Gx = h on the active rows},
    and so is the derivative. Rows that are met without effort, up to rounding, do not change the
    projection, but count as active in the derivative as long as they are linearly independent
    (docs/kinks.md).
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
        return jnp.vectorize(lambda x: self._project(x)[0], signature="(p)->(p)")(x)

    def prox_margin(self, x: Array, step: Any) -> Array:
        """To where a multiplier of an active row, or the slack of another one, vanishes."""
        return nearest(jnp.vectorize(self._gap, signature="(p)->()")(x))

    def _gap(self, x: Array) -> Array:
        (G, h, A, _), (u, active) = self._scaled(x), self._project(x)
        rows = jnp.concatenate([jnp.where(active[:, None], G, 0), A])
        inverse = jnp.linalg.pinv(rows)
        along = inverse[:, : len(h)]  # how the multipliers of rows of G change with x
        across = G - (G @ inverse) @ rows  # how slacks do
        steepness = jnp.linalg.norm(jnp.where(active, along, across.T), axis=0)
        parallel = ~active & (steepness <= rank_tolerance(G))  # its slack is constant
        gap = jnp.where(active, (x - u) @ along, jnp.abs(h - G @ u))
        return nearest(jnp.where(parallel, jnp.inf, gap / jnp.where(parallel, 1, steepness)))

    def _project(self, x: Array) -> tuple[Array, Array]:
        """The projection, and its active rows."""
        G, h, A, b = self._scaled(x)
        u, active = project(*map(lax.stop_gradient, (x, G, h, A, b)))
        rows = jnp.concatenate([A, jnp.where(active[:, None], G, 0)])
        moving = onto_affine(x, rows, jnp.concatenate([b, jnp.where(active, h, 0)]))
        return u + (moving - lax.stop_gradient(moving)), active

    def _scaled(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """With the rows of G of length 1 or 0."""
        G, h, A, b = self._rows(x)
        length = lax.stop_gradient(jnp.linalg.norm(G, axis=1))
        length = jnp.where(length > 0, length, 1)
        return G / length[:, None], h / length, A, b

    def _rows(self, x: Array) -> tuple[Array, Array, Array, Array]:
        none = jnp.zeros((0, self.G.shape[1])), jnp.zeros(0)
        equations = none if self.A is None else (self.A, self.b)
        return tuple(jnp.asarray(part, x.dtype) for part in (self.G, self.h, *equations))  # pyright: ignore[reportReturnType]


def project(x: Array, G: Array, h: Array, A: Array, b: Array) -> tuple[Array, Array]:
    """The projection, and which rows of Gx ≤ h it meets, as many as are independent.

    Rows of G have length 1 or 0.
    """
    start, along = x, G
    if len(b):
        _, s, V = jnp.linalg.svd(A, full_matrices=False)
        V = jnp.where((s > rank_tolerance(A) * s[0])[:, None], V, 0)
        start, along = onto_affine(x, A, b), G - (G @ V.T) @ V  # rows within {Ax = 0}
    size = jnp.linalg.norm(along, axis=1)
    within = size > 1e2 * tree.eps(x)
    unit = jnp.where(within, size, 1)
    N, excess = jnp.where(within, along.T / unit, 0).T, (G @ start - h) / unit
    slack = rounding(G, h, jnp.linalg.norm(x) + jnp.linalg.norm(start)) / unit
    d, held = dual_active_set(N, excess, slack / 25)  # a few roundings only
    gap, slack = excess + N @ d, slack + 1e2 * tree.eps(x) * jnp.linalg.norm(d)
    u = jnp.where(jnp.all(gap <= slack), start + d, jnp.nan)
    return u, independent_rows(N, held, jnp.abs(gap) <= slack)


class _State(NamedTuple):
    d: Array  # the move so far
    multipliers: Array
    active: Array
    entering: Array  # the row whose multiplier grows, -1 for none
    going: Array
    steps: Array


def dual_active_set(N: Array, excess: Array, slack: Array) -> tuple[Array, Array]:
    """d of min ½‖d‖² subject to N d + excess ≤ 0, for rows of length 1 or 0; and its active rows.

    One step: the multiplier of the most violated row n grows by t while d moves by −t z, where
    z = n − Nᵀr is n without its part in the active rows and r changes their multipliers; until n
    is met, or an active row's multiplier vanishes and the row is dropped.
    """
    m, p = N.shape
    index = jnp.arange(m, dtype=jnp.int32)

    def violation(d, active):
        gap = excess + N @ d - slack - 4 * tree.eps(N) * jnp.linalg.norm(d)
        return jnp.where(active, -jnp.inf, gap)

    def step(state):
        on = state.active
        some = jnp.argsort(~on)[: min(m, p)]  # all that are active, and others in the places left
        others = jnp.diag((~on[some]).astype(N.dtype))  # they stand apart from the active rows
        Q, R = jnp.linalg.qr(jnp.concatenate([jnp.where(on[some], N[some].T, 0), others]))
        Q = Q[:p]  # its columns of active rows are an orthonormal basis of these

        def coefficients(w):
            return jnp.where(on, jnp.zeros_like(excess).at[some].set(solve_triangular(R, w)), 0)

        # Back to the active rows, from which rounding has led away.
        w = solve_triangular(R, jnp.where(on, excess + N @ state.d, 0)[some], trans=1)
        d, multipliers = state.d - Q @ w, state.multipliers + coefficients(w)
        multipliers = jnp.maximum(multipliers, 0)

        over = violation(d, on)
        j = jnp.where(state.entering >= 0, state.entering, index[jnp.argmax(over)])
        met = (state.entering < 0) & jnp.all(over <= 0)
        n = N[j]
        w = n @ Q
        r, z = coefficients(w), n - Q @ w
        z = z - Q @ (z @ Q)
        independent = jnp.linalg.norm(z) > 1e2 * tree.eps(N) * (1 + jnp.linalg.norm(r))
        z = jnp.where(independent, z, 0)

        falling = on & (r > 0)
        ratios = jnp.where(falling, multipliers / jnp.where(falling, r, 1), jnp.inf)
        leaving = jnp.argmin(ratios)
        gap = jnp.maximum(excess[j] + n @ d, 0)
        meet = jnp.where(independent, gap / jnp.where(independent, n @ z, 1), jnp.inf)
        t = jnp.minimum(ratios[leaving], meet)
        stop = met | ~jnp.isfinite(t)  # n is a combination of rows that excludes it
        t = jnp.where(stop, 0, t)
        gone = ~stop & (meet > ratios[leaving]) & (index == leaving)
        enters = ~stop & (meet <= ratios[leaving])
        multipliers = multipliers + t * ((index == j) - r)
        return _State(
            d=d - t * z,
            multipliers=jnp.where(gone, 0, jnp.maximum(multipliers, 0)),
            active=(on | (enters & (index == j))) & ~gone,
            entering=jnp.where(enters, -1, j),
            going=~stop & (state.steps < 20 * m + 100),
            steps=state.steps + 1,
        )

    d, none, zero = jnp.zeros_like(N[0]), jnp.zeros(m, bool), jnp.zeros((), jnp.int32)
    going = jnp.any(violation(d, none) > 0)
    start = _State(d, jnp.zeros_like(excess), none, zero - 1, going, zero)
    end = tree.while_loop(lambda state: state.going, step, start)
    return end.d, end.active


def independent_rows(N: Array, held: Array, met: Array) -> Array:
    """The rows held, which are independent, and of those met as many as are independent of them."""

    def take(state):
        taken, waiting, basis = state
        i = jnp.argmax(waiting * (1 + held))  # first those held
        z = N[i]
        for _ in range(2):
            z = z - (basis @ z) @ basis
        square = z @ z
        new = held[i] | (square > 10 * tree.eps(N))
        z = jnp.where(new, z / jnp.sqrt(jnp.where(new, square, 1)), 0)
        return taken.at[i].set(new), waiting.at[i].set(False), basis.at[i].set(z)

    start = jnp.zeros_like(held), held | met, jnp.zeros_like(N)
    return tree.while_loop(lambda state: jnp.any(state[1]), take, start)[0]
