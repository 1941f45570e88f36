"""Criteria: what a choice of hyperparameters is judged by, each a `jaxns.bilevel.Bilevel`."""

from jaxns.bilevel.criteria.held_out import Fit, HeldOut, cross_validation, holdout, multitask
from jaxns.bilevel.criteria.losses import (
    cross_entropy,
    hinge,
    linear,
    logistic,
    squared,
    squared_hinge,
)
from jaxns.bilevel.criteria.risk import gcv, leave_one_out, sure

__all__ = [
    "holdout",
    "cross_validation",
    "multitask",
    "leave_one_out",
    "gcv",
    "sure",
    # what the first three are made of
    "Fit",
    "HeldOut",
    "linear",
    "squared",
    "logistic",
    "cross_entropy",
    "hinge",
    "squared_hinge",
]
