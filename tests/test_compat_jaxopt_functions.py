"""JAXopt's functions and quadratic programs by ours: closed forms, CVXPY, what was corrected."""

import importlib
import pkgutil
import re
from pathlib import Path

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxopt_names import FUNCTIONS

import jaxns
import jaxns.compat.jaxopt as jaxopt
from jaxns.compat.jaxopt import (
    isotonic,
    linear_solve,
    loss,
    objective,
    perturbations,
    projection,
    prox,
    tree_util,
)
from jaxns.compat.jaxopt.base import KKTSolution

random = np.random.RandomState(0)
close = np.testing.assert_allclose
PAGE = Path(__file__).parent.parent / "docs" / "migrating_from_jaxopt.md"


# Proximity operators and projections --------------------------------------------------------------

tree = {"a": jnp.array([3.0, -0.2]), "b": jnp.array(1.0)}


def test_prox_with_traced_hyperparameters_of_a_tree():
    def total(lam, gam, operator, x):
        return sum(map(jnp.sum, jax.tree.leaves(operator(x, (lam, gam), 0.5))))

    slopes = jax.jit(jax.grad(total, (0, 1)), static_argnums=2)(
        0.8, 0.5, prox.prox_elastic_net, tree
    )
    soft, shrunk = 2.6 + 0.6, 1 + 0.5 * 0.8 * 0.5  # of the two entries above the threshold 0.4
    close(slopes, (-2 * 0.5 / shrunk - soft * 0.5 * 0.5 / shrunk**2, -soft * 0.4 / shrunk**2))
    penalties = {"a": jnp.array([1.0, 0.0]), "b": 2.0}
    lasso = prox.prox_lasso(tree, penalties, 0.5)
    close(np.append(lasso["a"], lasso["b"]), [2.5, -0.2, 0.0])
    non_negative = prox.prox_non_negative_lasso(tree, penalties, 0.5)
    close(np.append(non_negative["a"], non_negative["b"]), [2.5, 0.0, 0.0])


def test_group_prox_at_zero_and_ridge_as_coded():
    assert not np.asarray(jax.jacobian(prox.prox_group_lasso)(jnp.zeros(3))).any()
    close(prox.prox_group_lasso(jnp.array([3.0, 4.0]), 2.0, 0.5), [2.4, 3.2])
    close(prox.prox_ridge(1.0, 1.0), 0.5)
    close(prox.prox_non_negative_ridge(jnp.array([-1.0, 1.0]), 1.0), [0.0, 0.5])


def test_spheres_and_balls_have_derivatives_at_zero():
    zero = jnp.zeros(4)
    for ball in (projection.projection_l2_ball, projection.projection_l1_ball):
        close(jax.jacobian(ball)(zero), np.eye(4))
        close(jax.jacobian(ball)(zero + 0.25), np.eye(4))  # on the l1 sphere, inside of the other
    for sphere, order in (
        (projection.projection_l2_sphere, 2),
        (projection.projection_l1_sphere, 1),
    ):
        close(np.linalg.norm(sphere(zero, 3.0), order), 3.0)
        assert np.isfinite(jax.jacobian(sphere)(zero)).all()


def test_projections_of_trees_and_matrices():
    box = projection.projection_box(tree, (0.0, 2.0))
    close(np.append(box["a"], box["b"]), [2.0, 0.0, 1.0])
    ball = projection.projection_linf_ball(tree, 2.0)
    close(np.append(ball["a"], ball["b"]), [2.0, -0.2, 1.0])
    flat = np.array([3.0, -0.2, 1.0])
    half = projection.projection_halfspace(tree, (jax.tree.map(jnp.ones_like, tree), 0.8))
    close(np.append(half["a"], half["b"]), flat - 1.0)
    matrix = random.randn(2, 3)
    onto = projection.projection_simplex(matrix, 2.0)
    close(onto.ravel(), projection.projection_simplex(matrix.ravel(), 2.0))
    sparse = projection.projection_sparse_simplex(jnp.array([0.1, 2.0, 1.9, -1.0]), 2)
    close(sparse, [0.0, 0.55, 0.45, 0.0], atol=1e-15)


