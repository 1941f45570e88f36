"""Programs written for another library, run as they are on this one's solvers and derivatives."""

from jaxns.compat import jaxopt

__all__ = ["jaxopt"]
