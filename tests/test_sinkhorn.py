"""Sinkhorn on balanced and unbalanced transport: references, derivatives, degenerate problems.

Most of it runs eagerly on one shape, so that the parts of a solve are compiled once for all.
"""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from cases import central_difference

import jaxns
from jaxns.problems import PointCloud, PositiveFeatures, gaussian_features, ground_cost

N, M = 5, 7
_rng = np.random.default_rng(1)
x, y = jnp.asarray(_rng.uniform(size=(N, 2))), jnp.asarray(_rng.uniform(size=(M, 2)))
a, b = jnp.asarray(_rng.dirichlet(np.ones(N))), jnp.asarray(_rng.dirichlet(np.ones(M)))
C = jnp.sum((x[:, None] - y) ** 2, axis=-1)
W = jnp.asarray(_rng.normal(size=(N, M)))
MEAN = float(jnp.mean(C))
STRICT = jaxns.Stop(tol=1e-14)
IGNORE = jaxns.Stop(on_failure="ignore")
INF = np.inf


def solve(cost=C, a=a, b=b, epsilon=0.1, rho=None, **options):
    problem = jaxns.Transport(cost, a, b, epsilon, rho)
    return jaxns.solve(problem, **{"stop": STRICT, **options})


def kl(p, q):
    return jnp.sum(jax.scipy.special.xlogy(p, p / q) - p + q)


def objective(P, C, a, b, epsilon, rho=None):
    value = jnp.sum(P * C) + epsilon * kl(P, a[:, None] * b)
    return value if rho is None else value + rho * (kl(P.sum(1), a) + kl(P.sum(0), b))


@pytest.mark.parametrize("ratio", [1.0, 0.1, 0.01, 0.001])
def test_balanced_plans(ratio):
    epsilon = ratio * MEAN
    for A, u, v in ((C, a, b), (C.T, 3 * b, 3 * a)):  # n < m, n > m; masses need not be 1
        sol = solve(A, u, v, epsilon)
        P = sol.x.plan
        assert sol.status.ok
        assert sol.steps <= 20
        np.testing.assert_allclose(P.sum(1), u, rtol=0, atol=1e-12)
        np.testing.assert_allclose(P.sum(0), v, rtol=0, atol=1e-12)
        potentials = sol.x.f[:, None] + sol.x.g - A
        np.testing.assert_allclose(u[:, None] * v * jnp.exp(potentials / epsilon), P, atol=1e-13)
        np.testing.assert_allclose(sol.x.cost, jnp.sum(P * A), rtol=1e-13)
        np.testing.assert_allclose(sol.x.value, objective(P, A, u, v, epsilon), rtol=1e-10)
        np.testing.assert_allclose(u @ sol.x.f, v @ sol.x.g, atol=1e-13)


def test_against_pot():
    for ratio in (0.5, 0.05):
        expected = ot.bregman.sinkhorn_log(
            np.asarray(a), np.asarray(b), np.asarray(C), ratio * MEAN, 100_000, 1e-14
        )
        np.testing.assert_allclose(solve(epsilon=ratio * MEAN).x.plan, expected, atol=1e-9)
    for rho in (0.05, 2.0):
        expected = ot.unbalanced.sinkhorn_unbalanced(
            *(np.asarray(z) for z in (a, b, C)),
            0.02,
            rho,
            method="sinkhorn",
            reg_type="kl",
            numItermax=100_000,
            stopThr=1e-15,
        )
        found = solve(epsilon=0.02, rho=rho).x.plan
        np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("rho", [None, 0.7])
def test_against_an_exponential_cone_solver(rho):
    epsilon, mass = 0.15, np.outer(a, b)
    P = cp.Variable((N, M), nonneg=True)
    value = cp.sum(cp.multiply(C, P)) + epsilon * cp.sum(cp.kl_div(P, mass))
    rows, columns = cp.sum(P, axis=1), cp.sum(P, axis=0)
    constraints = [rows == a, columns == b]
    if rho is not None:
        value += rho * (cp.sum(cp.kl_div(rows, a)) + cp.sum(cp.kl_div(columns, b)))
        constraints = []
    problem = cp.Problem(cp.Minimize(value), constraints)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    found = solve(epsilon=epsilon, rho=rho).x
    np.testing.assert_allclose(found.value, problem.value, rtol=1e-8)
    np.testing.assert_allclose(found.plan, P.value, atol=1e-6)  # CLARABEL's accuracy


