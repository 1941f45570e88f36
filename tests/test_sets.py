"""Sets where the table of test_prox.py does not look: on their surfaces, empty, degenerate."""

import itertools

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference
from prox_sets import exponential_conjugate
from scipy.optimize import linear_sum_assignment, lsq_linear

from jaxns.functions import (
    AffineSet,
    Birkhoff,
    Box,
    BoxSection,
    ExponentialCone,
    HalfSpace,
    Hyperplane,
    L1Ball,
    L2Ball,
    LinfBall,
    NonNegative,
    Polyhedron,
    PositiveSemidefinite,
    SecondOrderCone,
    Simplex,
)

random = np.random.RandomState(0)


@jax.jit
def prox(g, x):
    return g.prox(x, 1.0)


@jax.jit
def value(g, x):
    return g(x)


@jax.jit
def jacobian(g, x):
    return jax.jacobian(lambda x: g.prox(x, 1.0))(x)


@jax.jit
def along(g, dg, x, dx):
    return jax.jvp(lambda g, x: g.prox(x, 1.0), (g, x), (dg, dx))[1]


def is_projection(J, atol=1e-9):
    """Symmetric, with eigenvalues 0 and 1: the derivative of the projection on an affine set."""
    values = np.linalg.eigvalsh((J + J.T) / 2)
    return np.abs(J - J.T).max() < atol and np.abs(values * (1 - values)).max() < atol


# Balls ------------------------------------------------------------------------------------------

x3 = np.array([3.0, 0.0, -4.0])  # of norm 5
u3 = x3 / 5


def ball_kinks():
    zero, eye, outside = np.zeros((3, 3)), np.eye(3), np.eye(3) - np.outer(u3, u3)
    yield "l2-on-the-sphere", L2Ball(5.0), x3, outside, u3
    yield "l2-inside", L2Ball(1.0), 0 * x3, eye, 0 * x3
    yield "l2-point", L2Ball(0.0), x3, zero, u3
    yield "l2-point-at-0", L2Ball(0.0), 0 * x3, zero, 0 * x3
    face = np.array([[0.5, 0, 0.5], [0, 0, 0], [0.5, 0, 0.5]])
    yield "l1-on-the-sphere", L1Ball(7.0), x3, face, np.array([0.5, 0, -0.5])
    yield "l1-inside", L1Ball(1.0), 0 * x3, eye, 0 * x3
    yield "l1-point", L1Ball(0.0), x3, zero, 0 * x3
    yield "linf-on-the-sphere", LinfBall(4.0), x3, np.diag([1.0, 1, 0]), np.array([0.0, 0, -1])
    yield "linf-point", LinfBall(0.0), x3, zero, np.array([1.0, 0, -1])


@pytest.mark.parametrize(("name", "ball", "x", "in_x", "in_radius"), list(ball_kinks()))
def test_balls_move_with_their_surface(name, ball, x, in_x, in_radius):
    np.testing.assert_allclose(jacobian(ball, x), in_x, atol=1e-15)
    one = jax.tree.map(lambda _: 1.0, ball)
    np.testing.assert_allclose(along(ball, one, x, 0 * x), in_radius, atol=1e-15)


@pytest.mark.parametrize("x", [np.array([1e200, 1e200]), np.array([1e-200, 2e-200])])
def test_l2_ball_neither_overflows_nor_underflows(x):
    radius = 0.5 * np.abs(x).max()
    direction = x / np.abs(x).max()
    expected = radius * direction / np.linalg.norm(direction)
    np.testing.assert_allclose(prox(L2Ball(radius), x), expected, rtol=1e-15)


@pytest.mark.parametrize("make", [L1Ball, L2Ball, Simplex])
def test_an_axis_or_all_entries(make):
    x = random.randn(3, 4)
    columns = np.stack([prox(make(0.7), column) for column in x.T], axis=1)
    np.testing.assert_allclose(prox(make(0.7, axis=0), x), columns, atol=1e-15)
    whole = prox(make(0.7), x.ravel()).reshape(x.shape)
    np.testing.assert_allclose(prox(make(0.7, axis=None), x), whole, atol=1e-15)
    assert value(make(0.7, axis=0), columns) == value(make(0.7, axis=None), whole) == 0
    assert value(make(0.7, axis=1), 2 * columns) == np.inf
    with pytest.raises(TypeError, match="axis must be an integer"):
        make(0.7, axis=1.5)


