r"""Bilevel problems whose both levels are means over samples, seen a minibatch at a time.

    min_θ h(θ) = F(x*(θ), θ),   x*(θ) = argmin_x G(x, θ),   F = mean_j F_j,   G = mean_i G_i

`minimize` makes the steps of a method; a method is one file. The papers on SOBA, SABA and their
kin write z for x and x for θ; here x is the inner unknown throughout, as everywhere in jaxns.
"""

from jaxns.bilevel.stochastic.amigo import AmIGO
from jaxns.bilevel.stochastic.minimize import Method, Result, minimize
from jaxns.bilevel.stochastic.piggyback_sgd import PiggybackSGD
from jaxns.bilevel.stochastic.problems import Task, data_cleaning, regularisation_selection
from jaxns.bilevel.stochastic.saba import SABA
from jaxns.bilevel.stochastic.soba import SOBA
from jaxns.bilevel.stochastic.stepsizes import Power
from jaxns.bilevel.stochastic.stocbio import StocBiO

__all__ = [
    "minimize",
    "Result",
    # methods
    "Method",
    "SOBA",
    "SABA",
    "StocBiO",
    "AmIGO",
    "PiggybackSGD",
    "Power",
    # problems
    "Task",
    "data_cleaning",
    "regularisation_selection",
]
