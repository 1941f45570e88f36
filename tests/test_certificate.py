"""Certificates: bounds that are bounds, kinks and kernels that are seen, reports of a call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns.functions import L1, LeastSquares, Logistic, SquaredL2

N, P = 30, 12
random = np.random.RandomState(0)
DESIGNS = random.randn(1000, N, P) / np.sqrt(N)
TARGETS = random.randn(1000, N)
WEIGHTS = random.randn(1000, P)
IGNORE = "ignore"


def ridge(A, b, t):
    return jaxns.Composite(LeastSquares(A, b), SquaredL2(t))


def lasso(A, b, t):
    return jaxns.Composite(LeastSquares(A, b), L1(t))


def logistic(A, b, t):
    return jaxns.Composite(Logistic(A, jnp.sign(b)), SquaredL2(t))


def truth(build, A, b, t):
    """x*(t) and its derivative, by Newton's method or proximal gradients in numpy."""
    x, eye = np.zeros(P), np.eye(P)
    if build is lasso:
        for _ in range(3000):
            v = x - 0.3 * A.T @ (A @ x - b)
            x = np.sign(v) * np.maximum(np.abs(v) - 0.3 * t, 0)
        S = np.flatnonzero(x)
        gram, signs = A[:, S].T @ A[:, S], np.sign(x[S])
        x[S] = np.linalg.solve(gram, A[:, S].T @ b - t * signs)
        dx = np.zeros(P)
        dx[S] = -np.linalg.solve(gram, signs)
        return x, dx
    label = np.sign(b)
    for _ in range(30):
        if build is ridge:
            slope, bend = A @ x - b, np.ones(N)
        else:
            slope, bend = -label / (1 + np.exp(label * (A @ x))), 1 / (2 + 2 * np.cosh(A @ x))
        H = (A.T * bend) @ A + t * eye
        x = x - np.linalg.solve(H, A.T @ slope + t * x)
    return x, -np.linalg.solve(H, x)


MODES = (jaxns.Implicit(), jaxns.OneStep(), jaxns.Piggyback())


def measured(build, count, steps):
    """Errors and bounds of ∂⟨w, x⟩/∂t for each instance and mode, and of the solution."""
    solver = jaxns.GradientDescent(0.3) if build is not lasso else jaxns.ForwardBackward(0.3)
    stop = jaxns.Stop(tol=None, max_steps=steps)

    def run(A, b, w):
        problem = build(A, b, 0.1)
        sol = jaxns.solve(problem, solver, stop=stop)
        c = jaxns.certify(problem, solver, sol, cotangent=w, modes=MODES)

        def inner(t, mode):
            return jnp.vdot(w, jaxns.solve(build(A, b, t), solver, mode=mode, stop=stop).x)

        found = {type(m).__name__: jax.grad(inner)(0.1, m) for m in MODES}
        bounds = {name: bound.g.penalty for name, bound in c.bounds.items()}
        return sol.z, found, bounds | {"distance": c.distance}, c.kink

    data = DESIGNS[:count], TARGETS[:count], WEIGHTS[:count]
    z, found, bounds, kink = jax.jit(lambda data: jax.lax.map(lambda one: run(*one), data))(data)
    exact = [truth(build, A, b, 0.1) for A, b in zip(*data[:2], strict=True)]
    slope = np.array([w @ dx for w, (_, dx) in zip(data[2], exact, strict=True)])
    errors = {name: np.abs(value - slope) for name, value in found.items()}
    errors["distance"] = np.linalg.norm(z - np.array([x for x, _ in exact]), axis=1)
    return errors, bounds, kink


@pytest.mark.parametrize(
    ("build", "steps"),
    [
        (ridge, 20),
        pytest.param(logistic, 10, marks=pytest.mark.slow),
        pytest.param(lasso, 60, marks=pytest.mark.slow),
    ],
)
def test_bounds_are_bounds(build, steps):
    """On 1000 instances stopped early: never violated, and not loose."""
    errors, bounds, kink = measured(build, 1000, steps)
    assert not np.any(kink)
    for name, bound in bounds.items():
        assert np.all(errors[name] <= bound), name
        floor = 1e-13 * (1 + np.abs(errors[name]))  # of what rounding leaves to be measured
        assert np.median(bound / (errors[name] + floor)) < 100, name


