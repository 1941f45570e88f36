"""Searches as the papers make them, against grids, scikit-learn and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet as SklearnElasticNet
from sklearn.linear_model import Lasso
from sklearn.model_selection import KFold, cross_val_score
from sklearn.preprocessing import PolynomialFeatures

import jaxns
from jaxns.bilevel import Positive, minimize, scan
from jaxns.functions import ElasticNet, LeastSquares

# arXiv 2105.01637, section 5: cross-validation by hypergradients --------------------------------

FOLDS = KFold(5, shuffle=True, random_state=42)
STOP = jaxns.Stop(tol=1e-8)


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Standardised features of degree 2, without the square of `sex`, a copy of it; y centred."""
    X, y = load_diabetes(return_X_y=True)
    expand = PolynomialFeatures(2, include_bias=False)
    Z = expand.fit_transform(X)[:, expand.get_feature_names_out() != "x1^2"]
    return (Z - Z.mean(0)) / Z.std(0), (y - y.mean()) / y.std()


Z, y = diabetes()
HELD_OUT = np.stack([np.isin(np.arange(len(y)), held_out) for _, held_out in FOLDS.split(Z)])
LARGEST = float(np.abs(Z.T @ y).max() / len(y))


def fold(theta, held_out):
    """The problem without these samples, in scikit-learn's scaling."""
    weights = jnp.where(held_out, 0.0, 1.0)
    f = LeastSquares(Z, y, scale="mean", weights=weights * len(y) / weights.sum())
    return jaxns.Composite(f, ElasticNet(theta[0], theta[1] if len(theta) > 1 else 0.0))


def cross_validation(x, theta):
    """The mean over folds of the mean squared error on the samples held out; x: (folds, p)."""
    errors = jnp.where(HELD_OUT, (x @ Z.T - y) ** 2, 0)
    return jnp.mean(errors.sum(1) / HELD_OUT.sum(1))


def as_sklearn_says(theta) -> float:
    l1, l2 = (*theta, 0.0)[:2]
    how = {"fit_intercept": False, "tol": 1e-10, "max_iter": 10**6}
    ratio = l1 / (l1 + l2)
    model = SklearnElasticNet(l1 + l2, l1_ratio=ratio, **how) if l2 else Lasso(l1, **how)
    scores = cross_val_score(model, Z, y, cv=FOLDS, scoring="neg_mean_squared_error")
    return float(-scores.mean())


def on_grid(axes: list[np.ndarray]) -> tuple[float, int]:
    """The best value, and the inner steps of all solves, each from the one before."""

    def solve_all(theta, start):
        def one(held_out, start):
            return jaxns.solve(fold(theta, held_out), None, start, stop=STOP)

        solution = jax.vmap(one)(HELD_OUT, start)
        return cross_validation(solution.x, theta), solution

    first = jax.vmap(lambda held_out: jaxns.solve(fold(jnp.ones(len(axes)), held_out)))(HELD_OUT)
    solve_all, values, steps = jax.jit(solve_all), [], 0
    for theta in np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes)):
        value, first = solve_all(jnp.asarray(theta), first)
        values.append(float(value))
        steps += int(first.steps.sum())
    return min(values), steps


def papers_descent() -> optax.GradientTransformationExtraArgs:
    """Steps of 1/‖∇‖ at first, and of a tenth of that whenever the objective has gone up."""

    def init(params):
        return jnp.zeros(()), jnp.inf * jnp.ones(())

    def update(gradient, state, params=None, *, value, **_):
        step, last = state
        step = jnp.where(step == 0, 1 / optax.global_norm(gradient), step)
        step = jnp.where(value > last, step / 10, step)
        return jax.tree.map(lambda g: -step * g, gradient), (step, value)

    return optax.GradientTransformationExtraArgs(init, update)


@pytest.mark.slow
@pytest.mark.parametrize("penalties", [1, 2], ids=["lasso", "elastic net"])
def test_cross_validation_by_hypergradients_is_as_good_as_a_grid_and_cheaper(penalties):
    count = {1: 100, 2: 10}[penalties]
    best, grid_steps = on_grid([np.geomspace(LARGEST, LARGEST / 1e4, count)] * penalties)
    how = {"each": jnp.asarray(HELD_OUT), "space": Positive(), "stop": STOP}
    start = jnp.full(penalties, LARGEST / 100)
    ours = minimize(cross_validation, fold, start, accuracy=0.1, steps=30, **how)
    theirs = minimize(
        cross_validation, fold, start, optimizer=papers_descent(), steps=30, tol=0.0, **how
    )
    for found in (ours, theirs):
        np.testing.assert_allclose(as_sklearn_says(np.asarray(found.theta)), found.value, rtol=1e-6)
        assert found.value <= 1.01 * best
    steps = [int(found.history.inner_steps.sum()) for found in (ours, theirs)]
    print(f"best {best}, {[float(f.value) for f in (ours, theirs)]}; {grid_steps}, {steps}")
    assert 5 * steps[0] <= grid_steps
    assert ours.value <= theirs.value * (1 + 1e-3)


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
