"""Regressions whose coefficients are chosen together, scaled as in `regression`."""

from typing import Any

from jax import Array

from jaxns.functions import FusedLasso, GroupL2
from jaxns.problems.composite import Composite
from jaxns.problems.samples import mean_squares


def group_lasso(
    X: Any, y: Any, penalty: Any, groups: Any, sample_weight: Array | None = None
) -> Composite:
    """1/(2n) ‖y − Xβ‖² + Σ_g penalty_g ‖β_g‖₂ (Yuan and Lin 2006, without their √|g|).

    penalty: a number, or one for each group.   groups: a label for each feature, or disjoint lists
        of features; see `jaxns.functions.GroupL2`.
    """
    return Composite(mean_squares(X, y, sample_weight), GroupL2(penalty, groups))


def multitask_lasso(X: Any, Y: Any, penalty: Any, sample_weight: Array | None = None) -> Composite:
    """1/(2n) ‖Y − Xβ‖² + penalty Σⱼ ‖βⱼ‖₂, βⱼ the rows of β: a feature is in all tasks or in none.

    `sklearn.linear_model.MultiTaskLasso(alpha=penalty)`, whose `coef_` is βᵀ.

    Y: (n, tasks).   penalty: a number, or one for each feature.
    """
    return Composite(mean_squares(X, Y, sample_weight, 2, "Y"), GroupL2(penalty))


def fused_lasso(X: Any, y: Any, l1: Any, tv: Any, sample_weight: Array | None = None) -> Composite:
    """1/(2n) ‖y − Xβ‖² + l1 Σⱼ |βⱼ| + tv Σⱼ |βⱼ₊₁ − βⱼ| (Tibshirani et al. 2005).

    l1: a number.   tv: a number, or one for each difference.
    """
    return Composite(mean_squares(X, y, sample_weight, 1), FusedLasso(l1, tv))
