"""What all losses of a linear predictor share: Σᵢ wᵢ ℓᵢ(aᵢᵀx) for a design matrix A.

A loss says how one sample is charged, ℓᵢ and its derivatives in the predictor t = Ax; everything
that follows from the chain rule is here, once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import tree, validate
from jaxns.struct import replace, settle

EXACT_SIZE = 256  # up to here the largest eigenvalue is computed, beyond it is bounded
KRYLOV_SIZE = 48  # dimension of the Krylov space from which it is bounded


class LinearModel:
    """Σᵢ wᵢ ℓᵢ(tᵢ), t = Ax, divided by n when `scale` is "mean". For the losses to inherit.

    charge(t): ℓᵢ(tᵢ), (n,).   slope(t): ℓᵢ′(tᵢ).   bend(t): ℓᵢ″(tᵢ), or an element of its
    generalised derivative.   steepest: a bound on every ℓᵢ″.
    """

    A: Any
    scale: str
    weights: Any
    steepest: float = 1.0

    def charge(self, t: Array) -> Array:
        raise NotImplementedError

    def slope(self, t: Array) -> Array:
        raise NotImplementedError

    def bend(self, t: Array) -> Array:
        raise NotImplementedError

    def __call__(self, x: Array) -> Array:
        return jnp.sum(self.weighted(self.charge(self.A @ x)))

    def gradient(self, x: Array) -> Array:
        return self.adjoint(self.weighted(self.slope(self.A @ x)))

    def hessian(self, x: Array, index: Array | None = None) -> Array:
        """∇²f(x), or its rows and columns in `index`, for an unknown that is a vector."""
        A = self.A if index is None else self.A[:, index]
        return A.T @ (self.weighted(self.bend(self.A @ x))[:, None] * A)

    def lipschitz(self) -> Array:
        return self.steepest * self._largest_eigenvalue()

    def start(self) -> Array:
        return jnp.zeros(self.A.shape[1], tree.dtype(self))

    def weighted(self, r: Array) -> Array:
        """Rows times their weights, over n for a mean."""
        if self.weights is not None:
            r = self.weights.reshape((-1,) + (1,) * (r.ndim - 1)) * r
        return r / self.A.shape[0] if self.scale == "mean" else r

    def adjoint(self, r: Array) -> Array:
        """Aᵀ r, as rᵀ A: on a CPU more than twice as fast for a matrix stored by rows."""
        return r @ self.A if r.ndim == 1 else (r.T @ self.A).T

    def _check_rows(self, name: str, target: Array) -> None:
        validate.same_length(name, target, "A", self.A.shape[0])
        validate.choice("scale", self.scale, ("sum", "mean"))
        if self.weights is not None:
            weights = validate.nonnegative("weights", validate.array("weights", self.weights, 1))
            validate.same_length("weights", weights, "A", self.A.shape[0])
            settle(self, "weights", weights)

    def _largest_eigenvalue(self) -> Array:
        """Of Aᵀ W A: exact when A has a short side, otherwise bounded from above."""
        n, p = self.A.shape
        # Data that a jitted function closes over are constants, which XLA would multiply (slowly)
        # while it compiles.
        loss: Any = replace(self, A=jax.lax.optimization_barrier(self.A))
        if min(n, p) <= EXACT_SIZE:
            gram = loss.A.T @ loss.weighted(loss.A) if p <= n else loss._gram_of_rows()
            return jnp.linalg.eigvalsh(gram)[-1]
        start = jnp.sin(1 + jnp.arange(p, dtype=loss.A.dtype))
        return krylov_bound(lambda v: loss.adjoint(loss.weighted(loss.A @ v)), start)

    def _gram_of_rows(self) -> Array:
        """W^½ A Aᵀ W^½, which has the nonzero eigenvalues of Aᵀ W A."""
        gram = self.A @ self.A.T
        if self.weights is not None:
            root = jnp.sqrt(self.weights)
            gram = root[:, None] * gram * root
        return gram / self.A.shape[0] if self.scale == "mean" else gram


def krylov_bound(M: Callable[[Array], Array], start: Array) -> Array:
    """At least the largest eigenvalue of M ⪰ 0, unless `start` misses its eigenvector.

    θ + ‖Mu − θu‖ for the largest Ritz pair (θ, u) of the Krylov space of `start`: the bound of
    Zhou and Li 2011 (Linear Algebra and its Applications 435), orthogonalised in full.
    """

    def unit(v, least=0.0):
        length = jnp.linalg.norm(v)
        return v / jnp.where(length > least, length, jnp.inf)

    def widen(i, basis):
        v = unit(M(basis[i - 1]))
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        return basis.at[i].set(unit(v, least=1e2 * tree.eps(v)))  # else: the space is invariant

    basis = jnp.zeros((KRYLOV_SIZE, start.size), start.dtype).at[0].set(unit(start))
    basis = jax.lax.fori_loop(1, KRYLOV_SIZE, widen, basis)
    image = M(basis.T)
    values, vectors = jnp.linalg.eigh(basis @ image)
    theta, u = values[-1], vectors[:, -1]
    return theta + jnp.linalg.norm(image @ u - theta * (basis.T @ u))