@pytest.mark.slow
def test_transport_by_cvxpy_and_by_its_form():
    S, a, b = random.rand(3, 4), np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.4, 0.2, 0.3])
    P = cp.Variable((3, 4), nonneg=True)
    sums = [cp.sum(P, 1) == a, cp.sum(P, 0) == b]
    cp.Problem(cp.Minimize(cp.sum_squares(P - S)), sums).solve(solver="CLARABEL")
    plan = jax.jit(projection.projection_transport)(S, (a, b))
    close(plan, P.value, atol=1e-5)
    close(plan.sum(1), a, rtol=1e-14)
    entropic = projection.kl_projection_transport(S, (a, b))
    close(entropic.sum(1), a, rtol=1e-9)
    potentials = np.log(entropic) - S  # f + g of any two rows differ by a constant
    close(np.ptp(potentials - potentials[:1], axis=1), 0, atol=1e-9)
    close(projection.projection_birkhoff(np.full((2, 2), 7.0)), np.full((2, 2), 0.5))

    direction = np.array([1.0, -0.5, -0.5])
    moved = [projection.projection_transport(S, (a + h * direction, b)) for h in (1e-5, -1e-5)]
    slope = jax.jvp(lambda a: projection.projection_transport(S, (a, b)), (a,), (direction,))[1]
    close(slope, (moved[0] - moved[1]) / 2e-5, atol=1e-8)


@pytest.mark.slow
def test_empty_sets_are_said_to_be_empty():
    G, h = jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([0.0, -1.0])
    empty = (None, None, G, h)
    with pytest.raises(ValueError, match="empty"):
        projection.projection_polyhedron(jnp.zeros(2), empty)
    assert np.isnan(projection.projection_polyhedron(jnp.zeros(2), empty, False)).all()
    section = (jnp.zeros(2), jnp.ones(2), jnp.ones(2), 3.0)
    with pytest.raises(ValueError, match="dot"):
        projection.projection_box_section(jnp.zeros(2), section, True)


def test_isotonic_regression_is_batched_compiled_and_clipped():
    y = jnp.array([[1.0, 3.0, 2.0, 4.0], [4.0, 3.0, 0.0, 9.0]])
    fit = jax.jit(jax.vmap(lambda y: isotonic.isotonic_l2_pav(y, y_max=3.0)))
    close(fit(y), [[1.0, 2.5, 2.5, 3.0], [7 / 3, 7 / 3, 7 / 3, 3.0]])
    down = isotonic.isotonic_l2_pav(y[0], increasing=False)
    close(down, [2.5] * 4)
    close(jax.jacobian(isotonic.isotonic_l2_pav)(y[0])[1], [0, 0.5, 0.5, 0])


# Losses, objectives, noise, trees -----------------------------------------------------------------


def test_losses_have_derivatives_at_infinite_scores():
    slope = jax.vmap(jax.grad(loss.sparse_plus))
    scores = jnp.array([-jnp.inf, -1.0, 0.0, 1.0, 1e30, jnp.inf])
    close(slope(scores), [0, 0, 0.5, 1, 1, 1])
    ends = jnp.array([-jnp.inf, 0.0, jnp.inf])
    close(slope(ends), loss.sparse_sigmoid(ends))
    hessian = jax.hessian(loss.multiclass_sparsemax_loss, 1)(0, jnp.array([0.1, 0.3, -5.0]))
    close(hessian, [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0]])
    close(loss.huber_loss(jnp.array([0.0, 0.0]), jnp.array([0.5, 3.0])), [0.125, 2.5])
    curvature = jax.vmap(jax.hessian(lambda score: loss.huber_loss(0.0, score)))
    close(curvature(jnp.array([-3.0, 0.0, 0.5, 3.0, jnp.inf])), [0, 1, 1, 0, 0])


@pytest.mark.slow
def test_lipschitz_constants_are_those_of_the_mean():
    X = random.randn(5, 3)
    data, labels = (X, random.randn(5)), (X, np.array([0, 1, 1, 0, 1]))
    hessian = jax.hessian(objective.least_squares)(jnp.zeros(3), data)
    close(objective.least_squares.columnwise_lipschitz_const(data), np.diag(hessian))
    hessian = jax.hessian(objective.binary_logreg)(jnp.zeros(3), labels)  # steepest at 0
    close(objective.binary_logreg.columnwise_lipschitz_const(labels), np.diag(hessian))
    many = (X, random.randn(5, 2))
    hessian = jax.hessian(objective.least_squares)(jnp.zeros((3, 2)), many)
    constants = objective.least_squares.columnwise_lipschitz_const(many)
    close(constants, np.einsum("ijij->i", hessian) / 2)
    dual = (X, np.eye(2)[labels[1]])
    svm = objective.multiclass_linear_svm_dual
    hessian = jax.hessian(svm)(jnp.zeros((5, 2)), 0.3, dual)
    constants = svm.columnwise_lipschitz_const(0.3, dual)
    close(constants, np.einsum("ijij->i", hessian) / 2)
    ridge = objective.ridge_regression(jnp.ones(3), 0.4, data)
    close(ridge, 0.5 * np.mean((X.sum(1) - data[1]) ** 2) + 0.6)


@pytest.mark.slow
def test_perturbed_functions_have_second_derivatives():
    square = perturbations.make_perturbed_fun(
        lambda x: jnp.sum(x**2), 20_000, 0.5, perturbations.Normal(), control_variate=True
    )
    close(jax.hessian(square)(jnp.array([0.3]), jax.random.key(1)), [[2.0]], atol=0.2)