# Active sets ------------------------------------------------------------------------------------


def test_support_holds_what_can_move():
    x = np.array([0.0, 0.5, 1.0])
    section = BoxSection(0.0, 1.0, np.array([1.0, -2.0, 3.0]), 2.0)
    for g, expected in [
        (NonNegative(), [0, 1, 1]),
        (Simplex(1.5), [0, 1, 1]),
        (Box(0.0, 1.0), [0, 1, 0]),
        (Box(-1.0, np.array([1.0, 0.5, 2.0])), [1, 0, 1]),
        (section, [0, 1, 0]),
    ]:
        np.testing.assert_array_equal(g.support(x), np.array(expected, bool))
        np.testing.assert_array_equal(g.curvature(x, x), 0 * x)
    np.testing.assert_array_equal(Simplex().normal(x), np.ones(3))
    np.testing.assert_array_equal(section.normal(x), section.a)
    nested = NonNegative().support({"a": x})
    np.testing.assert_array_equal(nested["a"], [False, True, True])


# Affine sets ------------------------------------------------------------------------------------


def test_a_zero_normal_is_an_error():
    for make in (HalfSpace, Hyperplane):
        with pytest.raises(ValueError, match="a must not be zero"):
            make(np.zeros(3), 1.0)
        with pytest.raises(ValueError, match="x must end in the shape of a"):
            make(np.ones(3), 1.0).prox(np.ones(4), 1.0)
    traced = jax.jit(lambda a: Hyperplane(a, 1.0).prox(jnp.ones(3), 1.0))(jnp.zeros(3))
    assert np.isnan(traced).any()


def test_half_space_of_matrices():
    a, x = random.randn(2, 3), random.randn(4, 2, 3)
    flat = [prox(HalfSpace(a.ravel(), -1.0), xi.ravel()) for xi in x]
    np.testing.assert_allclose(prox(HalfSpace(a, -1.0), x).reshape(4, 6), flat, atol=1e-15)


def test_half_space_on_its_boundary_moves_with_it():
    g, x = HalfSpace(np.array([3.0, 0.0, -4.0]), 25.0), x3
    np.testing.assert_allclose(jacobian(g, x), np.eye(3) - np.outer(u3, u3), atol=1e-15)
    moved = along(g, HalfSpace(np.zeros(3) + 1e-300, 1.0), x, 0 * x)
    np.testing.assert_allclose(moved, x3 / 25, atol=1e-15)


FULL = random.randn(2, 5)
DEFICIENT = np.stack([FULL[0], FULL[1], FULL[0] - 2 * FULL[1], 0 * FULL[0]])
TARGET = FULL @ random.randn(5)
CONSISTENT = np.array([TARGET[0], TARGET[1], TARGET[0] - 2 * TARGET[1], 0.0])


def test_affine_set_of_any_rank():
    x = random.randn(2, 3, 5)
    expected = x - (x @ FULL.T - TARGET) @ np.linalg.pinv(FULL).T
    np.testing.assert_allclose(prox(AffineSet(DEFICIENT, CONSISTENT), x), expected, atol=1e-13)
    assert value(AffineSet(DEFICIENT, CONSISTENT), expected) == 0
    ill = np.stack([FULL[0], FULL[0] + 1e-6 * FULL[1]])
    u = prox(AffineSet(ill, ill @ x[0, 0]), x[0, 1])
    rounding = 1e-14 * np.linalg.norm(ill) * np.linalg.norm(x[0])  # the products may cancel
    np.testing.assert_allclose(ill @ u, ill @ x[0, 0], rtol=0, atol=rounding)


def test_affine_set_without_a_point_is_nan():
    assert np.isnan(prox(AffineSet(DEFICIENT, CONSISTENT + np.eye(4)[2]), np.ones(5))).all()
    assert np.isnan(prox(AffineSet(DEFICIENT, CONSISTENT + np.eye(4)[3]), np.ones(5))).all()


