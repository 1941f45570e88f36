"""The functions problems are made of: `f(x)`, `f.gradient(x)`, `f.prox(x, step)`, `f.lipschitz()`.

Each has what it can have; a solver that needs more says so by name. Penalties, data and weights are
leaves. At a kink every derivative follows the one convention of docs/kinks.md.
"""

from jaxns.functions.losses import LeastSquares, Logistic, Quadratic, Smooth
from jaxns.functions.norms import L1, ElasticNet, SquaredL2, Zero
from jaxns.functions.sets import Box, NonNegative, Simplex

__all__ = [
    "L1",
    "Box",
    "ElasticNet",
    "LeastSquares",
    "Logistic",
    "NonNegative",
    "Quadratic",
    "Simplex",
    "Smooth",
    "SquaredL2",
    "Zero",
]
