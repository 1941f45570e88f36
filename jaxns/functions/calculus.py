"""New functions from old: conjugate, Moreau envelope, scaling, translation, orthogonal maps.

Each has what it can have of `gradient`, `prox`, `lipschitz`, …, given what its parts have;
`hasattr` tells, and an error says which part lacks it.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import tree, validate
from jaxns.functions.conjugates import conjugate
from jaxns.functions.inherited import inherited, inherited_from, need_function, need_prox
from jaxns.functions.norms import per_leaf
from jaxns.functions.sets import bound
from jaxns.struct import replace, settle, struct
from jaxns.tree import Tree


@struct
class Conjugate:
    """f*(y) = supₓ ⟨x, y⟩ − f(x), for f convex with a prox.

    Its prox is known whenever f's is; its value where the conjugate has a closed form, which is a
    table: `jaxns.functions.conjugates`.
    """

    f: Any

    def __post_init__(self) -> None:
        need_prox(self, self.f)

    def parts(self) -> tuple:
        return (self.f,)

    def __call__(self, y: Tree) -> Array:
        return conjugate(self.f, y)

    def prox(self, x: Tree, step: Any) -> Tree:
        """Moreau's identity: x − step prox_{f/step}(x/step)."""
        step = jnp.asarray(step, tree.dtype(x))
        return tree.axpy(-step, self.f.prox(tree.scale(1 / step, x), 1 / step), x)

    @inherited
    def prox_margin(self, x: Tree, step: Any) -> Array:
        step = jnp.asarray(step, tree.dtype(x))
        return step * self.f.prox_margin(tree.scale(1 / step, x), 1 / step)


@struct
class MoreauEnvelope:
    """min_u f(u) + ‖u − x‖²/(2 smoothing): smooth, with the minimisers of f.

    f: convex, with a prox.   smoothing: a number > 0.
    """

    f: Any
    smoothing: float | Array

    def __post_init__(self) -> None:
        need_prox(self, self.f)
        smoothing = validate.positive("smoothing", validate.scalar("smoothing", self.smoothing))
        settle(self, "smoothing", smoothing)

    def parts(self) -> tuple:
        return (self.f,)

    def __call__(self, x: Tree) -> Array:
        smoothing = jnp.asarray(self.smoothing, tree.dtype(x))
        u = self.f.prox(x, smoothing)
        gap = tree.sub(u, x)
        return self.f(u) + tree.vdot(gap, gap) / (2 * smoothing)

    def gradient(self, x: Tree) -> Tree:
        """(x − prox_{smoothing f}(x)) / smoothing."""
        smoothing = jnp.asarray(self.smoothing, tree.dtype(x))
        return tree.scale(1 / smoothing, tree.sub(x, self.f.prox(x, smoothing)))

    def lipschitz(self) -> Any:
        return 1 / self.smoothing

    def prox(self, x: Tree, step: Any) -> Tree:
        """x + (step/(smoothing + step)) (prox_{(smoothing + step) f}(x) − x)."""
        smoothing, step = (jnp.asarray(t, tree.dtype(x)) for t in (self.smoothing, step))
        move = tree.sub(self.f.prox(x, smoothing + step), x)
        return tree.axpy(step / (smoothing + step), move, x)

    @inherited
    def prox_margin(self, x: Tree, step: Any) -> Array:
        return self.f.prox_margin(x, self.smoothing + step)

    @inherited_from("prox_margin")
    def gradient_margin(self, x: Tree) -> Array:
        return self.f.prox_margin(x, self.smoothing)

    @inherited
    def start(self) -> Tree:
        return self.f.start()


@struct
class Scale:
    """weight · f.   weight: a number > 0."""

    f: Any
    weight: float | Array

    def __post_init__(self) -> None:
        need_function("f", self.f)
        settle(self, "weight", validate.positive("weight", validate.scalar("weight", self.weight)))

    def parts(self) -> tuple:
        return (self.f,)

    def __call__(self, x: Tree) -> Array:
        return self._weight(x) * self.f(x)

    @inherited
    def gradient(self, x: Tree) -> Tree:
        return tree.scale(self._weight(x), self.f.gradient(x))

    @inherited
    def prox(self, x: Tree, step: Any) -> Tree:
        return self.f.prox(x, step * self._weight(x))

    @inherited
    def prox_margin(self, x: Tree, step: Any) -> Array:
        return self.f.prox_margin(x, step * self._weight(x))

    @inherited
    def gradient_margin(self, x: Tree) -> Array:
        return self.f.gradient_margin(x)

    @inherited
    def lipschitz(self) -> Any:
        constant = self.f.lipschitz()
        return None if constant is None else self.weight * constant

    @inherited
    def hessian(self, x: Tree, index: Array | None = None) -> Array:
        return self._weight(x) * self.f.hessian(x, index)

    @inherited
    def support(self, x: Tree) -> Tree:
        return self.f.support(x)

    @inherited
    def curvature(self, x: Tree, v: Tree) -> Tree:
        return tree.scale(self._weight(x), self.f.curvature(x, v))

    @inherited
    def normal(self, x: Tree) -> Tree:
        return self.f.normal(x)

    @inherited
    def start(self) -> Tree:
        return self.f.start()

    @inherited
    def hoist(self, x: Tree) -> "Scale":
        return replace(self, f=self.f.hoist(x))

    def _weight(self, x: Tree) -> Array:
        return jnp.asarray(self.weight, tree.dtype(x))