@pytest.mark.parametrize("rho", [0.01, 0.3, 100.0])
def test_unbalanced_plans_minimise_the_stated_objective(rho):
    """Stationary: the marginals differ from a and b as the potentials say."""
    for ratio in (0.1, 0.001):
        epsilon = ratio * MEAN
        sol = solve(b=2 * b, epsilon=epsilon, rho=rho).x
        P = sol.plan
        assert np.min(P) >= 0
        density = jnp.exp((sol.f[:, None] + sol.g - C) / epsilon)
        np.testing.assert_allclose(a[:, None] * 2 * b * density, P, atol=1e-13)
        # ∂/∂P = 0: f = −ρ log(P1/a), g = −ρ log(Pᵀ1/b).
        np.testing.assert_allclose(P.sum(1), a * jnp.exp(-sol.f / rho), rtol=1e-9)
        np.testing.assert_allclose(P.sum(0), 2 * b * jnp.exp(-sol.g / rho), rtol=1e-9)
        np.testing.assert_allclose(sol.value, objective(P, C, a, 2 * b, epsilon, rho), rtol=1e-11)


# Derivatives along directions in C, a, b (of zero sum), and in log ε and log ρ.
dC = jnp.asarray(_rng.normal(size=(N, M)))
da, db = (jnp.asarray(_rng.normal(size=k)) for k in (N, M))
da, db = 0.1 * (da - da.mean()), 0.1 * (db - db.mean())


def readings(t, ratio, balanced=True, mode_name="Implicit", derivative=None):
    """⟨P, W⟩, the value and the cost, at a point moved by t; or their Jacobian in t."""
    direction = "both" if "both" in mode_name else "reverse"
    mode = getattr(jaxns, mode_name.split()[0])(direction=direction)

    def read(t):
        epsilon = ratio * MEAN
        moved = C + t[0] * epsilon * dC, a + t[1] * da, b + t[2] * db
        rho = None if balanced else 0.3 * jnp.exp(t[4])
        x = solve(*moved, epsilon * jnp.exp(t[3]), rho, mode=mode).x
        return jnp.stack([jnp.vdot(x.plan, W), x.value, x.cost])

    return read(t) if derivative is None else getattr(jax, derivative)(read)(t)


slow = pytest.mark.slow
CASES = [
    (True, "Implicit", "jacrev"),
    (False, "Implicit", "jacrev"),
    (True, "OneStep", "jacrev"),
    pytest.param(True, "Piggyback", "jacrev", marks=slow),
    pytest.param(True, "Implicit both", "jacfwd", marks=slow),
    pytest.param(True, "OneStep both", "jacfwd", marks=slow),
    pytest.param(True, "Piggyback both", "jacfwd", marks=slow),
    pytest.param(False, "OneStep", "jacrev", marks=slow),
    pytest.param(False, "Piggyback", "jacrev", marks=slow),
    pytest.param(False, "Piggyback both", "jacfwd", marks=slow),
]


@pytest.mark.parametrize(("balanced", "mode", "derivative"), CASES)
def test_derivatives(balanced, mode, derivative):
    t = jnp.zeros(4 if balanced else 5)
    for ratio in (0.1, 0.01, 0.001):
        found = readings(t, ratio, balanced, mode, derivative)
        expected = central_difference(lambda t, r=ratio: readings(t, r, balanced), t, h=1e-4)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7, err_msg=f"{ratio}")


@pytest.mark.slow
@pytest.mark.parametrize("balanced", [True, False])
def test_second_derivatives(balanced):
    t = jnp.zeros(4 if balanced else 5)

    def gradient(t):
        return jax.grad(lambda t: readings(t, 0.1, balanced)[0])(t)

    expected = central_difference(gradient, t, h=1e-4)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(gradient))(t), expected, atol=1e-7)


