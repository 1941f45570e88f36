"""Log marginal likelihoods of Gaussian processes, estimated with a preconditioner.

With K̂ = K + σ²I and P ≈ K̂, whose log determinant is cheap,

    log det K̂ = log det P + tr log(P^(−1/2) K̂ P^(−1/2)):

only the second term is estimated, and it is the smaller the better P is (arXiv 2107.00243).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import linear, tree, validate
from jaxns.kernels.preconditioner import Preconditioner, choose, precondition
from jaxns.kernels.system import System
from jaxns.struct import settle, static, struct


@struct
class Estimate:
    """How log determinants are estimated and systems solved.

    key: what draws the probes: a seed, or a key of `jax.random`; the same key, the same probes.
    rank: k ≥ 0, steps of the pivoted Cholesky factorisation; 0 for P = σ²I.
    probes: ℓ, vectors of random signs.   lanczos: m, products with K for each of them.
    tol, max_steps: of conjugate gradients: the relative residual, and products with K at most.
        What has not converged is NaN.
    """

    key: Any = 0
    rank: int = static(default=20)
    probes: int = static(default=10)
    lanczos: int = static(default=30)
    tol: float | Array = 1e-8
    max_steps: int | Array = 1000

    def __post_init__(self) -> None:
        settle(self, "key", validate.key("key", self.key))
        validate.nonnegative("rank", validate.integer("rank", self.rank))
        for name in ("probes", "lanczos"):
            validate.positive(name, validate.integer(name, getattr(self, name)))
        settle(self, "tol", validate.nonnegative("tol", validate.scalar("tol", self.tol)))
        settle(self, "max_steps", validate.integer("max_steps", self.max_steps))


def log_det(system: System, how: Estimate | None = None) -> Array:
    r"""log det(K + σ²I), estimated by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017).

        log det P + (1/ℓ) Σ_i u_iᵀ log(P^(−1/2) K̂ P^(−1/2)) u_i,   u_i random signs

    without bias but for the quadrature, whose error falls exponentially with m. Its gradient, in
    σ² and the parameters of the kernel, is an estimate of its own, without bias, by `custom_vjp`:

        tr(P⁻¹ ∂P) + (1/ℓ) Σ_i (x_iᵀ ∂K̂ w_i − w_iᵀ ∂P w_i),   w_i = P^(−1/2) u_i,   x_i = K̂⁻¹ P w_i

    where x_i is found by preconditioned conjugate gradients from the guess w_i.
    """
    noise = jnp.asarray(system.noise, system.K.diagonal().dtype)
    return _log_det(system.K, noise, Estimate() if how is None else how)


def solve(system: System, how: Estimate | None = None) -> tuple[Array, linear.Report]:
    """(K + σ²I)⁻¹ b by preconditioned conjugate gradients, and how far each column got.

    Differentiable any number of times, forwards and backwards.   b: (n,) or (n, s).
    """
    K, noise = system.K, jnp.asarray(system.noise)
    how = Estimate() if how is None else how
    return _solve(K, noise, jnp.asarray(system.b), _precondition(K, noise, how), how)


def log_marginal_likelihood(system: System, how: Estimate | None = None) -> Array:
    """−½ (bᵀ K̂⁻¹ b + log det K̂ + n log 2π), with the log determinant and its gradient estimated.

    b: (n,), the targets.
    """
    b = validate.array("b", system.b, 1)
    fit = b @ solve(system, how)[0]
    return -(fit + log_det(system, how) + b.size * jnp.log(2 * jnp.pi)) / 2


@jax.custom_vjp
def _log_det(K: Any, noise: Array, how: Estimate) -> Array:
    P = _precondition(K, noise, how)
    quadrature = jax.vmap(lambda u: _quadrature(K, noise, P, u, how.lanczos))
    return P.log_det() + jnp.mean(quadrature(_signs(K, how)))


def _forward(K: Any, noise: Array, how: Estimate) -> tuple:
    return _log_det(K, noise, how), (K, noise, how)


def _backward(saved: tuple, cotangent: Array) -> tuple:
    K, noise, how = saved
    pivots = choose(K, how.rank)
    P = precondition(K, noise, pivots)
    w = P.power(-0.5, _signs(K, how).T)
    x = w + _solve(K, noise, P(w) - K(w) - noise * w, P, how)[0]

    def surrogate(K: Any, noise: Array) -> Array:
        """Its gradient at the saved point, where w and x are constants, is the estimate."""
        P = precondition(K, noise, pivots)
        residual = jnp.vdot(x, K(w) + noise * w) - jnp.vdot(w, P(w))
        return P.log_det() + residual / how.probes

    gradient = jax.grad(surrogate, argnums=(0, 1), allow_int=True)(K, noise)
    return *tree.scale(cotangent, gradient), None


_log_det.defvjp(_forward, _backward)


def _precondition(K: Any, noise: Any, how: Estimate) -> Preconditioner:
    return precondition(K, noise, choose(K, how.rank))


def _signs(K: Any, how: Estimate) -> Array:
    key, dtype = jax.random.wrap_key_data(how.key), K.diagonal().dtype
    return jax.random.rademacher(key, (how.probes, K.size), dtype)


def _solve(K: Any, noise: Array, b: Array, P: Preconditioner, how: Estimate) -> tuple:
    """K̂⁻¹ b column by column; a column that has not converged is NaN."""
    P = lax.stop_gradient(P)

    def product(a: Array) -> Array:
        return K(a) + noise * a

    def cg(matvec: Any, c: Array) -> tuple[Array, linear.Report]:
        inverse = partial(P.power, -1.0)
        x, report = linear.solve("cg", matvec, c, how.tol, how.max_steps, precondition=inverse)
        return jnp.where(report.converged, x, jnp.nan), report

    def column(c: Array) -> tuple[Array, linear.Report]:
        return lax.custom_linear_solve(product, c, cg, symmetric=True, has_aux=True)

    return column(b) if b.ndim == 1 else jax.vmap(column, 1, (1, 0))(b)


def _quadrature(K: Any, noise: Array, P: Preconditioner, u: Array, m: int) -> Array:
    """uᵀ log(B) u ≈ ‖u‖² Σ_j τ_j² log θ_j for B = P^(−1/2) K̂ P^(−1/2): m steps of Lanczos from u.

    θ_j are the eigenvalues of the tridiagonal matrix, τ_j the first entries of its eigenvectors.
    """
    m = min(m, u.size)

    def step(carry: tuple, j: Array) -> tuple:
        Q, q = carry
        Q = Q.at[j].set(q)
        v = P.power(-0.5, q)
        v = P.power(-0.5, K(v) + noise * v)
        diagonal = jnp.where(jnp.any(q != 0), q @ v, 1)  # 1 beyond an invariant space: log 1 = 0
        size = jnp.linalg.norm(v)
        for _ in range(2):
            v = v - Q.T @ (Q @ v)
        beside = jnp.linalg.norm(v)
        more = beside > 10 * u.size * tree.eps(u) * size
        q = jnp.where(more, v / jnp.where(more, beside, 1), 0)
        return (Q, q), (diagonal, jnp.where(more, beside, 0))

    length = jnp.linalg.norm(u)
    start = jnp.zeros((m, u.size), u.dtype), u / length
    _, (diagonal, beside) = lax.scan(step, start, jnp.arange(m))
    T = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    theta, vectors = jnp.linalg.eigh(T)
    return length**2 * jnp.sum(vectors[0] ** 2 * jnp.log(theta))
