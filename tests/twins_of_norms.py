"""Slow, obvious numpy versions of the proximity operators of norms, and of their subdifferentials.

A norm, like any positively homogeneous g, has a polar set {s : ⟨s, v⟩ ≤ g(v) for all v}: s is a
subgradient at u when it lies there and ⟨s, u⟩ = g(u), and the prox of g* projects onto it.
"""

import functools
import itertools

import numpy as np
from scipy.optimize import lsq_linear


def homogeneous(value, excess):
    """How far s is from ∂g(u), when excess(s) says how far it is outside the polar set."""
    return lambda u, s: max(0.0, excess(s), abs(s @ u - value(u)))


def golden(value, low, high):
    """The minimiser of a convex function of a number, by golden section on its values."""
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(80):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if value(a) < value(b) else (a, high)
    return (low + high) / 2


def soft(x, t):
    return x - np.clip(x, -t, t)


# Euclidean norms of groups


def grouped(one, groups):
    """What `one(x, step, k)` does to each group, put together."""

    def all_groups(x, step):
        u = x.copy()
        for k, group in enumerate(groups):
            u[group] = one(x[group], step, k)
        return u

    return all_groups


def group_norm_twin(penalties, groups, l1=0.0):
    """‖u‖ = min over r of (‖u‖²/r + r)/2: an elastic net for each r, and a search over r."""

    def one(x, step, k):
        weight = penalties[k]

        def best(r):
            return soft(x, step * l1) / (1 + step * weight / r)

        def value(r):
            u = best(r)
            off = (u - x) @ (u - x) / (2 * step)
            return off + l1 * np.abs(u).sum() + weight * ((u @ u) / r + r) / 2

        return best(golden(value, 1e-9, np.linalg.norm(x) + 1e-6))

    return grouped(one, groups)


def group_ball(penalties, groups, l1=0.0):
    """Onto {‖soft(s_g, l1)‖ ≤ penalty_g}, the sum of a box and a ball: along its normal."""

    def one(x, step, k):
        out = soft(x, l1)
        size = np.linalg.norm(out)
        return x if size <= penalties[k] else np.clip(x, -l1, l1) + penalties[k] * out / size

    return grouped(one, groups)


def group_norm_subgradient(penalties, groups, l1=0.0):
    def value(u):
        return l1 * np.abs(u).sum() + sum(
            p * np.linalg.norm(u[g]) for p, g in zip(penalties, groups, strict=True)
        )

    def excess(s):
        return max(
            np.linalg.norm(soft(s[g], l1)) - p for p, g in zip(penalties, groups, strict=True)
        )

    return homogeneous(value, excess)


# The largest magnitude


def l1_ball(radius):
    """Projection by bisection on the threshold."""

    def project(x, step=None):
        if np.abs(x).sum() <= radius:
            return x
        low, high = 0.0, np.abs(x).max()
        for _ in range(200):
            tau = (low + high) / 2
            low, high = (tau, high) if np.abs(soft(x, tau)).sum() > radius else (low, tau)
        return soft(x, (low + high) / 2)

    return project


def linf_twin(penalty):
    """Clip at the level with the least value."""

    def prox(x, step):
        def value(level):
            u = np.clip(x, -level, level)
            return penalty * level + (u - x) @ (u - x) / (2 * step)

        level = golden(value, 0.0, np.abs(x).max() + 1e-9)
        return np.clip(x, -level, level)

    return prox


# Sequences


@functools.cache
def segmentations(n):
    """Of each pattern of jumps: M, B with u = Mx − Bt, u constant on each segment and stationary
    for the signs of that pattern."""
    means, pulls = [], []
    D = np.diff(np.eye(n), axis=0)
    for signs in itertools.product((-1, 0, 1), repeat=n - 1):
        block = np.cumsum([0, *np.abs(signs)])
        M = (block[:, None] == block) / np.sum(block[:, None] == block, axis=1)
        means.append(M)
        pulls.append(M @ D.T * np.array(signs))
    return np.stack(means), np.stack(pulls)


@functools.cache
def signed_segmentations(n):
    """Which pattern of jumps, and −1, 0 or 1 on each of its segments: 0 for a segment at zero."""
    patterns, levels = [], []
    for k, signs in enumerate(itertools.product((-1, 0, 1), repeat=n - 1)):
        block = np.cumsum([0, *np.abs(signs)])
        for level in itertools.product((-1, 0, 1), repeat=block[-1] + 1):
            patterns.append(k)
            levels.append(np.array(level)[block])
    return np.array(patterns), np.stack(levels)


