"""What all losses of a linear predictor share: Σᵢ wᵢ ℓᵢ(aᵢᵀx) for a design matrix A.

A loss says how one sample is charged, ℓᵢ and its derivatives in the predictor t = Ax; everything
that follows from the chain rule is here, once. A may be sparse (`jax.experimental.sparse.BCOO`;
BCSR is converted): it is only multiplied by, never made dense, except the columns that a Hessian
is asked for.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import validate
from jaxns.functions.margins import nearest
from jaxns.operators import krylov_bound
from jaxns.struct import is_static, replace, settle

EXACT_SIZE = 256  # up to here the largest eigenvalue is computed, beyond it is bounded


class LinearModel:
    """Σᵢ wᵢ ℓᵢ(tᵢ), t = Ax, divided by n when `scale` is "mean". For the losses to inherit.

    charge(t): ℓᵢ(tᵢ), (n,).   slope(t): ℓᵢ′(tᵢ).   bend(t): ℓᵢ″(tᵢ), or an element of its
    generalised derivative.   steepest: a bound on every ℓᵢ″, None where there is none.
    gap(t): how far tᵢ is from the nearest kink of ℓᵢ′.
    target: b or y, (n,), or (n, k) for an unknown of shape (p, k).
    """

    A: Any
    scale: str
    weights: Any
    steepest: float | None = 1.0

    @property
    def target(self) -> Array:
        raise NotImplementedError

    def charge(self, t: Array) -> Array:
        raise NotImplementedError

    def slope(self, t: Array) -> Array:
        raise NotImplementedError

    def bend(self, t: Array) -> Array:
        raise NotImplementedError

    def gap(self, t: Array) -> Array:
        return jnp.full_like(t, jnp.inf)

    def __call__(self, x: Array) -> Array:
        return jnp.sum(self.weighted(self.charge(self.A @ x)))

    def gradient(self, x: Array) -> Array:
        return self.adjoint(self.weighted(self.slope(self.A @ x)))

    def gradient_margin(self, x: Array) -> Array:
        """minᵢ gapᵢ/‖aᵢ‖, over the rows that count."""
        gap = self.gap(self.A @ x)
        size = jnp.sqrt((self.A * self.A) @ jnp.ones(self.A.shape[1], self.A.dtype))
        size = size if self.weights is None else jnp.where(self.weights > 0, size, 0)
        size = size.reshape((-1,) + (1,) * (gap.ndim - 1))
        there = (size > 0) & (gap < jnp.inf)
        return nearest(
            jnp.where(there, jnp.where(there, gap, 0) / jnp.where(there, size, 1), jnp.inf)
        )

    def hessian(self, x: Array, index: Array | None = None) -> Array:
        """∇²f(x), or its rows and columns in `index`, for an unknown that is a vector.

        Those of a coordinate that is there twice are right where it comes first.
        """
        A = self.columns(index, distinct=True)
        if self.weights is None and getattr(self, "quadratic", False):
            return self.weighted(A.T @ A)
        return A.T @ (self.weighted(self.bend(self.A @ x))[:, None] * A)

    @property
    def hessian_rows(self) -> Any:
        """x ↦ B, (n, p), with BᵀB = ∇²f(x): dense, for an unknown that is a vector; else None."""
        if self.target.ndim > 1 or hasattr(self.A, "todense"):
            return None
        return lambda x: self.half_weighted(jnp.sqrt(self.bend(self.A @ x)))[:, None] * self.A

    def hessian_product(self, x: Array, index: Array, s: Array) -> Array:
        """∇²f(x) v for a v with the entries s in `index`, where they come first, else zeros."""
        t = self.columns(index, distinct=True) @ s
        return self.adjoint(self.weighted(self.bend(self.A @ x) * t))

    def lipschitz(self) -> Array | None:
        return None if self.steepest is None else self.steepest * self._largest_eigenvalue()

    def start(self) -> Array:
        shape = (self.A.shape[1], *self.target.shape[1:])
        return jnp.zeros(shape, jnp.result_type(self.A.dtype, self.target.dtype))

    def columns(self, index: Array | None = None, distinct: bool = False) -> Array:
        """Those of A in `index`, or all of them, dense; if `distinct`, what is there twice once."""
        if not hasattr(self.A, "todense"):
            return self.A if index is None else self.A[:, index]
        return self.A.todense() if index is None else _columns(self.A, index, distinct)

    def features(self) -> Array:
        """Row j is ∂t/∂xⱼ, the j-th column of A: (p, n), dense, each of them contiguous."""
        return self.columns().T

    def predictor(self, x: Array) -> Array:
        """t = Ax, which is all that coordinate methods remember of x."""
        return self.A @ x

    def partial(self, feature: Array, j: Any, t: Array) -> Array:
        """∂f/∂xⱼ from t = Ax, for one coordinate j or several, and their features."""
        return feature @ self.weighted(self.slope(t))

    def block(self, feature: Array, j: Any) -> Array | None:
        """At least the Hessian in one coordinate, (), or in m, (m, m); None if it has no bound."""
        if self.steepest is None:
            return None
        return self.steepest * (feature @ self.weighted(feature.T))

    @property
    def samples(self) -> int:
        return self.A.shape[0]

    @property
    def entries(self) -> int:
        """How many numbers A is made of."""
        return self.A.nse if hasattr(self.A, "todense") else self.A.size

    def rows(self, index: Array) -> Any:
        """The loss on some rows of A, scaled so that over uniformly drawn rows its mean is f."""
        n = self.A.shape[0]

        def take(value: Any) -> Any:
            per_row = getattr(value, "ndim", 0) and value.shape[0] == n
            return value[index] if per_row else value

        leaves = [field.name for field in dataclasses.fields(self) if not is_static(field)]  # pyright: ignore[reportArgumentType]
        chosen: Any = replace(self, **{name: take(getattr(self, name)) for name in leaves})
        if self.scale == "mean":
            return chosen
        ones = jnp.ones(index.shape, self.A.dtype) if self.weights is None else chosen.weights
        return replace(chosen, weights=n / index.size * ones)

    def row_lipschitz(self) -> Array | None:
        """For each i, a Lipschitz constant of the gradient of `rows` at i alone: (n,)."""
        if self.steepest is None:
            return None
        size = self.steepest * ((self.A * self.A) @ jnp.ones(self.A.shape[1], self.A.dtype))
        size = size if self.weights is None else self.weights * size
        return size if self.scale == "mean" else self.A.shape[0] * size

    def weighted(self, r: Array) -> Array:
        """Rows times their weights, over n for a mean."""
        if self.weights is not None:
            r = self.weights.reshape((-1,) + (1,) * (r.ndim - 1)) * r
        return r / self.A.shape[0] if self.scale == "mean" else r

    def half_weighted(self, r: Array) -> Array:
        """Rows times the square roots of their weights, over √n for a mean."""
        if self.weights is not None:
            r = jnp.sqrt(self.weights).reshape((-1,) + (1,) * (r.ndim - 1)) * r
        return r / self.A.shape[0] ** 0.5 if self.scale == "mean" else r

    def short_gram(self) -> Array:
        """AᵀWA, or W^½ A Aᵀ W^½ if that is smaller: the same nonzero eigenvalues."""
        n, p = self.A.shape
        loss = self._opaque()
        if hasattr(self.A, "todense"):
            column = loss.multiply if p <= n else loss.multiply_dual
            return jax.lax.map(column, jnp.eye(min(n, p), dtype=self.A.dtype))
        if p <= n:
            return loss.A.T @ loss.weighted(loss.A)
        return loss.half_weighted(loss.half_weighted(loss.A @ loss.A.T).T)

    def multiply(self, u: Array) -> Array:
        """AᵀWA u."""
        return self.adjoint(self.weighted(self.A @ u))

    def multiply_dual(self, r: Array) -> Array:
        """W^½ A Aᵀ W^½ r."""
        return self.half_weighted(self.A @ self.adjoint(self.half_weighted(r)))

    def adjoint(self, r: Array) -> Array:
        """Aᵀ r, as rᵀ A: on a CPU more than twice as fast for a matrix stored by rows."""
        return r @ self.A if r.ndim == 1 else (r.T @ self.A).T

    def _check(self, name: str, ndim: int | tuple[int, ...] = 1) -> None:
        """The fields, of which the target has this name and number of dimensions."""
        settle(self, "A", validate.matrix("A", self.A))
        settle(self, name, validate.array(name, getattr(self, name), ndim))
        validate.same_length(name, self.target, "A", self.A.shape[0])
        validate.choice("scale", self.scale, ("sum", "mean"))
        if self.weights is not None:
            weights = validate.nonnegative("weights", validate.array("weights", self.weights, 1))
            validate.same_length("weights", weights, "A", self.A.shape[0])
            settle(self, "weights", weights)

    def _largest_eigenvalue(self) -> Array:
        """Of Aᵀ W A: exact when A has a short side, otherwise bounded from above."""
        if min(self.A.shape) <= EXACT_SIZE:
            return jnp.linalg.eigvalsh(self.short_gram())[-1]
        loss = self._opaque()
        start = jnp.sin(1 + jnp.arange(self.A.shape[1], dtype=self.A.dtype))
        return krylov_bound(loss.multiply, start)

    def _opaque(self: Any) -> Any:
        """Data that a jitted function closes over are constants, which XLA would multiply (slowly)
        while it compiles."""
        return replace(self, A=jax.lax.optimization_barrier(self.A))


def _columns(A: Any, index: Array, distinct: bool) -> Array:
    """Those of a sparse matrix, dense, at the cost of a pass over its entries.

    Where a coordinate is asked for again: its column, but zeros if they are said to be distinct.
    """
    n, p = A.shape
    row, column = A.indices.T
    size = index.size
    place = jnp.full(p, size).at[index].min(jnp.arange(size))
    there = place.at[column].get(mode="fill", fill_value=size)
    found = jnp.zeros((n, size), A.dtype).at[row, there].add(A.data, mode="drop")
    return found if distinct else found[:, place[index]]
