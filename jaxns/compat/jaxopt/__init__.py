"""JAXopt's interface on this library's loops, maps and derivatives: see docs/migrating_from_jaxopt.

    import jaxns.compat.jaxopt as jaxopt

runs programs written for JAXopt; `install()` lets those that say `import jaxopt` find it too.
"""

from jaxns.compat.jaxopt import base, implicit_diff, loop
from jaxns.compat.jaxopt.alias import install
from jaxns.compat.jaxopt.base import ConvergenceWarning, OptStep

__all__ = [
    # modules
    "base",
    "implicit_diff",
    "loop",
    # solvers
    "OptStep",
    # what JAXopt has not
    "ConvergenceWarning",
    "install",
]
