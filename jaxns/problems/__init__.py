"""What is solved: problem classes, and builders that name common problems."""

from jaxns.problems.classification import (
    logistic_regression,
    multinomial,
    sparse_logistic,
    sparse_multinomial,
)
from jaxns.problems.composite import Composite
from jaxns.problems.covariance import sparse_inverse_covariance
from jaxns.problems.factorisation import nonnegative_matrix_factorisation
from jaxns.problems.ground_cost import PointCloud, PositiveFeatures, gaussian_features
from jaxns.problems.groups import fused_lasso, group_lasso, multitask_lasso
from jaxns.problems.quadratic_program import QuadraticProgram
from jaxns.problems.quantiles import quantile_regression
from jaxns.problems.regression import elastic_net, lasso, nonnegative_least_squares, ridge
from jaxns.problems.root import Root
from jaxns.problems.signals import total_variation, trend_filtering
from jaxns.problems.split_form import SplitForm
from jaxns.problems.svm import kernel_svm, svm, svr
from jaxns.problems.transport import LazyPlan, Transport, TransportPlan

__all__ = [
    "Composite",
    "LazyPlan",
    "PointCloud",
    "PositiveFeatures",
    "QuadraticProgram",
    "Root",
    "SplitForm",
    "Transport",
    "TransportPlan",
    "elastic_net",
    "fused_lasso",
    "gaussian_features",
    "group_lasso",
    "kernel_svm",
    "lasso",
    "logistic_regression",
    "multinomial",
    "multitask_lasso",
    "nonnegative_least_squares",
    "nonnegative_matrix_factorisation",
    "quantile_regression",
    "ridge",
    "sparse_inverse_covariance",
    "sparse_logistic",
    "sparse_multinomial",
    "svm",
    "svr",
    "total_variation",
    "trend_filtering",
]
