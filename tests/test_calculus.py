"""Functions made of functions: what they are worth, what they have, and what they say they lack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference
from prox_sets import ROTATION, Rotation

import jaxns
from jaxns.functions import (
    L1,
    L2,
    Birkhoff,
    Box,
    BoxSection,
    Conjugate,
    ElasticNet,
    ExponentialCone,
    Huber,
    Isotonic,
    L1Ball,
    L2Ball,
    LeastSquares,
    Linear,
    Linf,
    LinfBall,
    Max,
    MoreauEnvelope,
    NonNegative,
    PositiveSemidefinite,
    Precompose,
    Scale,
    SecondOrderCone,
    Separable,
    Simplex,
    Smooth,
    SquaredL2,
    Sum,
    TotalVariation1D,
    Translate,
    Zero,
)

random = np.random.RandomState(0)
A, B = random.randn(7, 4), random.randn(7)
X = np.array([1.5, -0.5, 0.25, -2.0])
SHIFT = np.array([0.5, 0.0, -1.0, 1.0])


@jax.jit
def prox(g, x, step):
    return g.prox(x, step)


# Conjugates -------------------------------------------------------------------------------------

WITH_CONJUGATE = {
    "Zero": Zero(),
    "Linear": Linear(SHIFT),
    "L1": L1(0.7),
    "SquaredL2": SquaredL2(np.array([0.0, 0.5, 1.0, 2.0])),
    "ElasticNet": ElasticNet(0.3, 0.5),
    "Box": Box(-1.0, np.array([0.5, np.inf, 0.0, 1.0])),
    "Simplex": Simplex(2.0),
    "L1Ball": L1Ball(1.5),
    "L2Ball": L2Ball(1.5),
    "LinfBall": LinfBall(np.array([0.0, 0.5, 1.0, 2.0])),
    "L2": L2(0.7),
    "Linf": Linf(0.7),
    "Max": Max(0.7),
    "Isotonic": Isotonic(),
    "NonNegative": NonNegative(),
    "SecondOrderCone": SecondOrderCone(),
    "ExponentialCone": ExponentialCone(),
    "Conjugate": Conjugate(L2Ball(1.5)),
    "Scale": Scale(ElasticNet(0.3, 0.5), 2.0),
    "Translate": Translate(L2Ball(1.5), SHIFT),
    "MoreauEnvelope": MoreauEnvelope(L2Ball(1.5), 0.5),
    "Separable": Separable((L1(0.7), NonNegative())),
    "PositiveSemidefinite": PositiveSemidefinite(),
}


def point_for(name):
    if name == "ExponentialCone":
        return X[:3]
    if name == "PositiveSemidefinite":
        return X.reshape(2, 2)
    return (X[:2], X[2:]) if name == "Separable" else X


@pytest.mark.parametrize("name", WITH_CONJUGATE)
def test_value_of_the_conjugate(name):
    """Fenchel and Young: f(u) + f*(y) = ⟨u, y⟩ for y = x − u a subgradient at u = prox(x), and
    f(u) + f*(y) ≥ ⟨u, y⟩ for any other y."""
    f, x = WITH_CONJUGATE[name], point_for(name)
    u = f.prox(x, 1.0)
    y = jax.tree.map(jnp.subtract, x, u)
    inner = jaxns.tree.vdot(u, y)
    np.testing.assert_allclose(f(u) + Conjugate(f)(y), inner, atol=1e-14)
    for factor in (0.5, 1.5, -1.0):
        other = jax.tree.map(lambda yi, ui, t=factor: t * yi + 0.1 * ui, y, u)
        assert f(u) + Conjugate(f)(other) >= jaxns.tree.vdot(u, other) - 1e-14
    assert Conjugate(f)(y).shape == ()


def test_a_conjugate_without_a_closed_form_says_so():
    for f in (Birkhoff(), BoxSection(0.0, 1.0, np.ones(4), 1.0)):
        with pytest.raises(TypeError, match=f"the conjugate of {type(f).__name__} has no value"):
            Conjugate(f)(X)
    with pytest.raises(TypeError, match="Conjugate needs a function with a prox"):
        Conjugate(Huber(A, B))


def test_the_conjugate_of_the_conjugate_has_the_same_prox():
    for f in (L1(0.7), L2Ball(1.5), SecondOrderCone()):
        twice = Conjugate(Conjugate(f))
        np.testing.assert_allclose(prox(twice, X, 0.3), prox(f, X, 0.3), atol=1e-15)


# Moreau envelopes -------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [L1(0.7), L2Ball(1.0), Simplex()], ids=["L1", "L2Ball", "Simplex"])
def test_moreau_envelope(f):
    """Decomposition: e_f(x) + e_f*(x) = ½‖x‖² at smoothing 1, and the gradients add up to x."""
    whole = MoreauEnvelope(f, 1.0)
    dual = MoreauEnvelope(Conjugate(f), 1.0)
    np.testing.assert_allclose(whole(X) + dual(X), 0.5 * X @ X, rtol=1e-14)
    np.testing.assert_allclose(whole.gradient(X) + dual.gradient(X), X, rtol=1e-14)
    smooth = MoreauEnvelope(f, 0.3)
    np.testing.assert_allclose(smooth.gradient(X), central_difference(smooth, X), atol=1e-8)
    np.testing.assert_allclose(smooth.gradient(X), jax.grad(smooth)(X), atol=1e-14)
    np.testing.assert_allclose(smooth.lipschitz(), 1 / 0.3)


def test_moreau_envelope_is_descended_by_forward_backward():
    """It has the minimisers of what it smooths."""
    problem = jaxns.Composite(MoreauEnvelope(Translate(L1(1.0), SHIFT), 0.5))
    x = jaxns.solve(problem, jaxns.ForwardBackward(), X).x
    np.testing.assert_allclose(x, SHIFT, atol=1e-8)


# What is inherited ------------------------------------------------------------------------------


def test_smooth_parts_make_smooth_functions():
    f = LeastSquares(A, B)
    M = A.T @ A
    operator = Precompose(f, 2 * np.linalg.qr(random.randn(4, 4))[0])
    for g, constant in [
        (Scale(f, 3.0), 3 * np.linalg.eigvalsh(M)[-1]),
        (Translate(f, SHIFT), np.linalg.eigvalsh(M)[-1]),
        (operator, 4 * np.linalg.eigvalsh(M)[-1]),
        (Sum(f, SquaredL2(0.5)), np.linalg.eigvalsh(M)[-1] + 0.5),
        (Sum(f, Linear(SHIFT)), np.linalg.eigvalsh(M)[-1]),
    ]:
        np.testing.assert_allclose(g.gradient(X), central_difference(g, X), atol=1e-7)
        np.testing.assert_allclose(g.lipschitz(), constant, rtol=1e-12)
    np.testing.assert_allclose(Scale(f, 3.0).hessian(X), 3 * M, rtol=1e-14)
    index = np.array([2, 0])
    np.testing.assert_allclose(Translate(f, SHIFT).hessian(X, index), M[index][:, index])
    for g in (Scale(f, 3.0), Translate(f, SHIFT), Sum(L1(0.1), f), Sum(f, L1(0.1))):
        np.testing.assert_array_equal(g.start(), np.zeros(4))
    assert Scale(Smooth(jnp.sum), 2.0).lipschitz() is None
    assert Sum(f, Smooth(jnp.sum)).lipschitz() is None


def test_active_sets_are_inherited():
    f = Translate(Scale(NonNegative(), 2.0), SHIFT)
    np.testing.assert_array_equal(f.support(X), X > SHIFT)
    np.testing.assert_array_equal(f.curvature(X, X), 0 * X)
    np.testing.assert_array_equal(Scale(Simplex(), 2.0).normal(X), np.ones(4))
    both = Sum(NonNegative(), Box(-1.0, 1.0))
    np.testing.assert_array_equal(both.support(X), (X > 0) & (X < 1))
    apart = Separable((NonNegative(), Box(-1.0, 1.0))).support((X[:2], X[2:]))
    np.testing.assert_array_equal(apart[0], [True, False])
    np.testing.assert_array_equal(apart[1], [True, False])


@pytest.mark.parametrize(
    ("g", "lacking"),
    [
        (Scale(L1(1.0), 2.0), ["gradient", "lipschitz", "hessian", "normal", "start"]),
        (Translate(Huber(A, B), SHIFT), ["prox", "support"]),
        (Precompose(L1(1.0), ROTATION), ["gradient", "lipschitz"]),
        (Separable({"a": L1(1.0), "b": Huber(A, B)}), ["gradient", "prox", "start"]),
        (Sum(LeastSquares(A, B), L1(1.0)), ["gradient", "prox"]),
        (Sum(L1(1.0), L2Ball(1.0)), ["prox", "gradient", "start"]),
        (Sum(Box(0.0, 1.0), Box(2.0, 3.0)), ["prox"]),
        (Sum(L1(1.0), SquaredL2(np.ones(4))), ["prox"]),
        (MoreauEnvelope(L1(1.0), 1.0), ["start"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_lacking_is_absent_and_says_why(g, lacking):
    for name in lacking:
        assert not hasattr(g, name)
        with pytest.raises(TypeError, match=f"no {name} is known|has no {name}|neither part"):
            getattr(g, name)


def test_a_problem_says_what_a_sum_lacks():
    with pytest.raises(TypeError, match="g must have a gradient or a prox"):
        jaxns.Composite(LeastSquares(A, B), Sum(L1(1.0), L2Ball(1.0)))
    with pytest.raises(TypeError, match=r"sum of L1 and L2Ball; give them to a solver apart"):
        Sum(L1(1.0), L2Ball(1.0)).prox(X, 1.0)


def test_parts_must_be_functions():
    for make in (
        lambda: Scale(3.0, 1.0),
        lambda: Translate(L1, 1.0),
        lambda: Sum(L1(1.0), 2.0),
        lambda: Separable({"a": L1(1.0), "b": 2.0}),
        lambda: Precompose("f", np.eye(2)),
    ):
        with pytest.raises(TypeError, match="must be a function such as those in"):
            make()
    with pytest.raises(ValueError, match="weight must be positive"):
        Scale(L1(1.0), 0.0)
    with pytest.raises(ValueError, match="smoothing must be positive"):
        MoreauEnvelope(L1(1.0), 0.0)


# Orthogonal maps --------------------------------------------------------------------------------


def test_precompose_takes_a_matrix_or_an_operator():
    x = random.randn(5)
    doubled = Precompose(L1(0.7), 2 * ROTATION)  # kappa = 4: ‖2Rx‖₁ = 2‖Rx‖₁
    twice = Precompose(L1(1.4), Rotation())
    np.testing.assert_allclose(prox(doubled, x, 0.3), prox(twice, x, 0.3), atol=1e-15)
    np.testing.assert_allclose(doubled(x), twice(x))
    columns = random.randn(5, 2)
    apart = np.stack([prox(doubled, column, 0.3) for column in columns.T], axis=1)
    np.testing.assert_allclose(prox(doubled, columns, 0.3), apart, atol=1e-15)


def test_precompose_checks_what_it_sees():
    for Q in (np.array([[1.0, 1.0], [0.0, 1.0]]), np.diag([1.0, 2.0]), np.ones((3, 2))):
        with pytest.raises(ValueError, match="Q must have orthogonal rows of one length"):
            Precompose(L1(1.0), Q)
    turned = jax.jit(lambda t: Precompose(L1(1.0), jnp.array([[jnp.cos(t), jnp.sin(t)]])))(0.3)
    assert np.isfinite(turned(X[:2]))


def test_precompose_is_differentiable_along_rotations():
    x = random.randn(2)

    def turned(t):
        c, s = jnp.cos(t), jnp.sin(t)
        return Precompose(L1(0.3), jnp.array([[c, s], [-s, c]])).prox(x, 1.0)

    found = jax.jacfwd(turned)(0.4)
    np.testing.assert_allclose(found, central_difference(turned, 0.4), atol=1e-9)


# Sums -------------------------------------------------------------------------------------------


@jax.jit
def by_dykstra(f, g, x):
    """The prox of f + g from the proxes of the two alone (Bauschke and Combettes 2008)."""

    def body(_, carry):
        u, p, q = carry
        y = f.prox(u + p, 0.6)
        p = u + p - y
        u = g.prox(y + q, 0.6)
        return u, p, y + q - u

    return jax.lax.fori_loop(0, 5000, body, (x, 0 * x, 0 * x))[0]


@pytest.mark.parametrize(
    ("f", "g"),
    [
        (L1(0.7), Box(-0.5, np.array([1.0, 2.0, -0.25, 0.5]))),
        (ElasticNet(0.3, 0.5), NonNegative()),
        (Translate(L1(0.7), SHIFT), LinfBall(1.0)),
        (Sum(Scale(L1(0.7), 2.0), Linear(SHIFT)), NonNegative()),
        (L2Ball(1.0), Linear(SHIFT)),
        (Simplex(), SquaredL2(0.8)),
        (SecondOrderCone(), Zero()),
        (TotalVariation1D(0.4), L1(0.3)),
        (Isotonic(), Box(-0.5, 0.75)),
        (NonNegative(), L2Ball(1.0)),
        (NonNegative(), L1Ball(1.0)),
        (SecondOrderCone(), L2Ball(0.5)),
    ],
    ids=lambda f: type(f).__name__,
)
def test_prox_of_a_sum_agrees_with_dykstra(f, g):
    for x in (X, -X + 0.3, np.array([0.5, 0.1, 0.2, 0.9])):
        expected = by_dykstra(f, g, x)
        np.testing.assert_allclose(prox(Sum(f, g), x, 0.6), expected, atol=1e-9)
        np.testing.assert_allclose(prox(Sum(g, f), x, 0.6), expected, atol=1e-9)


# In a solve -------------------------------------------------------------------------------------


def test_a_closure_inside_is_seen_and_differentiated():
    """A scaled and translated function of data that a lambda closes over."""

    def solution(c):
        f = Smooth(lambda x: 0.5 * jnp.sum((x - c) ** 2), lipschitz=1.0)
        parts = Sum(Scale(f, 2.0), Translate(f, 1.0))
        problem = jaxns.Composite(parts, L1(0.1))
        return jaxns.solve(problem, jaxns.ForwardBackward(), jnp.zeros(3)).x

    c = np.array([1.0, -2.0, 3.0])
    # 2(x − c) + (x − 1 − c) ± 0.1 = 0
    np.testing.assert_allclose(solution(c), c + 1 / 3 - 0.1 / 3 * np.sign(c), atol=1e-8)
    np.testing.assert_allclose(jax.jacobian(solution)(c), np.eye(3), atol=1e-7)


def two_parts(x):
    return 0.5 * jnp.sum((A @ x["weights"] + x["bias"] - B) ** 2)


def test_separable_penalises_weights_and_not_the_bias():
    def solution(penalty):
        g = Separable({"weights": L1(penalty), "bias": Zero()})
        x0 = {"weights": jnp.zeros(4), "bias": jnp.zeros(())}
        problem = jaxns.Composite(Smooth(two_parts, lipschitz=60.0), g)
        return jaxns.solve(problem, jaxns.ForwardBackward(), x0).x

    x = solution(0.5)
    r = A @ x["weights"] + x["bias"] - B
    np.testing.assert_allclose(r.sum(), 0, atol=1e-7)
    on = np.asarray(x["weights"]) != 0
    assert on.any()
    np.testing.assert_allclose((A.T @ r)[on], -0.5 * np.sign(x["weights"])[on], atol=1e-7)
    slope = jax.grad(lambda penalty: solution(penalty)["bias"])(0.5)
    expected = central_difference(lambda penalty: solution(penalty)["bias"], 0.5, h=1e-3)
    np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_changing_numbers_does_not_retrace():
    traces = []

    @jax.jit
    def gradient(f):
        traces.append(1)
        return f.gradient(X)

    for weight in (1.0, 2.0, 3.0):
        f = Scale(Translate(LeastSquares(A, B), SHIFT), weight)
        np.testing.assert_allclose(gradient(f), weight * A.T @ (A @ (X - SHIFT) - B))
    assert len(traces) == 1