def test_the_value_has_the_plan_for_gradient():
    """∂value/∂C = P (Danskin), at any ε; ∂value/∂a is f up to a constant."""

    def value(C, a, epsilon):
        x = solve(C, a, epsilon=epsilon).x
        return x.value, x

    for ratio in (0.1, 0.001):
        epsilon = ratio * MEAN
        (by_C, by_a), sol = jax.grad(value, argnums=(0, 1), has_aux=True)(C, a, epsilon)
        np.testing.assert_allclose(by_C, sol.plan, rtol=0, atol=1e-9)
        np.testing.assert_allclose(by_a - by_a.mean(), sol.f - sol.f.mean(), atol=1e-9)


@pytest.mark.slow
def test_every_mode_on_the_plain_iteration():
    plain = jaxns.Sinkhorn(acceleration=False)

    def plan(t, mode, solver):
        x = solve(C + t * dC, epsilon=0.2, solver=solver, mode=mode).x
        return jnp.vdot(x.plan, W)

    expected = jax.grad(plan)(0.0, jaxns.Implicit(), None)
    for mode in (jaxns.Implicit(), jaxns.Piggyback(), jaxns.OneStep(steps=400)):
        np.testing.assert_allclose(jax.grad(plan)(0.0, mode, plain), expected, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [jaxns.Piggyback(), jaxns.OneStep()])
def test_derivatives_from_a_warm_start(mode):
    """Where the run begins at the solution, and one step is all there is to differentiate."""
    start = solve(epsilon=0.01).x.f

    def cost(epsilon, **options):
        return solve(epsilon=epsilon, **options).x.cost

    found = jax.grad(lambda e: cost(e, x0=start, mode=mode))(0.01)
    np.testing.assert_allclose(found, jax.grad(cost)(0.01), rtol=1e-9)


# What is degenerate: 3 × 3 problems, the solver compiled once for all of them.
half, third = np.array([0.5, 0.5, 0.0]), np.full(3, 1 / 3)
square = np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0)))


def outcome(cost, a, b, **options):
    sol = solve(np.asarray(cost, float), a, b, stop=IGNORE, **options)
    for leaf in jax.tree.leaves(sol.x):
        assert np.all(np.isfinite(leaf))
    return sol


def test_points_without_mass_and_forbidden_pairs():
    sol = outcome(square, half, third)
    np.testing.assert_allclose(
        sol.x.plan[:2], solve(square[:2], half[:2], third).x.plan, atol=1e-13
    )
    np.testing.assert_array_equal(sol.x.plan[2], 0)

    banned = square + np.where(np.eye(3) > 0, INF, 0)  # only one plan has no mass on the diagonal
    sol = outcome(banned, third, third)
    assert sol.status.ok
    np.testing.assert_array_equal(np.diag(sol.x.plan), 0)
    np.testing.assert_allclose(sol.x.plan.sum(0), third, atol=1e-13)

    # A point with no mass may have nowhere to go; one with mass may not, unless it can vanish.
    stuck = square.copy()
    stuck[2] = INF
    sol = outcome(stuck, half, third)
    assert sol.status.ok
    np.testing.assert_allclose(sol.x.plan, outcome(square, half, third).x.plan, atol=1e-13)
    assert outcome(stuck, third, third).status == jaxns.Status.INFEASIBLE
    gone = outcome(stuck, third, third, rho=1.0)
    assert gone.status.ok
    P = np.asarray(gone.x.plan)
    expected = objective(P, np.where(P > 0, square, 0), third, third, 0.1, 1.0)
    np.testing.assert_allclose(gone.x.value, expected, rtol=1e-11)


@pytest.mark.slow
def test_derivatives_at_points_without_mass_and_forbidden_pairs():
    """Finite everywhere; zero in a forbidden pair; into a mass of zero, the one-sided one."""
    banned = jnp.asarray(square).at[0, 2].set(INF)

    def plan(cost, a, epsilon):
        sol = solve(cost, a, third, epsilon)
        return jnp.vdot(sol.x.plan, W[:3, :3]) + sol.x.value + sol.x.cost

    grads = jax.grad(plan, argnums=(0, 1, 2))(banned, jnp.asarray(half), 0.1)
    assert all(np.all(np.isfinite(g)) for g in grads)
    assert grads[0][0, 2] == 0
    np.testing.assert_allclose(
        grads[2], central_difference(lambda e: plan(banned, half, e), 0.1), atol=1e-7
    )
    direction, h = jnp.array([-1.0, 0.0, 1.0]), 1e-4
    at = [plan(banned, half + k * h * direction, 0.1) for k in range(4)]
    one_sided = (-11 * at[0] + 18 * at[1] - 9 * at[2] + 2 * at[3]) / (6 * h)
    np.testing.assert_allclose(grads[1] @ direction, one_sided, atol=1e-6)


