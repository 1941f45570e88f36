"""Rows of the table in test_prox.py: the sets, and the calculus of functions.

Each: make, parameters, a slow twin, the prox of the conjugate from a formula of its own, and how
far a vector is from the subdifferential.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog, lsq_linear

from jaxns.functions import (
    L1,
    AffineSet,
    Birkhoff,
    Box,
    BoxSection,
    Conjugate,
    ExponentialCone,
    HalfSpace,
    Hyperplane,
    L1Ball,
    L2Ball,
    Linear,
    LinfBall,
    MoreauEnvelope,
    Polyhedron,
    PositiveSemidefinite,
    Precompose,
    Scale,
    SecondOrderCone,
    Separable,
    SquaredL2,
    Sum,
    Translate,
)
from jaxns.struct import static, struct

SIZE = 5
random = np.random.RandomState(7)
NORMAL = np.array([1.0, -2.0, 0.5, 0.0, 1.5])
A, EQUAL = random.randn(2, SIZE), np.array([0.5, -1.0])
G, BELOW = random.randn(4, SIZE), np.array([1.0, 0.5, -0.5, 0.25])
EQUATION, VALUE = random.randn(1, SIZE), np.array([0.3])
LOWER, UPPER = np.array([-1.0, -0.5, 0.0, 0.5, -np.inf]), np.array([1.0, 0.5, 2.0, 0.75, 3.0])
SHIFT = np.array([0.5, -1.0, 0.0, 2.0, 0.25])
ROTATION = np.linalg.qr(random.randn(SIZE, SIZE))[0][:3]


@struct
class Viewed:
    """f of another view of a vector of length SIZE: of its first entries, as a matrix, in parts."""

    viewed: Any
    view: Callable = static()
    back: Callable = static()

    def __call__(self, x):
        return self.viewed(self.view(x))

    def prox(self, x, step):
        return self.back(self.viewed.prox(self.view(x), step), x)


def first_three(x):
    return x[:3]


def first_four(x):
    return x[:4].reshape(2, 2)


def in_front(u, x):
    return x.at[: u.size].set(u.ravel())


def split(x):
    return {"a": x[:2], "b": x[2:]}


def joined(u, x):
    return x.at[:2].set(u["a"]).at[2:].set(u["b"])


def embed(twin, size):
    """A twin of the first entries; those that follow are free."""

    def whole(x, step):
        return np.concatenate([twin(x[:size], step), x[size:]])

    return whole


def on_first(twin, size):
    """The same for conjugates, where what follows must be 0."""

    def whole(x, step):
        return np.concatenate([twin(x[:size], step), 0 * x[size:]])

    return whole


def bisect(falling, low, high):
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def soft(x, t):
    return np.sign(x) * np.maximum(np.abs(x) - t, 0)


def gap(support):
    """s is normal to a set at u when its support function is attained there: σ(s) = ⟨s, u⟩."""
    return lambda u, s: max(0.0, support(s) - s @ u)


def clipped(x, low, high):
    return np.minimum(np.maximum(x, low), high)


# Balls ------------------------------------------------------------------------------------------


def l1_projection(radius):
    def project(x, step):
        if np.abs(x).sum() <= radius:
            return x
        level = bisect(lambda t: np.abs(soft(x, t)).sum() - radius, 0.0, np.abs(x).max())
        return soft(x, level)

    return project


def largest_modulus_prox(radius):
    """Of step·radius·‖·‖∞: the moduli are cut where the cuts add up to step·radius."""

    def prox(x, step):
        total = step * radius
        if np.abs(x).sum() <= total:
            return 0 * x
        cut = np.abs(x).max()
        level = bisect(lambda t: np.maximum(np.abs(x) - t, 0).sum() - total, 0.0, cut)
        return clipped(x, -level, level)

    return prox


def l2_projection(radius):
    def project(x, step):
        if np.linalg.norm(x) <= radius:
            return x
        t = bisect(lambda t: np.linalg.norm(x / (1 + t)) - radius, 0.0, 1e4)
        return x / (1 + t)

    return project


def l2_norm_prox(radius):
    def prox(x, step):
        norm = np.linalg.norm(x)
        return x * max(0.0, 1 - step * radius / norm) if norm else x

    return prox


# Affine sets and polyhedra ----------------------------------------------------------------------


def half_space_conjugate(x, step):
    """The support function is λb at λa, λ ≥ 0."""
    return max(0.0, (NORMAL @ x - step * 0.75) / (NORMAL @ NORMAL)) * NORMAL


def half_space_distance(u, s):
    t = s @ NORMAL / (NORMAL @ NORMAL)
    return max(np.abs(s - t * NORMAL).max(), -t, abs(t * (NORMAL @ u - 0.75)))


def affine_projection(A, b):
    def project(x, step):
        kkt = np.block([[np.eye(SIZE), A.T], [A, np.zeros((len(b), len(b)))]])
        return np.linalg.solve(kkt, np.concatenate([x, b]))[:SIZE]

    return project


def affine_conjugate(A, b):
    """The support function is λᵀb at Aᵀλ."""
    return lambda x, step: A.T @ np.linalg.solve(A @ A.T, A @ x - step * b)


def outside_rows(A):
    return lambda u, s: np.abs(s - A.T @ np.linalg.lstsq(A.T, s, rcond=None)[0]).max()


def by_enumeration(G, h, A, b):
    """The closest point among the projections on all faces that lie in the polyhedron."""

    def project(x, step):
        best, found = np.inf, None
        for k in range(SIZE - len(b) + 1):
            for rows in itertools.combinations(range(len(h)), k):
                M = np.concatenate([A, G[list(rows)]])
                c = np.concatenate([b, h[list(rows)]])
                u = affine_projection(M, c)(x, step) if len(c) else x
                if np.all(G @ u <= h + 1e-9) and np.sum((u - x) ** 2) < best - 1e-12:
                    best, found = np.sum((u - x) ** 2), u
        return found

    return project


def polyhedron_conjugate(G, h, A, b):
    """The support function is the least λᵀh + νᵀb with Gᵀλ + Aᵀν at the point, λ ≥ 0; here the
    face of multipliers is enumerated."""

    def prox(x, step):
        best, found = np.inf, None
        for k in range(SIZE - len(b) + 1):
            for rows in itertools.combinations(range(len(h)), k):
                M = np.concatenate([A, G[list(rows)]])
                c = np.concatenate([b, h[list(rows)]])
                multipliers = np.linalg.solve(M @ M.T, M @ x - step * c)
                u = M.T @ multipliers
                value = 0.5 * np.sum((u - x) ** 2) + step * multipliers @ c
                if np.all(multipliers[len(b) :] >= 0) and value < best:
                    best, found = value, u
        return found

    return prox


def polyhedron_distance(G, h, A, b):
    """From the cone of the normals of the rows that are met."""

    def distance(u, s):
        met = G[np.abs(G @ u - h) <= 1e-9]
        normals = np.concatenate([met, A]).T
        if not normals.size:
            return np.linalg.norm(s)
        least = np.repeat([0.0, -np.inf], [len(met), len(A)])
        found = lsq_linear(normals, s, (least, np.inf), method="bvls", tol=1e-14)
        return np.linalg.norm(normals @ found.x - s)

    return distance


def section_projection(x, step):
    mu = bisect(lambda m: NORMAL @ clipped(x - m * NORMAL, LOWER, UPPER) - 0.4, -1e3, 1e3)
    return clipped(x - mu * NORMAL, LOWER, UPPER)


def section_conjugate(x, step):
    """The support function is the least over ν of the box's at y − νa, plus νb."""

    def point(nu):
        y = x - nu * NORMAL
        return clipped(0.0, y - step * UPPER, y - step * LOWER) + nu * NORMAL

    return point(bisect(lambda nu: NORMAL @ (x - point(nu)) - step * 0.4, -1e4, 1e4))


