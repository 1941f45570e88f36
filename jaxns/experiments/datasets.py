"""Samples for the studies of hyperparameters: scikit-learn's own sets, and random ones by shape.

The papers' sets (leukemia, rcv1, news20, real-sim, gina, 20newsgroups) must be downloaded; in their
place stand `dense` (fewer rows than columns, as leukemia has) and `text` (many rare words, rows of
length one, as the others have).
"""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.preprocessing import PolynomialFeatures

from jaxns.experiments.config import Count, Section
from jaxns.experiments.data import distinct_columns

Name = Literal["diabetes", "breast_cancer", "digits", "dense", "text"]
WORDS = 60  # of a text, on average


class Source(Section):
    """Which samples.   rows, columns, seed: of the random ones."""

    name: Name = "dense"
    rows: Count = 100
    columns: Count = 300
    seed: Annotated[int, Field(ge=0)] = 0


def load(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """X (n, p), and targets y (n,) with mean 0 and variance 1: of classes, two values.

    Columns of X have mean 0 and variance 1, without constant ones; rows of a text have length 1.
    """
    X, y = classes(source)
    y = y % 2 if source.name == "digits" else y
    return X, (y - y.mean()) / y.std()


def classes(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """X like that, and the targets as they come: of digits, 0 to 9."""
    X: Any
    y: Any
    match source.name:
        case "diabetes":
            bunch = load_diabetes(return_X_y=True)
            expand = PolynomialFeatures(2, include_bias=False)
            X, y = expand.fit_transform(bunch[0]), bunch[1]
        case "breast_cancer":
            X, y = load_breast_cancer(return_X_y=True)
        case "digits":
            X, y = load_digits(return_X_y=True)
        case "dense":
            X, y = _dense(source)
        case "text":
            X, y = _text(source)
    if source.name != "text":
        X = X[:, X.std(0) > 0]
        X = (X - X.mean(0)) / X.std(0)
    if source.name == "diabetes":
        X = X[:, distinct_columns(X)]  # the square of the two-valued `sex` copies it
    return X, y


def labels(y: np.ndarray) -> np.ndarray:
    """−1 and 1: on which side of the mean."""
    return np.where(y > 0, 1.0, -1.0)


def _dense(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Independent normal features, of which ten matter, and noise."""
    random = np.random.default_rng(source.seed)
    X = random.normal(size=(source.rows, source.columns))
    truth = np.zeros(source.columns)
    truth[random.choice(source.columns, min(10, source.columns), replace=False)] = 1
    return X, X @ truth + 0.5 * random.normal(size=source.rows)


def _text(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Counts of words by Zipf's law, a tenth of which one class uses more; tf-idf; two classes."""
    random = np.random.default_rng(source.seed)
    n, p = source.rows, source.columns
    common = 1 / np.arange(1, p + 1)
    tilt = np.where(random.random(p) < 0.1, random.normal(size=p), 0)
    y = np.arange(n) % 2
    frequencies = common * np.exp(np.outer(2 * y - 1, tilt))
    frequencies /= frequencies.sum(1, keepdims=True)
    lengths = 1 + random.poisson(WORDS, size=n)
    counts = np.stack([random.multinomial(k, f) for k, f in zip(lengths, frequencies, strict=True)])
    counts = counts[:, counts.any(0)]
    X = np.log1p(counts) * np.log(n / np.count_nonzero(counts, axis=0))
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-300), y