def test_supports_that_admit_no_plan():
    """Found by a certificate, and only where a linear program finds the same."""
    from scipy.optimize import linprog

    random = np.random.default_rng(0)
    found = []
    for _ in range(30):
        allowed = random.random((3, 3)) < 0.8
        u, v = random.dirichlet(np.ones(3)), random.dirichlet(np.ones(3))
        status = outcome(np.where(allowed, square, INF), u, v).status
        rows, columns = np.kron(np.eye(3), np.ones(3)), np.kron(np.ones(3), np.eye(3))
        bounds = [(0, None if yes else 0) for yes in allowed.ravel()]
        sides = np.vstack([rows, columns])
        program = linprog(np.zeros(9), A_eq=sides, b_eq=[*u, *v], bounds=bounds)
        infeasible = program.status == 2
        assert (status == jaxns.Status.INFEASIBLE) == infeasible
        assert infeasible or status.ok
        found.append(infeasible)
    assert 5 < sum(found) < 25  # both kinds


def test_a_support_whose_every_plan_leaves_an_allowed_pair_empty():
    """No potentials are optimal (they diverge), but plan and value have a limit."""
    triangular = np.where(np.tri(3) > 0, square, INF)
    sol = outcome(triangular, third, third)
    assert sol.status.ok
    np.testing.assert_allclose(sol.x.plan, np.diag(third), atol=1e-9)
    np.testing.assert_allclose(sol.x.value, 0.1 * np.log(3), atol=1e-8)


def test_sums_that_differ():
    with pytest.raises(ValueError, match="a and b must have the same sum"):
        jaxns.Transport(square, third, 1.1 * third, 0.1)
    jaxns.Transport(square, third, 1.1 * third, 0.1, rho=1.0)

    @jax.jit
    def solved(a):
        sol = solve(square, a, third)
        return sol.status, sol.x.plan

    status, plan = solved(third)
    assert status.ok
    status, plan = solved(1.1 * third)
    assert status == jaxns.Status.INFEASIBLE
    assert np.all(np.isnan(plan))
    with pytest.raises(jaxns.ConvergenceError, match="constraints cannot be met"):
        solve(np.full((3, 3), INF), third, third)


def test_small_and_trivial_problems():
    np.testing.assert_allclose(solve([[2.0]], [0.7], [0.7]).x.plan, [[0.7]])
    constant = outcome(np.ones((3, 3)), third, third)
    np.testing.assert_allclose(constant.x.plan, np.outer(third, third), atol=1e-15)
    assert outcome(square, 0 * third, 0 * third).x.value == 0
    lost = solve(np.full((3, 3), np.nan), third, third, stop=IGNORE)
    assert lost.status == jaxns.Status.DIVERGED


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((square, third, third, -0.1), ValueError, "epsilon must be positive"),
        ((square, third, third, 0.1, 0.0), ValueError, "rho must be positive"),
        ((square, -third, third, 0.1), ValueError, "a must be nonnegative"),
        ((square, half[:2], third, 0.1), ValueError, "a must have one entry per row of cost"),
        ((square[0], third, third, 0.1), ValueError, "cost must have 2 dimension"),
        ((np.eye(3, dtype=int), third, third, 0.1), TypeError, "cost must hold floating-point"),
    ],
)
def test_arguments_that_cannot_be_right(arguments, error, words):
    with pytest.raises(error, match=words):
        jaxns.Transport(*arguments)


