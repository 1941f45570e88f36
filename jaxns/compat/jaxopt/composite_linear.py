"""Functions of a linear predictor, and matrices by their columns: for block coordinate descent."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_pytree_node_class
class LinearOperator:
    """A matrix A, by its products and those with one of its rows or columns."""

    def __init__(self, A: Any) -> None:
        self.A = A if hasattr(A, "todense") else jnp.asarray(A)

    def shape(self) -> tuple[int, ...]:
        return self.A.shape

    def matvec(self, x: Array) -> Array:
        """A x."""
        return self.A @ x

    def rmatvec(self, x: Array) -> Array:
        """Aᵀ x."""
        return self.A.T @ x

    def matvec_element(self, x: Array, idx: Any) -> Array:
        """(A x)[idx]."""
        return self.A[idx] @ x

    def rmatvec_element(self, x: Array, idx: Any) -> Array:
        """(Aᵀ x)[idx]."""
        return self.A[:, idx] @ x

    def update_matvec(self, Ax: Array, delta: Any, idx: Any) -> Array:
        """A x after x[idx] += delta."""
        return Ax + jnp.multiply.outer(self.A[:, idx], delta)

    def update_rmatvec(self, ATx: Array, delta: Any, idx: Any) -> Array:
        """Aᵀ x after x[idx] += delta."""
        return ATx + jnp.multiply.outer(self.A[idx], delta)

    def column_l2_norms(self, squared: bool = False) -> Array:
        squares = jnp.sum(self.A**2, axis=0)
        return squares if squared else jnp.sqrt(squares)

    def tree_flatten(self) -> tuple:
        return (self.A,), None

    @classmethod
    def tree_unflatten(cls, aux_data: Any, children: tuple) -> "LinearOperator":
        operator = object.__new__(cls)
        (operator.A,) = children
        return operator


class CompositeLinearFunction:
    """f(x) = subfun(A x, *args, **kwargs) + ⟨x, b(*args, **kwargs)⟩, A = make_linop(*args, …)."""

    def b(self, *args: Any, **kwargs: Any) -> Any:
        """The linear term; None for none."""
        return None

    def subfun(self, predictions: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def make_linop(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def columnwise_lipschitz_const(self, *args: Any, **kwargs: Any) -> Any:
        """L_j, the Lipschitz constant of f in coordinate (or row) j alone."""
        raise NotImplementedError

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> Any:
        predictions = self.make_linop(*args, **kwargs).matvec(params)
        value = self.subfun(predictions, *args, **kwargs)
        linear = self.b(*args, **kwargs)
        return value if linear is None else value + jnp.vdot(params, linear)
