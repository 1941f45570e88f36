"""The mode that suits the solve."""

from typing import Any

from jaxns import validate
from jaxns.fixed_point import Iteration, Run, Stop
from jaxns.modes.implicit import Implicit
from jaxns.modes.piggyback import Piggyback
from jaxns.struct import static, struct
from jaxns.tree import Tree


@struct
class Auto:
    """Differentiate what was asked for: a fixed point implicitly, a number of steps by piggyback.

    A solve with a tolerance is differentiated implicitly; that takes a few terms of the Neumann
    series where these suffice, as `OneStep` would on a superlinear map, and a linear system solved
    by its structure elsewhere. One that was asked for exactly `max_steps` steps (`tol=None`; every
    solver that draws at random) ends at no fixed point: what has a derivative is the iteration that
    ran, `Piggyback`. `jaxns.certify` tells which mode is the cheapest for the accuracy wanted.

    direction: "reverse" or "both", as for `Implicit`.
    """

    direction: str = static(default="reverse")

    def __post_init__(self) -> None:
        validate.choice("direction", self.direction, ("reverse", "both"))

    def run(self, iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
        return self.on(stop).run(iteration, theta, z0, stop)

    def on(self, stop: Stop) -> Implicit | Piggyback:
        """The mode that it is for this stop."""
        how = Piggyback if stop.tol is None else Implicit
        return how(direction=self.direction)