def test_costs_and_solvers_that_cannot_be_right():
    with pytest.raises(ValueError, match="y must have points of the dimension of x"):
        PointCloud(x, y[:, :1])
    with pytest.raises(TypeError, match="cost must be a function"):
        PointCloud(x, y, "euclidean")
    with pytest.raises(ValueError, match="phi must be nonnegative"):
        PositiveFeatures(-x, y)
    with pytest.raises(ValueError, match="psi must have as many features as phi"):
        PositiveFeatures(x, y[:, :1])
    with pytest.raises(TypeError, match="Sinkhorn solves Transport"):
        jaxns.solve(jaxns.problems.lasso(x, x[:, 0], 0.1), jaxns.Sinkhorn())
    with pytest.raises(TypeError, match="cost must say what transport inside"):
        jaxns.sinkhorn_divergence(square, third, third, 0.1)
    with pytest.raises(ValueError, match="x0 must have shape"):
        solve(square, third, third, x0=jnp.zeros(4))


def test_contracts():
    """x0 is left alone, exactly the steps asked for, warm starts, and lanes with their own ε."""
    x0 = np.full(3, 0.25)
    sol = solve(square, third, third, x0=x0, stop=jaxns.Stop(tol=None, max_steps=2))
    np.testing.assert_array_equal(x0, 0.25)
    assert sol.steps == 2
    assert sol.status == jaxns.Status.COMPLETED
    cold = solve(square, third, third, 1e-3)
    warm = solve(square, third, third, 1e-3, x0=cold.x.f)
    assert warm.steps <= cold.steps
    np.testing.assert_allclose(warm.x.plan, cold.x.plan, atol=1e-13)
    far = solve(square, third, third, 1e-3, x0=jnp.array([1e4, -1e4, 7.0]))
    np.testing.assert_allclose(far.x.plan, cold.x.plan, atol=1e-11)
    np.testing.assert_allclose(cold.x.apply(x0), cold.x.plan @ x0, atol=1e-16)
    np.testing.assert_allclose(cold.x.apply_transpose(x0), x0 @ cold.x.plan, atol=1e-16)

    epsilons = jnp.array([1.0, 0.1, 1e-3])
    many = jax.jit(jax.vmap(lambda e: solve(square, half, third, e).x.plan))(epsilons)
    one_by_one = jnp.stack([solve(square, half, third, float(e)).x.plan for e in epsilons])
    np.testing.assert_allclose(many, one_by_one, atol=1e-12)


SINGLE = [z.astype(jnp.float32) for z in (C, a, b)]


@pytest.mark.slow
def test_float32_stays_float32():
    """Also under x64; errors are what rounding in C/ε allows."""
    for ratio in (0.1, 0.01, 0.001):
        for rho in (None, 0.3):
            sol = solve(*SINGLE, ratio * MEAN, rho, stop=jaxns.Stop())
            assert sol.x.plan.dtype == sol.x.f.dtype == sol.x.value.dtype == jnp.float32
            assert sol.status.ok
            exact = solve(epsilon=ratio * MEAN, rho=rho).x
            np.testing.assert_allclose(sol.x.plan, exact.plan, atol=5e-5)
            np.testing.assert_allclose(sol.x.value, exact.value, rtol=1e-5)


@pytest.mark.slow
def test_derivatives_in_float32():
    def loss(C, a, b, epsilon):
        plan = solve(C, a, b, epsilon, stop=jaxns.Stop()).x.plan
        return jnp.vdot(plan, W.astype(C.dtype)), plan

    derivative = jax.grad(loss, has_aux=True)
    for ratio in (0.1, 0.01, 0.001):
        exact, plan = derivative(C, a, b, ratio * MEAN)
        found, _ = derivative(*SINGLE, ratio * MEAN)
        assert found.dtype == jnp.float32
        # The derivative is a difference of terms of this size.
        terms = np.linalg.norm(W * plan) / (ratio * MEAN)
        assert np.linalg.norm(found - exact) < 5e-5 * terms


def manhattan(x, y):
    return jnp.sum(jnp.abs(x - 2 * y))  # not symmetric