def test_certificate_of_a_contraction_with_known_numbers():
    """ρ, ‖A‖, ‖(I − A)⁻¹‖ and the kernel of matrices that are not normal, or singular."""
    A = jnp.array([[0.5, 3.0, 0.0], [0.0, 0.4, 0.0], [0.0, 0.0, 0.1]])
    turn = 0.9 * jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.5]])  # complex pair
    double = jnp.diag(jnp.array([1.0, 0.3, 0.2]))  # z₀ stays where it began

    @jaxns.struct
    class Affine:
        A: jax.Array
        b: jax.Array
        order: jax.Array  # of the coordinates: no number to differentiate

        def start(self):
            return jnp.zeros(3)

    @jaxns.struct
    class Iterate:
        def init(self, problem, x0):
            return x0

        def step(self, problem, z):
            return (problem.A @ z + problem.b)[problem.order]

        def solution(self, problem, z):
            return z

    for M, rho, kernel in ((A, 0.5, 0), (turn, 0.9, 0), (double, 1.0, 1)):
        b = jnp.array([1.0, 2.0, 3.0]).at[0].mul(kernel == 0)
        c = jaxns.certify(Affine(M, b, jnp.arange(3)), Iterate(), accuracy=1e-8)
        np.testing.assert_allclose(c.rho, rho, rtol=1e-5)
        np.testing.assert_allclose(c.norm, np.linalg.norm(M, 2), rtol=1e-5)
        s = np.linalg.svd(np.eye(3) - M, compute_uv=False)
        np.testing.assert_allclose(c.inverse, 1 / s[s > 1e-12].min(), rtol=1e-9)
        assert int(c.kernel) == kernel
        assert bool(c.unique) == (kernel == 0)
        assert ("kernel" in " ".join(c.reasons)) == (kernel > 0)


def small_lasso(t, A=None):
    A = jnp.asarray(DESIGNS[0]) if A is None else A
    return jaxns.Composite(LeastSquares(A, jnp.asarray(TARGETS[0])), L1(t))


def test_a_kink_is_seen():
    """Penalties at which a coefficient leaves zero: two one-sided derivatives, one certificate."""
    A, b = DESIGNS[0], TARGETS[0]
    largest = np.abs(A.T @ b).max()
    away, at = (jaxns.certify(small_lasso(t * largest)) for t in (0.8, 1.0))
    assert bool(away.unique)
    assert not bool(at.unique)
    assert bool(at.kink)
    assert "one_sided" in " ".join(at.reasons)
    left, right = jaxns.one_sided(lambda t: small_lasso(t), largest, 1.0)
    j = np.argmax(np.abs(A.T @ b))
    expected = np.zeros(P)
    expected[j] = -np.sign(A.T @ b)[j] / (A[:, j] @ A[:, j])
    np.testing.assert_allclose(left, expected, rtol=1e-6)
    np.testing.assert_array_equal(right, 0)
    left, right = jaxns.one_sided(lambda t: small_lasso(t), 0.8 * largest, 1.0)
    np.testing.assert_allclose(left, right, atol=1e-6)


@pytest.mark.slow
def test_columns_twice():
    """The solution is not isolated, which is said."""
    A = jnp.hstack([DESIGNS[0], DESIGNS[0]])
    c = jaxns.certify(small_lasso(0.1, A), stop=jaxns.Stop(on_failure="ignore"))
    assert int(c.kernel) > 0
    assert not bool(c.unique)
    assert "not isolated" in " ".join(c.reasons)


