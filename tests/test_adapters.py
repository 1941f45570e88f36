"""`jaxns.adapters` against the packages themselves; a test of one that is absent is skipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns import Composite, Implicit, OneStep, Piggyback, Root, Stop, solve
from jaxns.adapters import optax as by_optax
from jaxns.functions import (
    L1,
    Box,
    L1Ball,
    LeastSquares,
    Logistic,
    NonNegative,
    Simplex,
    Smooth,
    SquaredDistance,
)

random = np.random.RandomState(0)
A = jnp.asarray(np.random.RandomState(1).standard_normal((30, 5)))
B = A @ jnp.array([1.0, -2.0, 0.0, 0.5, 0.0]) + 0.1
GENTLE = 1e-5  # of a central difference


def slope(fun, x):
    return (fun(x + GENTLE) - fun(x - GENTLE)) / (2 * GENTLE)


def lasso(penalty):
    return Composite(LeastSquares(A, B), L1(penalty))


def softplus(x, p):
    return jnp.sum(jnp.logaddexp(0, A @ x) - 0.3 * A @ x) + p * x @ x / 2


def equations(x, p):
    return {"u": x["u"] ** 3 + p * x["v"] - 2, "v": jnp.sin(x["v"]) + x["u"] - p}


PROBLEMS = {
    "equations": (lambda p: Root(equations, p), {"u": jnp.ones(2), "v": 0.5 * jnp.ones(2)}),
    "lasso": (lasso, jnp.zeros(5)),
    "smooth": (lambda p: Composite(Smooth(softplus, p, lipschitz=30.0)), jnp.zeros(5)),
}


def size(p, kind, solver=None, **options):
    """Of the solution of a problem with the parameter p."""
    build, start = PROBLEMS[kind]
    solution = solve(build(p), solver, start, **options)
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(solution.x))


# --- Optimistix

THEIRS = [
    ("equations", "Newton", Implicit()),
    ("equations", "LevenbergMarquardt", Piggyback()),
    ("lasso", "FixedPointIteration", OneStep(steps=200)),
    ("lasso", "Newton", Piggyback()),
    ("smooth", "BFGS", Implicit()),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "mode"), THEIRS)
def test_a_solver_of_optimistix_in_our_loop(kind, name, mode):
    optx = pytest.importorskip("optimistix")
    from jaxns.adapters.optimistix import Optimistix

    solver = Optimistix(getattr(optx, name)(1e-8, 1e-8))
    stop = Stop(tol=1e-8) if kind == "smooth" else Stop()  # a line search sees half the digits
    value, found = jax.value_and_grad(size)(1.3, kind, solver, mode=mode, stop=stop)
    assert abs(value - size(1.3, kind)) < 1e-7
    assert abs(found - slope(lambda p: size(p, kind), 1.3)) < 1e-6


@pytest.mark.slow
def test_a_solver_of_optimistix_under_jit_and_vmap_in_float32():
    optx = pytest.importorskip("optimistix")
    from jaxns.adapters.optimistix import Optimistix

    def coefficient(p):
        problem = Composite(LeastSquares(A.astype("f4"), B.astype("f4")), L1(p))
        return solve(problem, Optimistix(optx.Newton(1e-4, 1e-4))).x[0]

    penalties = jnp.array([0.5, 1.3], "f4")
    found = jax.jit(jax.vmap(jax.grad(coefficient)))(penalties)
    assert found.dtype == jnp.float32
    expected = jax.vmap(jax.grad(lambda p: solve(lasso(p)).x[0]))(jnp.array([0.5, 1.3]))
    assert jnp.allclose(found, expected, rtol=1e-3)


def test_what_optimistix_cannot_be_asked():
    optx = pytest.importorskip("optimistix")
    from jaxns.adapters.optimistix import Optimistix

    with pytest.raises(TypeError, match="solver of optimistix"):
        Optimistix(jaxns.Newton())
    with pytest.raises(TypeError, match="ForwardBackward"):  # the objective has kinks
        solve(lasso(1.0), Optimistix(optx.BFGS(1e-8, 1e-8)))


@pytest.mark.slow
@pytest.mark.long
def test_our_solvers_in_optimistix():
    optx = pytest.importorskip("optimistix")
    from jaxns.adapters.optimistix import FixedPoint, Minimiser

    def minimum(p, how):
        found = optx.minimise(softplus, how, jnp.zeros(5), p, max_steps=5000)
        return jnp.sum(found.value**2)

    def fixed(p, how):
        found = optx.fixed_point(lambda z, p: jnp.tanh(A[:5] @ z / 4 + p), how, B[:5], p)
        return jnp.sum(found.value)

    def sparse(p, how):
        """A map of ours by its solvers: its implicit rule is that of I − ∂F, kinks or not."""
        step = jaxns.ForwardBackward().prepare(lasso(p), None).step
        found = optx.fixed_point(lambda x, p: step(lasso(p), x), how, jnp.zeros(5), p)
        return jnp.sum(found.value**2)

    tol = (1e-10, 1e-10)
    newton = Minimiser(*tol, solver=jaxns.Newton())
    for fun, mine, theirs in (
        (minimum, Minimiser(*tol), optx.BFGS(*tol)),
        (minimum, newton, optx.BFGS(*tol)),
        (fixed, FixedPoint(*tol), optx.FixedPointIteration(*tol)),
        (sparse, FixedPoint(*tol), optx.FixedPointIteration(*tol)),
    ):
        found, expected = (jnp.stack(jax.value_and_grad(fun)(0.7, how)) for how in (mine, theirs))
        assert jnp.allclose(found, expected, rtol=1e-7)
    value, found = jax.value_and_grad(sparse)(0.7, FixedPoint(*tol))
    assert abs(value - size(0.7, "lasso")) < 1e-8
    assert abs(found - slope(lambda p: size(p, "lasso"), 0.7)) < 1e-6
    short = optx.minimise(softplus, Minimiser(*tol), jnp.zeros(5), 0.7, max_steps=2, throw=False)
    assert short.result == optx.RESULTS.nonlinear_max_steps_reached


# --- Lineax

S = jnp.linspace(1, 2, 30)


def operators(A):
    """S A in five ways, the first dense."""
    lx = pytest.importorskip("lineax")
    from jaxns.adapters.lineax import Operator

    known = jax.ShapeDtypeStruct((5,), A.dtype)
    return (
        S[:, None] * A,
        Operator(lx.MatrixLinearOperator(S[:, None] * A)),
        Operator(lx.FunctionLinearOperator(lambda x: S * (A @ x), known)),
        Operator(lx.DiagonalLinearOperator(S) @ lx.MatrixLinearOperator(A)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["logistic", "primal-dual"])
def test_operators_of_lineax_are_designs_and_operators(how):
    def value(t, k):
        K = operators(t * A)[k]
        problem, solver = {
            "logistic": (Composite(Logistic(K, jnp.sign(B)), L1(0.3)), None),
            "primal-dual": (Composite(SquaredDistance(A[0]), L1(0.01), K), jaxns.PrimalDual()),
        }[how]
        return jnp.sum(solve(problem, solver).x ** 2)

    dense, *others = (jnp.stack(jax.value_and_grad(value)(1.1, k)) for k in range(4))
    assert abs(dense[1]) > 1e-3
    for found in others:
        assert jnp.allclose(found, dense, rtol=1e-8)


def test_what_operators_must_be():
    lx = pytest.importorskip("lineax")
    from jaxns.adapters.lineax import Operator

    K = operators(A)[2]
    assert K.shape == (30, 5)
    assert jnp.allclose(K.todense(), S[:, None] * A)
    assert jnp.allclose((K * K) @ jnp.ones(5), jnp.sum((S[:, None] * A) ** 2, 1))
    with pytest.raises(TypeError, match="operator of lineax"):
        Operator(A)
    with pytest.raises(ValueError, match="vectors"):
        Operator(lx.FunctionLinearOperator(lambda x: x, jax.ShapeDtypeStruct((2, 2), float)))


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["reverse", "both"])
def test_the_implicit_system_by_lineax(direction):
    lx = pytest.importorskip("lineax")
    from jaxns.adapters.lineax import Implicit

    expected = slope(lambda p: size(p, "lasso"), 1.3)
    for solver in (lx.GMRES(1e-10, 1e-10), lx.LU(), lx.SVD()):
        mode = Implicit(solver=solver, direction=direction)
        assert abs(jax.grad(size)(1.3, "lasso", mode=mode) - expected) < 1e-6
    if direction == "both":
        found = jax.jacfwd(size)(1.3, "lasso", mode=mode)
        assert abs(found - expected) < 1e-6
        return
    poor = Implicit(solver=lx.GMRES(1e-10, 1e-10, max_steps=1, restart=1))
    with pytest.raises(jaxns.ConvergenceError):
        jax.grad(size)(1.3, "lasso", mode=poor)


# --- optax


@pytest.mark.parametrize(
    ("name", "data", "ours"),
    [
        ("simplex", lambda r: (r,), Simplex),
        ("l1_ball", lambda r: (r,), L1Ball),
        ("box", lambda r: (-r, r), lambda r: Box(-r, r)),
        ("non_negative", lambda r: (), lambda r: NonNegative()),
    ],
)
def test_a_projection_of_optax_is_a_set(name, data, ours):
    optax = pytest.importorskip("optax")
    project = getattr(optax.projections, f"projection_{name}")

    def value(r, of):
        return jnp.sum(solve(Composite(LeastSquares(A, B), of(r))).x ** 3)

    theirs = by_optax.Set(project, *data(1.2))
    assert theirs(theirs.prox(B[:5], 1.0)) == 0
    assert theirs(-10 * jnp.ones(5)) == jnp.inf
    found = jax.value_and_grad(value)(1.2, lambda r: by_optax.Set(project, *data(r)))
    assert jnp.allclose(jnp.stack(found), jnp.stack(jax.value_and_grad(value)(1.2, ours)))


@pytest.mark.slow
def test_a_loss_of_optax_is_a_smooth_function():
    optax = pytest.importorskip("optax")

    def loss(x, A, labels):
        return jnp.sum(optax.losses.sigmoid_binary_cross_entropy(A @ x, labels))

    def by(f, p):
        return solve(Composite(f, L1(p)), x0=jnp.zeros(5)).x

    signs = jnp.sign(B + jnp.sin(jnp.arange(30.0)))
    found = jax.jacrev(lambda p: by(Smooth(loss, A, (signs + 1) / 2), p))(1.5)
    assert jnp.allclose(found, jax.jacrev(lambda p: by(Logistic(A, signs), p))(1.5), atol=1e-8)


@pytest.mark.parametrize("mode", [Implicit(), OneStep(steps=200), Piggyback()])
def test_an_optimiser_of_optax(mode):
    optax = pytest.importorskip("optax")
    solver = by_optax.Optax(optax.adam(0.1))
    value, found = jax.value_and_grad(size)(1.3, "lasso", solver, mode=mode)
    assert abs(value - size(1.3, "lasso")) < 1e-9
    assert abs(found - slope(lambda p: size(p, "lasso"), 1.3)) < 1e-6


def test_an_optimiser_that_cycles_says_so():
    optax = pytest.importorskip("optax")
    stop = Stop(max_steps=2000, on_failure="ignore")
    solution = solve(lasso(1.3), by_optax.Optax(optax.sign_sgd(0.01)), stop=stop)
    assert solution.status == jaxns.Status.MAX_STEPS
    with pytest.raises(TypeError, match="optimizer"):
        by_optax.Optax(0.1)


# --- OTT-JAX

CLOUD, OTHER = A[:12, :2], A[12:21, :2] + 0.5
MASS, GOAL = (jnp.exp(jnp.sin(jnp.arange(n))) for n in (12.0, 9.0))
MASS, GOAL = MASS / jnp.sum(MASS), GOAL / jnp.sum(GOAL)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("kind", "tau"), [("points", 1.0), ("matrix", 0.9)])
def test_a_geometry_of_ott_is_a_transport(kind, tau):
    pytest.importorskip("ott")
    from ott.geometry.geometry import Geometry
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    from jaxns.adapters.ott import transport

    def problem(x, **on_the_fly):
        if kind == "points":
            geometry = PointCloud(x, OTHER, epsilon=0.2, scale_cost=2.0, **on_the_fly)
        else:
            geometry = Geometry(jnp.abs(x @ OTHER.T), epsilon=0.2)
        return LinearProblem(geometry, MASS, GOAL, tau, tau)

    weights = jnp.sin(jnp.arange(108.0)).reshape(12, 9)
    run = Sinkhorn(threshold=1e-10, max_iterations=100_000, norm_error=1)

    def theirs(x):
        output = run(problem(x))
        return jnp.sum(weights * output.matrix), (output.matrix, output.reg_ot_cost)

    def ours(x):
        batch = {"batch_size": 4} if kind == "points" else {}
        plan = solve(transport(problem(x, **batch))).x
        return jnp.sum(weights * plan.plan), (plan.plan, plan.value)

    (_, (plan, value)), gradient = jax.value_and_grad(theirs, has_aux=True)(CLOUD)
    (_, (mine, my_value)), my_gradient = jax.value_and_grad(ours, has_aux=True)(CLOUD)
    assert jnp.max(jnp.abs(mine - plan)) < 1e-9
    assert jnp.max(jnp.abs(my_gradient - gradient)) < 1e-8
    if tau == 1.0:
        assert abs(my_value - value) < 1e-9


@pytest.mark.slow
@pytest.mark.long
def test_an_h_transform_of_ott_and_its_map():
    pytest.importorskip("ott")
    from ott.geometry import costs, regularizers

    from jaxns.adapters.ott import RegTICost

    def f(y):
        return -jnp.sum((y - 1) ** 4) / 4 - jnp.sum(y**2)

    arguments = {"regularizer": regularizers.L1(), "lam": 0.5, "rho": 1.0}
    mine, theirs = RegTICost(**arguments), costs.RegTICost(**arguments)
    x = CLOUD[:3]
    tight = {"tol": 1e-12, "maxiter": 10_000}
    assert jnp.allclose(mine.h_transform(f)(x[0]), theirs.h_transform(f)(x[0], **tight), rtol=1e-12)
    map_ = jax.jit(mine.transport_map(f))
    assert jnp.allclose(map_(x), theirs.transport_map(f)(x, **tight), atol=1e-6)
    along = jnp.cos(jnp.arange(6.0)).reshape(3, 2)
    _, found = jax.jvp(map_, (x,), (along,))
    assert jnp.allclose(found, slope(lambda t: map_(x + t * along), 0.0), atol=1e-6)


def test_what_a_transport_of_ott_cannot_be():
    pytest.importorskip("ott")
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem

    from jaxns.adapters.ott import transport

    geometry = PointCloud(CLOUD, OTHER, epsilon=0.2)
    with pytest.raises(ValueError, match="tau_a"):
        transport(LinearProblem(geometry, MASS, GOAL, 0.9, 1.0))
    with pytest.raises(TypeError, match="a and b"):
        transport(LinearProblem(geometry), MASS, GOAL)


# --- NeMoS


@pytest.mark.slow
@pytest.mark.parametrize("penalty", ["group lasso", "lasso"])
def test_a_penalised_glm_of_nemos(penalty):
    nemos = pytest.importorskip("nemos")
    from jaxns.adapters.nemos import register

    register()
    counts = random.poisson(np.exp(0.3 * np.asarray(A) @ [1, -1, 0, 0, 0.5])).astype(float)
    groups = np.array([[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]])

    def fit(backend, **options):
        regularizer = {
            "group lasso": lambda: nemos.regularizer.GroupLasso(mask=groups),
            "lasso": lambda: nemos.regularizer.Lasso(),
        }[penalty]()
        model = nemos.glm.GLM(
            regularizer=regularizer,
            regularizer_strength=0.1,
            solver_name=f"ProximalGradient[{backend}]",
            solver_kwargs=options,
        )
        return model.fit(np.asarray(A), counts)

    mine = fit("jaxns", tol=1e-12)
    theirs = fit("optimistix", tol=1e-11, rtol=1e-11, maxiter=20_000)
    assert mine.optim_info_.converged
    assert np.sum(mine.coef_ == 0) >= 1
    assert np.allclose(mine.coef_, theirs.coef_, atol=1e-6)
    assert np.allclose(mine.intercept_, theirs.intercept_, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("options", [{}, {"stepsize": 0.1, "acceleration": False}])
def test_the_contract_of_a_solver_of_nemos(auxiliary, options):
    """By its own validation: signatures, a ridge regression, `run` and `update`."""
    pytest.importorskip("nemos")
    from nemos.solvers import _validation

    from jaxns.adapters.nemos import ProximalGradient

    _validation._check_all_signatures_match(ProximalGradient)
    _validation._validate_solver_class_on_ridge(ProximalGradient, auxiliary, options)
