"""One-sided derivatives by running a program along a ray; where programs have kinks."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxns import functions, nonsmooth
from jaxns.nonsmooth import directional_derivative, is_kink, kink_report

X = np.array([0.0, 1.0, 1.0, -2.0])  # kinks: a zero, a tie, and bounds at 0 and 1


def loops(x):
    def body(c, a):
        c = jnp.maximum(c * a, jnp.abs(a) - c)
        return c, c

    c, each = lax.scan(body, x[0], x)
    c, _ = lax.while_loop(lambda s: s[1] < 3, lambda s: (jnp.abs(s[0] - x[1]), s[1] + 1), (c, 0))
    return lax.cond(x[0] > 0, lambda: jax.nn.relu(c), lambda: 3 * c * x[0]) + each.sum()


def moved_by_index(x):
    """Comparisons, arg max and sorting choose pieces, and are followed behind the kink."""
    best = jnp.argmax(x)
    order = jnp.argsort(-x)
    return jnp.array([2.0, 3.0, 5.0, 7.0])[best] * (x[best] - 1) + (x * x)[order] @ jnp.arange(4.0)


PROGRAMS = {
    "relu": jax.nn.relu,
    "absolute": jnp.abs,
    "clip": lambda x: jnp.clip(x, 0, 1),
    "leaky": jax.nn.leaky_relu,
    "where": lambda x: jnp.where(x > 0, x, 2 * x) + jnp.where(x >= 1, 3 * x, x + 2),
    "minimum": lambda x: jnp.minimum(x, x[::-1]),
    "max": lambda x: jnp.max(x) - jnp.min(x) * jnp.exp(x[0]),
    "sort": lambda x: jnp.sort(x) @ jnp.array([1.0, -2.0, 3.0, 0.5]),
    "median": jnp.median,
    "top": lambda x: lax.top_k(x, 2)[0] @ jnp.array([1.0, 5.0]),
    "cumulative": lambda x: lax.cummax(x) - lax.cummin(x, reverse=True),
    "norm": lambda x: jnp.linalg.norm(x - X) + jnp.linalg.norm(x, 1),
    "sign": lambda x: jnp.sign(x) * x + (x - jnp.floor(x)) * (jnp.ceil(x) - x),
    "smooth inside": lambda x: jax.nn.softplus(jnp.abs(x)) + jax.nn.logsumexp(x),
    "solve": lambda x: jnp.linalg.solve(3 * jnp.eye(4) + jnp.outer(x, x), jnp.abs(x)),
    "checkpoint": jax.checkpoint(lambda y: jnp.abs(jnp.sin(y))),
    "loops": loops,
    "index": moved_by_index,
    "element": lambda x: nonsmooth.relu(x, at_zero=0.3) + nonsmooth.maximum(x, 1.0, at_tie=0.1),
    "integer": lambda x: jnp.sum(x > 0),
}


def pooled(x, by=lax.max, start=-jnp.inf):
    """Overlapping windows, with padding."""
    return lax.reduce_window(x, start, by, (3,), (1,), ((1, 1),))


def scattered(x):
    """Segments' extremes, with some that tie, one without, and one index out of bounds."""
    places = np.array([0, 0, 1, 1, 2, 9])
    values = jnp.concatenate([x, x[:2] * x[:2]])
    return jnp.stack([x, 2 * x]).at[:, places].max(values) - x.at[places].min(values)


PROGRAMS |= {
    "scattering": scattered,
    "pooling": lambda x: pooled(x) @ jnp.array([1.0, -2.0, 3.0, 0.5]),
    "pooling, least": lambda x: pooled(x * x, lax.min, jnp.inf),
}


def everything(x):
    return {name: program(x) for name, program in PROGRAMS.items()}


def test_exactly_the_one_sided_limit():
    """Of all programs at once, along directions of which some break ties later than others."""
    U = np.array([[1.0, 2, -1, 1], [-1, 0, 0, 2], [0.5, -1, -3, 0], [-2, 1, 1.5, -1], [0, 0, 0, 0]])
    found = jax.jit(jax.vmap(partial(directional_derivative, everything, X)))(U)
    t = 1e-7
    value, after = jax.jit(everything)(X), jax.jit(jax.vmap(everything))(X + t * U)
    for name in set(PROGRAMS) - {"integer"}:
        np.testing.assert_allclose(
            found[name], (after[name] - value[name]) / t, atol=1e-5, err_msg=name
        )
    assert found["integer"].dtype == jax.dtypes.float0