def section_support(s):
    bounds = list(zip(LOWER, UPPER, strict=True))
    bounds[4] = (-100.0, 3.0)  # a bound that a solution does not reach
    return -linprog(-s, A_eq=NORMAL[None], b_eq=[0.4], bounds=bounds).fun


def birkhoff_projection(x, step):
    """The 2 × 2 doubly stochastic matrices are [[t, 1 − t], [1 − t, t]]."""
    t = np.clip((x[0] + x[3] - x[1] - x[2] + 2) / 4, 0, 1)
    return np.array([t, 1 - t, 1 - t, t])


def birkhoff_support(s):
    return max(s[0] + s[3], s[1] + s[2])


def birkhoff_conjugate(x, step):
    """Of max(x₁ + x₄, x₂ + x₃): one pair falls and the other rises until they meet."""
    t = np.clip((x[0] + x[3] - x[1] - x[2] + 2 * step) / (4 * step), 0, 1)
    return x - step * np.array([t, 1 - t, 1 - t, t])


# Cones ------------------------------------------------------------------------------------------


def second_order_projection(x, step):
    """Along the cone's axis for each length of x: the best of a family in one parameter."""
    v, t = x[:-1], x[-1]
    norm = np.linalg.norm(v)
    if norm <= t:
        return x
    height = bisect(lambda h: (norm - h) + (t - h), 0.0, 1e3)
    return height * np.append(v / norm if norm else v, 1.0)


