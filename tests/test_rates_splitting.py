"""Experiments A3 and A4 of arXiv 2206.00457 and checks E1 to E3 of 2212.07844, on our instances.

A: the piggyback derivatives of splitting methods converge at the rate of their iterates, to the
closed form. E: the derivative of a monotone inclusion's solution does not depend on the map, nor on
the stepsize in it, whose fixed point it is.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference
from test_rates import rate, relative

import jaxns
from jaxns.functions import L1, Box, ElasticNet, LeastSquares, LogDet, Quadratic, SquaredDistance

EXACT = jaxns.Stop(tol=1e-15)


def unrolled(build, solver, steps):
    """θ -> x, z after so many steps, differentiated through them in both directions."""
    options = {
        "mode": jaxns.Piggyback(direction="both"),
        "stop": jaxns.Stop(tol=None, max_steps=steps),
    }

    def value(theta):
        solution = jaxns.solve(build(theta), solver, **options)
        return solution.x, solution.z

    return jax.jit(value)


def agrees_with_its_transpose(fun, theta, tangent, cotangent):
    """⟨w, J t⟩ = ⟨Jᵀ w, t⟩ to 1e-12: JVP and VJP of one program."""
    _, forward = jax.jvp(fun, (theta,), (tangent,))
    (backward,) = jax.vjp(fun, theta)[1](cotangent)
    left, right = jnp.vdot(cotangent, forward), jnp.vdot(backward, tangent)
    return abs(left - right) <= 1e-12 * jnp.linalg.norm(cotangent) * jnp.linalg.norm(forward)


def converges_like_the_iterates(build, theta, tangent, solver, steps, x, dx):
    """The rates of x_k and J_k, checked to be within 2 % of each other, and both to arrive."""
    path = jaxns.derivative_path(build, theta, steps, solver=solver, tangent=tangent)
    errors = relative(path.x, x), relative(path.jacobian, dx)
    assert max(errors[0][-1], errors[1][-1]) < 1e-10
    rate_x, rate_J = rate(errors[0]), rate(errors[1])
    np.testing.assert_allclose(rate_J, rate_x, rtol=0.02)
    return rate_x, rate_J


@pytest.mark.slow
def test_a3_sparse_inverse_covariance():
    """tr(CX) − log det X + θ ‖X‖₁ by Douglas-Rachford with α = 1 from V = I."""
    p, theta = 20, 0.1
    rng = np.random.default_rng(0)
    precision = np.eye(p) + 0.3 * (np.eye(p, k=1) + np.eye(p, k=-1))
    samples = rng.normal(size=(200, p)) @ np.linalg.cholesky(np.linalg.inv(precision)).T
    C = jnp.asarray(np.cov(samples.T, bias=True))
    solver = jaxns.DouglasRachford(1.0)

    def build(theta):
        return jaxns.Composite(LogDet(C), L1(theta))

    def closed_form(x):
        """(X⁻¹ ⊗ X⁻¹)_SS dX_S = −sign(X_S)."""
        S = np.flatnonzero(x)
        inverse = np.linalg.inv(x)
        dx = np.zeros(p * p)
        system = np.kron(inverse, inverse)[np.ix_(S, S)]
        dx[S] = np.linalg.solve(system, -np.sign(np.ravel(x)[S]))
        return dx.reshape(p, p)

    x = jaxns.solve(build(theta), solver, stop=EXACT).x
    slope = np.asarray(C - jnp.linalg.inv(x))  # x is the solution: −slope ∈ θ ∂‖X‖₁
    assert np.max(np.abs(slope)) <= theta * (1 + 1e-9)
    np.testing.assert_allclose(slope[x != 0], -theta * np.sign(x[x != 0]), atol=1e-10)
    assert np.sum(x == 0) > 0

    converges_like_the_iterates(build, theta, 1.0, solver, 400, x, closed_form(x))
    value = unrolled(build, solver, 400)
    W = jnp.asarray(rng.normal(size=(p, p)))
    theta, one = jnp.asarray(theta), jnp.asarray(1.0)
    assert agrees_with_its_transpose(lambda t: value(t)[0], theta, one, W)
    along = jax.jit(lambda t: jax.jvp(value, (t,), (one,)))
    for at in theta * (1 + 1e-3 * rng.normal(size=20)):
        (x, _), (dx, _) = along(at)
        np.testing.assert_allclose(dx, closed_form(np.asarray(x)), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "penalty", "r", "steps"), [(1, 0.3, 1.0, 1600), (2, 0.5, 5.0, 3200)]
)
def test_a4_trend_filtering(order, penalty, r, steps):
    """½ ‖x − θ‖² + λ ‖Dx‖₁ by ADMM, differentiated in the signal θ.

    D has full row rank, so that the dual problem is strongly convex: I − ∂F is regular on (z, u),
    and `Implicit` needs no least-norm answer.
    """
    n = 75
    rng = np.random.default_rng(1)
    theta = jnp.asarray(np.repeat([0.0, 1.0, 0.3], n // 3) + 0.05 * rng.normal(size=n))
    D = jnp.diff(jnp.eye(n), n=order, axis=0)
    solver = jaxns.ADMM(r, adaptive=False)

    def build(theta):
        return jaxns.Composite(SquaredDistance(theta), L1(penalty), D)

    def closed_form(z):
        """I − B⁺B, B the rows of D with (Dx)_i = 0; there z = Dx is exactly 0."""
        B = np.asarray(D)[np.asarray(z) == 0]
        return np.eye(n) - np.linalg.pinv(B) @ B

    solution = jaxns.solve(build(theta), solver, stop=EXACT)
    x, (z, u) = solution.x, solution.z
    J = closed_form(z)
    np.testing.assert_allclose(x - theta + r * u @ D, 0, atol=1e-11)
    assert np.max(np.abs(u)) <= penalty / r * (1 + 1e-9)

    t, w = jnp.asarray(rng.normal(size=(2, n)))
    rate_x, _ = converges_like_the_iterates(build, theta, t, solver, steps, x, J @ t)
    A = jax.jacfwd(lambda z: jnp.concatenate(solver.step(build(theta), z)))((z, u))
    spectrum = np.linalg.eigvals(np.concatenate(A, axis=1))
    assert np.min(np.abs(1 - spectrum)) > 1e-4
    np.testing.assert_allclose(rate_x, np.max(np.abs(spectrum)), rtol=0.01)

    implicit = jax.jacrev(lambda t: jaxns.solve(build(t), solver, stop=EXACT).x)(theta)
    np.testing.assert_allclose(implicit, J, atol=1e-10)
    value = unrolled(build, solver, steps)
    assert agrees_with_its_transpose(lambda s: value(s)[0], theta, t, w)
    along = jax.jit(lambda theta: jax.jvp(value, (theta,), (t,)))
    for direction in rng.normal(size=(20, n)):
        (_, (z, _)), (dx, _) = along(theta + 1e-3 * direction / np.linalg.norm(direction))
        np.testing.assert_allclose(dx, closed_form(z) @ t, atol=1e-10)


def through(F, theta, z):
    """U⁻¹V with U = I − ∂_z F, V = ∂_θ F: the derivative of the fixed point z of F(θ, ·)."""
    A, B = jax.jacfwd(F, (1, 0))(theta, z)
    return jnp.linalg.solve(jnp.eye(len(z)) - A, B)


def step_of(solver, build):
    """F(θ, z) of a solver, on a governing variable that is one vector."""
    return lambda theta, z: solver.step(build(theta), z)


STEPSIZES = (0.01, 0.1, 1.0, 10.0)  # the formula needs no stepsize that converges


@pytest.mark.slow
def test_e1_strongly_convex():
    """An elastic net: the same J for every stepsize, and for Douglas-Rachford's map."""
    rng = np.random.default_rng(2)
    A = jnp.asarray(rng.normal(size=(30, 60)) / np.sqrt(30))
    b = jnp.asarray(rng.normal(size=30)) + A[:, :5].sum(axis=1)

    def build(theta):
        return jaxns.Composite(LeastSquares(A, b), ElasticNet(theta, 0.5))

    def value(theta):
        return jaxns.solve(build(theta), stop=EXACT).x

    x = value(0.3)
    found = [through(step_of(jaxns.ForwardBackward(g), build), 0.3, x) for g in STEPSIZES]
    V = jaxns.solve(build(0.3), jaxns.DouglasRachford(1.0), stop=EXACT).z
    solver = jaxns.DouglasRachford(1.0)
    dV = through(step_of(solver, build), 0.3, V)
    found.append(jax.jvp(lambda t, V: solver.solution(build(t), V), (0.3, V), (1.0, dV))[1])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-9)
    np.testing.assert_allclose(found[0], central_difference(value, 0.3), atol=1e-8)
    assert 0 < np.sum(np.asarray(x) == 0) < 60


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_e2_dual_total_variation(delta):
    """The dual of ½ ‖x − y‖² + θ ‖Dx‖₁ (with δ/2 ‖v‖² added to it), and x = y − Dᵀv."""
    n = 40
    rng = np.random.default_rng(3)
    y = jnp.asarray(np.repeat([0.0, 1.0], n // 2) + 0.3 * rng.normal(size=n))
    D = jnp.diff(jnp.eye(n), axis=0)
    Q = D @ D.T + delta * jnp.eye(n - 1)

    def dual(theta):
        return jaxns.Composite(Quadratic(Q, -D @ y), Box(-theta, theta))

    def v(theta):
        return jaxns.solve(dual(theta), stop=jaxns.Stop(tol=1e-14)).x

    at = v(0.2)
    found = [through(step_of(jaxns.ForwardBackward(g), dual), 0.2, at) for g in STEPSIZES]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-9)
    differences = central_difference(v, 0.2)
    np.testing.assert_allclose(found[0], differences, atol=1e-8)
    if delta:
        return

    def primal(theta, solver):
        problem = jaxns.Composite(SquaredDistance(y), L1(theta), D)
        return jaxns.solve(problem, solver, stop=jaxns.Stop(tol=1e-14)).x

    for solver in (jaxns.ADMM(), jaxns.PrimalDual(smooth=False)):
        np.testing.assert_allclose(primal(0.2, solver), y - at @ D, atol=1e-11)
        dx = jax.jacrev(partial(primal, solver=solver))(0.2)
        np.testing.assert_allclose(dx, -differences @ D, atol=1e-8)


@jaxns.struct
class Saturating:
    """h with h*(v) = δ/2 ‖v‖² on |vᵢ| ≤ level: quadratic near 0, then linear."""

    level: float
    delta: float

    def __call__(self, w):
        inside = jnp.abs(w) <= self.delta * self.level
        far = self.level * jnp.abs(w) - self.delta * self.level**2 / 2
        return jnp.sum(jnp.where(inside, w**2 / (2 * self.delta), far))

    def prox(self, w, step):
        inside = jnp.abs(w) <= self.level * (self.delta + step)
        near = w / (1 + step / self.delta)
        return jnp.where(inside, near, w - step * self.level * jnp.sign(w))


@pytest.mark.slow
def test_e3_primal_dual():
    """μ/2 ‖x − b‖² + h(Kx): Chambolle-Pock's map and the resolvent formula, in θ the level of h."""
    n, m, delta, theta = 30, 20, 0.5, 0.4
    rng = np.random.default_rng(4)
    K = jnp.asarray(rng.normal(size=(m, n)) / np.sqrt(n))
    b = jnp.asarray(rng.normal(size=n))
    size = np.linalg.norm(K, 2)
    solver = jaxns.PrimalDual(tau=0.9 / size, sigma=0.9 / size, smooth=False)

    def build(theta):
        return jaxns.Composite(SquaredDistance(b), Saturating(theta, delta), K)

    def value(theta):
        return jaxns.solve(build(theta), solver, stop=EXACT).x

    def chambolle_pock(theta, w):
        return jnp.concatenate(solver.step(build(theta), (w[:n], w[n:])))

    def resolvent(gamma, theta, w):
        """(I + γA)⁻¹(w − γBw), A = (∂f, ∂h*), B = [[0, Kᵀ], [−K, 0]]."""
        x, v = w[:n] - gamma * w[n:] @ K, w[n:] + gamma * K @ w[:n]
        x = (x + gamma * b) / (1 + gamma)
        return jnp.concatenate([x, jnp.clip(v / (1 + gamma * delta), -theta, theta)])

    solution = jaxns.solve(build(theta), solver, stop=EXACT)
    w = jnp.concatenate(solution.z)
    assert 0 < np.sum(np.abs(solution.z[1]) >= theta * (1 - 1e-9)) < m
    found = [through(chambolle_pock, theta, w)]
    found += [through(partial(resolvent, gamma), theta, w) for gamma in STEPSIZES]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-9)
    np.testing.assert_allclose(found[0][:n], central_difference(value, theta), atol=1e-8)

    path = jaxns.derivative_path(build, theta, 150, solver=solver)
    radius = np.max(np.abs(np.linalg.eigvals(jax.jacfwd(partial(chambolle_pock, theta))(w))))
    for errors in (relative(path.x, solution.x), relative(path.jacobian, found[0][:n])):
        assert rate(errors) <= 1.05 * radius
        assert errors[-1] < 1e-10
