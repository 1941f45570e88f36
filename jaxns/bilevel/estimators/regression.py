"""Sparse linear regressions."""

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxns.bilevel.criteria import squared
from jaxns.bilevel.estimators import penalties
from jaxns.bilevel.estimators.design import Design, spreads, standardised
from jaxns.bilevel.estimators.tuned import Tuned, Tuning
from jaxns.bilevel.space import Box
from jaxns.functions.groups import Groups
from jaxns.tree import Tree

DECADES = 1e4  # how far below the largest penalty of any use the search goes


class TunedRegressor(RegressorMixin, Tuned):
    """y ≈ Xβ + b. For the regressions to inherit."""

    def fit(self, X: Any, y: Any) -> "TunedRegressor":
        """Choose the penalties by cross-validation, and fit to all samples with them."""
        X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        mean = y.mean() if self.fit_intercept else 0.0
        (self.coef_,), (offset,) = self._tune(X, y, (y - mean)[None])
        self.intercept_ = float(offset + mean)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Xβ + b, (n,)."""
        check_is_fitted(self)
        return validate_data(self, X, reset=False, dtype=np.float64) @ self.coef_ + self.intercept_

    def _name(self, design: Design, theta: Tree) -> None:
        self.alpha_ = float(theta)


class TunedLasso(TunedRegressor):
    """1/(2n) ‖y − Xβ − b‖² + α ‖β‖₁, with α that minimises the cross-validation error.

    `sklearn.linear_model.Lasso(alpha=alpha_)`; the penalty is found as in arXiv 2105.01637.

    cv, fit_intercept, max_iter, tol: see `Tuned`.

    Attributes: alpha_; coef_, (p,); intercept_; history_, a `jaxns.bilevel.History` of the search;
    n_iter_, evaluations made; n_features_in_.
    """

    def _tuning(self, design: Design, targets: np.ndarray) -> Tuning:
        weights = design.spread(1 / design.scale)
        largest = largest_penalty(design, targets, weights)
        space = Box(largest / DECADES, largest, log=True)
        return Tuning(penalties.Lasso(weights), squared, largest / 10, space)


class TunedWeightedLasso(TunedRegressor):
    """1/(2n) ‖y − Xβ − b‖² + Σⱼ αⱼ |βⱼ|, every αⱼ chosen by its partial derivative.

    As many hyperparameters as features, which no grid can search; they can fit the folds too well,
    so look at another test set.

    cv, fit_intercept, max_iter, tol: see `Tuned`.   Attributes: as of `TunedLasso`; alpha_ is (p,).
    """

    def _tuning(self, design: Design, targets: np.ndarray) -> Tuning:
        weights = design.spread(1 / design.scale)
        largest = largest_penalty(design, targets, weights)
        space = Box(largest / DECADES, 10 * largest, log=True)
        return Tuning(penalties.Lasso(weights), squared, 0 * weights + largest / 10, space)

    def _name(self, design: Design, theta: Tree) -> None:
        self.alpha_ = theta[: design.p].astype(np.float64)


class TunedElasticNet(TunedRegressor):
    """1/(2n) ‖y − Xβ − b‖² + α (ρ ‖β‖₁ + (1 − ρ)/2 ‖β‖²), both α and ρ chosen.

    `sklearn.linear_model.ElasticNet(alpha=alpha_, l1_ratio=l1_ratio_)`.

    cv, fit_intercept, max_iter, tol: see `Tuned`.
    Attributes: as of `TunedLasso`, and l1_ratio_. In history_, theta is {"l1": αρ, "l2": α(1 − ρ)}.
    """

    def _tuning(self, design: Design, targets: np.ndarray) -> Tuning:
        weights = design.spread(1 / design.scale)
        l1, l2 = largest_penalty(design, targets, weights), float(np.mean(design.scale**2))
        space = {
            "l1": Box(l1 / DECADES, l1, log=True),
            "l2": Box(l2 / DECADES, 10 * l2, log=True),
        }
        return Tuning(penalties.Net(weights), squared, {"l1": l1 / 10, "l2": l2 / 100}, space)

    def _name(self, design: Design, theta: Tree) -> None:
        self.alpha_ = float(theta["l1"] + theta["l2"])
        self.l1_ratio_ = float(theta["l1"] / self.alpha_)


class TunedGroupLasso(TunedRegressor):
    """1/(2n) ‖y − Xβ − b‖² + α Σ_g √|g| ‖β_g‖₂ (Yuan and Lin 2006), with α chosen.

    groups: a label for each feature, integers; by default each is a group of its own.
    cv, fit_intercept, max_iter, tol: see `Tuned`.   Attributes: as of `TunedLasso`.
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        cv: Any = 5,
        fit_intercept: bool = True,
        max_iter: int = 30,
        tol: float = 1e-4,
    ) -> None:
        super().__init__(cv=cv, fit_intercept=fit_intercept, max_iter=max_iter, tol=tol)
        self.groups = groups

    def _labels(self, p: int) -> np.ndarray:
        """0, 1, … for each feature."""
        if self.groups is None:
            return np.arange(p)
        labels = np.asarray(self.groups)
        if labels.shape != (p,):
            raise ValueError(f"groups must hold a label for each of the {p} features")
        return np.unique(labels, return_inverse=True)[1]

    def _design(self, X: np.ndarray) -> Design:
        """With one scale for each group, so that its norm stays one."""
        labels = self._labels(X.shape[1])
        squares = spreads(X - X.mean(0) if self.fit_intercept else X) ** 2
        scale = np.sqrt(np.bincount(labels, squares) / np.bincount(labels))
        return standardised(X, self.fit_intercept, scale[labels])

    def _tuning(self, design: Design, targets: np.ndarray) -> Tuning:
        labels = self._labels(design.p)
        count = labels.max() + 1
        sizes = np.bincount(labels)
        weights = np.sqrt(sizes) / design.scale[np.unique(labels, return_index=True)[1]]
        slopes = design.slopes(targets)[0]
        largest = _positive(np.max(np.sqrt(np.bincount(labels, slopes**2)) / weights))
        columns = design.spread(labels, intercept=-1, filling=count)  # the filling: one more group
        groups: Any = Groups.read(columns)
        space = Box(largest / DECADES, largest, log=True)
        model = penalties.Grouped(np.append(weights, np.ones(groups.count - count)), groups)
        return Tuning(model, squared, largest / 10, space)


def largest_penalty(design: Design, targets: np.ndarray, weights: np.ndarray) -> float:
    """The least penalty that leaves the intercept alone, for centred targets (T, n)."""
    return _positive(np.max(design.slopes(targets) / weights[: design.p]))


def _positive(largest: Any) -> float:
    return float(largest) if largest > 0 else 1.0