def test_norms_of_trees_have_a_derivative_at_zero():
    assert not np.asarray(jax.grad(tree_util.tree_l2_norm)(jnp.zeros(2))).any()
    close(tree_util.tree_l2_norm({"a": 3.0, "b": jnp.array([4j])}), 5.0)


# Linear systems -----------------------------------------------------------------------------------

M = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]])
right = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(-1.0)}


def times(M):
    def matvec(x):
        y = M @ jnp.append(x["a"], x["b"])
        return {"a": y[:2], "b": y[2]}

    return matvec


@pytest.mark.parametrize("name", ["lu", "cholesky", "cg", "normal_cg", "gmres", "bicgstab"])
def test_linear_solves_take_trees_and_are_exact_and_differentiable(name):
    solve = getattr(linear_solve, f"solve_{name}")

    def solution(M):
        x = solve(times(M), right)
        return jnp.append(x["a"], x["b"])

    exact = np.linalg.solve(M, [1.0, 2.0, -1.0])
    close(solution(M), exact, rtol=1e-11)
    slope = jax.grad(lambda M: solution(M)[0])(jnp.asarray(M))
    close(slope, -np.outer(np.linalg.inv(M)[0], exact), rtol=1e-9)


def test_a_linear_solve_that_failed_says_so():
    skew = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(jaxns.ConvergenceError, match="'cg' did not solve"):
        linear_solve.solve_cg(times(skew), right)
    assert np.isnan(jax.jit(lambda: linear_solve.solve_cg(times(skew), right))()["b"])
    ignored = linear_solve.solve_cg(times(skew), right, on_failure="ignore", maxiter=1)
    assert np.isfinite(ignored["a"]).all()
    with pytest.raises(TypeError, match="init"):
        linear_solve.solve_normal_cg(lambda x: jnp.ones((2, 3)) @ x, jnp.ones(2))


# Quadratic programs -------------------------------------------------------------------------------

Q, c = jnp.diag(jnp.array([1.0, 2.0, 3.0])) + 0.1, jnp.array([1.0, -8.0, 0.5])
A, b = jnp.array([[1.0, 1.0, 1.0]]), jnp.array([1.0])
G, h = jnp.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]), jnp.array([0.7, 5.0])


@pytest.mark.slow
def test_a_program_of_each_form_has_the_solution_of_cvxpy():
    x = cp.Variable(3)
    equation, inequality = np.asarray(A) @ x == b, np.asarray(G) @ x <= h
    cost = 0.5 * cp.quad_form(x, np.asarray(Q)) + np.asarray(c) @ x
    cp.Problem(cp.Minimize(cost), [equation, inequality]).solve(solver="CLARABEL")

    program = dict(params_obj=(Q, c), params_eq=(A, b), params_ineq=(G, h))
    qp = jaxopt.OSQP()
    params, state = qp.run(**program)
    close(params.primal, x.value, atol=1e-6)
    close(params.dual_eq, equation.dual_value, atol=1e-6)
    close(params.dual_ineq, inequality.dual_value, atol=1e-6)
    assert state.status == jaxopt.BoxOSQP.SOLVED
    assert qp.l2_optimality_error(params, **program) < 1e-12

    lower, upper = jnp.array([1.0, -jnp.inf, -5.0]), jnp.array([1.0, 0.7, jnp.inf])
    rows = jnp.stack([A[0], G[0], -G[1]])
    box = jaxopt.BoxOSQP(eq_qp_solve="lu")
    bounds = lower, upper
    solved = box.run(None, (Q, c), rows, bounds)
    close(solved.params.primal[0], params.primal, atol=1e-12)
    close(solved.params.dual_eq, np.append(params.dual_eq, params.dual_ineq), atol=1e-12)
    assert box.l2_optimality_error(solved.params, (Q, c), rows, bounds) < 1e-12
    traced = jax.jit(lambda bounds: box.run(None, (Q, c), rows, bounds))(bounds)
    jax.tree.map(lambda a, b: close(a, b, atol=1e-12), traced.params, solved.params)


