"""Kernel systems solved row by row, likelihoods, evidence by tangent kernels.

arXiv 2310.20581 (`DualDescent`), 2107.00243 (`log_det`), 2306.03968 (`tangent_log_det`).
"""

from jaxns.kernels.dual_descent import DualDescent
from jaxns.kernels.marginal import Estimate, log_det, log_marginal_likelihood, solve
from jaxns.kernels.matrix import GivenMatrix, KernelMatrix, matern32, rbf
from jaxns.kernels.system import System
from jaxns.kernels.tangent import tangent_log_det

__all__ = [
    "DualDescent",
    "Estimate",
    "GivenMatrix",
    "KernelMatrix",
    "System",
    "log_det",
    "log_marginal_likelihood",
    "matern32",
    "rbf",
    "solve",
    "tangent_log_det",
]