def negative_of(projection):
    """The polar cone of a self-dual cone is its negative."""
    return lambda x, step: -projection(-x, step)


def semidefinite_projection(x, step):
    """Of [[a, b], [c, d]]: the closest of all wwᵀ, and of the matrix itself and 0."""
    X = x.reshape(2, 2)
    X = (X + X.T) / 2
    middle, radius = np.trace(X) / 2, np.hypot((X[0, 0] - X[1, 1]) / 2, X[0, 1])
    if middle - radius >= 0:
        return X.ravel()
    if middle + radius <= 0:
        return 0 * x
    turn = np.arctan2(X[0, 1], (X[0, 0] - X[1, 1]) / 2) / 2
    w = np.array([np.cos(turn), np.sin(turn)])
    return (middle + radius) * np.outer(w, w).ravel()


def semidefinite_conjugate(x, step):
    """The antisymmetric part, and minus the projection of minus the symmetric one."""
    X = x.reshape(2, 2)
    skew = (X - X.T).ravel() / 2
    return skew - semidefinite_projection(-x, step)


def best_ray(ray, slope, v):
    """The projection of v on the closest of the rays in one parameter; by a grid, then bisection.

    ray, slope: ρ ↦ a vector along the ray, and its derivative."""
    grid = np.sinh(np.linspace(-15, 15, 8001))
    p = np.stack(ray(grid))
    cosine = (v @ p) / np.linalg.norm(p, axis=0)
    k = int(np.clip(np.argmax(cosine), 1, len(grid) - 2))

    def rising(rho):
        p, d = np.stack(ray(rho)), np.stack(slope(rho))
        return (v @ d) * (p @ p) - (v @ p) * (p @ d)

    p = np.stack(ray(bisect(rising, grid[k - 1], grid[k + 1])))
    return max(0.0, v @ p) / (p @ p) * p


def primal_ray(rho):
    scale = np.exp(-np.maximum(rho, 0))
    return rho * scale, scale, np.exp(np.minimum(rho, 0))


def primal_slope(rho):
    """Up to a multiple of the ray, which changes its length only."""
    scale = np.exp(-np.maximum(rho, 0))
    return scale, 0 * scale, np.exp(np.minimum(rho, 0))


