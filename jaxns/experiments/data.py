"""Data: a table with polynomial features, split to validate; and random regressions."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import PolynomialFeatures

from jaxns.experiments import csv_table
from jaxns.experiments.config import Data, Problem
from jaxns.experiments.reporting import ExperimentError


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Features and targets to train and to validate on, in units of the training split.

    Features are centred and scaled to variance one, targets too: a validation error of 1 is about
    that of predicting the mean.
    """

    X: np.ndarray
    y: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray
    names: tuple[str, ...]

    @property
    def penalty_max(self) -> float:
        """The smallest penalty whose lasso solution is zero, ‖Xᵀy‖_∞ / n."""
        return float(np.abs(self.X.T @ self.y).max() / len(self.y))


def split_of(config: Data) -> Split:
    """The hold-out split; columns that copy an earlier one exactly are dropped.

    `sex` of the diabetes data takes two values, hence `sex^2` is an affine copy of it, and the
    lasso solution would not be unique.
    """
    if config.path is None:
        bunch: Any = load_diabetes()
        table, targets, columns = bunch.data, bunch.target, bunch.feature_names
    else:
        table, targets, columns = csv_table.read(
            Path(config.path), str(config.target), config.ignore
        )
    expand = PolynomialFeatures(config.degree, include_bias=False)
    features = expand.fit_transform(table)
    order = np.random.RandomState(config.seed).permutation(len(targets))
    n = round((1 - config.validation_fraction) * len(targets))
    train, validate = order[:n], order[n:]

    mean, scale = features[train].mean(0), features[train].std(0)
    varies = scale > 0
    Z = (features - mean) / np.where(varies, scale, 1)
    kept = [j for j in distinct_columns(Z[train]) if varies[j]]
    Z = Z[:, kept]
    if not kept or not targets[train].std() > 0:
        what = "no feature" if not kept else f"the target {config.target!r}"
        raise ExperimentError(f"{config.name}: {what} varies in the {n} rows to train on")
    t = (targets - targets[train].mean()) / targets[train].std()
    names = expand.get_feature_names_out(columns)
    return Split(Z[train], t[train], Z[validate], t[validate], tuple(names[kept]))


def distinct_columns(Z: np.ndarray) -> list[int]:
    """The columns that are not ± an earlier one; Z is standardised."""
    correlation = np.abs(Z.T @ Z) / len(Z)
    kept: list[int] = []
    for j in range(Z.shape[1]):
        if not np.any(correlation[j, kept] > 1 - 1e-10):
            kept.append(j)
    return kept


@dataclasses.dataclass(frozen=True, eq=False)
class Instances:
    """A batch of regressions: A (r, n, p), b (r, n), and the penalty θ (r,) of each."""

    A: np.ndarray
    b: np.ndarray
    theta: np.ndarray


def random_regressions(problem: Problem, repetitions: int) -> Instances:
    """Independent instances of `problem`; the first ones do not depend on how many there are."""
    draws = [_random_regression(problem, (problem.seed, r)) for r in range(repetitions)]
    A, b = (np.stack(arrays) for arrays in zip(*draws, strict=True))
    theta = problem.penalty_ratio * np.abs(np.einsum("rnp,rn->rp", A, b)).max(1)
    return Instances(A, b, theta)


def _random_regression(problem: Problem, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    A = random.normal(size=(problem.rows, problem.columns))
    A /= np.sqrt(problem.rows) if problem.scaled else 1
    x0 = np.zeros(problem.columns)
    x0[: problem.nonzeros] = 1
    return A, A @ x0 + problem.noise * random.normal(size=problem.rows)
