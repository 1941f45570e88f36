"""What is solved: problem classes, and builders that name common problems."""

from jaxns.problems.builders import (
    elastic_net,
    lasso,
    logistic_regression,
    nonnegative_least_squares,
    ridge,
)
from jaxns.problems.composite import Composite
from jaxns.problems.quadratic_program import QuadraticProgram

__all__ = [
    "Composite",
    "QuadraticProgram",
    "elastic_net",
    "lasso",
    "logistic_regression",
    "nonnegative_least_squares",
    "ridge",
]