def test_affine_set_is_differentiable_along_changes_of_the_same_rank():
    mix = np.array([[1.0, 0], [0, 1], [1, -2], [0, 0]])
    x, d, db = random.randn(5), random.randn(2, 5), random.randn(2)

    def moved(t):
        return np.asarray(prox(AffineSet(mix @ (FULL + t * d), mix @ (TARGET + t * db)), x))

    found = along(AffineSet(DEFICIENT, CONSISTENT), AffineSet(mix @ d, mix @ db), x, 0 * x)
    np.testing.assert_allclose(found, central_difference(moved, 0.0), atol=1e-8)


# Polyhedra --------------------------------------------------------------------------------------


def distance_from_normals(G, h, x, u):
    """How far x − u is from the cone of the rows that u meets."""
    met = G[np.abs(G @ u - h) < 1e-9]
    if not len(met):
        return np.abs(x - u).max()
    found = lsq_linear(met.T, x - u, (0, np.inf), method="bvls", tol=1e-14)
    return np.linalg.norm(met.T @ found.x - (x - u))


@pytest.mark.slow
def test_polyhedron_with_round_numbers():
    """Repeated, dependent, zero and tight rows; vertices with more faces than dimensions."""
    for _ in range(200):
        G = random.randint(-2, 3, (8, 5)).astype(float)
        G[0] = random.randint(0, 2) * G[1]
        h = G @ random.randint(-2, 3, 5) + random.randint(0, 2, 8)
        x = random.randint(-4, 5, 5).astype(float)
        u = np.asarray(prox(Polyhedron(G, h), x))
        assert np.all(G @ u <= h + 1e-12)
        assert distance_from_normals(G, h, x, u) < 1e-12
        assert is_projection(np.asarray(jacobian(Polyhedron(G, h), x)))


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "size"), [(60, 30), (200, 50)])
def test_larger_polyhedra(rows, size):
    for _ in range(5):
        G, h, x = random.randn(rows, size), random.rand(rows), 3 * random.randn(size)
        u = np.asarray(prox(Polyhedron(G, h), x))
        assert np.all(G @ u <= h + 1e-12)
        assert distance_from_normals(G, h, x, u) < 1e-12
        single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), Polyhedron(G, h))
        # The rounding of G and x moves the point where the rows meet by as much.
        atol = 1e-7 * np.linalg.cond(G[np.abs(G @ u - h) < 1e-9]) * np.linalg.norm(x)
        np.testing.assert_allclose(prox(single, x.astype(np.float32)), u, rtol=0, atol=atol)


@pytest.mark.slow
def test_polyhedron_is_exact_next_to_kinks():
    """A row that is nearly met counts for the derivative only."""
    x = np.array([1.0, 2.0, -3.0], np.float32)
    near = Polyhedron(np.eye(3, dtype=np.float32), x + np.float32([0, 1e-5, 1]))
    np.testing.assert_array_equal(prox(near, x), x)
    np.testing.assert_array_equal(jacobian(near, x), np.diag([0, 0, 1]))


CORNER = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])  # three rows meet at 0


def test_polyhedron_at_its_kinks():
    g = Polyhedron(CORNER, np.array([0.0, 0.0, 0.0, 4.0]))
    np.testing.assert_array_equal(prox(g, np.zeros(2)), [0, 0])
    for x in (np.zeros(2), np.ones(2), np.array([2.0, 0.0])):  # as many as are independent
        np.testing.assert_allclose(jacobian(g, x), np.zeros((2, 2)), atol=1e-15)
    edge = np.array([0.0, -1.0])
    np.testing.assert_allclose(jacobian(g, edge), np.diag([0.0, 1.0]), atol=1e-15)
    in_h = along(g, Polyhedron(0 * CORNER, np.array([1.0, 0, 0, 0])), edge, 0 * edge)
    np.testing.assert_allclose(in_h, [1, 0], atol=1e-15)


