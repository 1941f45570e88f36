"""Whether a derivative can be trusted: certificates, reports, one-sided limits."""

from jaxns.trust.certificate import Certificate, certify
from jaxns.trust.one_sided import one_sided
from jaxns.trust.report import Record, with_report

__all__ = ["Certificate", "Record", "certify", "one_sided", "with_report"]
