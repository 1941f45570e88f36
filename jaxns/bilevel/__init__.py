"""Bilevel optimisation: choose what defines a problem by the gradient through its solution."""

from jaxns.bilevel import criteria, stochastic
from jaxns.bilevel.criteria import (
    cross_validation,
    gcv,
    holdout,
    leave_one_out,
    multitask,
    sure,
)
from jaxns.bilevel.descent import adaptive
from jaxns.bilevel.levels import Bilevel
from jaxns.bilevel.minimize import History, Result, minimize, scan
from jaxns.bilevel.search import grid_search, product, random_search
from jaxns.bilevel.space import Box, Free, Positive

__all__ = [
    "minimize",
    "scan",
    "adaptive",
    "Bilevel",
    "Box",
    "Free",
    "Positive",
    "History",
    "Result",
    "stochastic",
    # criteria
    "criteria",
    "holdout",
    "cross_validation",
    "multitask",
    "leave_one_out",
    "gcv",
    "sure",
    # baselines
    "grid_search",
    "random_search",
    "product",
]
