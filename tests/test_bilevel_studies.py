"""Searches as the papers make them, against grids, scikit-learn and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxns
from jaxns.bilevel import Positive, minimize, scan
from jaxns.experiments.hyperparameter_search import OURS, THEIRS, Settings, search
from jaxns.functions import LeastSquares

# arXiv 2105.01637, section 5: cross-validation by hypergradients --------------------------------


@pytest.mark.slow
def test_cross_validation_by_hypergradients_is_as_good_as_a_grid_and_cheaper():
    """Of an elastic net; the lasso is what `configs/hyperparameter_search.toml` runs when reduced.

    The criterion is scikit-learn's `cross_val_score`.
    """
    settings = Settings(experiment="hyperparameter_search", title="", random=2)
    found = search("elastic_net", settings)
    np.testing.assert_allclose(found.reference, found.best(OURS), rtol=1e-6)
    for method in (OURS, THEIRS):
        assert found.best(method) <= 1.01 * found.best("grid")
    assert found.best(OURS) <= found.best(THEIRS) * (1 + 1e-3)
    assert 5 * found.work_to(1.01 * found.best("grid"), OURS) <= found.work["grid"][-1]


# Many penalties ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lasso", "sparse_logistic"])
def test_a_penalty_for_each_coordinate_beats_the_best_for_all(kind):
    random = np.random.default_rng(0)
    n, p = 300, 1000  # samples to fit; three times as many to choose 1000 penalties by, and to test
    truth = np.where(np.arange(p) < 20, 2 * random.normal(size=p), 0)
    labels = kind == "sparse_logistic"
    X = np.split(random.normal(size=(7 * n, p)), [n, 4 * n])
    noise = random.logistic if labels else random.normal
    t = [A @ truth + 2 * noise(size=len(A)) for A in X]
    t = [np.sign(b) for b in t] if labels else t
    build = getattr(jaxns.problems, kind)

    def inner(theta):
        return build(X[0], t[0], theta)

    def loss(x, k):
        predicted = X[k] @ x
        charge = jnp.logaddexp(0, -t[k] * predicted) if labels else (predicted - t[k]) ** 2
        return jnp.mean(charge)

    def outer(x, theta):
        return loss(x, 1)

    largest = float(np.abs(X[0].T @ t[0]).max()) / n / (2 if labels else 1)
    solve = jax.jit(lambda theta: jaxns.solve(inner(theta), stop=jaxns.Stop(tol=1e-7)).x)
    grid = np.geomspace(largest, largest / 30, 20)
    single = min(grid, key=lambda theta: float(outer(solve(theta), theta)))
    found = minimize(outer, inner, jnp.full(p, single), space=Positive(), accuracy=0.1, steps=20)
    errors = [float(loss(x, 2)) for x in (solve(single), found.x)]
    print(errors)
    assert errors[1] < errors[0]


# arXiv 2305.13768: descent along the derivative of one step -------------------------------------


class Ridge:
    """½‖Ax − b‖² + e^t/2 ‖x‖², and half the mean squared error on other rows."""

    random = np.random.default_rng(0)
    A, V = random.normal(size=(60, 20)), random.normal(size=(200, 20))
    truth = random.normal(size=20)
    b, w = A @ truth + random.normal(size=60), V @ truth + random.normal(size=200)
    H = A.T @ A

    def inner(self, t):
        return jaxns.Composite(LeastSquares(self.A, self.b), jaxns.functions.SquaredL2(jnp.exp(t)))

    def outer(self, x, t):
        return jnp.mean((self.V @ x - self.w) ** 2) / 2

    def at(self, t: float) -> tuple[np.ndarray, np.ndarray, float]:
        """x, ∇g(x) and the derivative of g(x(t)), from the normal equations."""
        K = self.H + np.exp(t) * np.eye(20)
        x = np.linalg.solve(K, self.A.T @ self.b)
        slope = self.V.T @ (self.V @ x - self.w) / 200
        return x, slope, float(-np.exp(t) * slope @ np.linalg.solve(K, x))


@pytest.mark.slow
def test_descent_by_one_step_derivatives_ends_within_its_bound():
    """Where the estimate is zero, |∇l| ≤ ρ^K L_F L_g / (1 − ρ); for Newton, with ρ = 0, ∇l = 0."""
    ridge = Ridge()
    curvature = np.linalg.eigvalsh(ridge.H)

    def descend(mode, solver):
        found = scan(
            ridge.outer, ridge.inner, 1.0, optimizer=optax.sgd(1.0), solver=solver, mode=mode,
            stop=jaxns.Stop(tol=1e-15), steps=6000,
        )  # fmt: skip
        assert found.history.gradient_norm[-1] <= 1e-14  # it has found where its own field is zero
        return float(found.history.theta[-1])

    gaps = []
    for K in (1, 10, 50):
        t = descend(jaxns.OneStep(K), jaxns.GradientDescent(1 / (curvature[-1] + np.e)))
        alpha = 1 / (curvature[-1] + np.e)
        x, slope, gradient = ridge.at(t)
        rho = 1 - alpha * (curvature[0] + np.exp(t))
        L_F, L_g = alpha * np.exp(t) * np.linalg.norm(x), np.linalg.norm(slope)
        assert abs(gradient) <= rho**K * L_F * L_g / (1 - rho)
        gaps.append(abs(gradient))
    assert gaps[0] > gaps[1] > gaps[2] > 0
    newton = descend(jaxns.OneStep(), jaxns.Newton())
    assert abs(ridge.at(newton)[2]) <= 1e-10
    exact = descend(jaxns.Implicit(), jaxns.Newton())
    assert abs(newton - exact) <= 1e-10
