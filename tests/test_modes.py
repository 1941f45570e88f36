"""The modes against closed forms; under transformations, see test_transformations.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import STRICT, P, X, central_difference, y

import jaxns
from jaxns.functions import LeastSquares, SquaredL2

H, c = X.T @ X / len(y), X.T @ y / len(y)
STEP = 1.0 / float(jnp.linalg.eigvalsh(H)[-1] + 1)


def ridge_map(z, t):
    return z - STEP * (H @ z - c + jnp.exp(t) * z)


def exact(t):
    return jnp.sum(jnp.linalg.solve(H + jnp.exp(t) * jnp.eye(P), c) ** 3)


def solved(t, mode):
    return jnp.sum(jaxns.fixed_point(ridge_map, jnp.zeros(P), t, mode=mode, stop=STRICT).x ** 3)


MODES = {
    "Implicit": jaxns.Implicit(),
    "Implicit-both": jaxns.Implicit(direction="both"),
    "OneStep": jaxns.OneStep(800),
    "OneStep-both": jaxns.OneStep(800, direction="both"),
    "Piggyback": jaxns.Piggyback(),
    "Piggyback-both": jaxns.Piggyback(direction="both"),
}


@pytest.mark.parametrize("K", [1, 2, 5, 20])
def test_one_step_is_the_truncated_neumann_series(K):
    """Σ_{i<K} Aⁱ B at the fixed point, as matrices (arXiv 2305.13768)."""
    t = 0.3
    z = jnp.linalg.solve(H + jnp.exp(t) * jnp.eye(P), c)
    A, B = jax.jacfwd(ridge_map)(z, t), jax.jacfwd(ridge_map, 1)(z, t)
    expected = sum(np.linalg.matrix_power(np.asarray(A), i) @ B for i in range(K))
    for direction in ("reverse", "both"):
        mode = jaxns.OneStep(K, direction=direction)

        def solution(t, mode=mode):
            return jaxns.fixed_point(ridge_map, jnp.zeros(P), t, mode=mode, stop=STRICT).x

        np.testing.assert_allclose(jax.jacrev(solution)(t), expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1e-2, 1e-3])
def test_one_step_error_is_under_its_bound(ratio):
    """Experiment B3 of arXiv 2305.13768: weighted ridge by gradient descent, a = ratio ‖X‖².

    error(K) ≤ ρ^K L_F / (1 − ρ) for all K, and log error(K) has slope log ρ for large K. The
    Jacobian is with respect to the sample weights. (An instance of ours: 60 × 8, singular values
    from 30 to 1000.)
    """
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(n, 8)))[0] for n in (60, 8))
    A = jnp.asarray(U * np.geomspace(30, 1e3, 8) @ V.T)
    b = A @ jnp.ones(8) + 300 * jnp.asarray(rng.normal(size=60))
    a = ratio * 1e6
    L, mu = 1e6 + a, 900 + a
    rho = 1 - mu / L
    hessian = A.T @ A + a * jnp.eye(8)
    x = jnp.linalg.solve(hessian, A.T @ b)
    cross = A.T * (A @ x - b)  # ∂²/∂x∂weights
    exact, L_F = -jnp.linalg.solve(hessian, cross), jnp.linalg.norm(cross / L, 2)

    def solution(weights, steps):
        ridge = jaxns.Composite(LeastSquares(A, b, weights=weights), SquaredL2(a))
        solver, mode = jaxns.GradientDescent(stepsize=1 / L), jaxns.OneStep(steps)
        return jaxns.solve(ridge, solver, x, mode=mode, stop=jaxns.Stop(tol=1e-12)).x

    Ks = np.round(np.array([0, 0.03, 0.3, 1, 3, 8, 10, 12]) / (1 - rho)).astype(int) + 1
    jacobians = [jax.jit(jax.jacrev(lambda w, K=int(K): solution(w, K)))(jnp.ones(60)) for K in Ks]
    errors = np.array([jnp.linalg.norm(J - exact, 2) for J in jacobians])
    floor = 1e-12 * float(jnp.linalg.norm(exact, 2))
    assert np.all(errors <= rho**Ks * L_F / (1 - rho) + floor)
    slope = np.polyfit(Ks[-3:], np.log(errors[-3:]), 1)[0]
    np.testing.assert_allclose(slope, np.log(rho), rtol=0.01)


@pytest.mark.parametrize("method", ["dense", "cg", "bicgstab", "gmres", "neumann"])
def test_every_linear_method_gives_the_same_derivative(method):
    """cg too: gradient descent has a symmetric ∂F."""
    for direction in ("reverse", "both"):
        mode = jaxns.Implicit(method=method, direction=direction)
        found = jax.grad(lambda t, m=mode: solved(t, m))(0.3)
        np.testing.assert_allclose(found, jax.grad(exact)(0.3), rtol=1e-10)


def test_fixed_point_over_pytrees_and_two_parameters():
    """z and θ may be any pytrees; a leaf of z that does not depend on θ is no obstacle."""

    def F(z, theta):
        return {
            "x": 0.5 * jnp.tanh(z["x"]) + theta["shift"] + 0.1 * z["y"],
            "y": 0.3 * z["y"] + 1.0,
        }

    theta = {"shift": jnp.array([0.2, -0.4]), "unused": jnp.ones(3)}
    z0 = {"x": jnp.zeros(2), "y": jnp.zeros(2)}

    def solution(theta, mode):
        return jaxns.fixed_point(F, z0, theta, mode=mode, stop=STRICT).x["x"]

    expected = central_difference(
        lambda s: solution({**theta, "shift": s}, jaxns.Implicit()), theta["shift"]
    )
    for mode in MODES.values():
        found = jax.jacrev(lambda t, m=mode: solution(t, m))(theta)
        np.testing.assert_allclose(found["shift"], expected, atol=1e-9)
        np.testing.assert_array_equal(found["unused"], 0)
        if mode.direction == "both":
            forward = jax.jacfwd(lambda t, m=mode: solution(t, m))(theta)
            np.testing.assert_allclose(forward["shift"], expected, atol=1e-9)


def test_integer_leaves_in_theta():
    """Integers in θ ride along and have no derivative."""

    def F(z, theta):
        return 0.5 * z + theta["scale"] * theta["count"]

    def solution(scale, mode):
        theta = {"scale": scale, "count": jnp.array(3)}
        return jaxns.fixed_point(F, jnp.zeros(2), theta, mode=mode).x.sum()

    for mode in MODES.values():
        np.testing.assert_allclose(jax.grad(lambda s, m=mode: solution(s, m))(1.0), 12.0)


def test_the_start_matters_to_piggyback_only():
    """After few steps piggyback differentiates x0 too; a fixed point does not depend on it."""
    stop = jaxns.Stop(tol=None, max_steps=3)

    def solution(z0, mode):
        return jaxns.fixed_point(ridge_map, z0, 0.3, mode=mode, stop=stop).x

    A = jax.jacfwd(ridge_map)(jnp.zeros(P), 0.3)
    for name, mode in MODES.items():
        found = jax.jacrev(lambda z, m=mode: solution(z, m))(jnp.ones(P))
        expected = jnp.linalg.matrix_power(A, 3) if name.startswith("Piggyback") else 0 * A
        np.testing.assert_allclose(found, expected, atol=1e-13)


def test_a_mode_of_ones_own():
    """A mode is any object with a direction and `run`: here, no derivative at all."""
    from jaxns.fixed_point import iterate

    class Detached:
        direction = "reverse"

        def run(self, iteration, theta, z0, stop):
            return iterate(iteration, *jax.lax.stop_gradient((theta, z0)), stop)

    np.testing.assert_allclose(solved(0.3, Detached()), exact(0.3))
    assert jax.grad(lambda t: solved(t, Detached()))(0.3) == 0


def test_a_compiled_solve_used_twice_in_one_gradient():
    """… and differentiated with respect to other arguments each time: none of them is lost."""

    def of_both(t, f):
        fixed = jnp.ones(P)
        return f(t * fixed, t) + f(fixed, t)

    def ridge(r, t):
        return jnp.sum(jnp.linalg.solve(H + jnp.exp(t) * jnp.eye(P), r) ** 3)

    expected = jax.grad(of_both)(0.3, ridge)
    for name in ("Implicit", "Piggyback"):

        def solution(r, t, mode=MODES[name]):
            def F(z, theta):
                r, t = theta
                return z - STEP * (H @ z - r + jnp.exp(t) * z)

            z = jaxns.fixed_point(F, jnp.zeros(P), (r, t), mode=mode, stop=STRICT).x
            return jnp.sum(z**3)

        found = jax.grad(of_both)(0.3, jax.jit(solution))
        np.testing.assert_allclose(found, expected, rtol=1e-9, err_msg=name)