def test_equals_the_jvp_where_there_is_no_kink():
    x, d = X + np.array([0.3, 0.2, -0.4, 0.6]), np.array([1.0, -2.0, 0.5, 3.0])
    names = ["norm", "smooth inside", "solve", "sort", "loops"]

    def f(x):
        return {name: PROGRAMS[name](x) for name in names}

    found = jax.jit(partial(directional_derivative, f))(x, d)
    expected = jax.jit(lambda: jax.jvp(f, (x,), (d,))[1])()
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_many_directions_of_an_l1_norm_are_a_matrix_product(dtype):
    """F(x) = ‖Mx‖₁ at 0: F′(0; u_j) is the norm of column j of MU (arXiv 2206.01730)."""
    random = np.random.default_rng(0)
    M, U = (random.normal(size=shape).astype(dtype) for shape in ((7, 5), (5, 6)))
    ways = partial(directional_derivative, lambda x: jnp.abs(M @ x).sum(), np.zeros(5, dtype))
    found = jax.vmap(ways)(U.T)
    assert found.dtype == dtype
    tol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found, np.abs(M @ U).sum(0), rtol=tol)
    np.testing.assert_allclose(jax.jvp(lambda x: jnp.abs(M @ x).sum(), (np.zeros(5, dtype),),
                                       (U[:, 0],))[1], (M @ U)[:, 0].sum(), rtol=tol)  # fmt: skip


PROXES = {  # at kinks of each: thresholds, bounds, surfaces, blocks that just meet
    "L1": (functions.L1(1.0), [1.0, -1.0, 0.0, 2.0]),
    "Box": (functions.Box(0.0, 1.0), [0.0, 1.0, 0.5, 2.0]),
    "L2": (functions.L2(1.0), [0.6, 0.8, 0.0, 0.0]),
    "Linf": (functions.Linf(1.0), [2.0, 2.0, 1.0, -2.0]),
    "Slope": (functions.Slope(np.array([1.0, 0.5, 0.2, 0.1])), [2.0, 2.0, 1.0, -2.0]),
    "TotalVariation1D": (functions.TotalVariation1D(1.0), [1.0, 1.0, 3.0, -2.0]),
    "Isotonic": (functions.Isotonic(), [1.0, 1.0, 2.0, 2.0]),
    "MCP": (functions.MCP(1.0, 3.0), [1.0, -1.0, 3.0, 2.0]),
}


@pytest.mark.slow
def test_proximity_operators_at_their_kinks():
    """Their conventions, and the stop_gradients behind which pieces are chosen, do not matter."""
    x = {name: np.array(at) for name, (_, at) in PROXES.items()}

    def prox(x):
        return {name: PROXES[name][0].prox(at, 1.0) for name, at in x.items()}

    random = np.random.default_rng(3)
    d = {name: np.round(random.normal(size=(6, 4)), 1) for name in PROXES}
    found = jax.jit(jax.vmap(partial(directional_derivative, prox, x)))(d)
    t = 1e-7
    after = jax.jit(jax.vmap(lambda d: prox({name: x[name] + t * d[name] for name in x})))(d)
    for name, value in jax.jit(prox)(x).items():
        np.testing.assert_allclose(found[name], (after[name] - value) / t, atol=1e-5, err_msg=name)


def test_what_is_not_known_is_refused():
    def rounded(x):
        return jnp.round(x) + x

    with pytest.raises(NotImplementedError, match=r"'round'.*method='nearby'"):
        directional_derivative(rounded, 0.5, 1.0)
    assert directional_derivative(rounded, 0.25, 1.0, method="nearby") == 1
    assert directional_derivative(lambda x: x * jnp.round(3.7), 0.5, 2.0) == 8  # does not move
    with pytest.raises(ValueError, match="method"):
        directional_derivative(jnp.abs, 0.0, 1.0, method="exactly")  # pyright: ignore