@pytest.mark.slow
def test_stopped_early_is_never_recommended():
    """And the cheapest mode that will do is, where it has converged."""
    problem = small_lasso(0.1)
    early = jaxns.certify(problem, stop=jaxns.Stop(max_steps=2))
    assert float(early.errors["Implicit"]) > 1e-3
    assert early.recommended is None or early.errors[early.recommended] > 1e-6
    converged = jaxns.certify(problem)
    assert converged.recommended == "Implicit"
    newton = jaxns.certify(problem, jaxns.Newton())
    assert newton.recommended == "OneStep"  # a superlinear map
    assert newton.rho < 1e-6
    for c in (early, converged, newton):
        text = str(c)
        assert "recommended" in text
        assert "Piggyback" in text
    assert converged.gradient.g.penalty.shape == ()


@pytest.mark.slow
def test_no_fixed_point_no_bound():
    root = jaxns.Root(lambda x: x**2 + 1.0)
    c = jaxns.certify(root, jaxns.Newton(), x0=jnp.ones(2), stop=jaxns.Stop(max_steps=50))
    assert c.recommended is None
    assert np.isinf(float(c.distance))
    assert "no fixed point" in str(c)


@pytest.mark.slow
def test_two_modes_of_a_class():
    """More steps of one-step differentiation, a smaller error."""
    modes = (jaxns.OneStep(), jaxns.OneStep(20))
    c = jaxns.certify(small_lasso(0.1), modes=modes)
    assert c.errors["OneStep 2"] < 0.5 * c.errors["OneStep"]
    assert int(c.evaluations["OneStep 2"]) == 20


def test_bad_cotangent():
    with pytest.raises(ValueError, match="cotangent must have the shapes"):
        jaxns.certify(small_lasso(0.1), cotangent=jnp.ones(3))


def outer(solve, t, s):
    x = solve(small_lasso(t)).x
    y = solve(small_lasso(s), jaxns.ForwardBackward(), mode=jaxns.Piggyback()).x
    return jnp.vdot(x, x) + jnp.sum(y)


def test_with_report():
    """The same value and gradient as without; a record for each solve, under jit and vmap."""

    def plain(t, s):
        return outer(jaxns.solve, t, s)

    expected = jax.value_and_grad(plain, argnums=(0, 1))(0.1, 0.2)
    value, grads, records = jax.jit(jaxns.with_report(outer, argnums=(0, 1)))(0.1, 0.2)
    np.testing.assert_allclose(value, expected[0], rtol=1e-12)
    np.testing.assert_allclose(grads, expected[1], rtol=1e-9)
    first, second = records
    assert first.status == jaxns.Status.CONVERGED
    assert first.adjoint_converged == 1
    assert 0 < first.adjoint_steps < 100
    assert first.adjoint_residual < 1e-10
    assert first.steps == jaxns.solve(small_lasso(0.1)).steps
    assert second.steps > 0
    assert jnp.isnan(second.adjoint_residual)
    lanes = jax.vmap(jaxns.with_report(outer), in_axes=(0, None))(jnp.array([0.1, 0.3]), 0.2)
    np.testing.assert_allclose(lanes[1][0], expected[1][0], rtol=1e-9)
    assert lanes[2][0].adjoint_steps.shape == (2,)


def test_auto_is_implicit_or_piggyback():
    def gradient(mode, stop):
        run = lambda t: jnp.sum(jaxns.solve(small_lasso(t), mode=mode, stop=stop).x ** 2)  # noqa: E731
        return jax.grad(run)(0.1)

    few, converged = jaxns.Stop(tol=None, max_steps=4), jaxns.Stop()
    auto = jaxns.Auto()
    np.testing.assert_array_equal(gradient(auto, few), gradient(jaxns.Piggyback(), few))
    np.testing.assert_array_equal(gradient(auto, converged), gradient(jaxns.Implicit(), converged))
    both = jaxns.Auto(direction="both")
    forward = jax.jacfwd(lambda t: jaxns.solve(small_lasso(t), mode=both).x @ jnp.ones(P))(0.1)
    backward = jax.grad(lambda t: jaxns.solve(small_lasso(t), mode=auto).x @ jnp.ones(P))(0.1)
    np.testing.assert_allclose(forward, backward, rtol=1e-9)
    with pytest.raises(ValueError, match="direction"):
        jaxns.Auto(direction="up")


