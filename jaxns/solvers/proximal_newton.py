"""Proximal Newton: a quadratic model of f, and g as it is."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree, validate
from jaxns.solvers import frozen, stepsize
from jaxns.solvers.forward_backward import ForwardBackward
from jaxns.solvers.manifold import is_partly_smooth
from jaxns.solvers.needs import need, need_plain
from jaxns.solvers.semismooth import Semismooth
from jaxns.struct import replace, static, struct
from jaxns.tree import Tree

ARMIJO = 1e-4  # fraction of the predicted decrease that is asked for
SHORTEST = 2**-20  # the shortest step that is tried
INNER_STEPS = 10_000  # on one model


@struct
class Quadratic:
    """u ↦ ∇f(x)ᵀ(u − x) + ½ (u − x)ᵀ ∇²f(x) (u − x)."""

    f: Any
    x: Tree

    def __call__(self, u: Tree) -> Array:
        half = tree.scale(0.5, tree.add(self.gradient(self.x), self.gradient(u)))
        return tree.vdot(half, tree.sub(u, self.x))

    def gradient(self, u: Tree) -> Tree:
        return tree.add(*jax.jvp(self.f.gradient, (self.x,), (tree.sub(u, self.x),)))

    @property
    def hessian(self) -> Any:
        known = getattr(self.f, "hessian", None)
        return None if known is None else lambda u, index=None: known(self.x, index)

    @property
    def low_rank(self) -> Any:
        known = getattr(self.f, "low_rank", None)
        return None if known is None else lambda u: known(self.x)


@struct
class Model:
    """f + g with f replaced by its quadratic model."""

    f: Quadratic
    g: Any

    def __call__(self, u: Tree) -> Array:
        return self.f(u) + self.g(u)


@struct
class Control:
    """image: the point reached."""

    image: Tree


@struct
class ProximalNewton:
    r"""Minimise f(x) + g(x) by steps to the minimiser of a quadratic model of f, plus g.

        u = argmin_u  ∇f(x)ᵀ(u − x) + ½ (u − x)ᵀ H (u − x) + g(u),   H = ∇²f(x)
        x ← x + t (u − x)

    (Lee, Sun and Saunders 2014), with t ≤ 1 such that the objective decreases. f must be convex.
    The model is minimised to half of the digits, by `Newton`'s steps where g is partly smooth, and
    by accelerated forward-backward steps where it is any g with a prox. One semismooth Newton step
    on the model gives the other half: reduced to the support, or else on the whole residual
    u − prox_{αg}(u − α(∇f(x) + H(u − x))), whose derivative is applied and never formed.

    What is differentiated is the full step, and of that only its last Newton step, which is exact:
    as for `Newton`, `OneStep()` equals `Implicit()` at the solution (arXiv 2305.13768, section 2).

    stepsize: α, as for `ForwardBackward`.   linear: as for `Newton`.
    """

    sequential: ClassVar[bool] = True

    stepsize: float | Array | None = None
    linear: str = static(default="auto")

    def __post_init__(self) -> None:
        stepsize.check(self)
        validate.choice("linear", self.linear, ("auto", "direct", "krylov"))

    def prepare(self, problem: Any, x0: Tree) -> "ProximalNewton":
        need_plain(self, problem, "use PrimalDual, or DavisYin for h")
        need(self, problem, "f", "gradient", "use a solver that takes the prox of f")
        need(self, problem, "g", "prox", "use Newton if g is smooth")
        return replace(self, stepsize=self._first().prepare(problem, x0).stepsize)

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree, start: Tree | None = None) -> Tree:
        """start: where the model's minimisation begins, by default x."""
        model, begin = Model(Quadratic(problem.f, x), problem.g), x if start is None else start
        inner, u = lax.stop_gradient(self._minimise(*lax.stop_gradient((model, begin))))
        return inner.step(model, u) if isinstance(inner, Semismooth) else _newton(inner, model, u)

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def stationary(self, problem: Any) -> Any:
        known = self.stepsize is not None and hasattr(problem.g, "support")
        return self._first() if known else self

    def scale(self, problem: Any, x: Tree) -> Any:
        return self._first().scale(problem, x)

    def control(self, problem: Any, x: Tree) -> Control:
        return Control(x)

    def advance(self, problem: Any, x: Tree, control: Control) -> tuple[Tree, Control]:
        d = tree.sub(self.step(problem, x), x)
        t = lax.stop_gradient(search(problem, x, d))
        image = tree.axpy(t, d, x)
        return image, Control(image)

    def _first(self) -> ForwardBackward:
        return ForwardBackward(self.stepsize)

    def _minimise(self, model: Model, x: Tree) -> tuple[Any, Tree]:
        """The model's minimiser from x to half of the digits, and the solver with its stepsize."""
        inner = self._first()
        if is_partly_smooth(model.g, x):
            inner = Semismooth(inner, self.linear)
        tol = tree.eps(x) ** 0.5

        def going(state):
            _, control, gap, k = state
            return (gap > tol * tree.norm(control.image)) & (k < INNER_STEPS)

        def body(state):
            z, control, _, k = state
            z_next, control = inner.advance(model, z, control)
            return z_next, control, tree.norm(tree.sub(control.image, z)), k + 1

        infinity = jnp.asarray(jnp.inf, tree.dtype(x))
        start = (x, inner.control(model, x), infinity, jnp.zeros((), jnp.int32))
        _, control, _, _ = tree.while_loop(going, body, start)
        return inner.settle(control), control.image


def _newton(first: ForwardBackward, model: Model, u: Tree) -> Tree:
    """u − V⁻¹ r, with r(u) = u − prox_{αg}(u − α∇q(u)), q the model of f, and V = ∂r."""
    v, unravel = ravel_pytree(u)

    def r(v):
        return v - ravel_pytree(first.step(model, unravel(v)))[0]

    def matvec(d):
        return jax.jvp(r, (v,), (d,))[1]

    return unravel(v - frozen.krylov(matvec, r(v), method="auto"))


def search(problem: Any, x: Tree, d: Tree) -> Array:
    """The first t of 1, ½, ¼, … by which the objective decreases enough.

    The decrease predicted for t = 1 is Δ = ∇f(x)ᵀd + g(x + d) − g(x).
    """
    u = tree.add(x, d)
    here = problem(x)
    predicted = tree.vdot(problem.f.gradient(x), d) + problem.g(u) - problem.g(x)
    noise = 1e2 * tree.eps(x) * jnp.abs(here)

    def too_long(t):
        enough = problem(tree.axpy(t, d, x)) <= here + ARMIJO * t * predicted + noise
        return ~enough & jnp.isfinite(here) & (t > SHORTEST)

    return tree.while_loop(too_long, lambda t: 0.5 * t, jnp.ones((), tree.dtype(x)))
