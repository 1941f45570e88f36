"""Bilevel optimisation: choose what defines a problem by the gradient through its solution."""

from jaxns.bilevel import stochastic
from jaxns.bilevel.descent import adaptive
from jaxns.bilevel.levels import Bilevel
from jaxns.bilevel.minimize import History, Result, minimize, scan
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
]