@pytest.mark.slow
@pytest.mark.parametrize("block", [3 * N, 10**6])
def test_blocks_of_a_point_cloud_add_up(block, monkeypatch):
    """Σᵢ aᵢ exp((fᵢ − C_ij)/ε) and its gradient, in blocks and as a matrix."""
    monkeypatch.setitem(ground_cost.BLOCK, "cpu", block)
    f = jnp.linspace(0, 0.3, N)

    def total(x, y, weights, epsilon, cloud):
        cost = PointCloud(x, y)
        if cloud:
            return jnp.vdot(b, cost.log_sum(f, weights, epsilon))
        score = f[:, None] / epsilon + cost.exponents(epsilon)
        return jnp.vdot(b, jnp.log(weights @ jnp.exp(score)))

    which = (0, 1, 2, 3)
    found = jax.value_and_grad(total, which)(x, y, a, 0.1, True)
    expected = jax.value_and_grad(total, which)(x, y, a, 0.1, False)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-11), found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("metric", [None, manhattan])
def test_point_clouds_equal_their_matrix(metric, monkeypatch):
    """In several blocks, without the kernel, with the matrix-free Newton system; in reverse too."""
    monkeypatch.setitem(ground_cost.BLOCK, "cpu", 2 * M)
    monkeypatch.setattr(ground_cost, "SMALL", 1)
    points = {"x": y, "y": x}  # 7 × 5: the smaller side is the second

    def read(points, cloud):
        cost = PointCloud(**points, cost=metric)
        if not cloud:
            c = metric or (lambda x, y: jnp.sum((x - y) ** 2))
            cost = jax.vmap(lambda x: jax.vmap(lambda y: c(x, y))(points["y"]))(points["x"])
        sol = solve(cost, b, a, 0.03).x
        return jnp.vdot(sol.plan, W.T) + sol.value + sol.cost, sol

    found, lazy = jax.grad(read, has_aux=True)(points, True)
    expected, sol = jax.grad(read, has_aux=True)(points, False)
    for name in points:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-9)
    np.testing.assert_allclose(lazy.plan, sol.plan, atol=1e-12)
    np.testing.assert_allclose(lazy.value, sol.value, rtol=1e-12)
    np.testing.assert_allclose(lazy.cost, sol.cost, rtol=1e-11)
    np.testing.assert_allclose(lazy.apply(a), sol.plan @ a, atol=1e-12)
    np.testing.assert_allclose(lazy.apply_transpose(b), b @ sol.plan, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("rho", [None, 0.3])
def test_derivatives_in_the_positions_of_points(rho):
    def read(x):
        sol = solve(PointCloud(x, y), epsilon=0.05, rho=rho).x
        return jnp.vdot(sol.plan, W) + sol.value

    np.testing.assert_allclose(jax.grad(read)(x), central_difference(read, x), atol=1e-7)


@pytest.mark.slow
def test_point_clouds_need_no_matrix():
    """Temporary memory of a gradient grows with n + m, not with n m."""

    def temporary(n):
        points = jax.ShapeDtypeStruct((n, 2), jnp.float64)
        mass = jax.ShapeDtypeStruct((n,), jnp.float64)

        def value(x, y, a, b):
            return solve(PointCloud(x, y), a, b, 0.1, stop=jaxns.Stop()).x.value

        lowered = jax.jit(jax.grad(value, (0, 1))).lower(points, points, mass, mass)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    small, large = temporary(4_000), temporary(16_000)
    assert large < 4.5 * small
    assert large < 8 * 16_000**2 / 10


def test_positive_features_of_a_gaussian():
    """Relative kernel error ∝ r^(−1/2)."""
    random = np.random.default_rng(0)
    points = random.normal(size=(3, 2))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = jnp.asarray(points)
    kernel = jnp.exp(-jnp.sum((points[:, None] - points) ** 2, axis=-1))

    def features(count, seed, x=points):
        return gaussian_features(x, x, 1.0, count, jax.random.key(seed), radius=1.0)

    def error(count):
        each = [features(count, s) for s in range(40)]
        return np.sqrt(np.mean([(jnp.exp(e.exponents(1.0)) / kernel - 1) ** 2 for e in each]))

    np.testing.assert_allclose(error(1000) / error(10), 0.1, rtol=0.3)


@pytest.mark.slow
def test_positive_features_against_their_matrix():
    """Value, plan and gradient, and S(a, a) = 0 with the same features in all three terms."""
    points = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 2)))
    cost = gaussian_features(points, points, 1.0, 50, jax.random.key(0))
    u, v = jnp.asarray(third), jnp.array([0.2, 0.3, 0.5])

    def value(phi, epsilon):
        return solve(PositiveFeatures(phi, cost.psi), u, v, epsilon).x

    sol, matrix = value(cost.phi, 0.5), solve(-0.5 * cost.exponents(0.5), u, v, 0.5).x
    np.testing.assert_allclose(sol.plan, matrix.plan, atol=1e-13)
    np.testing.assert_allclose([sol.value, sol.cost], [matrix.value, matrix.cost], rtol=1e-12)
    # The envelope theorem: ∂/∂Φ = −ε u (Ψᵀv)ᵀ with P = diag(u) ΦΨᵀ diag(v).
    left, right = u * jnp.exp(sol.f / 0.5), v * jnp.exp(sol.g / 0.5)
    expected = -0.5 * left[:, None] * (right @ cost.psi)
    gradient = jax.grad(lambda phi: value(phi, 0.5).value)(cost.phi)
    np.testing.assert_allclose(gradient, expected, atol=1e-9)
    np.testing.assert_allclose(jaxns.sinkhorn_divergence(cost, u, u, 1.0), 0, atol=1e-14)


