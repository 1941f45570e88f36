"""The functions problems are made of: `f(x)`, `f.gradient(x)`, `f.prox(x, step)`, `f.lipschitz()`.

Each has what it can have; a solver that needs more says so by name. Penalties, data and weights are
leaves. At a kink every derivative follows the one convention of docs/kinks.md.
"""

from jaxns.functions.groups import L2, GroupL2, SparseGroup
from jaxns.functions.isotonic import Isotonic
from jaxns.functions.largest import Linf, Max
from jaxns.functions.losses import LeastSquares, Logistic, Quadratic, Smooth
from jaxns.functions.nonconvex import MCP, SCAD
from jaxns.functions.norms import L1, ElasticNet, SquaredL2, Zero
from jaxns.functions.sequences import FusedLasso, Slope, TotalVariation1D
from jaxns.functions.sets import Box, NonNegative, Simplex
from jaxns.functions.spectral import Nuclear

__all__ = [
    "L1",
    "L2",
    "MCP",
    "SCAD",
    "Box",
    "ElasticNet",
    "FusedLasso",
    "GroupL2",
    "Isotonic",
    "LeastSquares",
    "Linf",
    "Logistic",
    "Max",
    "NonNegative",
    "Nuclear",
    "Quadratic",
    "Simplex",
    "Slope",
    "Smooth",
    "SparseGroup",
    "SquaredL2",
    "TotalVariation1D",
    "Zero",
]
