"""The distance to the nearest kink: no kink inside it, and one right behind it."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxns import (
    ADMM,
    Composite,
    CoordinateDescent,
    DavisYin,
    DouglasRachford,
    ForwardBackward,
    GradientDescent,
    HeavyBall,
    Newton,
    PrimalDual,
    QuadraticProgram,
    Relaxed,
    Root,
    Sinkhorn,
    functions,
    problems,
    solve,
    struct,
    tree,
)
from jaxns.functions import (
    L1,
    L2,
    MCP,
    SCAD,
    AffineSet,
    Box,
    BoxSection,
    Conjugate,
    ElasticNet,
    FusedLasso,
    Gram,
    GroupL2,
    HalfSpace,
    Hinge,
    Huber,
    Hyperplane,
    Isotonic,
    L1Ball,
    L2Ball,
    LeastSquares,
    Linear,
    Linf,
    LinfBall,
    LogDet,
    Logistic,
    Max,
    MoreauEnvelope,
    Multinomial,
    NonNegative,
    Nuclear,
    Pinball,
    Poisson,
    Polyhedron,
    PositiveSemidefinite,
    Precompose,
    Quadratic,
    Scale,
    SecondOrderCone,
    Separable,
    Simplex,
    SparseGroup,
    SquaredDistance,
    SquaredHinge,
    SquaredL2,
    Sum,
    TotalVariation1D,
    Translate,
    Zero,
)

SIZE, STEP, COUNT, WAYS = 5, 0.5, 12, 6
random = np.random.RandomState(0)
A, B = random.randn(7, SIZE), random.randn(7)
SYMMETRIC = A.T @ A
WEIGHTS = np.array([0.0, 0.5, 1.0, 2.0, 0.25])
LOWER = np.array([-1.0, -0.5, 0.0, 0.5, -np.inf])
UPPER = np.array([1.0, 0.5, 2.0, 0.5, 1.5])
SIGNS = np.sign(B)
NORMAL = np.array([1.0, -2.0, 0.5, 0.0, 1.5])
G, BELOW = random.randn(4, SIZE), np.array([1.0, 0.5, -0.5, 0.25])
ROTATION = 2 * np.linalg.qr(random.randn(SIZE, SIZE))[0][:3]
SPLIT = {"a": np.zeros(2), "b": np.zeros(3)}
SQUARE, WIDE = np.zeros((3, 3)), np.zeros((2, 3))


class Case(NamedTuple):
    """like: a point.   exact: whether a kink is as near as the margin says, and not only no nearer.
    affine: whether the map is piecewise affine; elsewhere the pattern of its Jacobian is how many
    singular values are 0, and how many are 1.   slow: whether only the slow tests look at it."""

    f: Any
    like: Any = np.zeros(SIZE)
    exact: bool = True
    affine: bool = True
    slow: bool = False


PROX = {
    "L1": Case(L1(0.7)),
    "L1-per-coordinate": Case(L1(WEIGHTS)),
    "L1-pytree": Case(L1({"a": 0.5, "b": WEIGHTS[:3]}), SPLIT),
    "ElasticNet": Case(ElasticNet(WEIGHTS, 0.5)),
    "NonNegative": Case(NonNegative()),
    "Box": Case(Box(LOWER, UPPER)),
    "LinfBall": Case(LinfBall(WEIGHTS)),
    "L1Ball": Case(L1Ball(1.5)),
    "L2Ball": Case(L2Ball(1.5), affine=False),
    "Simplex": Case(Simplex(2.0)),
    "Simplex-rows": Case(Simplex(2.0, axis=0), WIDE, slow=True),
    "BoxSection": Case(BoxSection(-1.0, 1.0, NORMAL, 0.5)),
    "BoxSection-vertices": Case(BoxSection(-0.1, 0.1, NORMAL, 0.15), exact=False, slow=True),
    "HalfSpace": Case(HalfSpace(NORMAL, 0.5)),
    "Polyhedron": Case(Polyhedron(G, BELOW)),
    "Polyhedron-equations": Case(Polyhedron(G, BELOW, A[:1], B[:1]), slow=True),
    "SecondOrderCone": Case(SecondOrderCone(), affine=False),
    "PositiveSemidefinite": Case(PositiveSemidefinite(), SQUARE, affine=False),
    "L2": Case(L2(3.0), affine=False),
    "GroupL2": Case(GroupL2(np.array([2.0, 0.0]), [[0, 3], [1, 2]]), affine=False),
    "SparseGroup": Case(SparseGroup(0.5, 1.0, [[0, 3], [1, 2, 4]]), exact=False, affine=False),
    "Linf": Case(Linf(4.0)),
    "Linf-rows": Case(Linf(np.array([1.0, 5.0]), axis=1), WIDE, slow=True),
    "Max": Case(Max(3.0)),
    "TotalVariation1D": Case(TotalVariation1D(1.5)),
    "TotalVariation1D-per-difference": Case(TotalVariation1D(2 * WEIGHTS[:4]), slow=True),
    "FusedLasso": Case(FusedLasso(0.5, 1.5), exact=False, slow=True),
    "Isotonic": Case(Isotonic()),
    "Isotonic-falling": Case(Isotonic(increasing=False), slow=True),
    "Nuclear": Case(Nuclear(3.0), WIDE, affine=False),
    "MCP": Case(MCP(0.7)),
    "SCAD": Case(SCAD(0.7)),
    "Pinball": Case(Pinball(B[:SIZE], 0.3, WEIGHTS)),
    "Hinge": Case(Hinge(SIGNS[:SIZE], WEIGHTS)),
    "Conjugate": Case(Conjugate(L2(3.0)), affine=False),
    "MoreauEnvelope": Case(MoreauEnvelope(L1(0.7), 0.3)),
    "Scale": Case(Scale(L1(0.7), 2.0)),
    "Translate": Case(Translate(L1(0.7), B[:SIZE])),
    "Precompose": Case(Precompose(L1(0.7), ROTATION)),
    "Separable": Case(Separable({"a": L1(0.7), "b": NonNegative()}), SPLIT),
    "Sum-box": Case(Sum(L1(0.7), Box(-1.0, 1.0)), exact=False),
    "Sum-cone": Case(Sum(L1Ball(2.0), NonNegative()), exact=False, slow=True),
    "Sum-squared": Case(Sum(SquaredL2(0.5), L1(0.7))),
    "Sum-linear": Case(Sum(L1(0.7), Linear(B[:SIZE])), slow=True),
    "Sum-zero": Case(Sum(Zero(), L1(0.7)), slow=True),
}
GRADIENT = {
    "Huber": Case(Huber(A, B, 0.5, weights=np.arange(7.0))),
    "SquaredHinge": Case(SquaredHinge(A, SIGNS)),
    "MoreauEnvelope": Case(MoreauEnvelope(L1(0.7), 0.3)),
    "Sum": Case(Sum(Huber(A, B), SquaredHinge(A, SIGNS))),
    "Scale": Case(Scale(Huber(A, B), 2.0), slow=True),
    "Translate": Case(Translate(Huber(A, B), 0.5), slow=True),
    "Precompose": Case(Precompose(Huber(A[:, :3], B), ROTATION), slow=True),
    "Separable": Case(Separable({"a": Huber(A[:, :2], B), "b": Zero()}), SPLIT, slow=True),
}
SMOOTH_PROX = {
    "Zero": Zero(),
    "SquaredL2": SquaredL2(0.5),
    "Linear": Linear(B[:SIZE]),
    "Hyperplane": Hyperplane(NORMAL, 0.5),
    "AffineSet": AffineSet(A[:2], B[:2]),
    "Quadratic": Quadratic(SYMMETRIC, B[:SIZE]),
    "LeastSquares": LeastSquares(A, B),
    "Gram": Gram(A, B[:SIZE]),
    "SquaredDistance": SquaredDistance(B[:SIZE]),
    "without a penalty": Separable([L1(0.0), L2(0.0), Linf(0.0), Max(0.0), TotalVariation1D(0.0)]),
    "points": Separable([L1Ball(0.0), L2Ball(0.0), LinfBall(0.0), Box(1.0, 1.0)]),
}
SMOOTH_GRADIENT = {
    **{name: f for name, f in SMOOTH_PROX.items() if hasattr(f, "gradient")},
    "Logistic": Logistic(A, SIGNS),
    "Poisson": Poisson(A, np.arange(7.0)),
    "Multinomial": Multinomial(A, np.arange(7) % 3),
}
UNKNOWN = {  # of those with a prox, whose margin is not known
    "Birkhoff",
    "ExponentialCone",
    "Slope",
}


@struct
class Step:
    """The map of a solver, looked at as a prox."""

    solver: Any
    problem: Any

    def prox(self, z, step):
        return self.solver.step(self.problem, z)

    def prox_margin(self, z, step):
        return self.solver.margin(self.problem, z)


def stepping(solver, problem):
    x0 = jnp.zeros(SIZE)
    solver = solver.prepare(problem, x0)
    return Case(Step(solver, problem), solver.init(problem, x0), exact=False)


LASSO = Composite(LeastSquares(A, B), L1(2.0))
ABSOLUTE = Composite(L1(0.5), Pinball(B, 0.3), A)
STEPS = {
    "ForwardBackward": (ForwardBackward(), LASSO),
    "ForwardBackward-Huber": (ForwardBackward(), Composite(Huber(A, B), Box(-0.5, 0.5))),
    "GradientDescent": (GradientDescent(), Composite(Huber(A, B), SquaredHinge(A, SIGNS))),
    "HeavyBall": (HeavyBall(), LASSO),
    "DouglasRachford": (DouglasRachford(), LASSO),
    "DouglasRachford-two": (DouglasRachford(1.0), Composite(NonNegative(), L1(0.5))),
    "DavisYin": (DavisYin(), Composite(LeastSquares(A, B), L1(2.0), h=NonNegative())),
    "ADMM": (ADMM(), LASSO),
    "ADMM-relaxed": (ADMM(0.7, 1.5), Composite(NonNegative(), L1(0.5))),
    "ADMM-operator": (ADMM(), Composite(LeastSquares(A, B), L1(0.5), A)),
    "PrimalDual": (PrimalDual(), ABSOLUTE),
    "PrimalDual-smooth": (PrimalDual(), Composite(Huber(A, B), L1(0.5), A, h=NonNegative())),
    "PrimalDual-given": (PrimalDual(0.1, 0.1), ABSOLUTE),
    "Newton": (Newton(), LASSO),
    "Relaxed": (Relaxed(DouglasRachford()), LASSO),
}
SLOW_STEPS = {
    "ADMM-operator",
    "ForwardBackward-Huber",
    "PrimalDual-given",
    "Relaxed",
    "DouglasRachford-two",
    "ADMM-relaxed",
    "PrimalDual-smooth",
}


def apply(f, x, step):
    return f.gradient(x) if step is None else f.prox(x, step)


def margin(f, x, step):
    return f.gradient_margin(x) if step is None else f.prox_margin(x, step)


@partial(jax.jit, static_argnums=3)
def look(f, points, ways, unravel, step):
    """Margins, Jacobians at the points, at points inside the margin, and right behind it."""

    def flat(x):
        return ravel_pytree(apply(f, unravel(x), step))[0]

    def at(x, ways):
        m, steepest = jax.value_and_grad(lambda x: margin(f, unravel(x), step))(x)
        length = jnp.linalg.norm(steepest)
        towards = -steepest / jnp.where(length > 0, length, 1)
        ways = jnp.concatenate([jnp.zeros_like(x)[None], 0.999 * towards[None], 0.999 * ways])
        places = x + m * jnp.concatenate([ways, 1.001 * towards[None]])
        jacobians = jax.lax.map(jax.jacfwd(flat), places)
        return m, length, jacobians[0], jacobians[1:-1], jacobians[-1], towards

    return jax.lax.map(lambda args: at(*args), (points, ways))


def looked(case, step):
    """From random points, and from others that these show to be near a kink."""
    flat, unravel = ravel_pytree(case.like)
    points = 1.5 * random.randn(COUNT, flat.size)
    ways = random.randn(COUNT, WAYS, flat.size)
    ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
    ways *= random.uniform(size=(COUNT, WAYS, 1)) ** 0.3
    far = look(case.f, points, ways, unravel, step)
    near = points + (far[0] * (1 - 1e-4))[:, None] * far[-1]
    return far, look(case.f, near, ways, unravel, step)


def pattern(jacobian):
    """How many singular values are 0, and how many are 1."""
    values = np.linalg.svd(jacobian, compute_uv=False)
    return np.stack([(values < 1e-9).sum(-1), (np.abs(values - 1) < 1e-9).sum(-1)], -1)


def check(case, step):
    far, near = looked(case, step)
    for m, length, jacobian, inside, behind, _ in (far, near):
        assert np.all((m > 0) & np.isfinite(m))
        here, there = jacobian, inside
        if not case.affine:
            here, there = pattern(jacobian), pattern(inside)
        np.testing.assert_allclose(there, np.broadcast_to(here[:, None], there.shape), atol=1e-8)
        if case.exact:
            np.testing.assert_allclose(length, 1, rtol=1e-6)
            assert np.all(np.linalg.norm(behind - jacobian, axis=(1, 2)) > 1e-3)
        else:
            assert np.all(length < 1 + 1e-6)
    if case.exact:
        np.testing.assert_allclose(near[0], 1e-4 * far[0], rtol=1e-6, atol=1e-12)


def named(cases, slow):
    marks = {name: pytest.mark.slow if slow(name) else () for name in cases}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=m) for n, m in marks.items()])


@named(PROX, lambda name: PROX[name].slow)
def test_of_a_prox(name):
    check(PROX[name], STEP)


@named(GRADIENT, lambda name: GRADIENT[name].slow)
def test_of_a_gradient(name):
    check(GRADIENT[name], None)


@named(STEPS, SLOW_STEPS.__contains__)
def test_of_a_step(name):
    check(stepping(*STEPS[name]), STEP)


def like(name, f, x):
    """A point for a function of the tables of those without kinks."""
    if isinstance(f, Separable):
        return [x] * len(f.functions)
    return np.outer(x, np.ones(3)) if name == "Multinomial" else x


def test_without_kinks():
    x = 1e3 * random.randn(SIZE)

    @jax.jit
    def margins():
        of_prox = [f.prox_margin(like(n, f, x), STEP) for n, f in SMOOTH_PROX.items()]
        return of_prox, [f.gradient_margin(like(n, f, x)) for n, f in SMOOTH_GRADIENT.items()]

    assert all(m == np.inf for m in jax.tree.leaves(margins()))
    X = np.diag([0.5, 2.0])
    assert LogDet(X).prox_margin(X, STEP) == np.inf
    assert LogDet(X).gradient_margin(X) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH_PROX)
def test_these_are_affine(name):
    f = SMOOTH_PROX[name]
    x, y = (like(name, f, 1e3 * random.randn(SIZE)) for _ in range(2))
    there, back, here = (f.prox(w, STEP) for w in (tree.add(x, y), tree.sub(x, y), x))
    chex.assert_trees_all_close(tree.add(there, back), tree.scale(2, here), rtol=1e-9)


def test_on_a_kink_and_in_float32():
    x = np.array([0.5, 2.0], np.float32)

    @jax.jit
    def margins():
        touching = L1(1.0), Box(0.5, 1.0), L2Ball(np.linalg.norm(x)), TotalVariation1D(1.5)
        return [g.prox_margin(x, STEP) for g in touching]

    for found in margins():
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, 0, atol=1e-6)
    assert Huber(np.ones((1, 2)), np.ones(1)).gradient_margin(np.array([1.0, 1.0])) == 0


def test_every_function_says_what_it_knows():
    known = {name.split("-")[0] for name in (*PROX, *SMOOTH_PROX, "LogDet")}
    gradients = {name.split("-")[0] for name in (*GRADIENT, *SMOOTH_GRADIENT, "LogDet")}
    for name in functions.__all__:
        cls = getattr(functions, name)
        if hasattr(cls, "prox"):
            assert (name in known) != (name in UNKNOWN), name
        if hasattr(cls, "gradient"):
            assert name in gradients or name in ("ModelLoss", "Smooth"), name
    smooth = functions.Smooth(jnp.sum)
    for f in (Scale(smooth, 2.0), Sum(smooth, L1(1.0)), functions.Slope(1.0)):
        assert not hasattr(f, "prox_margin")
        assert not hasattr(f, "gradient_margin")


def test_what_solvers_do_not_know():
    x = jnp.zeros(SIZE)
    opaque = Composite(functions.Smooth(jnp.sum, lipschitz=1.0), L1(1.0))
    for solver in (ForwardBackward(), HeavyBall(), DavisYin()):
        assert solver.prepare(opaque, x).margin(opaque, solver.init(opaque, x)) is None
    for solver, problem in [
        (Newton(), Root(jnp.sin)),
        (Relaxed(CoordinateDescent()), LASSO),
        (ADMM(linearised=True), LASSO),
    ]:
        prepared = solver.prepare(problem, x)
        assert prepared.margin(problem, prepared.init(problem, x)) is None


def test_of_a_smooth_step():
    transport = problems.Transport(np.ones((2, 2)), np.ones(2) / 2, np.ones(2) / 2, 1.0)
    assert Sinkhorn().margin(transport, jnp.zeros(2)) == np.inf


@pytest.mark.parametrize(("q", "unit"), [(1.0, 1.0), (-0.5, 1.0), (3.0, 7.0), (0.0, 1.0)])
def test_of_a_quadratic_program(q, unit):
    """min x²/2 + qx, unit·x ≥ 0: the map, constant on both sides, jumps right behind the margin."""
    program = QuadraticProgram(np.eye(1), np.array([q]), G=-unit * np.eye(1), h=np.zeros(1))
    solver, solution = program.default_solver(), solve(program)
    m, steepest = jax.value_and_grad(lambda z: solver.margin(program, z))(solution.z)
    if q == 0:
        np.testing.assert_allclose(m, 0, atol=1e-7)
        return
    assert m > 0
    np.testing.assert_allclose(tree.norm(steepest), 1, rtol=1e-6)
    inside, behind = (
        solver.step(program, tree.axpy(-part * m, steepest, solution.z)) for part in (0.999, 1.001)
    )
    chex.assert_trees_all_close(inside, solution.z, atol=1e-6)
    assert abs(behind.x[0] - inside.x[0]) > 0.1
