"""Quadratic programs by interior point: solutions, multipliers, verdicts, derivatives."""

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference

import jaxns
from jaxns import Status

N, M, ROWS = 12, 3, 20
NO_RAISE = jaxns.Stop(max_steps=200, on_failure="ignore")


@jax.jit
def solve(*data):
    """One compilation for all problems of the same shape."""
    return jaxns.solve(jaxns.QuadraticProgram(*data), stop=NO_RAISE)


def feasible(rng):
    """Q, q, A, b, G, h with a point inside, Q positive definite."""
    A, G, point = rng.normal(size=(M, N)), rng.normal(size=(ROWS, N)), rng.normal(size=N)
    root = rng.normal(size=(N, N))
    slack = rng.uniform(0, 1, ROWS)
    return root @ root.T, rng.normal(size=N), A, A @ point, G, G @ point + slack


def dual_feasible_cost(rng, A, G):
    """q = −Aᵀy − Gᵀz for some z ≥ 0, so that a linear program has a solution."""
    return -(rng.normal(size=M) @ A + rng.uniform(0, 1, ROWS) @ G)


def plain(rng):
    return feasible(rng)


def linear(rng):
    Q, _, A, b, G, h = feasible(rng)
    return 0 * Q, dual_feasible_cost(rng, A, G), A, b, G, h


def redundant(rng):
    """An equation twice in effect, an inequality twice."""
    Q, q, A, b, G, h = feasible(rng)
    A[2], b[2], G[3], h[3] = A[0] + A[1], b[0] + b[1], G[4], h[4]
    return Q, q, A, b, G, h


def degenerate(rng):
    """All inequalities meet in the solution of a linear program: the multipliers are not unique."""
    Q, _, A, b, G, _ = feasible(rng)
    point = np.linalg.lstsq(A, b, rcond=None)[0]
    return 0 * Q, dual_feasible_cost(rng, A, G), A, b, G, G @ point


def weakly_active(rng):
    """Four constraints hold with equality at the solution, with multiplier 0."""
    Q, _, A, b, G, _ = feasible(rng)
    point = np.linalg.lstsq(A, b, rcond=None)[0]
    z = np.concatenate([rng.uniform(0.5, 1, 4), np.zeros(ROWS - 4)])
    slack = np.concatenate([np.zeros(8), rng.uniform(0.1, 1, ROWS - 8)])
    q = -(Q @ point + z @ G + rng.normal(size=M) @ A)
    return Q, q, A, b, G, G @ point + slack


def large_units(rng):
    Q, q, A, b, G, h = feasible(rng)
    return 1e8 * Q, 1e8 * q, A, 1e-3 * b, G, 1e-3 * h


def small_units(rng):
    Q, q, A, b, G, h = feasible(rng)
    return 1e-8 * Q, 1e-8 * q, 1e3 * A, 1e3 * b, 1e-4 * G, 1e-4 * h


SOLVABLE = [
    plain, linear, redundant, degenerate, weakly_active, large_units, small_units,
]  # fmt: skip


@pytest.mark.parametrize("kind", SOLVABLE)
def test_optimality_to_rounding_and_the_value_of_a_peer(kind):
    for seed in range(4):
        Q, q, A, b, G, h = data = kind(np.random.default_rng(seed))
        sol = solve(*data)
        assert sol.status == Status.CONVERGED
        x, z, y = sol.x.x, sol.x.z, sol.x.y
        of_objective = np.abs(Q @ x) + np.abs(q) + np.abs(z @ G) + np.abs(y @ A)
        assert np.max(np.abs(Q @ x + q + z @ G + y @ A)) <= 1e-10 * np.max(of_objective)
        assert np.max(np.abs(A @ x - b)) <= 1e-10 * (np.abs(A) @ np.abs(x)).max()
        of_rows = 1e-10 * np.max(np.abs(G) @ np.abs(x) + np.abs(h))
        assert np.min(h - G @ x) >= -of_rows
        assert np.min(z) >= -1e-10 * np.max(z)
        assert np.max(np.abs(z * (h - G @ x))) <= np.max(z) * of_rows
        if kind in (large_units, small_units) or seed:
            continue
        variable = cp.Variable(N)
        cost = 0.5 * cp.quad_form(variable, cp.psd_wrap(Q)) + q @ variable
        peer = cp.Problem(cp.Minimize(cost), [A @ variable == b, G @ variable <= h])
        peer.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
        value = 0.5 * x @ Q @ x + q @ x
        np.testing.assert_allclose(value, peer.value, rtol=1e-8)
        np.testing.assert_allclose(x, variable.value, atol=1e-6)  # as far as its gap tells


def contradictory_inequalities(rng):
    Q, q, A, b, G, h = feasible(rng)
    y, z = rng.normal(size=M), rng.uniform(0.1, 1, ROWS)
    G[0] = -(z[1:] @ G[1:] + y @ A) / z[0]
    return Q, q, A, b, G, h - (z @ h + y @ b + 1) / (z @ z) * z