@pytest.mark.slow
def test_functions_and_trees_make_the_same_program():
    x0 = {"a": jnp.zeros(2), "b": jnp.zeros(())}

    def flat(x):
        return jnp.append(x["a"], x["b"])

    def fun(x, Q):
        return 0.5 * flat(x) @ Q @ flat(x) + c @ flat(x) + 7.0

    qp = jaxopt.OSQP(
        fun=fun,
        matvec_A=lambda A, x: [A @ flat(x)],
        matvec_G=lambda G, x: G @ flat(x),
    )
    program = dict(params_obj=Q, params_eq=(A, [1.0]), params_ineq=(G, h))
    with pytest.raises(ValueError, match="init_params"):
        qp.run(**program)
    params = qp.run(qp.init_params(x0, **program), **program).params
    plain = jaxopt.OSQP().run(None, (Q, c), (A, b), (G, h)).params
    close(flat(params.primal), plain.primal, atol=1e-12)
    close(params.dual_eq[0], plain.dual_eq, atol=1e-12)
    assert qp.l2_optimality_error(params, **program) < 1e-12
    with pytest.raises(ValueError, match="exclude"):
        jaxopt.BoxOSQP(fun=fun, matvec_Q=jnp.dot)


@pytest.mark.slow
def test_derivatives_of_programs_in_both_modes_also_of_closures():
    def solution(t):
        tilted = jaxopt.OSQP(matvec_Q=lambda _, x: Q @ x * (1 + t))  # t is in the closure
        bounds = (G, h + t * jnp.array([1.0, 0.0]))
        return tilted.run(None, (None, c * (1 - t)), (A, b + t), bounds).params.primal

    slope = (solution(1e-5) - solution(-1e-5)) / 2e-5
    close(jax.jacfwd(solution)(0.0), slope, atol=1e-8)
    close(jax.jacrev(solution)(0.0), slope, atol=1e-8)


@pytest.mark.parametrize("compiled", [True, False])
def test_programs_without_solution_have_a_status_and_no_numbers(compiled, capsys):
    impossible = (jnp.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]]), jnp.array([0.0, -1.0]))
    falling = (0 * Q, jnp.array([0.0, -1.0, 0.0]))
    open_rows = (jnp.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]), jnp.zeros(2))
    qp = jaxopt.OSQP(jit=compiled, verbose=True)
    for objective_, constraints, code in (
        ((Q, c), impossible, jaxopt.BoxOSQP.PRIMAL_INFEASIBLE),
        (falling, open_rows, jaxopt.BoxOSQP.DUAL_INFEASIBLE),
    ):
        if compiled:
            params, state = qp.run(None, objective_, (A, b), constraints)
            assert state.status == code
            assert np.isnan(params.primal).all()
        else:
            with pytest.raises(ValueError, match="no solution"):
                qp.run(None, objective_, (A, b), constraints)
        jax.effects_barrier()
        assert f"Status: {code}" in capsys.readouterr().out


@pytest.mark.slow
def test_equality_constraints_may_repeat_and_may_be_none():
    qp = jaxopt.EqualityConstrainedQP()
    twice = jnp.concatenate([A, 2 * A]), jnp.concatenate([b, 2 * b])
    params, state = qp.run(KKTSolution(jnp.zeros(3)), (Q, c), twice)
    matrix = np.block([[np.asarray(Q), np.asarray(A).T], [np.asarray(A), np.zeros((1, 1))]])
    close(params.primal, np.linalg.solve(matrix, np.append(-c, b))[:3], rtol=1e-12)
    assert state.status == jaxopt.BoxOSQP.SOLVED
    assert qp.l2_optimality_error(params, (Q, c), twice) < 1e-12
    free = jaxopt.CvxpyQP().run(None, (Q, c)).params
    close(free.primal, np.linalg.solve(Q, -c), rtol=1e-12)


@pytest.mark.slow
def test_box_descent_puts_a_flat_coordinate_at_its_bound():
    flat = Q.at[1].set(0).at[:, 1].set(0)
    bounds = jnp.array([-1.0, -1.0, -1.0]), jnp.array([1.0, 0.5, 1.0])
    solver = jaxopt.BoxCDQP(tol=1e-12)
    params, _ = solver.run(jnp.zeros(3), params_obj=(flat, c), params_ineq=bounds)
    close(params[1], 0.5)
    exact = jaxopt.BoxOSQP().run(None, (flat, c), jnp.eye(3), bounds).params
    close(params, exact.primal[0], atol=1e-10)


# The page -----------------------------------------------------------------------------------------


def test_the_page_names_every_function_and_what_stands_for_it():
    section = PAGE.read_text(encoding="utf-8").partition("\n## Functions")[2]
    rows = re.findall(r"^\| *(`[^|]*) \|([^|]*)\|", section.partition("\n## ")[0], re.MULTILINE)
    named = set(re.findall(r"`(\w+)[^`]*`", " ".join(left for left, _ in rows)))
    for module, names in FUNCTIONS.items():
        room = importlib.import_module(f"jaxns.compat.jaxopt{module}")
        for name in names:
            assert name in named, f"{name} is not in the table of {PAGE.name}"
            assert hasattr(room, name)
    for _, natively in rows:
        for path in re.findall(r"`(jaxns\.[\w.]+)", natively):
            assert pkgutil.resolve_name(path) is not None
