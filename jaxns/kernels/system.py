"""The linear systems of Gaussian processes and kernel ridge regression."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns import validate
from jaxns.kernels.matrix import as_kernel_matrix
from jaxns.struct import settle, struct


@struct
class System:
    """(K + λI) α = b, by minimising the dual objective ½ ‖α‖²_{K+λI} − αᵀb (arXiv 2310.20581).

    The mean of a Gaussian process at x is k(x, X) α with b = y. A sample of its posterior is
    f(x) + k(x, X) (α_y − α_f), where f is a sample of the prior and b = f(X) + noise for α_f:
    all right-hand sides together are the columns of b.

    K: a `KernelMatrix`, or an (n, n) array.   b: (n,) or (n, s).   noise: λ > 0.
    """

    K: Any
    b: Array
    noise: float | Array

    def __post_init__(self) -> None:
        settle(self, "K", as_kernel_matrix(self.K))
        settle(self, "b", validate.array("b", self.b, (1, 2)))
        validate.same_length("b", self.b, "K", self.K.size)
        noise = validate.positive("noise", validate.scalar("noise", self.noise))
        settle(self, "noise", noise)

    def start(self) -> Array:
        return jnp.zeros_like(jnp.asarray(self.b))

    def product(self, a: Array) -> Array:
        """(K + λI) a."""
        return self.K(a) + self.noise * a

    def residual(self, alpha: Array) -> Array:
        """(K + λI) α − b, the gradient of the dual objective."""
        return self.product(alpha) - self.b
