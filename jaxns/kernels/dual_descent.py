"""Stochastic dual descent: kernel systems by a few rows of the kernel at a time."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, validate
from jaxns.struct import settle, static, struct

ACCURACY = 1e-12  # of the derivative's conjugate gradients, where rounding allows


@struct
class Momentum:
    """image: ᾱ.   velocity: v.   count: t."""

    image: Array
    velocity: Array
    count: Array


@struct
class DualDescent:
    r"""Solve `System(K, b, λ)`, (K + λI) α = b, by stochastic dual descent (arXiv 2310.20581).

        g = (n/B) Σ_{i∈I} e_i ((K_i + λe_i)ᵀ(α + ρv) − b_i)
        v ← ρv − βg,   α ← α + v,   ᾱ ← rα + (1 − r)ᾱ

    with B coordinates I drawn uniformly, with replacement. A step computes B rows of K. The noise
    of g is multiplicative, it vanishes at the solution: with a constant stepsize the iterates
    converge linearly. The Hessian of the dual is K + λI, that of the primal ½‖b − Kα‖² + λ/2 ‖α‖²_K
    is K(K + λI): steps can be larger here by orders of magnitude.

    Ask for a number of steps, `Stop(tol=None, max_steps=…)`. `Implicit` differentiates the solution
    of the system, in b, λ and the parameters of the kernel, by conjugate gradients with K (as many
    unknowns as fit, by a factorisation); `Piggyback` the draws that were made.

    stepsize: βn, a number. "As large as stable": 0.1 to 50 for kernels with k(x, x) = 1.
    momentum: ρ in [0, 1).   batch_size: B.
    averaging: r in (0, 1], about 100 over the number of steps; 1 gives back the last α.
    key: what draws: a seed, or a key of `jax.random`.
    """

    noisy: ClassVar[bool] = True

    stepsize: float | Array = 0.5
    momentum: float | Array = 0.9
    batch_size: int = static(default=512)
    averaging: float | Array = 0.01
    key: Any = 0

    def __post_init__(self) -> None:
        for name in ("stepsize", "momentum", "averaging"):
            settle(self, name, validate.scalar(name, getattr(self, name)))
        validate.positive("stepsize", self.stepsize)
        validate.between("momentum", self.momentum, 0, 1)
        validate.within("averaging", validate.positive("averaging", self.averaging), 0, 1)
        validate.positive("batch_size", validate.integer("batch_size", self.batch_size))
        settle(self, "key", validate.key("key", self.key))

    def init(self, problem: Any, x0: Array) -> Array:
        if not all(hasattr(problem, part) for part in ("K", "b", "noise")):
            name = type(problem).__name__
            raise TypeError(f"DualDescent solves (K + λI) α = b, kernels.System; not {name}")
        return x0

    def step(self, problem: Any, alpha: Array) -> Array:
        """A step of gradient descent on the dual, no longer than 1/‖K + λI‖."""
        return alpha - _short(problem) * problem.residual(alpha)

    def solution(self, problem: Any, alpha: Array) -> Array:
        return alpha

    def control(self, problem: Any, alpha: Array) -> Momentum:
        return Momentum(alpha, jnp.zeros_like(alpha), jnp.zeros((), jnp.int32))

    def advance(self, problem: Any, alpha: Array, control: Momentum) -> tuple[Array, Momentum]:
        rho, v, t = self.momentum, control.velocity, control.count
        n, K = problem.K.size, problem.K
        key = jax.random.fold_in(jax.random.wrap_key_data(self.key), t)
        index = jax.random.randint(key, (self.batch_size,), 0, n)

        ahead = alpha + rho * v
        gap = K.rows(index) @ ahead + problem.noise * ahead[index] - jnp.asarray(problem.b)[index]
        v = (rho * v).at[index].add(-self.stepsize / self.batch_size * gap)
        alpha = alpha + v
        mean = self.averaging * alpha + (1 - self.averaging) * control.image
        return alpha, Momentum(mean, v, t + 1)

    def linearisation(self, problem: Any, alpha: Array) -> Any:
        """b ↦ (I − ∂F)⁻¹ b = (K + λI)⁻¹ b / step, which is symmetric."""

        def solve(b: Array) -> Array:
            columns = b.reshape(b.shape[0], -1)
            most = jnp.asarray(10 * b.shape[0], jnp.int32)

            def column(c: Array) -> Array:
                return linear.solve("cg", problem.product, c, ACCURACY, most)[0]

            return jax.vmap(column, 1, 1)(columns).reshape(b.shape) / _short(problem)

        return solve, solve


def _short(problem: Any) -> Array:
    """1/(tr K + λ), a constant of the solve."""
    return lax.stop_gradient(1 / (jnp.sum(problem.K.diagonal()) + problem.noise))
