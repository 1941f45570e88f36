"""Every proximity operator against its definition, a slow twin in numpy, and its derivative.

One table. A function of `jaxns.functions` that has a prox and no row in it fails a test.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins_of_norms as twins
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prox_sets import ROWS as SETS

from jaxns import functions
from jaxns.functions import (
    L1,
    L2,
    MCP,
    SCAD,
    Box,
    ElasticNet,
    FusedLasso,
    Gram,
    GroupL2,
    Hinge,
    Isotonic,
    LeastSquares,
    Linf,
    Max,
    NonNegative,
    Pinball,
    Quadratic,
    Simplex,
    Slope,
    SparseGroup,
    SquaredDistance,
    SquaredL2,
    TotalVariation1D,
    Zero,
)

SIZE = 5
PER_COORDINATE = np.array([0.0, 0.5, 1.0, 2.0, 0.25])
LOWER = np.array([-1.0, -0.5, 0.0, 0.5, -np.inf])
UPPER = np.array([1.0, 0.5, 2.0, 0.5, 3.0])
ROOT = np.random.RandomState(0).randn(3, SIZE)
TALL = np.random.RandomState(1).randn(7, SIZE)
Q, LINEAR = ROOT.T @ ROOT, np.array([1.0, -2.0, 0.5, 0.0, 3.0])
LABELS, GROUPS = [3, 1, 1, 3, 7], [[0, 3], [1, 2], [4]]
SORTED = np.array([1.5, 1.0, 1.0, 0.25, 0.0])
BOUND = 100.0  # the twin looks for the prox in [-BOUND, BOUND]
INF = np.inf


@dataclasses.dataclass(frozen=True)
class Case:
    """One function, in jaxns and in numpy.

    make(*parameters): the function of jaxns.
    twin(x, step): its prox, slowly.
    slopes(u): lower and upper end of the subdifferential at each uⱼ of the prox's range (separable
        functions); `subgradient(u, s)` for the others says how far s is from the subdifferential.
    conjugate(x, step): prox of step·g*, from a formula for g* found independently of ours.
    kinks(step): points x where the prox has a kink, each with the derivative documented there: its
        diagonal, or all of it.
    projection: whether g is 0 on a set and infinite off it.
    anchor: derivatives, in each parameter, of where a coordinate at a kink stays (if not at 0).
    convex: a prox that is not of a convex function can expand, and has no conjugate.
    anywhere: whether its parameters may take any value.
    arrays: whether the unknown is one array and not a pytree.
    slow: whether only the slow tests look at it.
    """

    make: Callable[..., Any]
    twin: Callable[[np.ndarray, float], np.ndarray]
    conjugate: Callable[[np.ndarray, float], np.ndarray] | None
    parameters: tuple[Any, ...] = ()
    slopes: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    subgradient: Callable[[np.ndarray, np.ndarray], float] | None = None
    kinks: Callable[[float], list[tuple[np.ndarray, np.ndarray]]] = lambda step: []
    projection: bool = False
    anchor: tuple[float, ...] = ()
    convex: bool = True
    anywhere: bool = False
    arrays: bool = False
    slow: bool = False

    @property
    def g(self) -> Any:
        return self.make(*self.parameters)

    @property
    def name(self) -> str:
        g = self.g
        return type(getattr(g, "viewed", g)).__name__


def scalar_minimum(value, low, high):
    """The minimiser of a convex function of each coordinate, by golden section on its values."""
    low, high = np.broadcast_to(low, SIZE).copy(), np.broadcast_to(high, SIZE).copy()
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        left = value(a) < value(b)
        low, high = np.where(left, low, a), np.where(left, b, high)
    return (low + high) / 2


def separable(g, low=-BOUND, high=BOUND):
    """The twin of a separable g on a box: minimise g(u) + (u − x)²/(2 step) by its values."""
    low, high = np.maximum(low, -BOUND), np.minimum(high, BOUND)
    return lambda x, step: scalar_minimum(lambda u: g(u) + (u - x) ** 2 / (2 * step), low, high)


def absolute_slopes(penalty, curvature=0.0):
    def slopes(u):
        low = np.where(u > 0, penalty, -penalty) + curvature * u
        high = np.where(u < 0, -penalty, penalty) + curvature * u
        return low, high

    return slopes


def normal_cone(lower, upper):
    def slopes(u):
        return np.where(u <= lower, -INF, 0.0), np.where(u >= upper, INF, 0.0)

    return slopes


def box_projection(lower, upper):
    return lambda x, step: np.minimum(np.maximum(x, lower), upper)


def threshold_kinks(l1, l2=0.0):
    """Both edges of the dead zone; a coordinate without penalty has no kink, and the slope of the
    shrinkage."""

    def kinks(step):
        edge = step * np.broadcast_to(l1, SIZE)
        return [(sign * edge, (edge == 0) / (1 + step * l2)) for sign in (-1.0, 1.0)]

    return kinks


def elastic_net_conjugate(l1, l2):
    """g*(y) = max(|y| − l1, 0)² / (2 l2); its prox by cases."""

    def prox(x, step):
        over = np.abs(x) - l1
        return np.where(over <= 0, x, np.sign(x) * (l1 + over * l2 / (l2 + step)))

    return prox


def simplex_by_bisection(radius):
    def project(x, step):
        low, high = x.min() - radius, x.max()
        for _ in range(200):
            tau = (low + high) / 2
            if np.maximum(x - tau, 0).sum() > radius:
                low = tau
            else:
                high = tau
        return np.maximum(x - (low + high) / 2, 0)

    return project


def simplex_subgradient(radius):
    """s is normal to the simplex at u when ⟨s, v − u⟩ ≤ 0 at each vertex v."""
    return lambda u, s: max(0.0, radius * np.max(s) - s @ u)


def largest_times(radius):
    """prox of step·(radius · max), the support function of the simplex, through its optimality:
    the largest entries are cut at a level where the cuts add up to step·radius."""

    def prox(x, step):
        low, high = x.min() - step * radius, x.max()
        for _ in range(200):
            level = (low + high) / 2
            if np.maximum(x - level, 0).sum() > step * radius:
                low = level
            else:
                high = level
        return np.minimum(x, (low + high) / 2)

    return prox


def quadratic_case(make, parameters, Q, q):
    def descent(x, step):
        """Gradient descent on ½uᵀQu + qᵀu + ‖u − x‖²/(2 step)."""
        u, rate = x.copy(), 1 / (1 / step + np.linalg.norm(Q, 2))
        for _ in range(2000):
            u = u - rate * (Q @ u + q + (u - x) / step)
        return u

    values, vectors = np.linalg.eigh(Q)
    inside = values > 1e-10

    def conjugate(x, step):
        """g*(y) = ½ (y − q)ᵀQ⁺(y − q) on q + range(Q): in an eigenbasis, by coordinates."""
        c = vectors.T @ (x - q)
        shrunk = np.where(inside, c / (1 + step / np.where(inside, values, 1)), 0)
        return q + vectors @ shrunk

    def subgradient(u, s):
        return np.abs(s - Q @ u - q).max()

    return Case(
        make, descent, conjugate, parameters, subgradient=subgradient, anywhere=True, arrays=True
    )


def squares_case(A, b, weights=None):
    w, n = (np.ones(A.shape[0]), 1) if weights is None else (weights, A.shape[0])
    make = LeastSquares if weights is None else lambda A, b, w: LeastSquares(A, b, "mean", w)
    parameters = (A, b) if weights is None else (A, b, weights)
    return quadratic_case(make, parameters, A.T @ np.diag(w) @ A / n, -A.T @ (w * b) / n)


def pinball_case(b, level, weights):
    def slopes(u):
        return (
            np.where(u > b, weights * (1 - level), -weights * level),
            np.where(u < b, -weights * level, weights * (1 - level)),
        )

    return Case(
        Pinball,
        separable(lambda u: weights * np.maximum(level * (b - u), (level - 1) * (b - u))),
        lambda x, step: np.clip(x - step * b, -weights * level, weights * (1 - level)),
        (b, level, weights),
        slopes=slopes,
        kinks=lambda step: [
            (b - step * weights * level, np.zeros(SIZE)),
            (b + step * weights * (1 - level), np.zeros(SIZE)),
        ],
        anywhere=True,
        arrays=True,
        anchor=(1.0, 0.0, 0.0),
    )


def hinge_case(y, weights):
    def slopes(u):
        loss = -weights * y
        at_one, below = y * u == 1, y * u < 1
        low, high = np.minimum(loss, 0), np.maximum(loss, 0)
        return np.where(at_one, low, loss * below), np.where(at_one, high, loss * below)

    return Case(
        Hinge,
        separable(lambda u: weights * np.maximum(0, 1 - y * u)),
        lambda x, step: y * np.clip(y * x - step, -weights, 0),
        (y, weights),
        slopes=slopes,
        kinks=lambda step: [(y, np.zeros(SIZE)), (y - step * weights * y, np.zeros(SIZE))],
        anywhere=True,
        arrays=True,
        anchor=(-1.0, 0.0),  # it stays at 1/y
    )


def distance_case(b, weights):
    return quadratic_case(SquaredDistance, (b, weights), np.diag(weights), -weights * b)


def l1_case(penalty):
    return Case(
        L1,
        separable(lambda u: penalty * np.abs(u)),
        box_projection(-penalty, penalty),
        (penalty,),
        slopes=absolute_slopes(penalty),
        kinks=threshold_kinks(penalty),
    )


def squared_case(penalty):
    def conjugate(x, step):  # g*(y) = y²/(2 penalty), or the indicator of 0
        return np.where(penalty == 0, 0, x * penalty / (penalty + step))

    return Case(
        SquaredL2,
        separable(lambda u: 0.5 * penalty * u**2),
        conjugate,
        (penalty,),
        slopes=absolute_slopes(0.0, penalty),
    )


def elastic_case(l1, l2):
    return Case(
        ElasticNet,
        separable(lambda u: l1 * np.abs(u) + 0.5 * l2 * u**2),
        elastic_net_conjugate(l1, l2),
        (l1, l2),
        slopes=absolute_slopes(l1, l2),
        kinks=threshold_kinks(l1, l2),
    )


def box_case(lower, upper):
    def conjugate(x, step):  # x − step·projection(x/step), the bounds written out
        return np.minimum(np.maximum(x - step * upper, 0), x - step * lower)

    def kinks(step):
        ends = [np.broadcast_to(end, SIZE) for end in (lower, upper)]
        return [(end, np.zeros(SIZE)) for end in ends if np.isfinite(end).all()]

    return Case(
        Box,
        separable(lambda u: 0 * u, lower, upper),
        conjugate,
        (lower, upper),
        slopes=normal_cone(lower, upper),
        kinks=kinks,
        projection=True,
    )


def simplex_case(radius):
    return Case(
        Simplex,
        simplex_by_bisection(radius),
        largest_times(radius),
        (radius,),
        subgradient=simplex_subgradient(radius),
        projection=True,
    )


FIRST = np.eye(SIZE)[0]
FLAT = np.full((SIZE, SIZE), 1 / SIZE)  # the derivative of the mean


def group_case(make, penalties, groups, l1=None, at=None):
    """at: a point whose groups all lie on the edge of their dead zone when the step is 1."""
    extra = () if l1 is None else (l1,)
    weights = np.broadcast_to(penalties, len(groups))
    return Case(
        make,
        twins.group_norm_twin(weights, groups, *extra),
        twins.group_ball(weights, groups, *extra),
        (*extra, penalties),
        subgradient=twins.group_norm_subgradient(weights, groups, *extra),
        kinks=lambda step: [] if at is None else [(step * at, np.zeros(SIZE))],
    )


def fused_case(tv, l1=None, kinks=lambda step: []):
    extra = () if l1 is None else (l1,)
    return Case(
        TotalVariation1D if l1 is None else FusedLasso,
        twins.fused_twin(tv, *extra),
        twins.fused_polar(tv, *extra),
        (*extra, tv),
        subgradient=twins.fused_subgradient(tv, *extra),
        kinks=kinks,
    )


def nonconvex_case(make, penalty, shape, value, bends, end):
    """end: where the penalty stops to grow. The steps of the tests are small enough."""

    def kinks(step):
        return [
            (sign * at, np.full(SIZE, slope))
            for sign in (-1.0, 1.0)
            for at, slope in ((np.full(SIZE, step * penalty), 0.0), (np.full(SIZE, end), 1.0))
        ]

    return Case(
        make,
        separable(value),
        None,
        (penalty, shape),
        slopes=twins.firm_slopes(penalty, bends),
        kinks=kinks,
        convex=False,
    )


def mcp_case(penalty, gamma):
    def value(u):
        size = np.minimum(np.abs(u), gamma * penalty)
        return penalty * size - size**2 / (2 * gamma)

    def bends(size):
        return np.minimum(size / gamma, penalty)

    return nonconvex_case(MCP, penalty, gamma, value, bends, gamma * penalty)


def scad_case(penalty, a):
    def value(u):  # the integral of its slope, in closed form on each of the three pieces
        size = np.minimum(np.abs(u), a * penalty)
        return penalty * size - np.maximum(size - penalty, 0) ** 2 / (2 * (a - 1))

    def bends(size):
        return np.clip((size - penalty) / (a - 1), 0, penalty)

    return nonconvex_case(SCAD, penalty, a, value, bends, a * penalty)


CASES = {
    "Zero": Case(
        Zero, lambda x, step: x, lambda x, step: 0 * x, slopes=absolute_slopes(np.float64(0))
    ),
    "L1": l1_case(0.7),
    "L1-free": l1_case(0.0),
    "L1-per-coordinate": l1_case(PER_COORDINATE),
    "SquaredL2": squared_case(0.7),
    "SquaredL2-free": squared_case(0.0),
    "SquaredL2-per-coordinate": squared_case(PER_COORDINATE),
    "ElasticNet": elastic_case(0.7, 0.4),
    "ElasticNet-no-l2": elastic_case(0.7, 0.0),
    "ElasticNet-no-l1": elastic_case(0.0, 0.4),
    "ElasticNet-per-coordinate": elastic_case(PER_COORDINATE, PER_COORDINATE[::-1].copy()),
    "NonNegative": Case(
        NonNegative,
        separable(lambda u: 0 * u, 0.0),
        lambda x, step: np.minimum(x, 0),
        slopes=normal_cone(0.0, INF),
        kinks=lambda step: [(np.zeros(SIZE), np.zeros(SIZE))],
        projection=True,
    ),
    "Box": box_case(-1.0, 0.5),
    "Box-half": box_case(-INF, 0.5),
    "Box-per-coordinate": box_case(LOWER, UPPER),
    "Simplex": simplex_case(1.0),
    "Simplex-radius": simplex_case(2.5),
    "Quadratic": quadratic_case(Quadratic, (Q, LINEAR), Q, LINEAR),
    "Gram": quadratic_case(Gram, (ROOT, LINEAR), Q, LINEAR),
    "SquaredDistance": distance_case(LINEAR, np.array([1.0, 2.0, 0.5, 0.25, 4.0])),
    "Pinball": pinball_case(LINEAR, 0.25, np.array([1.0, 2.0, 0.5, 0.25, 4.0])),
    "Hinge": hinge_case(
        np.array([-1.0, -1.0, 1.0, -1.0, -1.0]), np.array([1.0, 2.0, 0.5, 0.25, 4.0])
    ),
    "LeastSquares-wide": squares_case(ROOT, LINEAR[:3]),
    "LeastSquares-tall-weighted-mean": squares_case(TALL, np.arange(7.0), np.arange(7.0)),
    "L2": group_case(L2, 0.7, [[*range(SIZE)]], at=0.7 * FIRST),
    "L2-free": group_case(L2, 0.0, [[*range(SIZE)]]),
    "GroupL2": group_case(
        lambda p: GroupL2(p, LABELS),
        0.7,
        [GROUPS[1], GROUPS[0], GROUPS[2]],
        at=0.7 * np.array([1.0, 0.0, -1.0, 0.0, 1.0]),
    ),
    "GroupL2-per-group": group_case(
        lambda p: GroupL2(p, GROUPS), np.array([0.5, 0.0, 2.0]), GROUPS
    ),
    "GroupL2-rows": group_case(GroupL2, 0.7, [[j] for j in range(SIZE)], at=0.7 * np.ones(SIZE)),
    "SparseGroup": group_case(
        lambda *p: SparseGroup(*p, GROUPS),
        np.array([0.5, 1.0, 2.0]),
        GROUPS,
        0.25,
        at=np.array([0.75, 0.25, -1.25, 0.0, 2.25]),
    ),
    "Linf": Case(
        Linf,
        twins.linf_twin(0.7),
        twins.l1_ball(0.7),
        (0.7,),
        subgradient=twins.homogeneous(
            lambda u: 0.7 * np.abs(u).max(), lambda s: np.abs(s).sum() - 0.7
        ),
        kinks=lambda step: [(step * 0.7 * FIRST, np.zeros(SIZE))],
    ),
    "Max": Case(
        Max,
        largest_times(0.7),
        simplex_by_bisection(0.7),
        (0.7,),
        subgradient=twins.homogeneous(
            lambda u: 0.7 * u.max(), lambda s: max(-s.min(), abs(s.sum() - 0.7))
        ),
    ),
    "TotalVariation1D": fused_case(
        0.5, kinks=lambda step: [(1.25 * step * 0.5 * FIRST, FLAT), (np.ones(SIZE), FLAT)]
    ),
    "FusedLasso": fused_case(
        PER_COORDINATE[:4],
        0.25,
        lambda step: [(np.full(SIZE, end), np.zeros(SIZE)) for end in (-0.25 * step, 0.25 * step)],
    ),
    "Slope": Case(
        Slope,
        twins.slope_twin(SORTED),
        twins.slope_polar(SORTED),
        (SORTED,),
        subgradient=twins.slope_subgradient(SORTED),
        kinks=lambda step: [(step * SORTED, np.zeros(SIZE))],
    ),
    "MCP": mcp_case(0.7, 5.0),
    "SCAD": scad_case(0.7, 6.0),
    "Isotonic": Case(
        Isotonic,
        lambda x, step: twins.minmax_isotonic(x),
        lambda x, step: x - step * twins.minmax_isotonic(x / step),
        subgradient=twins.isotonic_subgradient,
        kinks=lambda step: [(np.ones(SIZE), FLAT)],
        projection=True,
    ),
    **{name: Case(**fields) for name, fields in SETS.items()},
}
ELSEWHERE = {"LogDet", "Nuclear"}  # on matrices: test_losses.py, test_prox_spectral.py


def named(condition):
    """The names of the cases that meet it."""
    slow = pytest.mark.slow
    names = [
        pytest.param(name, marks=slow if case.slow else ())
        for name, case in CASES.items()
        if condition(case)
    ]
    return pytest.mark.parametrize("name", names)


every_case = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow if c.slow else (), id=k) for k, c in CASES.items()],
)
convex = named(lambda case: case.convex)
with_kinks = named(lambda case: case.kinks(1.0))
with_parameters = named(lambda case: case.parameters)
projections = named(lambda case: case.projection)

# Round numbers often, so that coordinates meet kinks, bounds and each other.
coordinates = st.one_of(
    st.sampled_from([-2.0, -1.0, -0.7, -0.5, 0.0, 0.5, 0.7, 1.0, 2.0]),
    st.floats(-10, 10, allow_subnormal=False),
)
points = hnp.arrays(np.float64, SIZE, elements=coordinates)
steps = st.one_of(st.just(1.0), st.floats(0.05, 4))
examples = settings(max_examples=40, deadline=None, derandomize=True)


@jax.jit
def prox(g, x, step):
    return g.prox(x, step)


@jax.jit
def value(g, x):
    return g(x)


def test_every_prox_has_a_row():
    with_prox = {name for name in functions.__all__ if hasattr(getattr(functions, name), "prox")}
    assert with_prox == {case.name for case in CASES.values()} | ELSEWHERE


@every_case
@given(x=points, step=steps)
@examples
def test_agrees_with_its_slow_twin(case, x, step):
    # Values locate a minimiser to the square root of rounding only.
    np.testing.assert_allclose(prox(case.g, x, step), case.twin(x, step), atol=5e-6)


@every_case
@given(x=points, step=steps)
@examples
def test_satisfies_the_optimality_condition(case, x, step):
    u = np.asarray(prox(case.g, x, step))
    s = (x - u) / step
    if case.slopes is None:
        assert case.subgradient(u, s) <= 1e-10
    else:
        low, high = case.slopes(u)
        slack = 1e-13 * (1 + np.abs(x)) / step
        assert np.all((low - slack <= s) & (s <= high + slack))


@convex
@given(x=points, y=points, step=steps)
@examples
def test_is_firmly_nonexpansive(name, x, y, step):
    case = CASES[name]
    move = np.asarray(prox(case.g, x, step)) - np.asarray(prox(case.g, y, step))
    assert move @ move <= move @ (x - y) + 1e-12 * (1 + (x - y) @ (x - y))


@convex
@given(x=points, step=steps)
@examples
def test_moreau_identity_gives_the_prox_of_the_conjugate(name, x, step):
    case = CASES[name]
    through_ours = x - step * np.asarray(prox(case.g, x / step, 1 / step))
    np.testing.assert_allclose(case.conjugate(x, step), through_ours, atol=1e-11)


@projections
@given(x=points, step=steps)
@examples
def test_projection_is_idempotent_and_lands_in_the_set(name, x, step):
    g = CASES[name].g
    u = prox(g, x, step)
    assert value(g, u) == 0
    np.testing.assert_allclose(prox(g, np.asarray(u), step), u, atol=1e-15)
    np.testing.assert_array_equal(prox(g, x, 1.0), u)  # whatever the step


@projections
def test_indicator_is_infinite_off_the_set(name):
    assert value(CASES[name].g, np.full(SIZE, -7.0) + 20 * (np.arange(SIZE) == 2)) == INF


# Derivatives ------------------------------------------------------------------------------------


def smooth_points(case, step):
    """Fixed points x where the prox is differentiable: no coordinate within 1e-3 of a kink."""
    random = np.random.RandomState(1)
    found = []
    while len(found) < 3:
        x = 2 * random.randn(SIZE)
        u = case.twin(x, step)
        if case.slopes is not None:
            low, high = case.slopes(np.where(np.abs(u) < 1e-5, 0, u))
            s = (x - u) / step
            inside = (low + 1e-3 < s) & (s < high - 1e-3)
            if not np.all(inside | (np.abs(u) > 1e-3)):
                continue
        elif case.make is Simplex and np.min(np.abs(x - (x - u)[u.argmax()])) < 1e-3:
            continue
        found.append(x)
    return found


def inner(case):
    """Where each parameter can be moved both ways without leaving its domain or meeting a kink."""
    parameters = [np.asarray(p) for p in case.parameters]
    if case.make is Box:
        lower, upper = parameters
        return [np.isfinite(p) & (lower < upper) for p in parameters]
    return [np.isfinite(p) if case.anywhere else p > 0 for p in parameters]


@jax.jit
def derivative(g, x, step):
    return jax.jacobian(lambda x: g.prox(x, step))(x)


@jax.jit
def directional(g, x, step, tangents):
    return jax.jvp(lambda g, x, step: g.prox(x, step), (g, x, step), tangents)[1]


@jax.jit
def pulled_back(g, x, step, cotangent):
    return jax.vjp(lambda g, x, step: g.prox(x, step), g, x, step)[1](cotangent)


def vdot(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(np.vdot(x, y) for x, y in pairs)


@every_case
def test_derivative_agrees_with_central_differences(case):
    """In x, in the step and in every parameter, forward and reverse."""
    random, step, h = np.random.RandomState(2), 0.8, 1e-6
    parameters, structure = case.parameters, jax.tree.structure(case.g)
    for x in smooth_points(case, step):
        dx, dstep, w = random.randn(SIZE), random.randn(), random.randn(SIZE)
        ds = [
            np.where(free, random.randn(*free.shape), 0)
            for p, free in zip(parameters, inner(case), strict=True)
        ]
        g, dg = case.g, jax.tree.unflatten(structure, ds)

        def moved(t, x=x, dx=dx, dstep=dstep, ds=ds):
            shifted = [p + t * d for p, d in zip(parameters, ds, strict=True)]
            shifted = [p if p.ndim else float(p) for p in shifted]  # as they were: traced once
            g = jax.tree.unflatten(structure, shifted)
            return np.asarray(prox(g, x + t * dx, step + t * dstep))

        expected = (moved(h) - moved(-h)) / (2 * h)
        found = directional(g, x, step, (dg, dx, dstep))
        np.testing.assert_allclose(found, expected, atol=1e-8)
        adjoint = pulled_back(g, x, step, w)
        np.testing.assert_allclose(vdot(adjoint, (dg, dx, dstep)), w @ found, atol=1e-12)


@with_kinks
def test_derivative_at_a_kink_is_the_documented_one(name):
    case, step = CASES[name], 0.5  # a power of two: step·penalty is exact, x is on the kink
    for x, expected in case.kinks(step):
        jacobian = derivative(case.g, x, step)
        np.testing.assert_array_equal(
            jacobian, expected if expected.ndim == 2 else np.diag(expected)
        )


@with_kinks
def test_derivative_in_the_penalty_at_a_kink(name):
    """Zero is kept zero; a bound that is met moves the projection with it."""
    case, step = CASES[name], 0.5
    leaves, structure = jax.tree.flatten(case.g)
    for x, _ in case.kinks(step):
        for i, p in enumerate(leaves):
            tangent = [np.full(np.shape(q), float(i == j)) for j, q in enumerate(leaves)]
            dg = jax.tree.unflatten(structure, tangent)
            found = directional(case.g, x, step, (dg, np.zeros(SIZE), 0.0))
            if case.make is Box:  # where both bounds are met, the lower one counts
                expected = 1.0 * (x == p) * ((i == 0) | (x != leaves[0]))
            else:
                expected = np.full(SIZE, case.anchor[i] if case.anchor else 0.0)
            np.testing.assert_array_equal(found, expected)


def test_simplex_at_a_tie_keeps_the_zero():
    """τ = 0: the second coordinate sits exactly on the boundary of its face."""
    x = jnp.array([1.0, 0.0, -1.0, -1.0, -1.0])
    np.testing.assert_array_equal(prox(Simplex(), x, 1.0), [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(derivative(Simplex(), x, 1.0), np.zeros((SIZE, SIZE)))
    in_radius = directional(Simplex(), x, 1.0, (Simplex(1.0), np.zeros(SIZE), 0.0))
    np.testing.assert_array_equal(in_radius, [1, 0, 0, 0, 0])


@given(x=points, step=steps)
@example(x=np.zeros(SIZE), step=1.0)
@example(x=np.ones(SIZE), step=1.0)
@settings(examples, max_examples=10)
@named(lambda case: True)
def test_derivative_is_never_nan(name, x, step):
    """At round points too, where many kinks meet."""
    g = CASES[name].g
    x = np.round(2 * x) / 2
    assert np.isfinite(directional(g, x, step, (g_like(g, 1.0), np.ones(SIZE), 1.0))).all()
    leaves = jax.tree.leaves(pulled_back(g, x, step, np.ones(SIZE)))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def g_like(g, fill):
    return jax.tree.map(lambda p: np.full(np.shape(p), fill), g)


# Types, batches, pytrees ------------------------------------------------------------------------


@every_case
def test_nan_stays_nan(case):
    x = np.array([1.0, np.nan, -2.0, np.nan, 0.0])
    assert np.isnan(prox(case.g, x, 1.0)[np.isnan(x)]).all()
    # value: no set contains NaN, no penalty of it is a number
    assert case.make is Zero or not np.isfinite(value(case.g, x))


@named(lambda case: case.parameters and case.name not in {"Separable", "Sum"})  # up to the parts
def test_nan_in_a_parameter_stays_nan(name):
    """Inside a transformation, where validation cannot see it."""
    case = CASES[name]
    x = np.array([1.0, 3.0, -2.0, 3.5, 4.0])
    leaves, structure = jax.tree.flatten(case.g)
    for i, leaf in enumerate(leaves):
        broken = [np.full(np.shape(p), np.nan) if j == i else p for j, p in enumerate(leaves)]
        u = prox(jax.tree.unflatten(structure, broken), x, 1.0)
        if case.make is Box:  # the other bound may be the one that counts
            beyond = x < leaves[1] if i == 0 else x > leaves[0]
            assert np.isnan(u[beyond]).all(), leaf
        else:
            assert np.isnan(u).all(), leaf


@every_case
def test_float32_in_float32_out(case):
    """With parameters in double precision too; 1e-5 is 100 times float32's spacing."""
    x = np.array([1.3, -0.2, 0.9, -2.7, 0.4])
    x32, step32 = x.astype(np.float32), jnp.asarray(0.8, jnp.float32)
    g32 = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), case.g)
    u = prox(g32, x32, step32)
    np.testing.assert_allclose(u, prox(case.g, x, 0.8), atol=1e-5)
    assert value(g32, u).dtype == jnp.float32
    for g in (g32,) if case.arrays and not case.projection else (g32, case.g):
        for step in (step32, 0.8):
            assert jax.eval_shape(prox, g, x32, step).dtype == jnp.float32
        assert jax.eval_shape(value, g, u).dtype == jnp.float32


