"""Draws of networks, and of how many the gradient depends on ReLU'(0) (arXiv 2106.12915)."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxns import nonsmooth
from jaxns.experiments.rounded_networks import (
    Arithmetic,
    count_zeros,
    cross_entropy,
    digits,
    initial,
    network,
)
from jaxns.nonsmooth import bifurcation

Shape = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """first, zeros: (θ,), as of `bifurcation.scan`.   interval: of the fraction of θ in S."""

    first: np.ndarray
    zeros: np.ndarray
    interval: tuple[float, float]
    difference: float
    calls: float

    @property
    def fraction(self) -> float:
        return float(np.mean(self.first >= 0))

    @property
    def rate(self) -> float:
        """Exact zeros per ReLU call."""
        return float(self.zeros.mean() / self.calls)


class Instance:
    """Networks of a shape (depth, width) and an arithmetic, on `count` minibatches of 256."""

    def __init__(self, shape: Shape, arithmetic: Arithmetic, count: int, seed: int) -> None:
        (self.depth, self.width), self.arithmetic, self.seed = shape, arithmetic, seed
        images, labels = digits(256 * count, seed)
        self.calls = 256.0 * count * self.depth * self.width
        self.batches = (
            arithmetic.cast(images.reshape(-1, 256, 784)),
            jnp.asarray(labels.reshape(-1, 256)),
        )

    def init(self, key):
        widths = (784, *(self.width,) * self.depth, 10)
        return self.arithmetic.cast(initial(key, widths))

    def loss(self, params, batch, s):
        images, labels = batch
        relu = partial(nonsmooth.relu, at_zero=s)
        return cross_entropy(network(self.arithmetic, params, images, relu)[0], labels)

    def preactivations(self, params, batch):
        return network(self.arithmetic, params, batch[0], jax.nn.relu)[1]

    def zeros(self, params, batch):
        return count_zeros(self.preactivations(params, batch))

    def volume(self, count: int) -> Drawn:
        key = jax.random.key(self.seed)
        found = bifurcation.volume(self.loss, self.init, self.batches, key, count, zeros=self.zeros)
        first, differences = (np.asarray(a) for a in (found.scans.first, found.scans.difference))
        difference = float(np.median(differences[first >= 0])) if found.fraction else 0.0
        return Drawn(first, np.asarray(found.scans.zeros), found.interval, difference, self.calls)

    def each_batch(self, s1: float, count: int) -> np.ndarray:
        """(θ, minibatches, 2): the exact zeros, and whether ∇₀ and ∇_{s₁} differ."""

        @jax.jit
        def every(key, batches):
            return jax.lax.map(partial(one, self.init(key)), batches)

        def one(params, batch):
            alone = jax.tree.map(lambda leaf: leaf[None], batch)
            found = bifurcation.scan(self.loss, params, alone, 0.0, s1)
            return jnp.stack([self.zeros(params, batch), found.first + 1])

        keys = jax.random.split(jax.random.key(self.seed), count)
        return np.stack([every(key, self.batches) for key in keys])

    def density(self, h: float = 2e-3) -> float:
        """Of a preactivation at 0, on average over layers, samples and 8 θ."""

        @jax.jit
        def near(key, batch):
            z = self.preactivations(self.init(key), batch)
            return jnp.mean(jnp.stack([jnp.mean(jnp.abs(layer) < h) for layer in z])) / (2 * h)

        keys = jax.random.split(jax.random.key(self.seed), 8)
        batch = jax.tree.map(lambda leaf: leaf[0], self.batches)
        return float(np.mean([near(key, batch) for key in keys]))
