"""Whether a derivative can be trusted, and what it costs: certificates, reports, limits."""

from jaxns.trust.certificate import Certificate, certify
from jaxns.trust.gradient_cost import GradientCost, gradient_cost
from jaxns.trust.one_sided import one_sided
from jaxns.trust.report import Record, with_report

__all__ = [
    "Certificate",
    "GradientCost",
    "Record",
    "certify",
    "gradient_cost",
    "one_sided",
    "with_report",
]