@struct
class Translate:
    """f(x − shift).   shift: a number, an array that broadcasts against x, or a pytree of them."""

    f: Any
    shift: Any

    def __post_init__(self) -> None:
        need_function("f", self.f)
        settle(self, "shift", bound("shift", self.shift))

    def parts(self) -> tuple:
        return (self.f,)

    def __call__(self, x: Tree) -> Array:
        return self.f(self._moved(x))

    @inherited
    def gradient(self, x: Tree) -> Tree:
        return self.f.gradient(self._moved(x))

    @inherited
    def prox(self, x: Tree, step: Any) -> Tree:
        """shift + prox_{step f}(x − shift)."""
        return tree.add(per_leaf("shift", self.shift, x), self.f.prox(self._moved(x), step))

    @inherited
    def prox_margin(self, x: Tree, step: Any) -> Array:
        return self.f.prox_margin(self._moved(x), step)

    @inherited
    def gradient_margin(self, x: Tree) -> Array:
        return self.f.gradient_margin(self._moved(x))

    @inherited
    def lipschitz(self) -> Any:
        return self.f.lipschitz()

    @inherited
    def hessian(self, x: Tree, index: Array | None = None) -> Array:
        return self.f.hessian(self._moved(x), index)

    @inherited
    def support(self, x: Tree) -> Tree:
        return self.f.support(self._moved(x))

    @inherited
    def curvature(self, x: Tree, v: Tree) -> Tree:
        return self.f.curvature(self._moved(x), v)

    @inherited
    def normal(self, x: Tree) -> Tree:
        return self.f.normal(self._moved(x))

    @inherited
    def start(self) -> Tree:
        return self.f.start()

    @inherited
    def hoist(self, x: Tree) -> "Translate":
        return replace(self, f=self.f.hoist(self._moved(x)))

    def _moved(self, x: Tree) -> Tree:
        return tree.sub(x, per_leaf("shift", self.shift, x))


@struct
class Precompose:
    """f(Qx) for Q Qᵀ = κ I: orthogonal, or orthogonal rows of one length.

    Q: a matrix, (m, p), whose κ is found and, where it can be seen, checked; or an operator with
        `Q(x)` and an adjoint `Q.T(u)`, of κ = 1. A derivative in Q is right along changes that keep
        it orthogonal.
    """

    f: Any
    Q: Any

    def __post_init__(self) -> None:
        need_function("f", self.f)
        if callable(self.Q):
            return
        settle(self, "Q", validate.array("Q", self.Q, 2))
        if validate.is_known(self.Q):
            Q = np.asarray(self.Q)
            gram, unit = Q @ Q.T, np.sum(Q**2) / len(Q)
            if not np.max(np.abs(gram - unit * np.eye(len(Q)))) <= 1e2 * tree.eps(Q) * unit * len(
                Q
            ):
                raise ValueError("Q must have orthogonal rows of one length: Q @ Q.T = kappa * I")

    def parts(self) -> tuple:
        return (self.f,)

    def __call__(self, x: Tree) -> Array:
        return self.f(self._apply(x))

    @inherited
    def gradient(self, x: Tree) -> Tree:
        return self._adjoint(self.f.gradient(self._apply(x)))

    @inherited
    def prox(self, x: Tree, step: Any) -> Tree:
        """x + Qᵀ (prox_{κ step f}(Qx) − Qx) / κ."""
        kappa, image = jnp.asarray(self._kappa(), tree.dtype(x)), self._apply(x)
        move = tree.sub(self.f.prox(image, kappa * step), image)
        return tree.axpy(1 / kappa, self._adjoint(move), x)

    @inherited
    def prox_margin(self, x: Tree, step: Any) -> Array:
        """Distances in the rows of Q are those of Qx over √κ."""
        kappa = jnp.asarray(self._kappa(), tree.dtype(x))
        return self.f.prox_margin(self._apply(x), kappa * step) / jnp.sqrt(kappa)

    @inherited
    def gradient_margin(self, x: Tree) -> Array:
        return self.f.gradient_margin(self._apply(x)) / jnp.sqrt(self._kappa())

    @inherited
    def lipschitz(self) -> Any:
        constant = self.f.lipschitz()
        return None if constant is None else constant * self._kappa()

    @inherited
    def hoist(self, x: Tree) -> "Precompose":
        return replace(self, f=self.f.hoist(self._apply(x)))

    def _kappa(self) -> Any:
        return 1.0 if callable(self.Q) else jnp.sum(self.Q**2) / self.Q.shape[0]

    def _apply(self, x: Tree) -> Tree:
        return self.Q(x) if callable(self.Q) else jnp.asarray(self.Q, x.dtype) @ x

    def _adjoint(self, u: Tree) -> Tree:
        if callable(self.Q):
            return self.Q.T(u)  # pyright: ignore[reportFunctionMemberAccess]
        Q = jnp.asarray(self.Q, u.dtype)
        return u @ Q if u.ndim == 1 else (u.T @ Q).T


@conjugate.register
def _(f: Conjugate, y: Tree) -> Array:
    return f.f(y)


@conjugate.register
def _(f: MoreauEnvelope, y: Tree) -> Array:
    """f*(y) + ½ smoothing ‖y‖²."""
    return conjugate(f.f, y) + jnp.asarray(f.smoothing, tree.dtype(y)) / 2 * tree.vdot(y, y)


@conjugate.register
def _(f: Scale, y: Tree) -> Array:
    """weight f*(y/weight)."""
    weight = f._weight(y)
    return weight * conjugate(f.f, tree.scale(1 / weight, y))


@conjugate.register
def _(f: Translate, y: Tree) -> Array:
    """f*(y) + ⟨shift, y⟩."""
    shift = tree.add(per_leaf("shift", f.shift, y), tree.zeros_like(y))
    return conjugate(f.f, y) + tree.vdot(shift, y)