def test_empty_polyhedra_are_nan():
    def empty(h, b):
        g = Polyhedron(CORNER, np.array(h), np.array([[1.0, -1.0]]), np.array([b]))
        u = prox(g, np.array([[0.3, 0.2], [5.0, -1.0]]))
        assert np.isnan(u).all() or np.isfinite(u).all()
        return np.isnan(u).all()

    assert empty([1.0, 1.0, -1.0, -1.0], 0.0)  # 1 ≤ x + y ≤ −1
    assert empty([1.0, 1.0, 9.0, -3.0], 0.0)  # x + y ≥ 3, x ≤ 1, y ≤ 1
    assert empty([1.0, 1.0, 9.0, 0.0], 3.0)  # x − y = 3, x ≤ 1, x + y ≥ 0
    assert not empty([1.0, 1.0, 9.0, 0.0], 2.0)  # the point (1, −1)


def test_half_of_an_equation_is_an_error():
    with pytest.raises(TypeError, match="A and b must be given together"):
        Polyhedron(CORNER, np.zeros(4), A=np.ones((1, 2)))
    with pytest.raises(ValueError, match="A must have as many columns as G"):
        Polyhedron(CORNER, np.zeros(4), np.ones((1, 3)), np.ones(1))
    with pytest.raises(ValueError, match="h must have one entry per row of G"):
        Polyhedron(CORNER, np.zeros(3))


# Box section ------------------------------------------------------------------------------------


def test_box_section_without_a_point_is_nan():
    a = np.array([1.0, -1.0, 2.0])
    x = random.randn(4, 3)
    for b, exists in [(3.0, True), (-1.0, True), (3.1, False), (-1.1, False)]:
        u = np.asarray(prox(BoxSection(0.0, 1.0, a, b), x))
        assert (np.isfinite(u) if exists else np.isnan(u)).all()
    assert np.isnan(prox(BoxSection(0.0, 1.0, 0 * a, 1.0), x)).all()
    np.testing.assert_array_equal(prox(BoxSection(0.0, 1.0, 0 * a, 0.0), x), np.clip(x, 0, 1))
    free = prox(BoxSection(-np.inf, np.inf, a, 1.0), x)
    np.testing.assert_allclose(free, prox(Hyperplane(a, 1.0), x), atol=1e-14)


def test_box_section_at_a_vertex_moves_with_b():
    """(1, 0) for x far out: b takes up one coordinate, and x none."""
    g, x = BoxSection(0.0, 1.0, np.array([1.0, 2.0]), 1.0), np.array([9.0, -5.0])
    np.testing.assert_array_equal(prox(g, x), [1, 0])
    np.testing.assert_array_equal(jacobian(g, x), np.zeros((2, 2)))
    in_b = along(g, BoxSection(0.0, 0.0, np.zeros(2), 1.0), x, 0 * x)
    assert np.any([np.allclose(in_b, [1, 0]), np.allclose(in_b, [0, 0.5])])


def test_simplex_is_a_box_section():
    x = np.round(random.randn(50, 4), 1)  # ties
    section = BoxSection(0.0, np.inf, np.ones(4), 1.0)
    np.testing.assert_allclose(prox(section, x), prox(Simplex(), x), atol=1e-14)


# Cones ------------------------------------------------------------------------------------------


def test_second_order_cone_at_its_kinks():
    ray = np.append(u3, 1.0)
    surface = np.append(x3, 5.0)
    J = np.asarray(jacobian(SecondOrderCone(), surface))
    np.testing.assert_allclose(J @ ray, ray, atol=1e-15)  # the surface is flat along its rays
    normal = np.append(u3, -1.0)
    np.testing.assert_allclose(J @ normal, np.zeros(4), atol=1e-15)
    for x in (np.append(x3, -5.0), np.zeros(4)):
        np.testing.assert_array_equal(prox(SecondOrderCone(), x), np.zeros(4))
        np.testing.assert_array_equal(jacobian(SecondOrderCone(), x), np.zeros((4, 4)))
    line = np.array([[0.0, 2.0], [0.0, -2.0], [3.0, 1.0]])
    np.testing.assert_allclose(prox(SecondOrderCone(), line), [[0, 2], [0, 0], [2, 2]])


TURN = np.linalg.qr(random.randn(4, 4))[0]