def polar_ray(rho):
    scale = np.exp(-np.maximum(rho, 0))
    return np.exp(np.minimum(rho, 0)), (1 - rho) * np.exp(np.minimum(rho, 0)), -scale


def polar_slope(rho):
    scale = np.exp(-np.maximum(rho, 0))
    return np.exp(np.minimum(rho, 0)), -rho * np.exp(np.minimum(rho, 0)), 0 * scale


def closest(v, candidates):
    return min(candidates, key=lambda u: np.sum((u - v) ** 2))


def exponential_projection(v, step):
    if v[1] > 0 and v[1] * np.exp(min(v[0] / v[1], 700)) <= v[2]:
        return v
    face = np.array([min(v[0], 0), 0, max(v[2], 0)])
    return closest(v, [face, best_ray(primal_ray, primal_slope, v)])


def exponential_conjugate(v, step):
    if v[0] > 0 and v[0] * np.exp(min(v[1] / v[0] - 1, 700)) <= -v[2]:
        return v
    face = np.array([0, min(v[1], 0), min(v[2], 0)])
    return closest(v, [face, best_ray(polar_ray, polar_slope, v)])


def cone_distance(polar_projection, size=SIZE):
    """s in the polar cone, and orthogonal to u; what follows the first entries is free."""

    def distance(u, s):
        off = np.linalg.norm(polar_projection(s[:size], 1.0) - s[:size])
        return max(off, abs(s @ u) / (1 + np.linalg.norm(s)), np.abs(s[size:]).max(initial=0))

    return distance


# Calculus ---------------------------------------------------------------------------------------


def huber_prox(x, step):
    """Of ½ Σ min over u of 0.7|u| + (u − x)²/(2·0.5): quadratic up to 0.7·0.5, then affine."""
    inner = np.abs(x) <= 0.7 * (0.5 + step)
    return np.where(inner, x * 0.5 / (0.5 + step), x - step * 0.7 * np.sign(x))


def huber_slope(u):
    return np.clip(u / 0.5, -0.7, 0.7)


@struct
class Rotation:
    """An operator with an adjoint, whose rows are orthonormal."""

    def __call__(self, x):
        return jnp.asarray(ROTATION, x.dtype) @ x

    def T(self, u):
        return jnp.asarray(ROTATION.T, u.dtype) @ u


def along_rows(change, elsewhere):
    """Along the rows of the rotation, a function of each; at right angles to them, a multiple."""

    def whole(x, step):
        t = ROTATION @ x
        return elsewhere * (x - ROTATION.T @ t) + ROTATION.T @ change(t, step)

    return whole


def off_rows(u, s):
    t, image = ROTATION @ s, ROTATION @ u
    edge = np.where(np.abs(image) <= 1e-12, clipped(t, -0.7, 0.7), 0.7 * np.sign(image))
    return max(np.abs(t - edge).max(), np.abs(s - ROTATION.T @ t).max())


def boxed_l1_conjugate(x, step):
    """The conjugate of 0.7|u| on [lower, upper] has the maximiser of pu − 0.7|u| for derivative:
    p + step·u(p) rises through x."""

    def maximiser(p):
        at_zero = clipped(0.0, LOWER, UPPER)
        return np.where(p > 0.7, UPPER, np.where(p < -0.7, np.maximum(LOWER, -1e9), at_zero))

    low, high = np.full(SIZE, -1e4), np.full(SIZE, 1e4)
    for _ in range(200):
        p = (low + high) / 2
        below = p + step * maximiser(p) < x
        low, high = np.where(below, p, low), np.where(below, high, p)
    return (low + high) / 2


def absolute(penalty, low=None, high=None, curvature=0.0, slope=0.0, shift=0.0):
    """The subdifferential of penalty |u − shift| + curvature u²/2 + slope u on [low, high]."""
    low, high = (-np.inf if low is None else low), (np.inf if high is None else high)

    def slopes(u):
        tilt = curvature * u + slope
        least = np.where(u > shift, penalty, -penalty) + tilt
        most = np.where(u < shift, -penalty, penalty) + tilt
        return np.where(u <= low, -np.inf, least), np.where(u >= high, np.inf, most)

    return slopes


