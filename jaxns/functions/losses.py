"""Smooth losses: value, gradient, Lipschitz constant of the gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import validate
from jaxns.closure import hoist
from jaxns.functions.design import LinearModel
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class LeastSquares(LinearModel):
    r"""½ Σᵢ wᵢ (aᵢᵀx − bᵢ)², divided by n when `scale="mean"`.

    A: (n, p).   b: (n,), or (n, k) for an unknown of shape (p, k).
    scale: "sum" or "mean" (over the n rows, whatever the weights).   weights: (n,) ≥ 0, or None.
    """

    A: Array
    b: Array
    scale: str = static(default="sum")
    weights: Array | None = None

    def __post_init__(self) -> None:
        settle(self, "A", validate.array("A", self.A, 2))
        settle(self, "b", validate.array("b", self.b, (1, 2)))
        self._check_rows("b", self.b)

    def charge(self, t: Array) -> Array:
        return 0.5 * (t - self.b) ** 2

    def slope(self, t: Array) -> Array:
        return t - self.b

    def bend(self, t: Array) -> Array:
        return jnp.ones_like(t)

    def start(self) -> Array:
        shape = (self.A.shape[1], *self.b.shape[1:])
        return jnp.zeros(shape, jnp.result_type(self.A, self.b))


@struct
class Logistic(LinearModel):
    r"""Σᵢ wᵢ log(1 + exp(−yᵢ aᵢᵀx)), divided by n when `scale="mean"`.

    A: (n, p).   y: (n,), each −1 or 1.   scale, weights: as for `LeastSquares`.
    """

    A: Array
    y: Array
    scale: str = static(default="sum")
    weights: Array | None = None
    steepest = 0.25

    def __post_init__(self) -> None:
        settle(self, "A", validate.array("A", self.A, 2))
        settle(self, "y", validate.array("y", self.y, 1))
        if validate.is_known(self.y):
            known = np.asarray(self.y)
            if not np.all(np.isnan(known) | (np.abs(known) == 1)):
                raise ValueError("y must hold the labels -1 and 1 only")
        self._check_rows("y", self.y)

    def charge(self, t: Array) -> Array:
        return jax.nn.softplus(-self.y * t)

    def slope(self, t: Array) -> Array:
        return -self.y * jax.nn.sigmoid(-self.y * t)

    def bend(self, t: Array) -> Array:
        return jax.nn.sigmoid(t) * jax.nn.sigmoid(-t)


@struct
class Quadratic:
    """½ xᵀQx + qᵀx with Q symmetric positive semidefinite.   Q: (p, p).   q: (p,)."""

    Q: Array
    q: Array

    def __post_init__(self) -> None:
        settle(self, "Q", validate.array("Q", self.Q, 2))
        settle(self, "q", validate.array("q", self.q, 1))
        if self.Q.shape != (self.q.shape[0],) * 2:
            raise ValueError(f"Q must have shape {(self.q.shape[0],) * 2}, got {self.Q.shape}")

    def __call__(self, x: Array) -> Array:
        return 0.5 * jnp.vdot(x, self.Q @ x) + jnp.vdot(self.q, x)

    def gradient(self, x: Array) -> Array:
        return 0.5 * (self.Q @ x + self.Q.T @ x) + self.q

    def hessian(self, x: Array, index: Array | None = None) -> Array:
        """Q, or its rows and columns in `index`."""
        Q = 0.5 * (self.Q + self.Q.T)
        return Q if index is None else Q[index][:, index]

    def lipschitz(self) -> Array:
        return jnp.linalg.eigvalsh(0.5 * (self.Q + self.Q.T))[-1]

    def prox(self, x: Array, step: Array | float) -> Array:
        """(I + step Q)⁻¹ (x − step q)."""
        symmetric = 0.5 * (self.Q + self.Q.T)
        system = jnp.eye(self.q.shape[0], dtype=symmetric.dtype) + step * symmetric
        return jax.scipy.linalg.solve(system, x - step * self.q, assume_a="pos")

    def start(self) -> Array:
        return jnp.zeros_like(self.q)


@struct
class Smooth:
    """fun(x, *data), a differentiable function of any pytree x.

    fun: static: two instances share one compilation when it is the same function, so define it at
        module level and pass what it needs as `data`. A new lambda at each call is traced each
        time. Arrays in its closure are found by `solve`, and differentiated with respect to.
    data: pytrees; leaves, which may be differentiated.
    constant: a Lipschitz constant of the gradient, if one is known; without it solvers find their
        stepsize by backtracking.
    """

    fun: Callable[..., Array] = static()
    data: tuple = ()
    constant: float | Array | None = None

    def __init__(
        self, fun: Callable[..., Array], *data: Any, lipschitz: float | Array | None = None
    ) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be a function of x, got {type(fun).__name__}")
        if lipschitz is not None:
            lipschitz = validate.positive("lipschitz", validate.scalar("lipschitz", lipschitz))
        settle(self, "fun", fun)
        settle(self, "data", data)
        settle(self, "constant", lipschitz)

    def __call__(self, x: Tree) -> Array:
        return self.fun(x, *self.data)

    def gradient(self, x: Tree) -> Tree:
        return jax.grad(self.fun)(x, *self.data)

    def lipschitz(self) -> float | Array | None:
        return self.constant

    def hoist(self, x: Tree) -> "Smooth":
        """The same function, with the arrays that `fun` closes over among its data."""
        explicit, arrays = hoist(self.fun, x, *self.data)
        if not arrays:
            return self
        return Smooth(_Reordered(explicit), arrays, *self.data, lipschitz=self.constant)


class _Reordered:
    """x, arrays, *data -> explicit(arrays, x, *data); equal when `explicit` is."""

    def __init__(self, explicit: Callable) -> None:
        self.explicit = explicit

    def __call__(self, x: Tree, arrays: list, *data: Any) -> Array:
        return self.explicit(arrays, x, *data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reordered) and self.explicit == other.explicit

    def __hash__(self) -> int:
        return hash(self.explicit)
