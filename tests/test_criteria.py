"""Criteria against loops over refits, closed forms and scikit-learn; gradients against differences.

All at one size, so that few programs are compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.model_selection import KFold
from sklearn.svm import SVC

import jaxns
from jaxns import bilevel
from jaxns.bilevel import criteria
from jaxns.functions import LeastSquares, Quadratic, SquaredL2
from jaxns.problems import lasso, ridge, sparse_logistic, svm

random = np.random.default_rng(0)
N, P = 30, 5
X = random.standard_normal((N, P))
Y = X @ np.array([2.0, -1.0, 0.5, 0.0, 0.0]) + 0.3 * random.standard_normal(N)
LABELS = np.where(Y + 0.5 * random.standard_normal(N) > 0, 1.0, -1.0)
X_VAL, Y_VAL, L_VAL = X[20:], Y[20:], LABELS[20:]
X_FIT, Y_FIT, L_FIT = X[:20], Y[:20], LABELS[:20]
PENALTY = 0.05
KEY = jax.random.key(1)
PLAIN = jaxns.ForwardBackward(acceleration=False)
DIFFERENCES = np.diff(np.eye(P), axis=0)


def tikhonov(X, y, theta):
    """A penalty on differences, and a small one on the coefficients."""
    Q = theta * DIFFERENCES.T @ DIFFERENCES
    return jaxns.Composite(Quadratic(Q + X.T @ X, -X.T @ y), SquaredL2(0.1))


def sk_lasso(X, y):
    return Lasso(PENALTY, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y).coef_


def sk_logistic(X, y):
    made = LogisticRegression(
        l1_ratio=1, C=1 / (len(y) * PENALTY), fit_intercept=False, solver="saga",
        tol=1e-12, max_iter=100_000,
    )  # fmt: skip
    return made.fit(X, y).coef_[0]


def ridge_sum(X, y, theta, sample_weight=None):
    """Without the division by n."""
    return jaxns.Composite(LeastSquares(X, y, weights=sample_weight), SquaredL2(theta))


def squares(r):
    return float(np.mean(r**2))


def over_folds(fit, charge, y, folds):
    return np.mean([charge(y[b], X[b] @ fit(X[a], y[a])) for a, b in folds.split(X)])


def log_loss(y, t):
    return np.mean(np.log1p(np.exp(-y * t)))


def square_loss(y, t):
    return np.mean((y - t) ** 2)


def each_left_out():
    """Ridge refitted n times by its normal equations."""
    errors = []
    for i in range(N):
        A, b = np.delete(X, i, 0), np.delete(Y, i)
        beta = np.linalg.solve(A.T @ A + PENALTY * np.eye(P), A.T @ b)
        errors.append((Y[i] - X[i] @ beta) ** 2)
    return np.mean(errors)


def tikhonov_smoother():
    A = X.T @ X + PENALTY * DIFFERENCES.T @ DIFFERENCES + 0.1 * np.eye(P)
    return X @ np.linalg.solve(A, X.T)


def gcv_of_tikhonov():
    S = tikhonov_smoother()
    return squares(Y - S @ Y) / (1 - np.trace(S) / N) ** 2


def stein_of_lasso():
    """SURE of the lasso by two fits of scikit-learn, with the same direction and step."""
    sigma, step = 0.3, 2 * 0.3 / N**0.3
    delta = np.asarray(jax.random.normal(KEY, (1, N), jnp.float64))[0]
    t, moved = X @ sk_lasso(X, Y), X @ sk_lasso(X, Y + step * delta)
    freedom = (moved - t) @ delta / step
    return np.sum((Y - t) ** 2) - N * sigma**2 + 2 * sigma**2 * freedom


def multitask_by_hand():
    first = squares(Y_VAL - X_VAL @ sk_lasso(X_FIT, Y_FIT))
    second = squares(L_VAL - X_VAL @ sk_lasso(X_FIT, L_FIT))
    return (first + second) / 2


TABLE = {
    "hold-out": (
        lambda: bilevel.holdout(lasso, X_FIT, Y_FIT, X_VAL, Y_VAL),
        lambda: squares(Y_VAL - X_VAL @ sk_lasso(X_FIT, Y_FIT)),
    ),
    "hold-out logistic": (
        lambda: bilevel.holdout(
            sparse_logistic, X_FIT, L_FIT, X_VAL, L_VAL, loss=criteria.logistic
        ),
        lambda: log_loss(L_VAL, X_VAL @ sk_logistic(X_FIT, L_FIT)),
    ),
    "cross-validation": (
        lambda: bilevel.cross_validation(lasso, X, Y, folds=4),
        lambda: over_folds(sk_lasso, square_loss, Y, KFold(4)),
    ),
    "leave-one-out": (lambda: bilevel.leave_one_out(ridge_sum, X, Y), each_left_out),
    "gcv": (lambda: bilevel.gcv(tikhonov, X, Y), gcv_of_tikhonov),
    "sure": (lambda: bilevel.sure(lasso, X, Y, 0.3, KEY), stein_of_lasso),
    "multitask": (
        lambda: bilevel.multitask(
            lasso,
            X_FIT,
            np.stack([Y_FIT, L_FIT]),
            np.stack([X_VAL, X_VAL]),
            np.stack([Y_VAL, L_VAL]),
        ),
        multitask_by_hand,
    ),
}


def test_losses_are_those_of_scikit_learn():
    t = 2 * random.standard_normal(N)
    chance = 1 / (1 + np.exp(-t))
    scores = random.standard_normal((N, 3))
    three = random.integers(0, 3, N)
    for loss, y, predicted, expected in (
        (criteria.squared, Y, t, metrics.mean_squared_error(Y, t)),
        (criteria.squared, X, 2 * X, metrics.mean_squared_error(X, 2 * X)),
        (criteria.logistic, LABELS, t, metrics.log_loss(LABELS, chance)),
        (criteria.hinge, LABELS, t, metrics.hinge_loss(LABELS, t)),
        (criteria.squared_hinge, LABELS, t, squares(np.maximum(0, 1 - LABELS * t))),
        (criteria.cross_entropy, np.eye(3)[three], scores,
         metrics.log_loss(three, softmax(scores, axis=1))),
    ):  # fmt: skip
        charged = loss(jnp.asarray(y), jnp.asarray(predicted))
        assert charged.shape == (N,)
        assert float(jnp.mean(charged)) == pytest.approx(expected)


@pytest.mark.parametrize("name", TABLE)
def test_value_and_gradient(name):
    build, by_hand = TABLE[name]
    criterion = build()
    value_and_slope = jax.jit(jax.value_and_grad(lambda theta: criterion(theta, PLAIN)))
    value, slope = value_and_slope(PENALTY)
    assert float(value) == pytest.approx(float(by_hand()), rel=1e-7)
    h = 1e-5 * PENALTY
    central = (value_and_slope(PENALTY + h)[0] - value_and_slope(PENALTY - h)[0]) / (2 * h)
    assert float(slope) == pytest.approx(float(central), rel=1e-5)


def fit_machine(X, y):
    made = SVC(kernel="linear", C=PENALTY, tol=1e-12).fit(X, y)
    return made.coef_[0], made.intercept_[0]


def fit_lasso(X, y):
    return sk_lasso(X, y), 0.0


@pytest.mark.parametrize(
    ("model", "y", "scale", "fit"),
    [(lasso, Y, "mean", fit_lasso), (svm, LABELS, "sum", fit_machine)],
)
def test_a_fold_is_the_problem_of_its_rows(model, y, scale, fit):
    """And the last of the solutions is that of all rows."""
    folds = np.arange(N) * 7 % 3
    criterion = bilevel.cross_validation(
        model, X, y, folds=folds, scale=scale, refit=True, loss=criteria.hinge
    )
    x = jax.jit(criterion.over(lambda problem: jaxns.solve(problem).x))(PENALTY)
    predicted = jax.vmap(lambda x: criteria.linear(X, x))(x)
    losses = []
    for k, t in enumerate(predicted):
        w, b = fit(X[folds != k], y[folds != k])
        np.testing.assert_allclose(t, X @ w + b, rtol=1e-6, atol=1e-6)
        losses.append(np.maximum(0, 1 - y * (X @ w + b)))
    held_out = np.mean([np.mean(losses[k][folds == k]) for k in range(3)])
    assert float(criterion.outer(x, PENALTY)) == pytest.approx(held_out, rel=1e-5)


def test_probes_find_the_degrees_of_freedom():
    """Of a linear smoother in the mean over directions, by GCV with and without its matrix."""
    estimate = bilevel.gcv(ridge_sum, X, Y, KEY, probes=1000)
    x = jax.jit(estimate.over(lambda problem: jaxns.solve(problem, PLAIN).x))(PENALTY)
    S = X @ np.linalg.solve(X.T @ X + PENALTY * np.eye(P), X.T)
    exact = squares(Y - S @ Y) / (1 - np.trace(S) / N) ** 2
    assert float(estimate.outer(x, PENALTY)) == pytest.approx(exact, rel=2e-2)


def test_the_mean_of_sure_is_the_risk():
    """Over draws of y; the degrees of freedom of the lasso are the size of its support."""
    sigma, draws = 0.5, 400
    truth = X @ np.array([2.0, -1.0, 0.5, 0.0, 0.0])

    @jax.jit
    @jax.vmap
    def once(key, noise):
        y = truth + sigma * jax.random.normal(noise, (N,), jnp.float64)
        criterion = bilevel.sure(lasso, X, y, sigma, key)
        x = criterion.over(lambda problem: jaxns.solve(problem, PLAIN).x)(PENALTY)
        analytic = jnp.sum((y - X @ x[0]) ** 2) + sigma**2 * (2 * jnp.sum(x[0] != 0) - N)
        return criterion.outer(x, PENALTY), analytic, jnp.sum((X @ x[0] - truth) ** 2)

    estimate, analytic, risk = once(*jax.random.split(KEY, (2, draws)))
    for other in (analytic, risk):
        gap = estimate - other
        assert abs(gap.mean()) < 3 * gap.std() / draws**0.5


def test_generalised_tikhonov_with_its_operator():
    def model(X, y, theta):
        return jaxns.Composite(LeastSquares(X, y), SquaredL2(theta), DIFFERENCES, SquaredL2(0.1))

    S = tikhonov_smoother()
    beta = np.linalg.lstsq(X, S @ Y)[0]
    r = Y - S @ Y
    left_out = jax.jit(bilevel.leave_one_out(model, X, Y).outer)(beta, PENALTY)
    assert float(left_out) == pytest.approx(squares(r / (1 - np.diag(S))), rel=1e-9)


traced = []


def noted(y, t):
    traced.append(t)
    return criteria.squared(y, t)


def test_new_data_of_the_same_shape_does_not_compile_again():
    def fit(X, y, theta):
        criterion = bilevel.cross_validation(ridge, X, y, folds=2, loss=noted)
        return criterion.minimize(theta, solver=PLAIN, mode=jaxns.OneStep(), steps=2)

    first, once = fit(X, Y, 0.1), len(traced)
    again = fit(X + 1, 2 * Y, 0.2)
    assert len(traced) == once > 0
    assert again.history.value[0] != first.history.value[0]


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: bilevel.cross_validation(lasso, X, Y, folds=1), ValueError, "folds must be"),
        (lambda: bilevel.cross_validation(lasso, X, Y, folds=0 * Y), ValueError, "folds must be a"),
        (
            lambda: bilevel.cross_validation(lasso, X, Y, folds=np.zeros(N, int)),
            ValueError,
            "folds must each",
        ),
        (lambda: bilevel.cross_validation(lasso, X, Y, scale="n"), ValueError, "scale must be"),
        (lambda: bilevel.holdout(lasso, X, Y, X_VAL, Y), ValueError, "y_val must have one entry"),
        (lambda: bilevel.sure(lasso, X, Y, -1.0, KEY), ValueError, "sigma must be positive"),
        (lambda: bilevel.leave_one_out(lasso, X, Y)(0.1), TypeError, "linear smoother"),
        (lambda: bilevel.multitask(lasso, X, Y, X, Y), ValueError, "Y must have 2 dim"),
        (
            lambda: bilevel.multitask(lasso, X, Y[None], X, np.stack([Y, Y])),
            ValueError,
            "Y_val must have the 1 tasks",
        ),
    ],
)
def test_errors_name_the_argument(build, error, words):
    with pytest.raises(error, match=words):
        build()
