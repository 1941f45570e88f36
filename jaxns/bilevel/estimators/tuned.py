"""What the estimators share: folds in, penalties and coefficients out."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import check_cv

from jaxns.bilevel.criteria import Fit, HeldOut
from jaxns.bilevel.estimators.design import Design, standardised
from jaxns.bilevel.levels import Bilevel
from jaxns.bilevel.minimize import Result
from jaxns.fixed_point import Stop
from jaxns.modes import Implicit
from jaxns.struct import seal
from jaxns.tree import Tree

INNER = 1e-8  # tolerance of the inner solves
PATIENCE = 20_000  # steps of one
ENOUGH = 5  # evaluations that gain nothing


class Tuning(NamedTuple):
    """What an estimator tunes.

    model: (Z, y, θ, sample_weight=w) -> problem.   loss: what a held-out sample is charged.
    theta0, space: where θ starts, and where it lies.
    scale: "mean" or "sum", as for `jaxns.bilevel.cross_validation`.
    """

    model: Callable
    loss: Callable
    theta0: Tree
    space: Any
    scale: str = "mean"


class Tuned(BaseEstimator):
    """Linear models that choose their penalties by the gradient of the cross-validation error.

    cv: number of folds, a splitter of `sklearn.model_selection`, or an iterable of (train, test)
        indices; `ShuffleSplit(1, test_size=0.25)` holds out a quarter once.
    fit_intercept: whether there is one, without penalty.
    max_iter: evaluations of the cross-validation error, each with its gradient, at most.
    tol: ends where the norm of the gradient, in the logarithms of the penalties, is this fraction
        of the error, or where five evaluations have gained less than that.
    """

    def __init__(
        self, *, cv: Any = 5, fit_intercept: bool = True, max_iter: int = 30, tol: float = 1e-4
    ) -> None:
        self.cv = cv
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol

    def _design(self, X: np.ndarray) -> Design:
        return standardised(X, self.fit_intercept)

    def _tuning(self, design: Design, targets: np.ndarray) -> Tuning:
        """What is tuned, for targets (T, n)."""
        raise NotImplementedError

    def _name(self, design: Design, theta: Tree) -> None:
        """Set the attributes that hold the penalties."""
        raise NotImplementedError

    def _tune(self, X: np.ndarray, y: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, Any]:
        """Coefficients, (T, p), and intercepts of the fits to X and each of the targets, (T, n).

        With the θ of the least mean loss, over folds and targets, on what was held out of y.
        """
        splitter: Any = check_cv(self.cv, y, classifier=is_classifier(self))
        design = self._design(X)
        how = self._tuning(design, targets)
        result = self._search(design, targets, splitter.split(X, y), how)
        self._name(design, jax.device_get(result.theta))
        return design.coefficients(result.x[-len(targets) :])

    def _search(self, design: Design, targets: np.ndarray, splits: Iterable, how: Tuning) -> Result:
        """The last of the solutions are those for all samples, one for each target."""
        tasks, real = len(targets), design.Z.dtype
        train, test = (design.pad(mask) for mask in masks(splits, design.n))
        used = np.concatenate([train, design.pad(np.ones((1, design.n)))])
        weights = used / used.mean(1, keepdims=True) if how.scale == "mean" else used
        y = np.asarray(design.pad(targets), real)
        every = {
            "y": np.tile(y, (len(used), 1)),
            "sample_weight": np.repeat(weights, tasks, axis=0).astype(real),
        }
        parts = {
            "y": np.tile(y, (len(test), 1)),
            "weights": np.repeat(test, tasks, axis=0).astype(real),
        }
        outer = HeldOut(design.Z, None, how.loss, parts=parts)
        criterion = jax.tree.map(
            jnp.asarray, seal(Bilevel(outer, Fit(how.model, design.Z, None), every))
        )
        result = criterion.minimize(
            jax.tree.map(lambda a: jnp.asarray(a, real), how.theta0),
            space=how.space,
            mode=Implicit(on_failure="ignore"),
            stop=Stop(tol=INNER, max_steps=PATIENCE, on_failure="ignore"),
            steps=self.max_iter,
            tol=self.tol,
            callback=_Settled(self.tol),
        )
        if not np.all(result.solution.status.ok):
            warnings.warn(
                f"of the fits to the folds and to all samples {result.solution.status}: is the "
                "data scaled badly, or a penalty near zero?",
                ConvergenceWarning,
                stacklevel=4,
            )
        self.history_, self.n_iter_ = result.history, len(result.history.value)
        return result


class _Settled:
    """Whether the last evaluations have not found anything better by the fraction `tol`.

    The error has kinks, where no gradient gets small.
    """

    def __init__(self, tol: float) -> None:
        self.tol, self.best, self.since = tol, np.inf, 0

    def __call__(self, number: int, row: Any) -> bool:
        better = row.value < self.best - self.tol * abs(row.value)
        self.best = min(self.best, row.value)
        self.since = 0 if better else self.since + 1
        return self.since >= ENOUGH


def masks(splits: Iterable, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n samples each split trains on, and which it holds out: (K, n) of 0 and 1."""

    def mask(index):
        row = np.zeros(n)
        row[index] = 1
        return row

    train, test = zip(*((mask(a), mask(b)) for a, b in splits), strict=True)
    return np.stack(train), np.stack(test)
