"""How a problem is solved: one algorithm, one file, with no loop and no derivative in it."""

from jaxns.solvers.anderson import Anderson
from jaxns.solvers.forward_backward import ForwardBackward
from jaxns.solvers.gradient_descent import GradientDescent
from jaxns.solvers.heavy_ball import HeavyBall
from jaxns.solvers.interior_point import InteriorPoint
from jaxns.solvers.nesterov import Nesterov
from jaxns.solvers.relaxed import Relaxed

__all__ = [
    "Anderson",
    "ForwardBackward",
    "GradientDescent",
    "HeavyBall",
    "InteriorPoint",
    "Nesterov",
    "Relaxed",
]
