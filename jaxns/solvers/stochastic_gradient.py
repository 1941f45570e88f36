"""Stochastic gradient descent, plain and proximal."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import tree, validate
from jaxns.solvers import stepsize
from jaxns.solvers.needs import need, need_constant, need_plain
from jaxns.struct import replace, settle, static, struct
from jaxns.tree import Tree


@struct
class Decreasing:
    """The stepsizes c/(k + k₀)^power of k = 0, 1, …, also a schedule for optax.

    With power 1 and c μ > 1, ‖x_k − x*‖² decreases like 1/k.
    """

    c: float | Array
    k0: float | Array
    power: float | Array = 1.0

    def __post_init__(self) -> None:
        settle(self, "c", validate.positive("c", validate.scalar("c", self.c)))
        settle(self, "k0", validate.positive("k0", validate.scalar("k0", self.k0)))
        settle(self, "power", validate.positive("power", validate.scalar("power", self.power)))

    def __call__(self, k: Any) -> Array:
        return self.c / (k + self.k0) ** self.power


@struct
class Draws:
    """image: the newest iterate, or the mean of all.   count: k.   mean: x̄_k, when averaging."""

    image: Tree
    count: Array
    mean: Tree | None = None


@struct
class StochasticGradient:
    r"""Minimise f(x) + g(x), f a sum over samples, by the gradients of a few samples at a time.

        x_{k+1} = prox_{η_k g}(x_k − η_k ∇f_{ξ_k}(x_k)),   E ∇f_ξ = ∇f

    with the samples ξ_k drawn uniformly, with replacement (arXiv 2405.15894; g = 0 there). The
    iterates stay noisy, so that no residual tells how near they are: ask for a number of steps,
    `Stop(tol=None, max_steps=…)`. `Piggyback` differentiates the draws that were made: the same
    samples for x_k and its derivative. `Implicit` and `OneStep` go through the full objective, by
    the map x ↦ prox_{α g}(x − α ∇f(x)) with α = 1/(2 max_i L_i), or 1/L with all rows.

    stepsize: η, a number; or η_k as a function of k = 0, 1, …, such as `Decreasing(c, k0)` or a
        schedule of optax (a function is structure: another one is traced anew). By default α.
    batch_size: samples drawn in a step. None takes all rows: proximal gradient descent.
    key: what draws: a seed, or a key of `jax.random`.
    averaging: give back the mean of x_1, …, x_k (Polyak and Juditsky 1992).

    f: a loss of a linear predictor, or anything with `samples`, `rows(index)` and
        `row_lipschitz()`; where it lacks the last, a stepsize is needed, and α is η, or η_0.
    """

    stepsize: float | Array | Callable[[Any], Any] | None = None
    batch_size: int | None = static(default=1)
    key: Any = 0
    averaging: bool = static(default=False)
    alpha: Array | None = None  # filled in by `prepare`

    def __post_init__(self) -> None:
        if not callable(self.stepsize):
            stepsize.check(self)
        if self.batch_size is not None:
            validate.positive("batch_size", validate.integer("batch_size", self.batch_size))
        settle(self, "key", validate.key("key", self.key))

    @property
    def noisy(self) -> bool:
        return self.batch_size is not None

    def prepare(self, problem: Any, x0: Tree) -> "StochasticGradient":
        need(self, problem, "f", "rows", "use ForwardBackward")
        need(self, problem, "g", "prox", "use GradientDescent if g is smooth")
        need_plain(self, problem, "use PrimalDual, or DavisYin for h")
        if self.stepsize is not None and not hasattr(problem.f, "row_lipschitz"):
            return replace(self, alpha=self._at(0, x0))
        need(self, problem, "f", "row_lipschitz", "pass a stepsize")
        constants = problem.f.row_lipschitz() if self.noisy else problem.f.lipschitz()
        need_constant(self, problem, "f", constants, "use ForwardBackward")
        alpha = stepsize.from_lipschitz(jnp.max(constants)) / (2 if self.noisy else 1)
        eta = alpha if self.stepsize is None else self.stepsize
        return replace(self, stepsize=eta, alpha=alpha)

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, x: Tree) -> Tree:
        return _descend(problem.f, problem.g, x, self.alpha)

    def solution(self, problem: Any, x: Tree) -> Tree:
        return x

    def control(self, problem: Any, x: Tree) -> Draws:
        return Draws(x, jnp.zeros((), jnp.int32), x if self.averaging else None)

    def advance(self, problem: Any, x: Tree, control: Draws) -> tuple[Tree, Draws]:
        k = control.count
        f = self._sampled(problem.f, k)
        x = _descend(f, problem.g, x, self._at(k, x))
        if control.mean is None:
            return x, Draws(x, k + 1)
        mean = tree.axpy(1 / (k + 1).astype(tree.dtype(x)), tree.sub(x, control.mean), control.mean)
        return x, Draws(mean, k + 1, mean)

    def _at(self, k: Any, x: Tree) -> Array:
        eta = self.stepsize(k) if callable(self.stepsize) else self.stepsize
        return jnp.asarray(eta, tree.dtype(x))

    def _sampled(self, f: Any, k: Array) -> Any:
        if self.batch_size is None:
            return f
        key = jax.random.fold_in(jax.random.wrap_key_data(self.key), k)
        return f.rows(jax.random.randint(key, (self.batch_size,), 0, f.samples))


def _descend(f: Any, g: Any, x: Tree, eta: Any) -> Tree:
    return g.prox(tree.axpy(-eta, f.gradient(x), x), eta)
