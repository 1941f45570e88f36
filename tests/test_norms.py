"""What test_prox.py does not ask of every function: active sets, groups, sequences, batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins_of_norms as twins
from cases import central_difference
from sklearn.isotonic import isotonic_regression as sklearn_isotonic

import jaxns
from jaxns.functions import (
    L1,
    L2,
    MCP,
    SCAD,
    ElasticNet,
    FusedLasso,
    GroupL2,
    Isotonic,
    LeastSquares,
    Linf,
    Max,
    Slope,
    SparseGroup,
    SquaredL2,
    TotalVariation1D,
    Zero,
)
from jaxns.functions.isotonic import isotonic_regression

GROUPS = [[0, 3], [1, 2], [4, 5]]


@jax.jit
def prox(g, x, step):
    return g.prox(x, step)


@jax.jit
def derivative(g, x, step):
    return jax.jacobian(lambda x: g.prox(x, step))(x)


# Active sets ------------------------------------------------------------------------------------

X = np.array([1.5, 0.0, 0.0, -0.5, 0.0, 2.0])
ALL, NONZERO = np.ones(6, bool), X != 0
GROUPED = np.array([True, False, False, True, True, True])
FREE = np.array([0.5, 0.0, 0.5, 0.5, 0.5, 0.5])
ACTIVE = {
    "Zero": (Zero(), ALL),
    "SquaredL2": (SquaredL2(0.7), ALL),
    "L1": (L1(0.7), NONZERO),
    "L1, a coordinate without penalty": (L1(FREE), NONZERO | (FREE == 0)),
    "ElasticNet": (ElasticNet(FREE, 0.4), NONZERO | (FREE == 0)),
    "MCP": (MCP(0.7, 2.5), NONZERO),
    "SCAD": (SCAD(0.4, 3.0), NONZERO),
    "L2": (L2(0.7), ALL),
    "GroupL2": (GroupL2(0.7, GROUPS), GROUPED),
    "GroupL2, a group without penalty": (GroupL2(np.array([0.7, 0.0, 1.0]), GROUPS), ALL),
    "GroupL2, coordinates in no group": (GroupL2(0.7, [0, -1, 2, 0, 1, 1]), np.arange(6) != 2),
    "SparseGroup": (SparseGroup(FREE, 0.7, GROUPS), GROUPED & NONZERO),
    "SparseGroup, no l1": (SparseGroup(0.0, 0.7, GROUPS), GROUPED),
}


@pytest.mark.parametrize("name", ACTIVE)
def test_support_and_curvature_are_those_of_the_smooth_piece(name):
    g, expected = ACTIVE[name]
    v = np.where(expected, np.array([1.0, -2.0, 0.5, 3.0, 1.0, -1.0]), 0)
    support, curvature, hessian = jax.jit(
        lambda g, x, v: (g.support(x), g.curvature(x, v), jax.hessian(g)(x))
    )(g, X, v)
    np.testing.assert_array_equal(support, expected)
    np.testing.assert_allclose(curvature[expected], (hessian @ v)[expected], atol=1e-13)
    np.testing.assert_array_equal(curvature[~expected], 0)


def test_active_sets_of_trees_and_of_zero():
    x = {"a": jnp.array(X), "b": jnp.zeros((3, 2))}
    for g in (L1(0.7), L2(0.7), SparseGroup(0.1, 0.7), MCP(0.7), SCAD(0.7)):
        support, curvature = jax.jit(lambda g, x: (g.support(x), g.curvature(x, x)))(g, x)
        assert jax.tree.map(jnp.shape, (support, curvature)) == jax.tree.map(jnp.shape, (x, x))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(curvature))
        assert not support["b"].any()


# Groups -----------------------------------------------------------------------------------------


def test_groups_can_be_labels_or_lists():
    x, expected = np.arange(1.0, 7.0), twins.group_norm_twin([0.5, 1.0, 2.0], GROUPS)
    penalty = np.array([0.5, 1.0, 2.0])
    labels = [10, 20, 20, 10, 30, 30]
    for groups in (GROUPS, labels, np.array(labels), jnp.array(labels), np.array(GROUPS)):
        g = GroupL2(penalty, groups)
        np.testing.assert_allclose(prox(g, x, 0.8), expected(x, 0.8), atol=1e-5)
        assert hash(g.groups) == hash(GroupL2(1.0, groups).groups)
    assert jax.tree.structure(GroupL2(1.0, GROUPS)) == jax.tree.structure(GroupL2(2.0, GROUPS))
    assert jax.tree.structure(GroupL2(1.0, GROUPS)) != jax.tree.structure(GroupL2(1.0, labels))


def test_groups_of_rows_share_one_norm():
    x = np.random.RandomState(0).randn(6, 4)
    flat = [[4 * i + j for i in group for j in range(4)] for group in GROUPS]
    rows = [[4 * i + j for j in range(4)] for i in range(6)]
    for groups, same in ((GROUPS, flat), (None, rows)):
        g, one_by_one = GroupL2(1.5, groups), GroupL2(1.5, same)
        u = prox(g, x, 0.8)
        np.testing.assert_allclose(u.ravel(), prox(one_by_one, x.ravel(), 0.8), atol=1e-15)
        np.testing.assert_allclose(g(x), one_by_one(x.ravel()))
        numeric = central_difference(lambda x, g=g: prox(g, x, 0.8), x)
        np.testing.assert_allclose(derivative(g, x, 0.8), numeric, atol=1e-9)
    np.testing.assert_allclose(GroupL2(1.0)(x), np.linalg.norm(x, axis=1).sum())


def test_coordinates_in_no_group_are_free():
    x = np.array([0.1, 5.0, 0.1, -3.0])
    for groups in ([0, -1, 0, -1], [[0, 2]]):
        np.testing.assert_array_equal(prox(GroupL2(1.0, groups), x, 1.0), [0, 5, 0, -3])
        assert GroupL2(1.0, groups)(x) == pytest.approx(np.hypot(0.1, 0.1))
    sparse = SparseGroup(1.0, 1.0, [0, -1, 0, -1])
    np.testing.assert_array_equal(prox(sparse, x, 1.0), [0, 4, 0, -2])


def test_groups_that_overlap_through_copies():
    overlapping, weights = [[0, 1, 2], [2, 3], [3, 0]], np.array([1.0, 0.5, 2.0])
    K, g = GroupL2.overlapping(weights, overlapping, 5)
    x, u = np.random.RandomState(0).randn(5), np.random.RandomState(1).randn(7)
    expected = sum(w * np.linalg.norm(x[o]) for w, o in zip(weights, overlapping, strict=True))
    np.testing.assert_allclose(g(K(x)), expected)
    np.testing.assert_allclose(K(x) @ u, x @ K.T(u))
    assert K.shape == (7, 5)
    matrix = np.stack([K(e) for e in np.eye(5)], axis=1)
    np.testing.assert_allclose(K.norm(), np.linalg.norm(matrix, 2))
    problem = jaxns.Composite(LeastSquares(np.eye(5), x), g, K)
    np.testing.assert_allclose(problem(x), expected)
    assert K(np.ones((5, 2))).shape == (7, 2)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: GroupL2(1.0, [[0, 1], [1, 2]]), ValueError, "overlapping"),
        (lambda: GroupL2(1.0, [[0, 0]]), ValueError, "distinct"),
        (lambda: GroupL2(1.0, [[0, -1]]), ValueError, "from 0"),
        (lambda: GroupL2(1.0, [0.5, 1.0]), TypeError, "integers"),
        (lambda: GroupL2(1.0, "ab"), TypeError, "groups must be"),
        (lambda: GroupL2(1.0, 3), TypeError, "groups must be"),
        (lambda: GroupL2(-1.0, [0, 1]), ValueError, "penalty must be nonnegative"),
        (lambda: GroupL2(1.0, [0, 1]).prox(np.ones(3), 1.0), ValueError, "one label per entry"),
        (lambda: GroupL2(1.0, [[0], [3]]).prox(np.ones(3), 1.0), ValueError, "indices of entries"),
        (lambda: GroupL2(np.ones(3), [0, 0]).prox(np.ones(2), 1.0), ValueError, "the norms of x"),
        (lambda: jax.jit(lambda l: GroupL2(1.0, l))(np.array([0, 1])), TypeError, "structure"),
        (lambda: GroupL2.overlapping(1.0, [[0, 7]], 5), ValueError, "below size"),
        (lambda: L2(1.0, axis=0.5), TypeError, "axis must be an integer"),
        (lambda: Linf(1.0, axis=True), TypeError, "axis must be an integer"),
        (lambda: Slope(np.array([1.0, 2.0])), ValueError, "nonincreasing"),
        (lambda: FusedLasso(np.array([1.0, 2.0]), 1.0), ValueError, "one number"),
        (lambda: TotalVariation1D(np.ones(3)).prox(np.ones(3), 1.0), ValueError, "differences"),
        (lambda: MCP(1.0, 0.0), ValueError, "gamma must be positive"),
        (lambda: SCAD(1.0, 2.0), ValueError, "a must be greater than 2"),
        (lambda: Isotonic(1), TypeError, "True or False"),
        (lambda: isotonic_regression(np.ones(2), np.zeros(2)), ValueError, "weights must be pos"),
    ],
)
def test_wrong_arguments_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


# The largest entry ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [L2, Linf, Max])
def test_along_an_axis_each_line_is_one_norm(make):
    x = np.random.RandomState(0).randn(3, 5)
    penalty = np.array([0.5, 0.0, 100.0])
    u = prox(make(penalty, axis=-1), x, 0.8)
    lines = [prox(make(p), line, 0.8) for p, line in zip(penalty, x, strict=True)]
    np.testing.assert_allclose(u, lines, atol=1e-14)
    np.testing.assert_allclose(prox(make(penalty, axis=0), x.T, 0.8), u.T, atol=1e-15)
    values = sum(make(p)(line) for p, line in zip(penalty, x, strict=True))
    np.testing.assert_allclose(make(penalty, axis=-1)(x), values)
    whole, line = prox(make(0.7), x, 0.8), prox(make(0.7), x.ravel(), 0.8)
    np.testing.assert_allclose(whole.ravel(), line, atol=1e-15)


@pytest.mark.parametrize("make", [Linf, Max])
def test_an_entry_exactly_at_the_level_is_free(make):
    """Cut by 1 from 2, the first entry meets the second."""
    x, sign = np.array([2.0, 1.0, 0.0]), np.array([1.0, -1.0 if make is Linf else 1.0, 1.0])
    np.testing.assert_array_equal(prox(make(1.0), sign * x, 1.0), sign * [1, 1, 0])
    np.testing.assert_array_equal(derivative(make(1.0), sign * x, 1.0), np.eye(3))
    tied = np.array([2.0, 2.0, 0.0])
    np.testing.assert_array_equal(prox(make(1.0), sign * tied, 1.0), sign * [1.5, 1.5, 0])
    mean = np.outer(sign * [1, 1, 0], sign * [0.5, 0.5, 0]) + np.diag([0, 0, 1])
    np.testing.assert_array_equal(derivative(make(1.0), sign * tied, 1.0), mean)


@pytest.mark.parametrize("make", [L2, Linf, Max, GroupL2, TotalVariation1D, Slope])
def test_no_penalty_is_the_identity_and_a_huge_one_finite(make):
    for x in (np.array([1.0, 1.0, 0.0, -1.0]), np.zeros(4)):
        penalty = np.zeros(4) if make is Slope else 0.0
        np.testing.assert_array_equal(prox(make(penalty), x, 1.0), x)
        np.testing.assert_array_equal(derivative(make(penalty), x, 1.0), np.eye(4))
        u = prox(make(penalty + 1e12), x, 1.0)
        limit = {TotalVariation1D: np.full(4, x.mean()), Max: np.full(4, x.mean() - 2.5e11)}
        np.testing.assert_allclose(u, limit.get(make, np.zeros(4)), rtol=1e-12, atol=1e-15)
        assert np.isfinite(derivative(make(penalty + 1e12), x, 1.0)).all()


@pytest.mark.parametrize(
    "g", [L2(0.5), Linf(0.5), GroupL2(0.5), TotalVariation1D(0.5), FusedLasso(0.5, 1.0), Slope(0.5)]
)
def test_one_element_and_none(g):
    one = np.array([2.0])
    expected = one if isinstance(g, TotalVariation1D) else [1.5]
    np.testing.assert_array_equal(prox(g, one, 1.0), expected)
    assert prox(g, np.zeros(0), 1.0).shape == (0,)
    assert g(np.zeros(0)) == 0


# Sequences --------------------------------------------------------------------------------------


def certificate(x, u, t):
    """How far u is from optimal for ½‖u − x‖² + Σ tᵢ|uᵢ₊₁ − uᵢ|: the dual variable must stay within
    ±t, and be on its end at each jump."""
    w = np.cumsum(u - x)
    jump = np.diff(u)
    off = np.where(np.abs(jump) > 1e-12, np.abs(w[:-1] - t * np.sign(jump)), 0)
    return max(abs(w[-1]), np.max(np.abs(w[:-1]) - t), np.max(off))


def test_total_variation_is_exact_on_long_sequences():
    random = np.random.RandomState(0)
    for k in range(60):
        x = np.cumsum(random.randn(40)) if k % 2 else 3 * random.randn(40)
        x = np.round(x, k % 3)  # ties
        t = random.choice([0.1, 0.5, 1.0, 3.0, 30.0, 1e9]) * np.ones(39)
        t = t if k % 4 else t * random.rand(39) * (random.rand(39) > 0.2)
        assert certificate(x, np.asarray(prox(TotalVariation1D(t), x, 1.0)), t) < 1e-12


@pytest.mark.parametrize("g", [TotalVariation1D(0.5), Slope(np.ones(8))])
def test_sequences_run_along_the_last_axis(g):
    x = np.random.RandomState(0).randn(2, 3, 8)
    u = prox(g, x, 0.8)
    rows = [[prox(g, row, 0.8) for row in block] for block in x]
    np.testing.assert_allclose(u, rows, atol=1e-14)
    np.testing.assert_allclose(g(x), sum(g(row) for block in x for row in block))


def test_a_long_sequence_in_float32():
    random = np.random.RandomState(0)
    x = np.repeat(random.randn(20), 500) + 0.1 * random.randn(10_000)
    for offset, atol in ((0, 1e-5), (1000, 1.3e-4)):  # float32's spacing at 1000 is 6e-5
        data = np.float32(x + offset)
        u, exact = (prox(TotalVariation1D(5.0), data.astype(t), 1.0) for t in ("f4", "f8"))
        np.testing.assert_allclose(u, exact, atol=atol, rtol=0)


def test_slope_with_one_penalty_is_l1():
    """At ties and at kinks too."""
    x = np.array([2.0, -2.0, 0.5, 0.0, 1.0, -1.0])
    slope, l1 = Slope(np.full(6, 0.5)), L1(0.5)
    np.testing.assert_array_equal(prox(slope, x, 1.0), prox(l1, x, 1.0))
    np.testing.assert_array_equal(derivative(slope, x, 1.0), derivative(l1, x, 1.0))


def test_slope_keeps_magnitudes_that_meet_together():
    """|x| − λ = (2, 2, 1): the first two meet exactly."""
    g, x = Slope(np.array([2.0, 1.0, 0.5])), np.array([-3.0, 1.5, 4.0])
    np.testing.assert_array_equal(prox(g, x, 1.0), [-2, 1, 2])
    half = 0.5 * np.array([[1, 0, -1], [0, 2, 0], [-1, 0, 1]])
    np.testing.assert_array_equal(derivative(g, x, 1.0), half)


@pytest.mark.parametrize("increasing", [True, False])
def test_isotonic_regression_agrees_with_scikit_learn(increasing):
    random = np.random.RandomState(0)
    run = jax.jit(isotonic_regression, static_argnames="increasing")
    for decimals in (0, 1, 8):
        for _ in range(10):
            y, weights = np.round(3 * random.randn(30), decimals), random.rand(30) + 0.1
            expected = sklearn_isotonic(y, sample_weight=weights, increasing=increasing)
            np.testing.assert_allclose(run(y, weights, increasing=increasing), expected, atol=1e-13)
    u = prox(Isotonic(increasing), y, 1.0)
    np.testing.assert_allclose(u, sklearn_isotonic(y, increasing=increasing), atol=1e-13)
    assert Isotonic(increasing)(u) == 0
    assert Isotonic(not increasing)(u) == np.inf
    weighted = lambda w: run(y, w, increasing=increasing)  # noqa: E731
    expected = central_difference(weighted, weights)
    np.testing.assert_allclose(jax.jacobian(weighted)(weights), expected, atol=1e-8)


def test_sequences_inside_shard_map():
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")
    x = np.random.RandomState(0).randn(2, 8)

    def denoise(x):  # the loops inside carry what differs between devices
        return Isotonic().prox(TotalVariation1D(0.5).prox(x, 1.0), 1.0)

    sharded = jax.jit(jax.shard_map(denoise, mesh=mesh, in_specs=spec, out_specs=spec))(x)
    rows = [twins.minmax_isotonic(twins.fused_twin(0.5)(row, 1.0)) for row in x]
    np.testing.assert_allclose(sharded, rows, atol=1e-14)


# Nonconvex --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("g", "bound"), [(MCP(0.5, 3.0), 3.0), (SCAD(0.5, 3.0), 2.0)])
def test_a_step_too_large_for_a_nonconvex_penalty_is_seen(g, bound):
    x = np.array([0.1, 1.0, 5.0])
    with pytest.raises(ValueError, match="step below"):
        g.prox(x, bound)
    assert np.isnan(prox(g, x, bound)).all()
    assert np.isfinite(prox(g, x, 0.9 * bound)).all()
    gradient = jax.vmap(jax.grad(g))(x)  # flat beyond its end, as large as L1's near 0
    np.testing.assert_allclose(gradient[2], 0)
    np.testing.assert_allclose(jax.grad(g)(1e-9), 0.5, atol=1e-8)
