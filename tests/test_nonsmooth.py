"""Chosen derivatives at kinks, one-sided derivatives, and what a choice does to an iteration."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns import nonsmooth
from jaxns.functions import L1, ElasticNet
from jaxns.nonsmooth import directional_derivative, sample_jacobians

INF = np.inf

# name, plain twin, argument name and least element, points at a kink, their derivative for s
KINKS = [
    ("relu", lambda x: np.maximum(x, 0), "at_zero", 0, (0.0,), lambda s: (s,)),
    ("absolute", np.abs, "at_zero", -1, (0.0,), lambda s: (s,)),
    ("maximum", np.maximum, "at_tie", 0, (1.5, 1.5), lambda s: (s, 1 - s)),
    ("minimum", np.minimum, "at_tie", 0, (1.5, 1.5), lambda s: (s, 1 - s)),
    ("clip", np.clip, "at_bounds", 0, (-1.0, -1.0, 2.0), lambda s: (s, 1 - s, 0)),
    ("clip", np.clip, "at_bounds", 0, (2.0, -1.0, 2.0), lambda s: (s, 0, 1 - s)),
    ("soft_threshold", None, "at_kink", 0, (0.5, 0.5), lambda s: (s, -s)),
    ("soft_threshold", None, "at_kink", 0, (-0.5, 0.5), lambda s: (s, s)),
    ("soft_threshold", None, "at_kink", 0, (0.0, 0.0), lambda s: (1, 0)),
]
each_kink = pytest.mark.parametrize(
    ("name", "twin", "argument", "least", "at", "expected"), KINKS, ids=lambda v: str(v)[:14]
)


def threshold_twin(x, t):
    return np.sign(x) * np.maximum(np.abs(x) - t, 0)


@each_kink
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_derivative_at_a_kink_is_the_chosen_one(
    name, twin, argument, least, at, expected, dtype
):
    """Forwards, backwards, under jit and vmap; the second derivative is 0."""
    function, places = getattr(nonsmooth, name), tuple(range(len(at)))
    at = tuple(jnp.asarray(a, dtype) for a in at)
    elements = np.array([least, 0.25, 1.0], dtype)

    @jax.jit
    @jax.vmap
    def derivatives(s):
        f = partial(function, **{argument: s})
        orders = (jax.jacfwd(f, places), jax.grad(f, places), jax.jacfwd(jax.grad(f, places)))
        return f(*at), *(order(*at) for order in orders)

    value, forward, reverse, second = derivatives(elements)
    assert value.dtype == dtype
    np.testing.assert_array_equal(value, (twin or threshold_twin)(*at))
    slopes = [np.broadcast_to(slope, 3) for slope in expected(elements)]
    np.testing.assert_array_equal(np.array(forward), slopes)
    np.testing.assert_array_equal(np.array(reverse), slopes)
    np.testing.assert_array_equal(np.array(second), 0)


def test_the_derivatives_at_kinks_by_default():
    for name, _, argument, _, at, expected in KINKS:
        slopes = jax.grad(getattr(nonsmooth, name), tuple(range(len(at))))(*at)
        assert slopes == expected(0.5 if argument == "at_tie" else 0.0)


@each_kink
def test_elsewhere_it_is_the_function(name, twin, argument, least, at, expected):
    function = partial(getattr(nonsmooth, name), **{argument: 0.25})
    points = np.random.RandomState(0).randn(50, len(at))
    points[:, 1:] = np.sort(np.abs(points[:, 1:]), axis=1)  # a threshold ≥ 0, lower ≤ upper
    points[0] = np.nan
    columns, places = tuple(points.T), tuple(range(len(at)))
    slow = twin or threshold_twin

    @jax.jit
    @jax.vmap
    def derivatives(*x):
        return function(*x), jax.grad(function, places)(*x)

    values, slopes = derivatives(*columns)
    np.testing.assert_allclose(values, slow(*columns), rtol=1e-15)
    for j in places:
        h = 1e-6 * np.eye(len(at))[j]
        difference = (slow(*(points + h).T) - slow(*(points - h).T)) / 2e-6
        np.testing.assert_allclose(slopes[j][1:], difference[1:], atol=1e-8)


def test_infinite_arguments():
    assert nonsmooth.maximum(INF, INF) == INF
    assert nonsmooth.minimum(-INF, -INF) == -INF
    assert nonsmooth.relu(-INF) == 0
    assert nonsmooth.clip(3.0, -INF, INF) == 3
    assert jax.grad(nonsmooth.clip)(3.0, -INF, INF) == 1


def test_elements_and_arguments_are_arrays_of_any_kind():
    elements = np.array([0.0, 0.5, 1.0])
    slopes = jax.vmap(lambda s: jax.grad(nonsmooth.relu)(0.0, s))(elements)
    np.testing.assert_array_equal(slopes, elements)
    whole = jax.grad(lambda x: nonsmooth.relu(x, elements).sum())(jnp.zeros(3))
    np.testing.assert_array_equal(whole, elements)
    assert nonsmooth.relu(3).dtype == float  # an integer too
    assert jax.grad(lambda s: nonsmooth.relu(0.0, s))(0.5) == 0  # a constant of the program


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda s: nonsmooth.relu(1.0, at_zero=s), "at_zero"),
        (lambda s: nonsmooth.absolute(1.0, at_zero=s), "at_zero"),
        (lambda s: nonsmooth.maximum(1.0, 2.0, at_tie=s), "at_tie"),
        (lambda s: nonsmooth.clip(1.0, 0.0, 1.0, at_bounds=s), "at_bounds"),
        (lambda s: nonsmooth.soft_threshold(1.0, 1.0, at_kink=s), "at_kink"),
        (lambda s: L1(1.0, at_kink=s), "at_kink"),
        (lambda s: ElasticNet(1.0, 1.0, at_kink=s), "at_kink"),
    ],
)
@pytest.mark.parametrize("element", [1.5, -2.0, np.nan, np.array([0.5, 2.0])])
def test_elements_outside_the_interval(make, argument, element):
    with pytest.raises(ValueError, match=argument):
        make(element)


# One-sided derivatives and samples


def test_one_sided_derivatives_of_a_pytree():
    def f(x):
        return {"out": jnp.abs(x["a"] - 1).sum() * jnp.exp(x["b"]), "max": jnp.maximum(*x["a"])}

    x = {"a": np.array([1.0, 1.0]), "b": np.array(0.5)}
    for a, b in [([1.0, -2.0], 0.0), ([-1.0, -3.0], 5.0), ([0.0, 0.0], 1.0)]:
        d = {"a": np.array(a), "b": np.array(b)}
        found = jax.jit(partial(directional_derivative, f))(x, d)
        np.testing.assert_allclose(found["out"], np.abs(a).sum() * np.exp(0.5), rtol=1e-12)
        np.testing.assert_allclose(found["max"], max(a), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-14), (np.float32, 1e-5)])
def test_one_sided_derivatives_are_exact_to_rounding(dtype, tol):
    x = np.array([3.0, 0.0, -2.0], dtype)

    def f(x):
        return jnp.sum(jnp.sin(x) * jnp.abs(x)) + jnp.linalg.norm(x[1:2])

    found = directional_derivative(f, x, np.array([0.0, 2.0, 1.0]))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, 2 - np.sin(-2) + 2 * np.cos(-2), rtol=tol)
    np.testing.assert_array_equal(directional_derivative(jnp.abs, x, np.zeros(3)), 0)
    with pytest.raises(ValueError, match="step"):
        directional_derivative(f, x, x, step=0.0)


def test_samples_are_the_pieces_that_meet():
    """Of (|x₁ + x₂|, max(x₁, 0)) at 0: four pieces, each found with its share of the ball."""

    def f(x):
        return jnp.stack([jnp.abs(x["a"] + x["b"]), jnp.maximum(x["a"], 0)])

    found = sample_jacobians(f, {"a": 0.0, "b": 0.0}, jax.random.key(0), 400)
    assert found["a"].shape == found["b"].shape == (400, 2)
    np.testing.assert_array_equal(found["a"][:, 0], found["b"][:, 0])
    pieces, counts = np.unique(np.array(found["a"]), axis=0, return_counts=True)
    np.testing.assert_array_equal(pieces, [[-1, 0], [-1, 1], [1, 0], [1, 1]])
    np.testing.assert_allclose(counts / 400, [3 / 8, 1 / 8, 1 / 8, 3 / 8], atol=0.08)


def test_samples_lie_in_the_ball():
    centre, radius = np.array([3.0, -4.0, 0.5]), 0.25
    found = sample_jacobians(lambda x: x**2 / 2, centre, jax.random.key(1), 200, radius, jax.jacrev)
    points = np.diagonal(found, axis1=1, axis2=2)
    distances = np.linalg.norm(points - centre, axis=1)
    assert distances.max() <= radius
    np.testing.assert_allclose(np.mean((distances / radius) ** 3), 0.5, atol=0.1)  # uniform
    for count in (0, 2.0):
        with pytest.raises(ValueError, match="count"):
            sample_jacobians(jnp.abs, 1.0, jax.random.key(0), count)


# The lasso at its kink: min ½ (x − 1)² + θ |x| at θ = 1 (docs/kinks.md)

ALPHA = 0.5
PROGRAMS = {
    "sign times maximum": (
        lambda x, t: jnp.sign(x) * nonsmooth.maximum(nonsmooth.absolute(x) - t, 0),
        -1 / 3,
    ),
    "minus clip": (lambda x, t: x - nonsmooth.clip(x, -t, t, at_bounds=0.5), -1 / 3),
    "two relus": (lambda x, t: nonsmooth.relu(x - t) - nonsmooth.relu(-x - t), 0.0),
    "ours": (nonsmooth.soft_threshold, 0.0),
}


def shrunk(threshold, theta):
    def step(x, theta):
        return threshold(x - ALPHA * (x - 1), ALPHA * theta)

    return jaxns.fixed_point(step, jnp.zeros(()), theta).z


def test_the_solution_has_two_one_sided_derivatives():
    h = 1e-6
    right, left = (
        (shrunk(nonsmooth.soft_threshold, 1 + sign * h) - shrunk(nonsmooth.soft_threshold, 1.0))
        / (sign * h)
        for sign in (1, -1)
    )
    np.testing.assert_allclose([left, right], [-1, 0], atol=1e-6)

    def solution(theta):
        lasso = jaxns.problems.lasso(np.ones((1, 1)), np.ones(1), theta)
        solver = jaxns.ForwardBackward(ALPHA)
        return jaxns.solve(lasso, solver, mode=jaxns.Implicit(direction="both")).x[0]

    for direction, slope in [(1.0, 0.0), (-1.0, 1.0)]:
        found = directional_derivative(solution, 1.0, direction, method="nearby")
        np.testing.assert_allclose(found, slope)

    def solved(theta):
        return jaxns.solve(jaxns.problems.lasso(np.ones((1, 1)), np.ones(1), theta)).x[0]

    for program in (solution, solved):
        with pytest.raises(NotImplementedError, match="method='nearby'"):
            directional_derivative(program, 1.0, 1.0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_derivative_depends_on_the_program(name):
    threshold, expected = PROGRAMS[name]
    value, slope = jax.value_and_grad(partial(shrunk, threshold))(1.0)
    assert value == 0
    np.testing.assert_allclose(slope, expected, rtol=1e-14)


@pytest.mark.slow
def test_choices_sweep_the_implicit_conservative_jacobian():
    """−s α / (1 − s (1 − α)), all of [−1, 0]; by a function's own element too, in a solver."""

    def program(theta, s):
        return shrunk(partial(nonsmooth.soft_threshold, at_kink=s), theta)

    def problem(make, theta, s):
        f = jaxns.functions.SquaredDistance(np.ones(1))
        lasso = jaxns.Composite(f, make(theta, s))
        return jaxns.solve(lasso, jaxns.ForwardBackward(ALPHA)).x[0]

    elements = np.linspace(0, 1, 5)
    expected = -elements * ALPHA / (1 - elements * (1 - ALPHA))
    elastic_net = partial(problem, lambda theta, s: ElasticNet(theta, 0.0, s))
    for solution in (program, partial(problem, L1), elastic_net):
        slopes = jax.vmap(jax.grad(solution), (None, 0))(1.0, elements)
        np.testing.assert_allclose(slopes, expected, rtol=1e-12)


