"""What a program costs, and what its derivative costs beside it (arXiv 2206.01730).

Three accounts: arithmetic operations in the equations of the program (its jaxpr), XLA's of the
compiled program, and the clock's.
"""

from jaxns.nonsmooth.cost.collectives import Collective, collectives
from jaxns.nonsmooth.cost.compiled import Compiled, compiled
from jaxns.nonsmooth.cost.counting import Cost, count
from jaxns.nonsmooth.cost.omega import Omega, omega_table
from jaxns.nonsmooth.cost.ratio import Ratio, ratio

__all__ = [
    "Collective",
    "Compiled",
    "Cost",
    "Omega",
    "Ratio",
    "collectives",
    "compiled",
    "count",
    "omega_table",
    "ratio",
]
