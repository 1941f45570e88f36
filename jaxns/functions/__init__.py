"""The functions problems are made of: `f(x)`, `f.gradient(x)`, `f.prox(x, step)`, `f.lipschitz()`.

Each has what it can have; a solver that needs more says so by name. Penalties, data and weights are
leaves. At a kink every derivative follows the one convention of docs/kinks.md.
"""

from jaxns.functions.affine import AffineSet, HalfSpace, Hyperplane, Linear
from jaxns.functions.balls import L1Ball, L2Ball, LinfBall
from jaxns.functions.birkhoff import Birkhoff
from jaxns.functions.box_section import BoxSection
from jaxns.functions.calculus import Conjugate, MoreauEnvelope, Precompose, Scale, Translate
from jaxns.functions.cones import PositiveSemidefinite, SecondOrderCone
from jaxns.functions.differences import Differences, ImageGradient
from jaxns.functions.exponential_cone import ExponentialCone
from jaxns.functions.groups import L2, GroupL2, SparseGroup
from jaxns.functions.isotonic import Isotonic
from jaxns.functions.largest import Linf, Max
from jaxns.functions.logdet import LogDet
from jaxns.functions.losses import Huber, Logistic, Multinomial, Poisson, SquaredHinge
from jaxns.functions.model_loss import ModelLoss
from jaxns.functions.nonconvex import MCP, SCAD
from jaxns.functions.norms import L1, ElasticNet, SquaredL2, Zero
from jaxns.functions.polyhedron import Polyhedron
from jaxns.functions.predictor import Hinge, Pinball
from jaxns.functions.quadratics import Gram, LeastSquares, Quadratic, SquaredDistance
from jaxns.functions.sequences import FusedLasso, Slope, TotalVariation1D
from jaxns.functions.sets import Box, NonNegative, Simplex
from jaxns.functions.smooth import Smooth
from jaxns.functions.spectral import Nuclear
from jaxns.functions.sums import Separable, Sum

__all__ = [
    "AffineSet",
    "Birkhoff",
    "Box",
    "BoxSection",
    "Conjugate",
    "Differences",
    "ElasticNet",
    "ExponentialCone",
    "FusedLasso",
    "Gram",
    "GroupL2",
    "HalfSpace",
    "Hinge",
    "Huber",
    "Hyperplane",
    "ImageGradient",
    "Isotonic",
    "L1",
    "L1Ball",
    "L2",
    "L2Ball",
    "LeastSquares",
    "Linear",
    "Linf",
    "LinfBall",
    "LogDet",
    "Logistic",
    "MCP",
    "Max",
    "ModelLoss",
    "MoreauEnvelope",
    "Multinomial",
    "NonNegative",
    "Nuclear",
    "Pinball",
    "Poisson",
    "Polyhedron",
    "PositiveSemidefinite",
    "Precompose",
    "Quadratic",
    "SCAD",
    "Scale",
    "SecondOrderCone",
    "Separable",
    "Simplex",
    "Slope",
    "Smooth",
    "SparseGroup",
    "SquaredDistance",
    "SquaredHinge",
    "SquaredL2",
    "Sum",
    "TotalVariation1D",
    "Translate",
    "Zero",
]
