"""JAXopt's interface on this library's loops, maps and derivatives: see docs/migrating_from_jaxopt.

    import jaxns.compat.jaxopt as jaxopt

runs programs written for JAXopt; `install()` lets those that say `import jaxopt` find it too.
"""

from typing import NoReturn

from jaxns.compat.jaxopt import (
    base,
    elsewhere,
    implicit_diff,
    isotonic,
    linear_solve,
    loop,
    loss,
    objective,
    perturbations,
    projection,
    prox,
    tree_util,
)
from jaxns.compat.jaxopt.alias import install
from jaxns.compat.jaxopt.anderson import AndersonAcceleration
from jaxns.compat.jaxopt.anderson_wrapper import AndersonWrapper
from jaxns.compat.jaxopt.base import ConvergenceWarning, OptStep
from jaxns.compat.jaxopt.block_cd import BlockCoordinateDescent
from jaxns.compat.jaxopt.cd_qp import BoxCDQP
from jaxns.compat.jaxopt.cvxpy_wrapper import CvxpyQP
from jaxns.compat.jaxopt.eq_qp import EqualityConstrainedQP
from jaxns.compat.jaxopt.fixed_point_iteration import FixedPointIteration
from jaxns.compat.jaxopt.gradient_descent import GradientDescent
from jaxns.compat.jaxopt.mirror_descent import MirrorDescent
from jaxns.compat.jaxopt.osqp import OSQP, BoxOSQP
from jaxns.compat.jaxopt.projected_gradient import ProjectedGradient
from jaxns.compat.jaxopt.proximal_gradient import ProximalGradient

__all__ = [
    # modules
    "base",
    "implicit_diff",
    "isotonic",
    "linear_solve",
    "loop",
    "loss",
    "objective",
    "perturbations",
    "projection",
    "prox",
    "tree_util",
    # solvers
    "AndersonAcceleration",
    "AndersonWrapper",
    "BlockCoordinateDescent",
    "BoxCDQP",
    "BoxOSQP",
    "CvxpyQP",
    "EqualityConstrainedQP",
    "FixedPointIteration",
    "GradientDescent",
    "MirrorDescent",
    "OSQP",
    "ProjectedGradient",
    "ProximalGradient",
    "OptStep",
    # what JAXopt has not
    "ConvergenceWarning",
    "install",
]


def __getattr__(name: str) -> NoReturn:
    elsewhere.refuse(name)
