"""Linear classifiers; of more than two classes each against the rest."""

from typing import Any

import numpy as np
from scipy.special import expit, log_expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxns.bilevel.criteria import logistic, squared_hinge
from jaxns.bilevel.estimators import penalties
from jaxns.bilevel.estimators.design import Design
from jaxns.bilevel.estimators.regression import DECADES, largest_penalty
from jaxns.bilevel.estimators.tuned import Tuned, Tuning
from jaxns.bilevel.space import Box
from jaxns.tree import Tree


class TunedClassifier(ClassifierMixin, Tuned):
    """The class c of the largest xᵀw_c + b_c. For the classifiers to inherit."""

    def fit(self, X: Any, y: Any) -> "TunedClassifier":
        """Choose the penalty by cross-validation, and fit to all samples with it."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold two classes at least, got one class: {self.classes_}")
        targets = 2.0 * (labels == np.arange(len(self.classes_))[:, None]) - 1
        targets = targets[1:] if len(targets) == 2 else targets
        self.coef_, self.intercept_ = self._tune(X, y, targets)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """xᵀw_c + b_c, (n, classes); of two classes that of the second, (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        score = X @ self.coef_.T + self.intercept_
        return score[:, 0] if score.shape[1] == 1 else score

    def predict(self, X: Any) -> np.ndarray:
        """The label of each sample."""
        score = self.decision_function(X)
        return self.classes_[score.argmax(1) if score.ndim == 2 else (score > 0).astype(int)]


class TunedSparseLogistic(TunedClassifier):
    """1/n Σᵢ log(1 + exp(−yᵢ (xᵢᵀw + b))) + α ‖w‖₁, with α that minimises the held-out log loss.

    `LogisticRegression(l1_ratio=1, C=1 / (n * alpha_))` but for liblinear's penalty on the
    intercept. One α for all classes, each fitted against the rest.

    cv, fit_intercept, max_iter, tol: see `Tuned`; folds are stratified.
    Attributes: alpha_; classes_; coef_, (1 or classes, p); intercept_; history_; n_iter_;
    n_features_in_.
    """

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (n, classes); of more than two, scaled to sum to 1."""
        score = self.decision_function(X)
        if score.ndim == 1:
            return expit(np.stack([-score, score], axis=1))
        return softmax(log_expit(score), axis=1)

    def _tuning(self, design: Design, targets: np.ndarray) -> Tuning:
        weights = design.spread(1 / design.scale)
        mean = targets.mean(1, keepdims=True) if self.fit_intercept else 0
        largest = largest_penalty(design, (targets - mean) / 2, weights)
        space = Box(largest / DECADES, largest, log=True)
        return Tuning(penalties.SparseLogistic(weights), logistic, largest / 10, space)

    def _name(self, design: Design, theta: Tree) -> None:
        self.alpha_ = float(theta)


class TunedSVM(TunedClassifier):
    """½ ‖w‖² + C Σᵢ max(0, 1 − yᵢ (xᵢᵀw + b))², with C of the least squared hinge held out.

    `sklearn.svm.LinearSVC(C=C_)`, without its penalty on the intercept. One C for all classes, each
    fitted against the rest. (For the hinge not squared: `cross_validation` of `problems.svm`.)

    cv, fit_intercept, max_iter, tol: see `Tuned`; folds are stratified.
    Attributes: as of `TunedSparseLogistic`, with C_ for alpha_.
    """

    def _tuning(self, design: Design, targets: np.ndarray) -> Tuning:
        typical = float(np.exp(2 * np.mean(np.log(design.scale))))  # square of a feature
        start = 10 / (design.n * typical)
        space = Box(start / DECADES, start * DECADES, log=True)
        model = penalties.Machine(design.spread(1 / design.scale**2))
        return Tuning(model, squared_hinge, start, space, scale="sum")

    def _name(self, design: Design, theta: Tree) -> None:
        self.C_ = float(theta)