def test_an_element_is_a_leaf_that_does_not_retrace():
    traced = []

    @jax.jit
    def slope(g, x):
        traced.append(g)
        return jax.grad(lambda x: g.prox(x, 0.5).sum())(x)

    x = np.array([1.0, -1.0, 3.0])
    for s in (0.0, 0.25, 1.0):
        np.testing.assert_array_equal(slope(L1(2.0, at_kink=s), x), [s, s, 1])
    assert len(traced) == 1
    assert len(jax.tree.leaves(L1(2.0))) == 1  # as if there were none
    per_coordinate = L1({"a": 2.0}, at_kink={"a": np.array([0.5, 0.25, 0.0])})
    prox = jax.grad(lambda x: per_coordinate.prox({"a": x}, 0.5)["a"].sum())(x)
    np.testing.assert_array_equal(prox, [0.5, 0.25, 1])
    _, g = L1(2.0, at_kink=0.5).separate(jnp.zeros(3))
    np.testing.assert_array_equal(g.at_kink, [0.5, 0.5, 0.5])


# The heavy ball on x²/2 where x ≥ 0 and x²/8 elsewhere (arXiv 2206.00457, heavy-ball section)

STEPS, INERTIA = 200, 0.75
LEFT, RIGHT = 0.0, 1.0  # the gradient as where(x > 0, x, x/4), and as where(x >= 0, x, x/4)


