"""Functions that are means over samples, and their minibatches."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns.struct import static, struct
from jaxns.tree import Tree

Term = Callable[[Tree, Tree], Array]  # (x, θ) -> a scalar


@struct
class FiniteSum:
    """f(x, θ) = (1/N) Σ_i f_i(x, θ), f_i the mean over the samples in row i of `blocks`.

    data: what `fun` is given first.   blocks: shape (N, b).
    fun: (data, x, θ, index) -> the mean over the samples in `index`.
    """

    data: Any
    blocks: Array
    fun: Callable[..., Array] = static()

    @property
    def terms(self) -> int:
        """N."""
        return self.blocks.shape[0]

    def draw(self, key: Array) -> Array:
        """i, uniform."""
        return jax.random.randint(key, (), 0, self.terms)

    def term(self, i: Array) -> Term:
        """f_i."""
        return lambda x, theta: self.fun(self.data, x, theta, self.blocks[i])

    def sample(self, key: Array) -> Term:
        """f_i of a random i: E f_i = f, and so for all derivatives."""
        return self.term(self.draw(key))

    def __call__(self, x: Tree, theta: Tree) -> Array:
        return jnp.mean(lax.map(lambda i: self.term(i)(x, theta), jnp.arange(self.terms)))


@struct
class Bilevel:
    """min_θ F(x, θ) with x = argmin_x G(x, θ):   inner: G.   outer: F."""

    inner: FiniteSum
    outer: FiniteSum

    def sample(self, key: Array) -> tuple[Term, Term]:
        """G_i and F_j, i and j independent."""
        of_inner, of_outer = jax.random.split(key)
        return self.inner.sample(of_inner), self.outer.sample(of_outer)


def minibatches(key: Array, samples: int, size: int) -> Array:
    """Blocks of `size` samples, every sample in equally many of them; shape (N, size).

    The samples in a random order are cut into N = samples/size blocks. Where the size does not
    divide their number the cutting goes round and round until it closes: N = samples/gcd.
    """
    order = jax.random.permutation(key, samples)
    starts = jnp.arange(0, samples, math.gcd(samples, size))
    return order[(starts[:, None] + jnp.arange(size)) % samples]
