"""Flows of X′ = f(X, θ, t), f with kinks, and their derivatives (arXiv 2201.03819).

What is differentiated is the scheme that ran: `jax.jvp` of these functions is the discrete forward
sensitivity, `jax.grad` the discrete adjoint, with one selection of the kinks of f in both, that of
the functions which f is made of (`jaxns.nonsmooth`).
"""

from jaxns.flows.integrate import cost, integrate
from jaxns.flows.path_test import PathTest, path_test

__all__ = [
    "integrate",
    "cost",
    "path_test",
    "PathTest",
]
