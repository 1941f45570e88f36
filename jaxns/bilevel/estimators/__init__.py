"""Estimators of scikit-learn's kind that choose their own penalties by hypergradients.

They need scikit-learn, the extra `experiments`; nothing else in jaxns imports them. They compute in
JAX's default type: float32, or float64 where `jax_enable_x64` is set.
"""

from jaxns.bilevel.estimators.classification import TunedSparseLogistic, TunedSVM
from jaxns.bilevel.estimators.regression import (
    TunedElasticNet,
    TunedGroupLasso,
    TunedLasso,
    TunedWeightedLasso,
)
from jaxns.bilevel.estimators.tuned import Tuned

__all__ = [
    "TunedLasso",
    "TunedWeightedLasso",
    "TunedElasticNet",
    "TunedGroupLasso",
    "TunedSparseLogistic",
    "TunedSVM",
    # what they share
    "Tuned",
]
