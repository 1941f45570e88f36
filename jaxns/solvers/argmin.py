"""argmin_x φ(x) + r/2 ‖Mx − d‖²: the subproblem of ADMM, where it has a closed form."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.operators import adjoint, apply, is_multiple
from jaxns.solvers import kinks, stepsize
from jaxns.struct import struct
from jaxns.tree import Tree


def is_exact(phi: Any, M: Any) -> bool:
    """Whether there is one: M a multiple of the identity and φ with a prox, or φ quadratic."""
    if is_multiple(M):
        return hasattr(phi, "prox")
    return getattr(phi, "quadratic", False) and not callable(M)


def factorises(phi: Any, M: Any) -> bool:
    """Whether φ factorises its prox for one r, so that r had better stay."""
    return is_multiple(M) and hasattr(phi, "factor")


def factorise(phi: Any, M: Any, r: Any, like: Tree) -> tuple[Any, Any]:
    """What can be computed once for all d, and a penalty that suits the curvature of φ.

    It serves every r, except where φ itself factorises its prox for one.
    """
    if not is_multiple(M):
        factor = normal(phi, M, like)
        return factor, factor.s
    suited = 1 / (stepsize.from_curvature(phi) * M**2)
    if not factorises(phi, M):
        return None, suited
    return phi.factor(1 / ((suited if r is None else r) * M**2)), suited


def argmin(phi: Any, M: Any, r: Any, d: Tree, factor: Any) -> Tree:
    """The minimiser; `factor` as from `factorise`."""
    if not is_multiple(M):
        return factor(phi, M, r, d)
    phi = phi if factor is None else factor
    return phi.prox(tree.scale(1 / M, d), 1 / (r * M**2))


def argmin_margin(phi: Any, M: Any, r: Any, d: Tree) -> Array | None:
    """How far d is from the nearest kink of the minimiser."""
    if not is_multiple(M):
        return kinks.no_kink(d)
    of_prox = kinks.of_prox(phi, tree.scale(1 / M, d), 1 / (r * M**2))
    return kinks.over(of_prox, 1 / abs(M))


@struct
class Normal:
    """(H + r MᵀM)⁻¹ for every r, H the Hessian of a quadratic φ.

    W and λ diagonalise both, Wᵀ(H + s MᵀM)W = I and Wᵀ MᵀM W = diag(λ), so it is
    W diag(1/(1 + (r − s) λ)) Wᵀ.   offset: −∇φ(0).
    """

    W: Array
    spectrum: Array
    s: Array
    offset: Array

    def __call__(self, phi: Any, M: Any, r: Any, d: Array) -> Array:
        """Solve (H + r MᵀM) x = −∇φ(0) + r Mᵀd. Its derivatives need no factorisation."""

        def system(x):
            _, Hx = jax.jvp(phi.gradient, (jnp.zeros_like(x),), (x,))
            return Hx + r * adjoint(M, apply(M, x))

        def solve(_, b):
            scale = 1 + (lax.stop_gradient(r) - self.s) * self.spectrum
            return self.W @ ((b.T @ self.W) / scale).T

        b = self.offset + r * adjoint(M, d)
        return lax.custom_linear_solve(system, b, solve, symmetric=True)


def normal(phi: Any, M: Any, like: Array) -> Normal:
    """Cholesky of H + s MᵀM, then the eigenvalues of MᵀM relative to it; s makes both count."""
    frozen, A = lax.stop_gradient((phi, M.todense() if hasattr(M, "todense") else M))
    zero, gram = jnp.zeros_like(A[0]), A.T @ A
    H = frozen.hessian(zero) if hasattr(phi, "hessian") else jax.jacfwd(frozen.gradient)(zero)
    trace, size = jnp.trace(H), jnp.trace(gram)
    s = jnp.where((trace > 0) & (size > 0), trace / jnp.where(size > 0, size, 1), 1)
    lower = jnp.linalg.cholesky(H + s * gram)
    half = jax.scipy.linalg.solve_triangular(lower, gram, lower=True)
    relative = jax.scipy.linalg.solve_triangular(lower, half.T, lower=True)
    spectrum, Q = jnp.linalg.eigh(relative)
    W = jax.scipy.linalg.solve_triangular(lower, Q, lower=True, trans="T")
    return Normal(W, spectrum, s, -phi.gradient(jnp.zeros_like(like)))
