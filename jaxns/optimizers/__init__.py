"""Optimisers for training, as transformations of optax.

Each is a pair (init, update) that goes wherever one of optax goes: `optax.chain`, `optax.masked`,
`optax.inject_hyperparams`, `optax.multi_transform`. The learning rate is a number or a schedule.
What an optimiser remembers is kept in float32 where the parameters are shorter.
"""

from jaxns.optimizers import inexact
from jaxns.optimizers.inna import inna
from jaxns.optimizers.innaprop import innaprop
from jaxns.optimizers.subgradient import subgradient

__all__ = [
    "inna",
    "innaprop",
    "subgradient",
    "inexact",
]