def row(make, twin, conjugate, parameters=(), **fields):
    return {"make": make, "twin": twin, "conjugate": conjugate, "parameters": parameters, **fields}


def ball_row(make, radius, twin, conjugate, support):
    return row(
        make, twin(radius), conjugate(radius), (radius,),
        subgradient=gap(lambda s: radius * support(s)), projection=True,
    )  # fmt: skip


NO_ROWS = (np.zeros((0, SIZE)), np.zeros(0))
anywhere = {"anywhere": True, "projection": True, "arrays": True}

ROWS = {
    "L1Ball": ball_row(L1Ball, 1.5, l1_projection, largest_modulus_prox, lambda s: np.abs(s).max()),
    "L2Ball": ball_row(L2Ball, 1.5, l2_projection, l2_norm_prox, np.linalg.norm),
    "LinfBall": row(
        LinfBall,
        lambda x, step: clipped(x, -UPPER, UPPER),
        lambda x, step: soft(x, step * UPPER),
        (UPPER,),
        slopes=absolute(0.0, -UPPER, UPPER),
        projection=True,
    ),
    "HalfSpace": row(
        HalfSpace,
        lambda x, step: x if NORMAL @ x <= 0.75 else affine_projection(NORMAL[None], [0.75])(x, 1),
        half_space_conjugate,
        (NORMAL, 0.75),
        subgradient=half_space_distance,
        **anywhere,
    ),
    "Hyperplane": row(
        Hyperplane,
        affine_projection(NORMAL[None], [0.75]),
        affine_conjugate(NORMAL[None], np.array([0.75])),
        (NORMAL, 0.75),
        subgradient=outside_rows(NORMAL[None]),
        **anywhere,
    ),
    "AffineSet": row(
        AffineSet,
        affine_projection(A, EQUAL),
        affine_conjugate(A, EQUAL),
        (A, EQUAL),
        subgradient=outside_rows(A),
        **anywhere,
    ),
    "Polyhedron": row(
        Polyhedron,
        by_enumeration(G, BELOW, *NO_ROWS),
        polyhedron_conjugate(G, BELOW, *NO_ROWS),
        (G, BELOW),
        subgradient=polyhedron_distance(G, BELOW, *NO_ROWS),
        slow=True,
        **anywhere,
    ),
    "Polyhedron-equations": row(
        Polyhedron,
        by_enumeration(G, BELOW, EQUATION, VALUE),
        polyhedron_conjugate(G, BELOW, EQUATION, VALUE),
        (G, BELOW, EQUATION, VALUE),
        subgradient=polyhedron_distance(G, BELOW, EQUATION, VALUE),
        slow=True,
        **anywhere,
    ),
    "BoxSection": row(
        BoxSection,
        section_projection,
        section_conjugate,
        (LOWER, UPPER, NORMAL, 0.4),
        subgradient=gap(section_support),
        slow=True,
        **anywhere,
    ),
    "SecondOrderCone": row(
        SecondOrderCone,
        second_order_projection,
        negative_of(second_order_projection),
        subgradient=cone_distance(negative_of(second_order_projection)),
        projection=True,
        arrays=True,
    ),
    "PositiveSemidefinite": row(
        lambda: Viewed(PositiveSemidefinite(), first_four, in_front),
        embed(semidefinite_projection, 4),
        on_first(semidefinite_conjugate, 4),
        subgradient=cone_distance(semidefinite_conjugate, 4),
        projection=True,
        arrays=True,
    ),
    "ExponentialCone": row(
        lambda: Viewed(ExponentialCone(), first_three, in_front),
        embed(exponential_projection, 3),
        on_first(exponential_conjugate, 3),
        subgradient=cone_distance(exponential_conjugate, 3),
        projection=True,
        arrays=True,
        slow=True,
    ),
    "Birkhoff": row(
        lambda: Viewed(Birkhoff(), first_four, in_front),
        embed(birkhoff_projection, 4),
        on_first(birkhoff_conjugate, 4),
        subgradient=lambda u, s: max(gap(birkhoff_support)(u[:4], s[:4]), np.abs(s[4:]).max()),
        projection=True,
        arrays=True,
        slow=True,
    ),
    "Linear": row(
        Linear,
        lambda x, step: x - step * NORMAL,
        lambda x, step: NORMAL,
        (NORMAL,),
        slopes=absolute(0.0, slope=NORMAL),
        anywhere=True,
        arrays=True,
    ),
    "Conjugate": row(
        lambda penalty: Conjugate(L1(penalty)),
        lambda x, step: clipped(x, -0.7, 0.7),
        lambda x, step: soft(x, 0.7 * step),
        (0.7,),
        slopes=absolute(0.0, -0.7 + 1e-12, 0.7 - 1e-12),  # the bound is met up to rounding
    ),
    "MoreauEnvelope": row(
        lambda penalty, smoothing: MoreauEnvelope(L1(penalty), smoothing),
        huber_prox,
        lambda x, step: clipped(x / (1 + 0.5 * step), -0.7, 0.7),
        (0.7, 0.5),
        slopes=lambda u: (huber_slope(u), huber_slope(u)),
    ),
    "Scale": row(
        lambda penalty, weight: Scale(L1(penalty), weight),
        lambda x, step: soft(x, step * 1.4),
        lambda x, step: clipped(x, -1.4, 1.4),
        (0.7, 2.0),
        slopes=absolute(1.4),
    ),
    "Translate": row(
        lambda penalty, shift: Translate(L1(penalty), shift),
        lambda x, step: SHIFT + soft(x - SHIFT, 0.7 * step),
        lambda x, step: clipped(x - step * SHIFT, -0.7, 0.7),
        (0.7, SHIFT),
        slopes=absolute(0.7, shift=SHIFT),
        anywhere=True,
    ),
    "Precompose": row(
        lambda penalty: Precompose(L1(penalty), Rotation()),
        along_rows(lambda t, step: soft(t, 0.7 * step), 1.0),
        along_rows(lambda t, step: clipped(t, -0.7, 0.7), 0.0),
        (0.7,),
        subgradient=off_rows,
        arrays=True,
    ),
    "Separable": row(
        lambda a, b: Viewed(Separable({"a": L1(a), "b": SquaredL2(b)}), split, joined),
        lambda x, step: np.append(soft(x[:2], 0.7 * step), x[2:] / (1 + 0.4 * step)),
        lambda x, step: np.append(clipped(x[:2], -0.7, 0.7), x[2:] * 0.4 / (0.4 + step)),
        (0.7, 0.4),
        slopes=absolute(np.array([0.7, 0.7, 0, 0, 0]), curvature=np.array([0, 0, 0.4, 0.4, 0.4])),
        arrays=True,
    ),
    "Sum-with-squares": row(
        lambda penalty, square: Sum(L1(penalty), SquaredL2(square)),
        lambda x, step: soft(x, 0.7 * step) / (1 + 0.4 * step),
        lambda x, step: x - soft(x, 0.7) * step / (0.4 + step),
        (0.7, 0.4),
        slopes=absolute(0.7, curvature=0.4),
    ),
    "Sum-with-box": row(
        lambda lower, upper, penalty: Sum(Box(lower, upper), L1(penalty)),
        lambda x, step: clipped(soft(x, 0.7 * step), LOWER, UPPER),
        boxed_l1_conjugate,
        (LOWER, UPPER, 0.7),
        slopes=absolute(0.7, LOWER, UPPER),
    ),
}