@every_case
def test_batches_under_vmap(case):
    xs = np.random.RandomState(3).randn(4, SIZE)
    batched = jax.vmap(prox, (None, 0, None))(case.g, xs, 0.8)
    np.testing.assert_allclose(batched, [prox(case.g, x, 0.8) for x in xs], atol=1e-14)


@with_parameters
def test_batches_over_its_parameters(name):
    case = CASES[name]
    x = np.array([1.3, -0.2, 0.9, -2.7, 0.4])
    factors = np.array([1.0, 2.0, 3.0])
    stacked = jax.tree.map(lambda p: np.multiply.outer(factors, p), case.g)
    batched = jax.vmap(prox, (0, None, None))(stacked, x, 0.8)
    for k, u in zip(factors, batched, strict=True):
        expected = prox(jax.tree.map(lambda p: k * np.asarray(p), case.g), x, 0.8)  # noqa: B023
        np.testing.assert_allclose(u, expected, atol=1e-14)


@named(lambda case: not case.arrays)
def test_pytree_unknown_is_the_same_leaf_by_leaf(name):
    case = CASES[name]
    x = {"a": np.array([1.3, -0.2, 0.9, -2.7, 0.4]), "b": (np.linspace(-2, 2, SIZE),)}
    whole = prox(case.g, x, 0.8)
    leafwise = jax.tree.map(lambda leaf: prox(case.g, leaf, 0.8), x)
    jax.tree.map(np.testing.assert_array_equal, whole, leafwise)
    total = sum(value(case.g, leaf) for leaf in jax.tree.leaves(whole))
    np.testing.assert_allclose(value(case.g, whole), total, rtol=1e-14)


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (L1, ({"a": 0.5, "b": PER_COORDINATE},)),
        (SquaredL2, ({"a": 0.5, "b": PER_COORDINATE},)),
        (ElasticNet, ({"a": 0.5, "b": PER_COORDINATE}, 0.3)),
        (ElasticNet, (0.3, {"a": 0.5, "b": PER_COORDINATE})),
        (Box, ({"a": np.array(-0.5), "b": LOWER}, 0.75)),
        (Box, (-1.0, {"a": np.array(0.5), "b": UPPER})),
    ],
)
def test_pytree_parameter_gives_each_leaf_its_own(make, parameters):
    x = {"a": np.array([1.3, -0.2]), "b": np.linspace(-2, 2, SIZE)}
    whole = prox(make(*parameters), x, 0.8)
    for key in x:
        own = [p[key] if isinstance(p, dict) else p for p in parameters]
        structure = jax.tree.structure(make(*(1.0,) * len(own)))
        alone = prox(jax.tree.unflatten(structure, own), x[key], 0.8)
        np.testing.assert_array_equal(whole[key], alone)


def test_simplex_projects_along_the_last_axis():
    x = np.random.RandomState(4).randn(3, SIZE)
    rows = [prox(Simplex(), row, 1.0) for row in x]
    np.testing.assert_allclose(prox(Simplex(), x, 1.0), rows, atol=1e-15)


@pytest.mark.parametrize("offset", [0.0, 1e8, -1e12])
def test_simplex_does_not_lose_digits_to_an_offset(offset):
    x = np.array([0.5, 0.25, 0.0, -1.0, -5.0])  # exact in binary, offset included
    expected = prox(Simplex(), x, 1.0)
    np.testing.assert_array_equal(prox(Simplex(), offset + x, 1.0), expected)


def test_infinity_is_not_projected_in_silence():
    assert np.isnan(prox(Simplex(), np.array([np.inf, 0.0, 0.0, 0.0, 0.0]), 1.0)[0])


def test_long_vector_in_float32_lands_in_the_simplex():
    x = jnp.asarray(np.random.RandomState(5).randn(100_000), jnp.float32)
    for spread in (1e-6, 1.0):
        assert value(Simplex(), prox(Simplex(), spread * x, 1.0)) == 0
