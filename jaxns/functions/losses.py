"""Smooth losses: value, gradient, Lipschitz constant of the gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import tree, validate
from jaxns.closure import hoist
from jaxns.struct import replace, settle, static, struct
from jaxns.tree import Tree

EXACT_SIZE = 256  # up to here the largest eigenvalue is computed, beyond it is bounded
KRYLOV_SIZE = 48  # dimension of the Krylov space from which it is bounded


@struct
class LeastSquares:
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
        _check_rows(self, self.A, "b", self.b)

    def __call__(self, x: Array) -> Array:
        r = self.A @ x - self.b
        return 0.5 * jnp.vdot(r, _weighted(self, r))

    def gradient(self, x: Array) -> Array:
        return _adjoint(self.A, _weighted(self, self.A @ x - self.b))

    def lipschitz(self) -> Array:
        return _largest_eigenvalue(self)

    def start(self) -> Array:
        shape = (self.A.shape[1], *self.b.shape[1:])
        return jnp.zeros(shape, jnp.result_type(self.A, self.b))


@struct
class Logistic:
    r"""Σᵢ wᵢ log(1 + exp(−yᵢ aᵢᵀx)), divided by n when `scale="mean"`.

    A: (n, p).   y: (n,), each −1 or 1.   scale, weights: as for `LeastSquares`.
    """

    A: Array
    y: Array
    scale: str = static(default="sum")
    weights: Array | None = None

    def __post_init__(self) -> None:
        settle(self, "A", validate.array("A", self.A, 2))
        settle(self, "y", validate.array("y", self.y, 1))
        if validate.is_known(self.y):
            known = np.asarray(self.y)
            if not np.all(np.isnan(known) | (np.abs(known) == 1)):
                raise ValueError("y must hold the labels -1 and 1 only")
        _check_rows(self, self.A, "y", self.y)

    def __call__(self, x: Array) -> Array:
        return jnp.sum(_weighted(self, jax.nn.softplus(-self.y * (self.A @ x))))

    def gradient(self, x: Array) -> Array:
        pull = -self.y * jax.nn.sigmoid(-self.y * (self.A @ x))
        return _adjoint(self.A, _weighted(self, pull))

    def lipschitz(self) -> Array:
        return _largest_eigenvalue(self) / 4

    def start(self) -> Array:
        return jnp.zeros(self.A.shape[1], jnp.result_type(self.A, self.y))


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


def _check_rows(loss: Any, A: Array, name: str, target: Array) -> None:
    validate.same_length(name, target, "A", A.shape[0])
    validate.choice("scale", loss.scale, ("sum", "mean"))
    if loss.weights is not None:
        weights = validate.nonnegative("weights", validate.array("weights", loss.weights, 1))
        validate.same_length("weights", weights, "A", A.shape[0])
        settle(loss, "weights", weights)


def _adjoint(A: Array, r: Array) -> Array:
    """Aᵀ r, as rᵀ A: on a CPU more than twice as fast for a matrix stored by rows."""
    return r @ A if r.ndim == 1 else (r.T @ A).T


def _weighted(loss: LeastSquares | Logistic, r: Array) -> Array:
    """Rows times their weights, over n for a mean."""
    if loss.weights is not None:
        r = loss.weights.reshape((-1,) + (1,) * (r.ndim - 1)) * r
    return r / loss.A.shape[0] if loss.scale == "mean" else r


def _largest_eigenvalue(loss: LeastSquares | Logistic) -> Array:
    """Of Aᵀ W A: exact when A has a short side, otherwise bounded from above."""
    n, p = loss.A.shape
    # Data that a jitted function closes over are constants, which XLA would multiply (slowly)
    # while it compiles.
    loss = replace(loss, A=jax.lax.optimization_barrier(loss.A))
    if min(n, p) <= EXACT_SIZE:
        root = _weighted(loss, loss.A)
        gram = loss.A.T @ root if p <= n else _symmetric_rows(loss)
        return jnp.linalg.eigvalsh(gram)[-1]
    start = jnp.sin(1 + jnp.arange(p, dtype=loss.A.dtype))
    return _krylov_bound(lambda v: _adjoint(loss.A, _weighted(loss, loss.A @ v)), start)


def _krylov_bound(M: Callable[[Array], Array], start: Array) -> Array:
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


def _symmetric_rows(loss: LeastSquares | Logistic) -> Array:
    """W^½ A Aᵀ W^½, which has the nonzero eigenvalues of Aᵀ W A."""
    gram = loss.A @ loss.A.T
    if loss.weights is not None:
        root = jnp.sqrt(loss.weights)
        gram = root[:, None] * gram * root
    return gram / loss.A.shape[0] if loss.scale == "mean" else gram