def test_custom_rules_are_looked_into():
    """A rule holds one element of what its program has at a kink."""

    @jax.custom_vjp
    def positive_part(x):
        return jnp.maximum(x, 0)

    positive_part.defvjp(lambda x: (positive_part(x), x), lambda x, g: (jnp.where(x > 0, g, 0),))

    @jax.custom_jvp
    def stable(x):
        return x - x  # smooth: the rule, and not the program, is taken

    stable.defjvp(lambda x, d: (x[0], d[0]))
    for d, expected in [(1.0, 1.0), (-1.0, 0.0)]:
        assert directional_derivative(positive_part, 0.0, d) == expected
        assert directional_derivative(stable, 0.0, d) == d


# 3-SAT in a network (arXiv 2206.01730, hardness of a second subgradient)


def formula(clauses, signs, x, relu=jax.nn.relu):
    """relu(min over clauses of the max of three literals ±x), of relu, +, − alone."""

    def larger(a, b):
        return b + relu(a - b)

    def smaller(a, b):
        return b - relu(b - a)

    literals = signs * x[clauses]
    each = larger(larger(literals[:, 0], literals[:, 1]), literals[:, 2])
    while len(each) > 1:
        half = len(each) // 2
        each = jnp.concatenate([smaller(each[:half], each[half : 2 * half]), each[2 * half :]])
    return relu(each[0])


def test_satisfiability_is_whether_a_derivative_at_0_is_not_0():
    """F′(0; v) for all v ∈ {−1, 1}⁴ says it, against truth tables; one AD gradient does not."""
    random = np.random.default_rng(1)
    clauses = np.array([[random.permutation(4)[:3] for _ in range(22)] for _ in range(200)])
    signs = random.choice([-1, 1], clauses.shape)
    points = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    satisfied = (signs[None] * points[:, clauses] > 0).any(-1).all(-1).any(0)
    assert 50 < satisfied.sum() < 150

    @jax.jit
    @jax.vmap
    def slopes(clauses, signs):
        along = partial(directional_derivative, partial(formula, clauses, signs), np.zeros(4))
        return jax.vmap(along)(points)

    np.testing.assert_array_equal((np.asarray(slopes(clauses, signs)) > 0).any(1), satisfied)

    @jax.jit
    @jax.vmap
    def gradient(clauses, signs):
        one = partial(nonsmooth.relu, at_zero=1.0)
        return jax.grad(partial(formula, clauses, signs), 0)(np.zeros(4), relu=one)

    unsatisfied = gradient(clauses[~satisfied], signs[~satisfied])
    assert (np.asarray(unsatisfied) != 0).any(1).mean() > 0.9  # elements of D^a that F ≡ 0 has not


def test_elements_of_a_homogeneous_network_at_0():
    """D^a_F(0) = {M₁ᵀ D₁ M₂ᵀ D₂ M₃ᵀ}, each D_i diagonal in [0, 1] (arXiv 2206.01730)."""
    random = np.random.default_rng(2)
    M1, M2, M3 = (random.integers(-1, 2, shape) for shape in ((5, 3), (4, 5), (1, 4)))

    @jax.jit
    @jax.vmap
    def gradients(d1, d2):
        def F(x):
            return (M3 @ nonsmooth.relu(M2 @ nonsmooth.relu(M1 @ x, d1), d2))[0]

        return jax.grad(F)(np.zeros(3))

    d1, d2 = random.uniform(size=(20, 5)), random.uniform(size=(20, 4))
    expected = [(M1.T @ (a[:, None] * (M2.T @ (b[:, None] * M3.T))))[:, 0]
                for a, b in zip(d1, d2, strict=True)]  # fmt: skip
    np.testing.assert_allclose(gradients(d1, d2), expected, atol=1e-12)
    assert len(np.unique(np.round(expected, 9), axis=0)) == 20


def zero(x, s=0.0):
    return nonsmooth.relu(x, at_zero=s) - nonsmooth.relu(-x, at_zero=s) - x


def test_a_program_for_zero_with_kinks():
    """Its gradient at 0 is 2s − 1; its one-sided derivatives are 0."""
    for s, slope in [(0.0, -1), (0.5, 0), (1.0, 1)]:
        assert jax.grad(zero)(0.0, s) == slope
    assert directional_derivative(zero, 0.0, 1.0) == 0
    assert directional_derivative(zero, 0.0, -1.0) == 0
    assert is_kink(zero, 0.0)
    assert not is_kink(zero, 0.1)


# Where the kinks are