def gradient(x, element):
    return x / 4 + 0.75 * nonsmooth.relu(x, at_zero=element)


def path(elements, inertia, z):
    """x_k, k = 1, 2, …, of x ← x − ∇f(x) + β (x − x₋) from (x, x₋) = z."""

    def step(z, element):
        x, before = z
        after = x - gradient(x, element) + inertia * (x - before)
        return (after, x), after

    return jax.lax.scan(step, z, jnp.asarray(elements))


def slopes(elements, inertia=INERTIA):
    """The derivatives of x_k in t at t = 0, started from x₀ = x₋₁ = t, where every x_k is 0."""
    values, derivatives = jax.jvp(lambda t: path(elements, inertia, (t, t))[1], (0.0,), (1.0,))
    np.testing.assert_array_equal(values, 0)
    return derivatives


ALTERNATING = [LEFT, LEFT, RIGHT, RIGHT] * (STEPS // 4)


def test_the_heavy_ball_diverges_for_some_choice():
    """Each choice alone is stable, one that alternates is not: 9/8 in modulus every 4 steps."""
    np.testing.assert_allclose(slopes([RIGHT] * STEPS)[-1], 1.4e-13, rtol=0.05)
    np.testing.assert_allclose(slopes([LEFT] * STEPS)[-1], -1.6e-13, rtol=0.05)
    alternating = slopes(ALTERNATING)
    np.testing.assert_allclose(alternating[-1], 90.27, rtol=1e-4)
    np.testing.assert_allclose(alternating[103::4] / alternating[99:-1:4], -9 / 8, rtol=1e-10)

    jacobian = jax.jacfwd(lambda z: jnp.stack(path(ALTERNATING, INERTIA, tuple(z))[0]))(np.zeros(2))
    np.testing.assert_allclose(np.linalg.norm(jacobian, 2), 451.4, rtol=1e-4)
    factors = [np.array([[1 + INERTIA - h, -INERTIA], [1, 0]]) for h in (0.25, 0.25, 1, 1)]
    power = np.linalg.matrix_power(np.linalg.multi_dot(factors[::-1]), STEPS // 4)
    np.testing.assert_allclose(jacobian, power, rtol=1e-9, atol=1e-20)


def test_what_does_not_diverge():
    """Gradient descent, whatever is chosen; one curvature; and a path that meets no kink."""
    assert slopes(ALTERNATING, inertia=0.0)[-1] == 0
    for element in (LEFT, 0.5, RIGHT):  # a constant element: as on ½ h x², which is C²
        assert abs(slopes([element] * STEPS)[-1]) < 1e-11
    elsewhere = jax.jvp(lambda t: path(ALTERNATING, INERTIA, (t, t))[1], (1.0,), (1.0,))
    np.testing.assert_allclose([x[-1] for x in elsewhere], 0, atol=1e-10)


def test_a_program_for_zero_has_more_elements_than_the_clarke_derivative():
    """relu(x) − relu(−x) − x: any number in [−1, 1] (arXiv 2206.01730)."""

    def zero(x):
        return jax.nn.relu(x) - jax.nn.relu(-x) - x

    found = nonsmooth.sample_conservative_jacobians(zero, 0.0, jax.random.key(0), 400)
    assert float(jnp.min(found)) < -0.8
    assert float(jnp.max(found)) > 0.8
    np.testing.assert_array_less(jnp.abs(found), 1)
    clarke = nonsmooth.sample_jacobians(zero, 0.0, jax.random.key(0), 20)
    np.testing.assert_array_equal(clarke, 0)
    away = nonsmooth.sample_conservative_jacobians(zero, 1.0, jax.random.key(0), 20)
    np.testing.assert_array_equal(away, 0)


def test_elements_of_a_network_at_zero_are_products():
    """M₂ D M₁ with D free, which is read off from the sample."""
    random = np.random.default_rng(0)
    M1, M2 = jnp.asarray(random.integers(-1, 2, (2, 3, 3)) + 3.0 * np.eye(3))

    @jax.jit
    def network(x):
        return M2 @ jnp.maximum(M1 @ x, 0)

    found = nonsmooth.sample_conservative_jacobians(network, jnp.zeros(3), jax.random.key(1), 50)
    D = jnp.linalg.inv(M2) @ found @ jnp.linalg.inv(M1)
    diagonal = jnp.diagonal(D, axis1=1, axis2=2)
    np.testing.assert_allclose(D, jax.vmap(jnp.diag)(diagonal), atol=1e-14)
    assert float(diagonal.min()) >= 0
    assert float(diagonal.max()) <= 1
    assert float(jnp.std(diagonal, axis=0).min()) > 0.2  # uniform: 0.29
    both = nonsmooth.sample_conservative_jacobians(
        lambda x: jnp.abs(x["a"]) + jnp.clip(x["b"], 0, 1) + jnp.minimum(x["a"], 0),
        {"a": 0.0, "b": 1.0},
        jax.random.key(2),
        200,
    )
    assert -1 <= float(both["a"].min()) < -0.5 < 1 < float(both["a"].max()) <= 2
    assert 0 <= float(both["b"].min()) < 0.1 < 0.9 < float(both["b"].max()) <= 1
    with pytest.raises(ValueError, match="count"):
        nonsmooth.sample_conservative_jacobians(network, jnp.zeros(3), jax.random.key(1), 0)