@pytest.mark.slow
def test_bounds_cover_what_stopping_early_does():
    """A lasso of 200 × 1000, whose first supports are larger than there are samples."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 1000))
    for j in range(1, 1000):
        X[:, j] = 0.5 * X[:, j - 1] + np.sqrt(0.75) * X[:, j]
    y = X[:, :10] @ rng.normal(size=10) + 0.1 * rng.normal(size=200)
    penalty = 0.1 * np.abs(X.T @ y).max() / 200
    weights = jnp.asarray(rng.normal(size=1000))
    problem = jaxns.problems.lasso(X, y, penalty)
    x = np.array(jaxns.solve(problem, jaxns.CoordinateDescent()).x)
    S = np.flatnonzero(x)
    dx = -np.linalg.solve(X[:, S].T @ X[:, S] / 200, np.sign(x[S]))
    exact = float(np.asarray(weights)[S] @ dx)
    for steps in (3, 5, 8, 10, 15):
        stop = jaxns.Stop(max_steps=steps, on_failure="ignore")
        sol = jaxns.solve(problem, stop=stop)
        c = jaxns.certify(problem, solution=sol, cotangent=weights)
        np.testing.assert_allclose(c.gradient.g.penalty, exact, rtol=1e-9)

        def early(t, stop=stop):
            lasso, mode = jaxns.problems.lasso(X, y, t), jaxns.Implicit(on_failure="ignore")
            return jnp.vdot(weights, jaxns.solve(lasso, mode=mode, stop=stop).x)

        error = abs(float(jax.grad(early)(penalty)) - exact)
        assert error <= float(c.bounds["Implicit"].g.penalty)
        assert error > 1e-3 * abs(exact)


def test_what_piggyback_takes():
    """Bytes: the states that its backward pass is given, and as many to reverse a stretch."""
    stop = jaxns.Stop(tol=None, max_steps=jnp.asarray(20))
    few, usual = jaxns.Piggyback(checkpoints="logarithmic", last=5), jaxns.Piggyback()
    c = jaxns.certify(small_lasso(0.1), modes=(few, usual), stop=stop)
    for label, mode, slots, steps in (("Piggyback", few, 4, 5), ("Piggyback 2", usual, 32, 20)):

        def run(t, mode=mode):
            return jaxns.solve(small_lasso(t), mode=mode, stop=stop).x

        _, pull = jax.vjp(run, 0.1)
        tape = [leaf for leaf in jax.tree.leaves(pull) if leaf.shape[:1] == (slots + 1,)]
        assert c.memory[label] == 2 * sum(leaf[:slots].nbytes for leaf in tape) > 0
        assert c.evaluations[label] == 3 * steps


def test_degenerate_problems_have_certificates():
    """Above the largest penalty nothing moves; one sample and one feature.

    A mode that does not tell what it costs is not the cheapest.
    """
    A, b = DESIGNS[0], TARGETS[0]
    largest = np.abs(A.T @ b).max()
    above = jaxns.certify(small_lasso(1.1 * largest))
    assert bool(above.unique)
    assert float(above.gradient.g.penalty) == 0
    assert float(above.margin) > 0
    one = jaxns.Composite(LeastSquares(jnp.ones((1, 1)), jnp.array([2.0])), L1(0.5))
    c = jaxns.certify(one, cotangent=jnp.ones(1), modes=(jaxns.Auto(), jaxns.Implicit()))
    np.testing.assert_allclose(c.gradient.g.penalty, -1.0, rtol=1e-12)
    assert max(c.errors.values()) < 1e-9
    assert np.isnan(c.evaluations["Auto"])
    assert c.recommended == "Implicit"