@pytest.mark.parametrize("values", [(2, 2, -1, -1), (1, 1, 1, 1), (3, 2, -1, -1), (1, -1, 2, -2)])
def test_semidefinite_cone_at_repeated_eigenvalues(values):
    X, d = TURN @ np.diag(values) @ TURN.T, random.randn(4, 4)
    cone = PositiveSemidefinite()
    expected = TURN @ np.diag(np.maximum(values, 0)) @ TURN.T
    np.testing.assert_allclose(prox(cone, X), expected, atol=1e-14)

    def moved(t):
        return np.asarray(prox(cone, X + t * d))

    np.testing.assert_allclose(along(cone, cone, X, d), central_difference(moved, 0.0), atol=1e-8)


def test_semidefinite_cone_at_its_apex():
    cone = PositiveSemidefinite()
    assert not np.any(jacobian(cone, np.zeros((4, 4))))
    assert value(cone, np.zeros((4, 4))) == 0
    assert value(cone, np.triu(np.ones((4, 4)))) == np.inf  # not symmetric
    batch = random.randn(2, 3, 4, 4)
    one_by_one = [[prox(cone, X) for X in row] for row in batch]
    np.testing.assert_allclose(prox(cone, batch), one_by_one, atol=1e-14)


E = np.e
SPECIAL = [  # of the exponential cone: a point, its projection, whether it is a kink
    ([0.0, 0, 0], [0.0, 0, 0]),
    ([-1.0, 0, 0], [-1.0, 0, 0]),
    ([-1.0, 0, 2], [-1.0, 0, 2]),
    ([-1.0, -1, 2], [-1.0, 0, 2]),
    ([0.0, -1, 2], [0.0, 0, 2]),
    ([0.0, -1, -2], [0.0, 0, 0]),
    ([1.0, 1, E], [1.0, 1, E]),
    ([1.0, 1, 3], [1.0, 1, 3]),
    ([0.0, 1, 1], [0.0, 1, 1]),
    ([1.0, 0, -1], [0.0, 0, 0]),
    ([1.0, 1, -1], [0.0, 0, 0]),
    ([1e-8, -1, 2], [0.0, 0, 2]),
    ([-1e6, 1.0, -1], [-1e6, 1.0, 0]),
    ([1.0, -1e6, 5], [0.0, 0, 5]),
]


@pytest.mark.parametrize(("x", "expected"), SPECIAL)
def test_exponential_cone_on_its_faces(x, expected):
    cone, x = ExponentialCone(), np.array(x)
    u = np.asarray(prox(cone, x))
    np.testing.assert_allclose(u, expected, atol=1e-15 * np.abs(x).max(), rtol=1e-15)
    assert value(cone, u) == 0
    J = np.asarray(jacobian(cone, x))
    assert np.isfinite(J).all()
    values = np.linalg.eigvalsh((J + J.T) / 2)
    assert values[0] > -1e-10
    assert values[-1] < 1 + 1e-10


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_exponential_cone_over_many_magnitudes(dtype):
    """u in the cone, x − u in its polar, the two orthogonal."""
    x = random.randn(500, 3) * 10 ** random.uniform(-3, 3, (500, 3))
    x = x.astype(dtype)
    u = np.asarray(prox(ExponentialCone(), x))
    assert u.dtype == dtype
    exact = np.asarray(prox(ExponentialCone(), x.astype(float)))
    size = np.linalg.norm(x.astype(float), axis=1)
    assert np.max(np.linalg.norm(u - exact, axis=1) / size) < 1e2 * np.finfo(dtype).eps
    s = x - exact
    assert np.max(np.abs(np.sum(s * exact, 1)) / size**2) < 1e-14
    off = [np.linalg.norm(exponential_conjugate(si, 1.0) - si) for si in s]
    assert np.max(off / size) < 1e-7
    assert value(ExponentialCone(), exact) == 0
    with pytest.raises(ValueError, match="last axis of length 3"):
        ExponentialCone().prox(np.ones(4), 1.0)


# Doubly stochastic matrices ---------------------------------------------------------------------


def birkhoff_gap(Y, X):
    """max ⟨Y − X, P − X⟩ over permutations P, which are the vertices: 0 at the projection."""
    i, j = linear_sum_assignment(X - Y)
    return np.sum((Y - X)[i, j]) - np.sum((Y - X) * X)


