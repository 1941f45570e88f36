"""How a fixed point is differentiated: one file a mode, none of which knows a solver's name.

A mode is any object with

    run(iteration, theta, z0, stop) -> Run

that iterates and attaches its derivative rule to the result. Modes differ only in the rule. One
that is an inverse of I − ∂F, exact or not, needs nothing but `invert`: see `jaxns.modes.rule`, and
the notebook "Write your own mode".
"""

from typing import Any, Protocol

from jaxns.fixed_point import Iteration, Run, Stop
from jaxns.linear import Report
from jaxns.modes import rule
from jaxns.modes.auto import Auto
from jaxns.modes.implicit import Implicit
from jaxns.modes.one_step import OneStep
from jaxns.modes.piggyback import Piggyback
from jaxns.modes.probe import Probe
from jaxns.modes.shine import Shine
from jaxns.tree import Tree

__all__ = [
    "Auto",
    "Implicit",
    "OneStep",
    "Piggyback",
    "Probe",
    "Shine",
    # what a mode of one's own is made with
    "Mode",
    "Report",
    "rule",
]


class Mode(Protocol):
    """A rule for the derivative of a fixed point.

    Optional:

    cost(steps, adjoint_steps, z, control): evaluations of F (or products with its Jacobian) and
        bytes of a backward pass, for a state like that. Without it `certify` recommends the mode
        only where no other is accurate enough.
    work(steps, adjoint_steps, z, control): what that backward pass is made of, a
        `jaxns.modes.work.Work`, from which `gradient_cost` foresees its operations.
    pointwise: True where the derivative depends on the last point only.
    own_loop: True where `run` does not iterate by `iteration.loop`. Many problems are then run in
        groups by `jaxns.batch.solve`, each to the end of its slowest.
    """

    @property
    def direction(self) -> str: ...

    def run(self, iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run: ...
