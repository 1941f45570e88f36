"""How a problem is solved: one algorithm, one file, with no loop and no derivative in it."""

from jaxns.solvers.admm import ADMM
from jaxns.solvers.anderson import Anderson
from jaxns.solvers.broyden import Broyden
from jaxns.solvers.coordinate_descent import CoordinateDescent
from jaxns.solvers.davis_yin import DavisYin
from jaxns.solvers.douglas_rachford import DouglasRachford
from jaxns.solvers.forward_backward import ForwardBackward
from jaxns.solvers.gradient_descent import GradientDescent
from jaxns.solvers.heavy_ball import HeavyBall
from jaxns.solvers.interior_point import InteriorPoint
from jaxns.solvers.lbfgs import LBFGS
from jaxns.solvers.nesterov import Nesterov
from jaxns.solvers.newton import Newton
from jaxns.solvers.primal_dual import PrimalDual
from jaxns.solvers.proximal_newton import ProximalNewton
from jaxns.solvers.relaxed import Relaxed
from jaxns.solvers.self_concordant import SelfConcordant
from jaxns.solvers.sinkhorn import Sinkhorn
from jaxns.solvers.stochastic_gradient import StochasticGradient
from jaxns.solvers.working_set import WorkingSet

__all__ = [
    "ADMM",
    "Anderson",
    "Broyden",
    "CoordinateDescent",
    "DavisYin",
    "DouglasRachford",
    "ForwardBackward",
    "GradientDescent",
    "HeavyBall",
    "InteriorPoint",
    "LBFGS",
    "Nesterov",
    "Newton",
    "PrimalDual",
    "ProximalNewton",
    "Relaxed",
    "SelfConcordant",
    "Sinkhorn",
    "StochasticGradient",
    "WorkingSet",
]
