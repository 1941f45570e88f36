"""jaxns: differentiable nonsmooth optimisation in JAX.

    solution = jaxns.solve(problem, solver, mode=..., stop=...)

Four questions, four arguments: what is solved (a problem, made of functions), how (a solver), when
it stops (a `Stop`), and how it is differentiated (a mode).
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxns import _conflict, batch, bilevel, flows, functions, kernels, modes, nonsmooth, problems
from jaxns.divergence import sinkhorn_divergence
from jaxns.fixed_point import ConvergenceError, Solution, Status, Stop
from jaxns.modes import Auto, Implicit, OneStep, Piggyback, Probe, Shine
from jaxns.problems import Composite, QuadraticProgram, Root, SplitForm, Transport
from jaxns.solve import Path, derivative_path, fixed_point, solve
from jaxns.solvers import (
    ADMM,
    LBFGS,
    Anderson,
    Broyden,
    CoordinateDescent,
    DavisYin,
    DouglasRachford,
    ForwardBackward,
    GradientDescent,
    HeavyBall,
    InteriorPoint,
    Nesterov,
    Newton,
    PrimalDual,
    ProximalNewton,
    Relaxed,
    SelfConcordant,
    Sinkhorn,
    StochasticGradient,
    WorkingSet,
)
from jaxns.solvers.stochastic_gradient import Decreasing
from jaxns.struct import static, struct
from jaxns.taylor import derivatives
from jaxns.trust import (
    Certificate,
    GradientCost,
    Record,
    certify,
    gradient_cost,
    one_sided,
    with_report,
)

if TYPE_CHECKING:
    from jaxns import optimizers

_conflict.check()

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`jaxns.optimizers` when it is asked for: it imports optax."""
    if name == "optimizers":
        return importlib.import_module("jaxns.optimizers")
    raise AttributeError(f"module 'jaxns' has no attribute {name!r}")


__all__ = [
    # what is solved
    "Composite",
    "QuadraticProgram",
    "SplitForm",
    "Root",
    "Transport",
    "functions",
    "problems",
    # how
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
    "Decreasing",
    # when it stops
    "ConvergenceError",
    "Solution",
    "Status",
    "Stop",
    # how it is differentiated
    "Auto",
    "Implicit",
    "OneStep",
    "Piggyback",
    "Probe",
    "Shine",
    "modes",
    # whether it can be trusted
    "Certificate",
    "Record",
    "certify",
    "GradientCost",
    "gradient_cost",
    "one_sided",
    "with_report",
    "nonsmooth",
    # the outer level
    "bilevel",
    # many at once
    "batch",
    # training, and differential equations
    "optimizers",
    "flows",
    "derivatives",
    # kernel matrices
    "kernels",
    # the verbs
    "Path",
    "derivative_path",
    "sinkhorn_divergence",
    "fixed_point",
    "solve",
    # what solvers, problems and functions of one's own are made with
    "static",
    "struct",
]