def contradictory_equations(rng):
    Q, q, A, b, G, h = feasible(rng)
    A[2] = A[0] + A[1]
    b[2] = b[0] + b[1] + 0.3
    return Q, q, A, b, G, h


def ray(rng, A, G):
    """A direction along which the constraints stay met, and G changed so that it is one."""
    d = rng.normal(size=N)
    d -= np.linalg.pinv(A) @ (A @ d)
    return d, G - np.outer(np.maximum(G @ d, 0) / (d @ d), d)


def falling_linear(rng):
    Q, _, A, b, G, h = feasible(rng)
    d, G = ray(rng, A, G)
    return 0 * Q, -d, A, b, G, h


def falling_quadratic(rng):
    Q, q, A, b, G, h = feasible(rng)
    d, G = ray(rng, A, G)
    keep = np.eye(N) - np.outer(d, d) / (d @ d)
    return keep @ Q @ keep, q - d * (1 + q @ d) / (d @ d), A, b, G, h


HOPELESS = {
    contradictory_inequalities: Status.INFEASIBLE,
    contradictory_equations: Status.INFEASIBLE,
    falling_linear: Status.UNBOUNDED,
    falling_quadratic: Status.UNBOUNDED,
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_problems_without_solution_say_so_under_jit(kind):
    for seed in range(8):
        sol = solve(*kind(np.random.default_rng(seed)))
        assert sol.status == HOPELESS[kind]
        assert not sol.status.ok


def test_problems_without_solution_raise_in_words_and_are_nan_under_vmap():
    rng = np.random.default_rng(0)
    with pytest.raises(jaxns.ConvergenceError, match="infeasible"):
        jaxns.solve(jaxns.QuadraticProgram(*contradictory_inequalities(rng)))
    kinds = [plain, contradictory_equations, falling_linear, weakly_active]
    batch = [jnp.stack(parts) for parts in zip(*(kind(rng) for kind in kinds), strict=True)]
    sols = jax.vmap(lambda *data: jaxns.solve(jaxns.QuadraticProgram(*data)))(*batch)
    np.testing.assert_array_equal(sols.status.ok, [True, False, False, True])
    np.testing.assert_array_equal(np.isfinite(sols.x.x).all(axis=1), [True, False, False, True])
    for lane in (0, 3):
        alone = solve(*(part[lane] for part in batch))
        np.testing.assert_allclose(sols.x.x[lane], alone.x.x, atol=1e-10)


def test_the_answer_of_an_active_set_search():
    """Try every set of active constraints; the solution is the only one that passes."""
    rng = np.random.default_rng(3)
    root, q, G = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=(5, 3))
    Q, h = root @ root.T + np.eye(3), rng.uniform(0, 0.3, 5)
    found = []
    for code in range(2**5):
        rows = [i for i in range(5) if code >> i & 1]
        if len(rows) > 3:
            continue
        k = len(rows)
        system = np.block([[Q, G[rows].T], [G[rows], np.zeros((k, k))]])
        point = np.linalg.solve(system, np.concatenate([-q, h[rows]]))
        if np.all(G @ point[:3] <= h + 1e-12) and np.all(point[3:] >= 0):
            found.append((point[:3], rows, point[3:]))
    ((x, rows, z),) = found
    assert rows
    sol = jaxns.solve(jaxns.QuadraticProgram(Q, q, G=G, h=h))
    np.testing.assert_allclose(sol.x.x, x, atol=1e-14)
    np.testing.assert_allclose(sol.x.z[np.array(rows)], z, atol=1e-13)
    assert np.count_nonzero(sol.x.z) == len(rows)


@pytest.mark.slow
def test_without_constraints_and_with_infinite_bounds():
    rng = np.random.default_rng(4)
    Q, q, A, b, G, h = plain(rng)
    free = jaxns.solve(jaxns.QuadraticProgram(Q, q))
    np.testing.assert_allclose(free.x.x, np.linalg.solve(Q, -q), rtol=1e-10)
    equal = jaxns.solve(jaxns.QuadraticProgram(Q, q, A, b)).x
    np.testing.assert_allclose(A @ equal.x, b, atol=1e-12)
    np.testing.assert_allclose(Q @ equal.x + q + equal.y @ A, 0, atol=1e-11)
    half = np.where(np.arange(ROWS) % 2, np.inf, h)
    some = solve(Q, q, A, b, G, half)
    assert some.status == Status.CONVERGED
    kept = jaxns.solve(jaxns.QuadraticProgram(Q, q, A, b, G[::2], h[::2])).x
    np.testing.assert_allclose(some.x.x, kept.x, atol=1e-10)
    with pytest.raises(jaxns.ConvergenceError, match="unbounded"):
        jaxns.solve(jaxns.QuadraticProgram(np.zeros((2, 2)), np.ones(2)))


MODES = {
    "implicit": jaxns.Implicit(),
    "one step": jaxns.OneStep(),
    "piggyback": jaxns.Piggyback(),
}


