"""Fully connected networks in 16, 32 or 64 bits, on digits like those of MNIST.

For the experiments on ReLU'(0) (arXiv 2106.12915): how preactivations are rounded decides how many
of them are exactly 0.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

Params = list[tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """dtype: of weights and activations; sums are accumulated in float32 or better.

    fused: the bias is added before the sum is rounded to `dtype`, as GPUs do, and not after.
    """

    dtype: str
    fused: bool = True

    @property
    def label(self) -> str:
        return self.dtype if self.fused else f"{self.dtype}, rounded before the bias"

    def affine(self, h: Array, W: Array, b: Array) -> Array:
        """h W + b."""
        accumulator = jnp.promote_types(h.dtype, jnp.float32)
        z = jnp.dot(h, W, preferred_element_type=accumulator)
        if not self.fused:
            return z.astype(h.dtype) + b
        return (z + b.astype(accumulator)).astype(h.dtype)

    def cast(self, x: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(self.dtype), x)


def initial(key: Array, widths: Sequence[int]) -> Params:
    """Weights (in, out) and biases uniform in ±1/√in, as PyTorch starts them, in float32."""
    params = []
    keys = jax.random.split(key, len(widths) - 1)
    for layer, n, m in zip(keys, widths[:-1], widths[1:], strict=True):
        bound = n**-0.5
        drawn = jax.random.uniform(layer, (n + 1, m), jnp.float32, -bound, bound)
        params.append((drawn[:-1], drawn[-1]))
    return params


def network(
    arithmetic: Arithmetic,
    params: Params,
    x: Array,
    relu: Callable[[Array], Array],
    norm: Callable[[Array], Array] | None = None,
) -> tuple[Array, list[Array]]:
    """The logits, in float32 or better, and the preactivations, to which `norm` was applied."""
    h, preactivations = x, []
    for W, b in params[:-1]:
        z = arithmetic.affine(h, W, b)
        preactivations.append(z if norm is None else norm(z))
        h = relu(preactivations[-1])
    logits = arithmetic.affine(h, *params[-1])
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), preactivations


def normalised(z: Array) -> Array:
    """Layer norm without parameters, computed in float32."""
    exact = z.astype(jnp.float32)
    centred = exact - jnp.mean(exact, -1, keepdims=True)
    return (centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)).astype(z.dtype)


def count_zeros(preactivations: Sequence[Array]) -> Array:
    return sum((jnp.sum(z == 0) for z in preactivations), start=jnp.zeros((), int))


def cross_entropy(logits: Array, labels: Array) -> Array:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
    return -jnp.mean(chosen)


def digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 784) in [0, 1] with 8-bit grey levels, and their labels: a stand-in for MNIST.

    scikit-learn's 8 × 8 digits, enlarged to 20 × 20, with the contrast of pen strokes, each at a
    random place in 28 × 28. As in MNIST, about a fifth of the pixels are not 0.
    """
    random = np.random.default_rng(seed)
    bunch: Any = load_digits()
    chosen = random.integers(len(bunch.target), size=count)
    large = np.asarray([zoom(image / 16, 2.5, order=1) for image in bunch.images])[chosen]
    black = random.uniform(0.35, 0.5, size=(count, 1, 1))
    white = black + random.uniform(0.1, 0.4, size=(count, 1, 1))
    grey = np.rint(255 * np.clip((large - black) / (white - black), 0, 1)) / 255
    images = np.zeros((count, 28, 28), np.float32)
    for image, small, (i, j) in zip(images, grey, random.integers(9, size=(count, 2)), strict=True):
        image[i : i + 20, j : j + 20] = small
    return images.reshape(count, 784), bunch.target[chosen]