@pytest.mark.slow
def test_the_sinkhorn_divergence():
    """S(a, a) = 0, S(a, b) > 0, and for translated measures the squared distance, in any ε."""
    points = jnp.asarray(np.random.default_rng(2).uniform(size=(3, 2)))
    u, v = jnp.asarray(third), jnp.array([0.2, 0.3, 0.5])
    cloud = PointCloud(points, points)
    np.testing.assert_allclose(jaxns.sinkhorn_divergence(cloud, u, u, 0.1), 0, atol=1e-14)
    assert jaxns.sinkhorn_divergence(cloud, u, v, 0.1) > 1e-4
    shift = jnp.array([0.3, -0.4])

    def apart(moved):
        return jaxns.sinkhorn_divergence(PointCloud(points, moved), v, v, 0.1)

    moved = points + shift
    value, gradient = jax.value_and_grad(apart)(moved)
    np.testing.assert_allclose(value, 0.25, rtol=1e-11)
    np.testing.assert_allclose(gradient, 2 * v[:, None] * shift, atol=1e-10)


@pytest.mark.slow
def test_the_unbalanced_divergence():
    points = jnp.asarray(np.random.default_rng(2).uniform(size=(3, 2)))
    cloud, u = PointCloud(points, points), jnp.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(jaxns.sinkhorn_divergence(cloud, u, u, 0.1, 1.0), 0, atol=1e-14)
    assert jaxns.sinkhorn_divergence(cloud, u, 1.3 * u, 0.1, 1.0) > 1e-3


def test_new_numbers_do_not_retrace():
    traces = []

    @jaxns.struct
    class Noted(jaxns.Sinkhorn):
        def step(self, problem, f):
            traces.append(1)
            return super().step(problem, f)

    def run(scale, epsilon, tol):
        problem = jaxns.Transport(scale * square, third, third, epsilon)
        solver = Noted(acceleration=False)
        return jaxns.solve(problem, solver, stop=jaxns.Stop(tol=tol)).x.plan

    run(1.0, 0.5, 1e-9)
    traces.clear()
    run(1.1, 0.6, 1e-10)
    assert not traces


@pytest.mark.slow
def test_large_problems_meet_their_marginals():
    random = np.random.default_rng(0)
    n = 600
    points = [jnp.asarray(random.uniform(size=(k, 2))) for k in (n, n + 50)]
    u, v = (jnp.asarray(random.dirichlet(np.full(k, 5.0))) for k in (n, n + 50))
    matrix = jnp.sum((points[0][:, None] - points[1]) ** 2, axis=-1)
    for ratio in (0.1, 0.001):
        sol = solve(matrix, u, v, ratio * float(jnp.mean(matrix)), stop=jaxns.Stop())
        assert sol.status.ok
        error = jnp.sum(jnp.abs(sol.x.plan.sum(1) - u)) + jnp.sum(jnp.abs(sol.x.plan.sum(0) - v))
        assert error < 1e-12