def test_birkhoff_agrees_with_a_conic_solver():
    Y = random.randn(4, 4)
    u = cp.Variable((4, 4), nonneg=True)
    rows, columns = cp.sum(u, axis=1) == 1, cp.sum(u, axis=0) == 1
    tight = dict.fromkeys(["tol_gap_abs", "tol_gap_rel", "tol_feas"], 1e-12)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - Y)), [rows, columns])
    problem.solve(solver=cp.CLARABEL, **tight)
    np.testing.assert_allclose(prox(Birkhoff(), Y), u.value, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 5, 20, 50])
def test_birkhoff_at_any_scale(size):
    for scale in 5 * [1e-3, 1.0, 1e3]:
        Y = scale * random.randn(size, size)
        X = np.asarray(prox(Birkhoff(), Y))
        assert value(Birkhoff(), X) == 0
        assert birkhoff_gap(Y, X) < 1e-14 * size * (1 + np.abs(Y).max())
        single = prox(Birkhoff(), Y.astype(np.float32))
        assert value(Birkhoff(), single) == 0
        np.testing.assert_allclose(single, X, rtol=0, atol=1e-6 * size * (1 + scale))


@pytest.mark.slow
def test_birkhoff_with_round_numbers():
    for _ in range(100):
        Y = random.randint(-1, 2, (4, 4)).astype(float)
        X = np.asarray(prox(Birkhoff(), Y))
        assert birkhoff_gap(Y, X) < 1e-13
        J = np.asarray(jacobian(Birkhoff(), Y)).reshape(16, 16)
        assert is_projection(J)
        assert not np.any(J[X.ravel() == 0])  # zero is kept zero
    for order in itertools.permutations(range(4)):
        P = np.eye(4)[list(order)]
        np.testing.assert_allclose(prox(Birkhoff(), P), P, atol=1e-15)


# Batches ----------------------------------------------------------------------------------------


BATCHED = {
    "L2Ball": (L2Ball(0.5), (3,)),
    "LinfBall": (LinfBall(0.5), (3,)),
    "SecondOrderCone": (SecondOrderCone(), (3,)),
    "BoxSection": (BoxSection(-1.0, 1.0, np.array([1.0, 2.0, 3.0]), 0.5), (3,)),
    "ExponentialCone": (ExponentialCone(), (3,)),
    "Polyhedron": (Polyhedron(random.randn(4, 3), random.rand(4)), (3,)),
    "Birkhoff": (Birkhoff(), (2, 2)),
}
LONG = {"Polyhedron", "Birkhoff"}


@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=pytest.mark.slow if k in LONG else ()) for k in BATCHED]
)
def test_any_batch_shape(name):
    g, shape = BATCHED[name]
    x = random.randn(2, 3, *shape)
    u = np.array(prox(g, x))
    one_by_one = np.array([[prox(g, xi) for xi in row] for row in x])
    np.testing.assert_allclose(u, one_by_one, atol=1e-14)
    assert value(g, u) == 0
    u[1, 2] += 7.0
    assert value(g, u) == np.inf


# Second derivatives -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("g", "x"),
    [
        (L2Ball(0.5), x3),
        (SecondOrderCone(), np.append(x3, 1.0)),
        (ExponentialCone(), np.array([1.0, 0.5, 0.3])),
        (AffineSet(random.randn(2, 3), np.ones(2)), x3),
    ],
    ids=["L2Ball", "SecondOrderCone", "ExponentialCone", "AffineSet"],
)
def test_second_derivatives(g, x):
    """Also in the data, where a linear solve is differentiated twice."""
    weights, dx = random.randn(*x.shape), random.randn(*x.shape)
    dg = jax.tree.map(lambda leaf: random.randn(*np.shape(leaf)), g)

    def slope(t):
        moved = jax.tree.map(lambda p, d: p + t * d, g, dg)
        return jax.grad(lambda t, g: weights @ g.prox(x + t * dx, 1.0) * jnp.cos(t))(t, moved)

    found = jax.jit(jax.grad(slope))(0.1)
    np.testing.assert_allclose(found, central_difference(jax.jit(slope), 0.1), rtol=1e-6)
