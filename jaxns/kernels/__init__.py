"""Kernel systems: solved row by row, log determinants, evidence (arXiv 2310.20581, 2107.00243)."""

from jaxns.kernels.dual_descent import DualDescent
from jaxns.kernels.marginal import Estimate, log_det, log_marginal_likelihood, solve
from jaxns.kernels.matrix import GivenMatrix, KernelMatrix, matern32, rbf
from jaxns.kernels.system import System

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
]
