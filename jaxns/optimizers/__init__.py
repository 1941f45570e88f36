"""Optimisers for training, as transformations of optax.

Each is a pair (init, update) that goes wherever one of optax goes: `optax.chain`, `optax.masked`,
`optax.inject_hyperparams`, `optax.multi_transform`. The learning rate is a number or a schedule.
What an optimiser remembers is kept in float32 where the parameters are shorter.
"""

from jaxns.optimizers import inexact
from jaxns.optimizers.cubic import CubicStep, cubic_step
from jaxns.optimizers.inna import inna
from jaxns.optimizers.innaprop import innaprop
from jaxns.optimizers.newton_summary import SummaryState, newton_summary
from jaxns.optimizers.partition import Partition, partition
from jaxns.optimizers.subgradient import subgradient
from jaxns.optimizers.summaries import Summary, summaries

__all__ = [
    # from inertia
    "inna",
    "innaprop",
    # subgradients, exact and not
    "subgradient",
    "inexact",
    # one learning rate per group of parameters, by Newton's method
    "newton_summary",
    "SummaryState",
    # what it is made of
    "partition",
    "Partition",
    "summaries",
    "Summary",
    "cubic_step",
    "CubicStep",
]
