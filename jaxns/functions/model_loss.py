"""A loss of what a model puts out, with the loss's curvature through the model's slope."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.functions.smooth import Smooth
from jaxns.struct import replace, settle, struct
from jaxns.tree import Tree


@struct
class ModelLoss:
    """ℓ(φ(x)), for a smooth convex ℓ and a model φ with m outputs, both differentiable.

    Solvers that can use it replace φ by its tangent at x, and ∇²f by what is then left of it, the
    generalised Gauss-Newton matrix JᵀQJ ⪰ 0, with J = ∂φ(x), (m, n), and Q = ∇²ℓ(φ(x)), (m, m).

    loss: ℓ, of φ's outputs, such as `SquaredDistance(y)`.   model: φ, from a pytree x to arrays.
        Each is a function of this library or a plain one, or `Smooth(fun, *data)`, one with data.
    Where the model is linear, `Logistic` and its like know the same, and more.
    """

    loss: Any
    model: Any

    def __post_init__(self) -> None:
        for name in ("loss", "model"):
            part = getattr(self, name)
            if not hasattr(part, "gradient"):
                settle(self, name, Smooth(_function(name, part)))

    def __call__(self, x: Tree) -> Array:
        return self.loss(self.model(x))

    def gradient(self, x: Tree) -> Tree:
        return jax.grad(lambda x: self(x))(x)

    def lipschitz(self) -> None:
        return None

    def hoist(self, x: Tree) -> "ModelLoss":
        """The same function, with the arrays that its parts close over among their data."""
        points = {"loss": self.model(x), "model": x}
        parts = {name: getattr(self, name) for name in points}
        return replace(
            self, **{n: f.hoist(points[n]) for n, f in parts.items() if hasattr(f, "hoist")}
        )

    def linearised(self, x: Tree) -> "LinearisedLoss":
        return LinearisedLoss(self.loss, self.model, x)


def _function(name: str, part: Any) -> Callable[..., Any]:
    if not callable(part):
        raise TypeError(f"{name} must be a function, got {type(part).__name__}")
    return part


@struct
class LinearisedLoss:
    """u ↦ ℓ(φ(x) + J (u − x)): its slope at x is that of ℓ∘φ, its Hessian there is JᵀQJ."""

    loss: Any
    model: Any
    x: Tree

    def __call__(self, u: Tree) -> Array:
        t, moved = jax.jvp(self.model, (self.x,), (tree.sub(u, self.x),))
        return self.loss(tree.add(t, moved))

    def gradient(self, u: Tree) -> Tree:
        return jax.grad(lambda u: self(u))(u)

    def hessian_rows(self, u: Tree) -> Array:
        """RJ with RᵀR = Q at u = x, of shape (m, n), in the coordinates of `ravel_pytree(x)`."""
        x, unravel = ravel_pytree(u)
        t, unravel_t = ravel_pytree(self.model(u))
        J = jax.jacrev(lambda x: ravel_pytree(self.model(unravel(x)))[0])(x)
        values, vectors = jnp.linalg.eigh(jax.hessian(lambda t: self.loss(unravel_t(t)))(t))
        return jnp.sqrt(jnp.maximum(values, 0))[:, None] * (vectors.T @ J)
