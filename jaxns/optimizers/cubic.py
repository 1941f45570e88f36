"""The step of Newton's method with anisotropic cubic regularisation (arXiv 2312.03885)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import cho_solve

from jaxns import validate


class CubicStep(NamedTuple):
    """eta: η, zero where there is none.   r: ‖Dη‖.   solved: whether there is one."""

    eta: Array
    r: Array
    solved: Array


def cubic_step(H: Array, g: Array, d3: Array, lam: float | Array = 1.0) -> CubicStep:
    r"""The global minimiser of −gᵀη + ½ ηᵀHη + λ/6 ‖Dη‖³, with D = Diag(|d3|^⅓):

        η = (H + λ/2 r D²)⁻¹ g,   r = ‖Dη‖,   H + λ/2 r D² ≽ 0,

    among the fixed points the one with the largest r. H need not be positive definite. Changing the
    units of the groups, H → AHA, g → Ag, D → AD with A diagonal, gives A⁻¹η and the same r.

    r is found by bisection: x is too small where H + λ/2 x D² is not positive definite, or where
    ‖D (H + λ/2 x D²)⁻¹ g‖ > x; both end at some x and never begin again.

    There is no such step, and `solved` says so, where the model is unbounded below (H is not
    positive definite on the groups where D is 0, or λ = 0 and H is not positive definite), in the
    hard case (g without a component where H is most negative), and for numbers that are not finite.
    A group on which nothing depends (its row of H, g and d3 are 0) does not move.

    H: (S, S), symmetric.   g, d3: (S,).   lam: λ ≥ 0; with 0 the step is Newton's, H⁻¹g.
    Computed in float64 where JAX has it enabled, whatever the arguments' type. The step is a
    constant to differentiation.
    """
    validate.nonnegative("lam", lam)
    wide = jnp.result_type(float)
    H, g, d3, lam = (lax.stop_gradient(jnp.asarray(a, wide)) for a in (H, g, d3, lam))
    if H.shape != (*g.shape, *g.shape) or g.ndim != 1 or d3.shape != g.shape:
        raise ValueError(
            f"H, g, d3 must have shapes (S, S), (S,), (S,), got {H.shape}, {g.shape}, {d3.shape}"
        )
    return _bisect(H, g, d3, lam)


@jax.jit
def _bisect(H: Array, g: Array, d3: Array, lam: Array) -> CubicStep:
    D = jnp.cbrt(jnp.abs(d3))
    idle = (g == 0) & (D == 0) & jnp.all(H == 0, axis=1)
    H = H + jnp.diag(idle.astype(H.dtype))  # any η_s will do there: 0

    def at(x: Array) -> tuple[Array, Array]:
        """η for a given x, and whether the matrix is positive definite."""
        factor = jnp.linalg.cholesky(H + lam / 2 * x * jnp.diag(D**2))
        return cho_solve((factor, True), g), jnp.all(jnp.isfinite(factor))

    def too_small(x: Array) -> Array:
        eta, definite = at(x)
        return ~(definite & (jnp.linalg.norm(D * eta) <= x))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = jnp.sqrt(low) * jnp.sqrt(high)
        small = too_small(middle)
        return jnp.where(small, middle, low), jnp.where(small, high, middle)

    precision = jnp.finfo(g.dtype)
    ends = jnp.asarray(precision.tiny, g.dtype) ** 0.5, jnp.asarray(precision.max, g.dtype) ** 0.25
    _, r = lax.fori_loop(0, precision.bits + 16, halve, ends)
    eta, definite = at(r)
    length = jnp.linalg.norm(D * eta)
    fixed = jnp.abs(length - r) <= precision.eps**0.5 * r + ends[0]
    solved = definite & fixed & jnp.all(jnp.isfinite(eta))
    return CubicStep(jnp.where(solved, eta, 0), jnp.where(solved & (length > 0), r, 0), solved)