def test_a_report_names_primitive_line_and_margin():
    def f(x):
        y = jnp.maximum(x[0], x[1])
        best = jnp.max(x)
        middle = jax.nn.relu(x - 1.5)
        return y + best + middle.sum() + jnp.sum(jnp.abs(np.ones(3)))

    report = kink_report(f, np.array([1.0, 1.25, 3.0]))
    first = f.__code__.co_firstlineno
    found = dict(
        zip(report.where, zip(report.primitives, report.margins, strict=True), strict=True)
    )
    lines = {int(place.rsplit(":")[-2]) - first: kink for place, kink in found.items()}
    assert lines == {1: ("max", 0.25), 2: ("reduce_max", 1.75), 3: ("max", 0.25)}
    assert not report.is_kink
    assert kink_report(f, np.array([1.0, 1.25, 3.0]), tol=0.25).is_kink
    printed = str(kink_report(f, np.array([1.0, 1.0, 3.0]))).splitlines()
    assert "max" in printed[1]
    assert printed[1].endswith("AT A KINK")
    assert str(kink_report(jnp.sin, 0.0)) == "no primitive with a kink"


MARGINS = [
    (lambda x: jnp.sort(x)[0], 0.5),
    (lambda x: lax.cummax(x).sum(), 0.5),
    (lambda x: jnp.full(2, 0.75).at[np.array([0, 0, 1])].max(x)[0], 0.5),
    (lambda x: jnp.zeros(2).at[np.array([0, 1, 9])].min(-x)[0], 1.0),
    (lambda x: pooled(x).sum(), 0.5),
    (lambda x: pooled(-x, lax.min, jnp.inf)[2], 0.5),
    (lambda x: x[jnp.argmin(x)], 0.5),
    (lambda x: jnp.where(x > 2.75, x, 0).sum(), 0.25),
    (lambda x: lax.clamp(0.9, x, 9.0).sum(), 0.1),
    (lambda x: jnp.where(jnp.isnan(x), 0, x).sum(), None),
    (lambda x: jnp.floor(x).sum(), 0.0),
    (lambda x: jnp.linalg.norm(x), 1 + 1.5**2 + 9),
    (lambda x: lax.scan(lambda c, a: (jnp.abs(c - a), None), 0.3, x)[0], 0.7),
    (lambda x: lax.while_loop(lambda c: c < 4, lambda c: c * 2, x[0] * 1.2), 0.8),
    (lambda x: lax.cond(x[0] > 0.75, jnp.sin, lambda y: jnp.abs(y - 1), x[0]), 0.25),
    (lambda x: lax.cond(x[0] > 0.75, lambda y: jnp.abs(y - 0.9), jnp.sin, x[0]), 0.1),
    (lambda x: lax.fori_loop(0, 3, lambda i, c: c + i * x[1], 0.0), None),
]


@pytest.mark.parametrize("case", range(len(MARGINS)))
def test_margins(case):
    f, expected = MARGINS[case]
    report = kink_report(f, np.array([1.0, 1.5, 3.0]))
    if expected is None:
        assert report.margins.size == 0
    else:
        np.testing.assert_allclose(np.min(report.margins), expected, atol=1e-12)
    assert bool(report.is_kink) == (expected == 0.0)


def test_reports_under_transformations_and_of_unknown_primitives():
    at = jax.jit(jax.vmap(partial(is_kink, lambda x: jnp.abs(x).sum())))
    np.testing.assert_array_equal(at(np.array([[0.0, 1], [2, 1]])), [True, False])
    report = kink_report(lambda x: jnp.abs(jnp.round(x)), 0.2)
    assert report.unknown == ("round",)
    assert "not known" in str(report)
    with pytest.raises(NotImplementedError, match="round"):
        is_kink(jnp.round, 0.2)
    with pytest.raises(ValueError, match="tol"):
        is_kink(jnp.abs, 0.2, tol=-1.0)


def test_directions_of_another_shape_and_what_is_not_a_number():
    with pytest.raises(ValueError, match=r"direction must have the shape of x, \(3,\), got \(2,\)"):
        directional_derivative(jnp.abs, jnp.zeros(3), jnp.ones(2))
    slope = directional_derivative(jnp.abs, jnp.array([jnp.nan, 0.0]), jnp.ones(2))
    np.testing.assert_array_equal(slope, [np.nan, 1.0])