@pytest.mark.parametrize(
    "mode", ["implicit", "one step", pytest.param("piggyback", marks=pytest.mark.slow)]
)
def test_derivatives_in_all_data_of_x_and_multipliers(mode):
    rng = np.random.default_rng(5)
    root, G = rng.normal(size=(3, 3)), rng.normal(size=(4, 3))
    data = (root @ root.T, rng.normal(size=3), rng.normal(size=(1, 3)), rng.normal(size=1), G)
    h = G @ np.linalg.lstsq(data[2], data[3], rcond=None)[0] + np.array([0, 0.1, 0.2, 1])
    data = (*map(jnp.asarray, data), jnp.asarray(h))
    sizes = [d.size for d in data]
    w = jnp.asarray(rng.normal(size=3 + 4 + 1))

    @jax.jit
    def outcome(flat):
        parts = jnp.split(flat, np.cumsum(sizes)[:-1])
        parts = [part.reshape(d.shape) for part, d in zip(parts, data, strict=True)]
        at = jaxns.solve(jaxns.QuadraticProgram(*parts), mode=MODES[mode]).x
        return w @ jnp.concatenate([at.x, at.z, at.y])

    flat = jnp.concatenate([d.ravel() for d in data])
    assert np.count_nonzero(jaxns.solve(jaxns.QuadraticProgram(*data)).x.z) == 2
    np.testing.assert_allclose(
        jax.grad(outcome)(flat), central_difference(outcome, flat), atol=1e-7
    )


def test_a_derivative_that_does_not_exist_is_refused():
    """More active constraints than unknowns: moving one of them alone leaves no such vertex."""
    Q, q, A, b, G, h = map(jnp.asarray, degenerate(np.random.default_rng(0)))

    def x(b, h):
        problem = jaxns.QuadraticProgram(Q, q, A, b, G, h)
        return jaxns.solve(problem, mode=jaxns.Implicit(direction="both")).x.x

    move = jnp.linspace(-1, 1, N)
    _, moved = jax.jvp(x, (b, h), (A @ move, G @ move))
    np.testing.assert_allclose(moved, move, atol=1e-8)
    _, torn = jax.jvp(x, (b, h), (0 * b, jnp.eye(ROWS)[0]))
    assert np.isnan(torn).all()


@pytest.mark.slow
def test_experiment_b2_of_one_step_differentiation():
    """arXiv 2305.13768, experiment on quadratic programs, without its damped last step.

    Its one-step derivative is off by 1 − α = 1e-5, the last step having length α = 0.99999. A
    full step is exact.
    """
    rng = np.random.default_rng(0)
    n, p, m = 100, 50, 25
    U = rng.uniform(-1, 1, (n, 2 * n))
    A, G, q, h, b = (rng.uniform(-1, 1, s) for s in ((m, n), (p, n), n, p, m))
    Q = U @ U.T

    def outcome(b, mode):
        x = jaxns.solve(jaxns.QuadraticProgram(Q, q, A, b, G, h), mode=mode).x.x
        return 0.5 * jnp.sum(x**2)

    found = {name: jax.grad(outcome)(b, mode) for name, mode in MODES.items()}
    sol = jaxns.solve(jaxns.QuadraticProgram(Q, q, A, b, G, h))
    active = np.asarray(sol.x.z > 0)
    assert 0 < active.sum() < p
    rows = np.vstack([G[active], A])
    zero = np.zeros((len(rows), len(rows)))
    system = np.block([[Q, rows.T], [rows, zero]])
    exact = np.linalg.solve(system, np.concatenate([sol.x.x, np.zeros(len(rows))]))[-m:]
    for name, gradient in found.items():
        error = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
        assert error < 1e-11, name

    def damped(b):
        """One relaxed step from the solution, with the length of the paper's last step."""
        last = jaxns.Relaxed(jaxns.InteriorPoint(), 0.99999)
        return 0.5 * jnp.sum(last.step(jaxns.QuadraticProgram(Q, q, A, b, G, h), sol.x).x ** 2)

    error = np.linalg.norm(jax.grad(damped)(b) - exact) / np.linalg.norm(exact)
    np.testing.assert_allclose(error, 1e-5, rtol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Q": np.eye(3)}, r"Q must have shape \(2, 2\)"),
        ({"A": np.ones((1, 3)), "b": np.ones(1)}, "A must have 2 columns"),
        ({"G": np.ones((1, 2))}, "G and h must be given together, h is None"),
        ({"b": np.ones(1)}, "A and b must be given together, A is None"),
        ({"G": np.ones((3, 2)), "h": np.ones(2)}, "h must have one entry per row of G"),
    ],
)
def test_shapes_are_checked(change, message):
    data = {"Q": np.eye(2), "q": np.ones(2), **change}
    with pytest.raises(ValueError, match=message):
        jaxns.QuadraticProgram(**data)
    with pytest.raises(ValueError, match=r"fraction must lie in \[0, 1\)"):
        jaxns.InteriorPoint(1.0)


def test_another_problem_is_refused():
    with pytest.raises(TypeError, match="InteriorPoint solves a QuadraticProgram"):
        jaxns.solve(jaxns.problems.lasso(np.eye(2), np.ones(2), 0.1), jaxns.InteriorPoint())