def fused_twin(tv, l1=0.0):
    """The best of all candidates: the solution is one of them."""

    def prox(x, step):
        t = step * np.broadcast_to(tv, len(x) - 1)
        M, B = segmentations(len(x))
        u = M @ x - B @ t
        if l1:
            pattern, level = signed_segmentations(len(x))
            u = np.where(level == 0, 0, u[pattern] - step * l1 * level)
        bend = (np.abs(np.diff(u)) * t).sum(1) + step * l1 * np.abs(u).sum(1)
        return u[np.argmin(bend + ((u - x) ** 2).sum(1) / 2)]

    return prox


def fused_polar(tv, l1=0.0):
    """Onto {Dᵀw + v : |w| ≤ tv, |v| ≤ l1}, by bounded least squares."""

    def project(x, step=None):
        bounds = np.broadcast_to(tv, len(x) - 1)
        D = np.diff(np.eye(len(x)), axis=0)
        columns, ends = D.T[:, bounds > 0], bounds[bounds > 0]
        if l1:
            columns, ends = np.hstack([columns, np.eye(len(x))]), np.append(ends, [l1] * len(x))
        found = lsq_linear(columns, x, (-ends, ends), method="bvls", tol=1e-15, max_iter=500)
        return columns @ found.x

    return project


def fused_subgradient(tv, l1=0.0):
    def value(u):
        return np.sum(tv * np.abs(np.diff(u))) + l1 * np.abs(u).sum()

    project = fused_polar(tv, l1)
    return homogeneous(value, lambda s: np.abs(s - project(s)).max())


# Order


def blocks_of(n):
    """Every way to cut n places into blocks of neighbours, as a label for each place."""
    return [np.cumsum([0, *cuts]) for cuts in itertools.product((0, 1), repeat=n - 1)]


def slope_twin(penalties):
    """In decreasing order of magnitude, the best of all candidates: means of blocks, a tail of 0.

    The solution is one of them.
    """

    def prox(x, step):
        order = np.argsort(-np.abs(x))
        size = np.abs(x)[order]
        best, least = None, np.inf
        for block in blocks_of(len(x)):
            same = block[:, None] == block
            means = (same @ (size - step * penalties)) / same.sum(1)
            for tail in range(block[-1] + 2):
                u = np.where(block < tail, means, 0)
                bend = step * np.sort(np.abs(u))[::-1] @ penalties
                if bend + (u - size) @ (u - size) / 2 < least:
                    best, least = u, bend + (u - size) @ (u - size) / 2
        u = np.empty_like(x)
        u[order] = best
        return np.where(x < 0, -u, u)

    return prox


def slope_polar(penalties):
    """Onto {s : sums of the k largest |s| ≤ those of the penalties}: |s| less its excess, which is
    the regression of |x| − penalties on nonincreasing nonnegative sequences by its min-max formula.
    """

    def project(x, step=None):
        order = np.argsort(-np.abs(x))
        over = np.empty_like(x)
        over[order] = np.maximum(minmax_isotonic((np.abs(x)[order] - penalties)[::-1])[::-1], 0)
        return x - np.where(x < 0, -over, over)

    return project


def slope_subgradient(penalties):
    def excess(s):
        return np.max(np.cumsum(np.sort(np.abs(s))[::-1]) - np.cumsum(penalties))

    return homogeneous(lambda u: np.sort(np.abs(u))[::-1] @ penalties, excess)


def minmax_isotonic(y):
    """uᵢ = max over a ≤ i of the min over b ≥ i of the mean of y from a to b (nondecreasing)."""
    n = len(y)
    mean = [[np.mean(y[a : b + 1]) if a <= b else 0 for b in range(n)] for a in range(n)]
    return np.array(
        [max(min(mean[a][b] for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    )


def isotonic_subgradient(u, s):
    """s is normal to the cone at u: ⟨s, u⟩ = 0, and ⟨s, v⟩ ≤ 0 for each step v = 0…0 1…1, its
    generators, and for both signs of 1…1."""
    tails = np.cumsum(s[::-1])[::-1]
    return max(abs(tails[0]), np.max(tails), abs(s @ u))


def firm_slopes(penalty, bends):
    """The subdifferential of penalty·|u| bent by `bends(|u|)`, which is 0 at 0."""

    def slopes(u):
        bent = np.sign(u) * bends(np.abs(u))
        low, high = np.where(u > 0, penalty, -penalty), np.where(u < 0, -penalty, penalty)
        return low - bent, high - bent

    return slopes
