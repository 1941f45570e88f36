"""The estimators against scikit-learn: its checks, and its own models at the penalties chosen."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import ElasticNet, Lasso, LassoCV, LogisticRegression
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from jaxns.bilevel.estimators import (
    TunedElasticNet,
    TunedGroupLasso,
    TunedLasso,
    TunedSparseLogistic,
    TunedSVM,
    TunedWeightedLasso,
    design,
)

random = np.random.default_rng(0)
N, P = 30, 6
X = random.standard_normal((N, P)) * [1, 1, 10, 1, 1, 0.1] + 3
Y = X @ [2, -1, 0.1, 0, 0, 0] + random.standard_normal(N)
LABELS = np.where(Y + random.standard_normal(N) > np.median(Y), "up", "down")
GROUPS = np.array([7, 7, 7, 2, 2, 0])
EXACT = {"tol": 1e-12, "max_iter": 1_000_000}


def squares(y, t):
    return np.mean((y - t) ** 2)


def sk_lasso(tuned, X, y):
    made = Lasso(tuned.alpha_, **EXACT).fit(X, y)
    return made.coef_, made.intercept_


def sk_elastic_net(tuned, X, y):
    made = ElasticNet(tuned.alpha_, l1_ratio=tuned.l1_ratio_, **EXACT).fit(X, y)
    return made.coef_, made.intercept_


def sk_weighted(tuned, X, y):
    made = Lasso(1.0, **EXACT).fit(X / tuned.alpha_, y)
    return made.coef_ / tuned.alpha_, made.intercept_


def group_descent(tuned, X, y):
    """Proximal gradient by hand, on centred data."""
    A, b = X - X.mean(0), y - y.mean()
    L = np.linalg.norm(A, 2) ** 2 / len(y)
    beta = np.zeros(P)
    for _ in range(200_000):
        z = beta - A.T @ (A @ beta - b) / len(y) / L
        for g in np.unique(GROUPS):
            size, t = np.linalg.norm(z[g == GROUPS]), tuned.alpha_ / L * np.sum(g == GROUPS) ** 0.5
            z[g == GROUPS] *= max(0, 1 - t / size)
        if np.max(np.abs(z - beta)) < 1e-13:
            break
        beta = z
    return beta, y.mean() - X.mean(0) @ beta


def sk_logistic(tuned, X, y):
    made = LogisticRegression(
        l1_ratio=1, C=1 / (len(y) * tuned.alpha_), solver="saga", **EXACT
    ).fit(X, y)  # fmt: skip
    return made.coef_[0], made.intercept_[0]


def sk_svm(tuned, X, y):
    made = LinearSVC(C=tuned.C_, fit_intercept=False, dual=False, **EXACT).fit(X, y)
    return made.coef_[0], 0.0


def signs(y):
    return np.where(y == "up", 1, -1)


def log_loss(y, t):
    return np.mean(np.log1p(np.exp(-signs(y) * t)))


def squared_hinge(y, t):
    return np.mean(np.maximum(0, 1 - signs(y) * t) ** 2)


TABLE = {
    "lasso": (TunedLasso(), Y, KFold(5), sk_lasso, squares),
    "weighted lasso": (TunedWeightedLasso(), Y, KFold(5), sk_weighted, squares),
    "elastic net": (TunedElasticNet(), Y, KFold(5), sk_elastic_net, squares),
    "group lasso": (TunedGroupLasso(GROUPS), Y, KFold(5), group_descent, squares),
    "logistic": (TunedSparseLogistic(), LABELS, StratifiedKFold(5), sk_logistic, log_loss),
    "svm": (
        TunedSVM(fit_intercept=False), LABELS, StratifiedKFold(5), sk_svm, squared_hinge,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_coefficients_and_error_are_those_at_the_penalties_chosen(name):
    tuned, y, folds, fit, loss = TABLE[name]
    tuned.fit(X, y)
    coef, intercept = fit(tuned, X, y)
    scale = np.abs(coef).max()
    np.testing.assert_allclose(tuned.coef_.ravel(), coef, rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(tuned.intercept_, intercept, rtol=1e-4, atol=1e-5)
    predicted = tuned.decision_function if hasattr(tuned, "classes_") else tuned.predict
    np.testing.assert_allclose(predicted(X), X @ coef + intercept, rtol=1e-3, atol=1e-3)
    errors = []
    for a, b in folds.split(X, y):
        coef, intercept = fit(tuned, X[a], y[a])
        errors.append(loss(y[b], X[b] @ coef + intercept))
    assert tuned.history_.value.min() == pytest.approx(np.mean(errors), rel=1e-4)
    assert tuned.history_.value.min() < tuned.history_.value[0]
    assert tuned.n_iter_ == len(tuned.history_.value) <= tuned.max_iter


def test_lasso_against_a_grid():
    """Of a hundred penalties, on the data of scikit-learn's own example."""
    X, y = load_diabetes(return_X_y=True)
    grid = LassoCV(cv=5, tol=1e-8, max_iter=100_000).fit(X, y)
    tuned = TunedLasso().fit(X, y)
    assert tuned.history_.value.min() < 1.01 * grid.mse_path_.mean(1).min()
    assert tuned.n_iter_ < 30
    held_out = TunedLasso(cv=ShuffleSplit(1, test_size=0.3, random_state=0)).fit(X, y)
    assert held_out.score(X, y) > 0.45


@pytest.mark.slow
def test_several_classes():
    X, y = load_iris(return_X_y=True)
    for tuned in (TunedSparseLogistic().fit(X, y), TunedSVM().fit(X, y)):
        assert tuned.coef_.shape == (3, 4)
        assert tuned.score(X, y) > 0.9
    chance = TunedSparseLogistic().fit(X, y).predict_proba(X)
    np.testing.assert_allclose(chance.sum(1), 1)


def test_few_sizes_of_designs():
    """So that fits of similar sizes share a program, at a quarter more work at most."""
    sizes = [design.size(n, 32, 256) for n in range(1, 5000)]
    assert all(made >= n for n, made in enumerate(sizes, 1))
    assert all(made <= 1.25 * n for n, made in enumerate(sizes, 1) if n > 256)
    assert len(set(sizes)) < 25


QUICK = {
    "check_dict_unchanged",
    "check_estimators_nan_inf",
    "check_estimators_pickle",
    "check_fit2d_1sample",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
    "check_no_attributes_set_in_init",
    "check_regressors_train",
}


def quick(check):
    return getattr(check, "func", check).__name__ in QUICK


@pytest.mark.parametrize(
    ("estimator", "check"),
    [pair for pair in estimator_checks_generator(TunedLasso()) if quick(pair[1])],
)
def test_some_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        TunedLasso(),
        TunedWeightedLasso(),
        TunedElasticNet(),
        TunedGroupLasso(),
        TunedSparseLogistic(),
        TunedSVM(),
    ]
)
def test_all_checks_of_scikit_learn(estimator, check):
    check(estimator)
