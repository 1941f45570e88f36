"""Derivatives where there is none: elements that one chooses, one-sided derivatives, noise.

At a kink a program returns one element of a conservative derivative (arXiv 2206.00457). Which one
is a convention, that of docs/kinks.md; here it can be chosen, and the others can be looked at.
What such a derivative costs is in `jaxns.nonsmooth.cost`.
"""

from jaxns.nonsmooth import bifurcation, cost
from jaxns.nonsmooth.directional import directional_derivative
from jaxns.nonsmooth.elementary import (
    absolute,
    clip,
    leaky_relu,
    maximum,
    minimum,
    norm,
    relu,
    relu6,
    soft_threshold,
)
from jaxns.nonsmooth.perturbed import Gumbel, Normal, perturbed, perturbed_max
from jaxns.nonsmooth.report import KinkReport, is_kink, kink_report
from jaxns.nonsmooth.samples import sample_conservative_jacobians, sample_jacobians
from jaxns.nonsmooth.ties import maxpool, sort

__all__ = [
    # functions whose derivative at a kink is chosen
    "absolute",
    "clip",
    "leaky_relu",
    "maximum",
    "maxpool",
    "minimum",
    "norm",
    "relu",
    "relu6",
    "soft_threshold",
    "sort",
    # derivatives at any point
    "directional_derivative",
    "sample_jacobians",
    "sample_conservative_jacobians",
    # derivatives of the mean under noise
    "Gumbel",
    "Normal",
    "perturbed",
    "perturbed_max",
    # where the kinks are
    "KinkReport",
    "is_kink",
    "kink_report",
    # what a derivative costs
    "cost",
    # what a choice changes in floating point
    "bifurcation",
]
