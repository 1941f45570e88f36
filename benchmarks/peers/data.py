"""The data of the comparisons: scikit-learn's own sets, and seeded ones of known difficulty."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.preprocessing import PolynomialFeatures


class Split(NamedTuple):
    """Two thirds to fit, one third to judge by; arrays of NumPy, or sparse ones of SciPy."""

    X: Any
    y: np.ndarray
    V: Any
    w: np.ndarray


def split(X: Any, y: np.ndarray, labels: bool = False) -> Split:
    """At random; features in units of the training part, without constant or repeated ones."""
    order = np.random.RandomState(0).permutation(len(y))
    train, rest = order[: 2 * len(y) // 3], order[2 * len(y) // 3 :]
    if sparse.issparse(X):
        used = np.asarray((X[train] != 0).sum(0)).ravel() > 0
        return Split(X[train][:, used].tocsc(), y[train], X[rest][:, used].tocsc(), y[rest])
    mean, scale = X[train].mean(0), X[train].std(0)
    Z = (X - mean)[:, scale > 0] / scale[scale > 0]
    _, first = np.unique(np.round(np.abs(Z[train]), 9), axis=1, return_index=True)
    Z = Z[:, np.sort(first)]
    if not labels:
        y = (y - y[train].mean()) / y[train].std()
    return Split(Z[train], y[train], Z[rest], y[rest])


def diabetes(degree: int) -> Split:
    X, y = load_diabetes(return_X_y=True)
    if degree == 1:
        return split(X, y)
    return split(PolynomialFeatures(degree, include_bias=False).fit_transform(X), y)


def breast_cancer() -> Split:
    X, y = load_breast_cancer(return_X_y=True)
    return split(X, 2.0 * y - 1, labels=True)


def digits() -> Split:
    """Even against odd."""
    X, y = load_digits(return_X_y=True)
    return split(X, np.where(y % 2, 1.0, -1.0), labels=True)


def correlated(n: int, p: int, correlation: float = 0.5, nonzeros: int = 100) -> Split:
    """n rows to fit of an autoregressive design, noise a fifth of the signal's variance."""
    random = np.random.RandomState(0)
    rows = 3 * n // 2
    X = random.normal(size=(rows, p))
    for j in range(1, p):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    truth = np.zeros(p)
    chosen = random.choice(p, min(nonzeros, p // 2), replace=False)
    truth[chosen] = random.normal(size=len(chosen))
    signal = X @ truth
    return split(X, signal + np.sqrt(0.2) * signal.std() * random.normal(size=rows))


def words(n: int, p: int, each: int = 100) -> Split:
    """Rows of about `each` nonzeros in columns that follow Zipf's law, in tf-idf's weights."""
    random = np.random.RandomState(0)
    rows = 3 * n // 2
    frequency = 1 / np.arange(1, p + 1)
    columns = random.choice(p, size=(rows, each), p=frequency / frequency.sum())
    entries = (np.ones(rows * each), (np.repeat(np.arange(rows), each), columns.ravel()))
    counts = sparse.csr_matrix(entries, shape=(rows, p))
    present = np.asarray((counts > 0).sum(0)).ravel()
    weights = sparse.diags(np.log((1 + rows) / (1 + present)) + 1)
    X = counts.log1p() @ weights
    X = sparse.diags(1 / np.sqrt(np.asarray(X.multiply(X).sum(1)).ravel())) @ X
    truth = np.where(np.arange(p) < p // 20, random.normal(size=p), 0)
    y = X @ truth
    return split(X.tocsr(), y + 0.2 * y.std() * random.normal(size=rows))
