"""Anderson acceleration around any solver."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import tree, validate
from jaxns.solvers import linearised
from jaxns.solvers.wrapper import Wrapper
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree


@struct
class Memory:
    """The last points visited, as flat rows; a new one overwrites the oldest.

    image: F at the point visited last.   images, residuals: F(zᵢ) and F(zᵢ) − zᵢ.
    count: rows in use.   safe: the image of the best point so far, and `best` its residual's norm.
    """

    image: Tree
    images: Array
    residuals: Array
    count: Array
    safe: Tree
    best: Array


@struct
class Anderson(Wrapper):
    r"""Extrapolate from the last m points of the map F of `solver`.

        z⁺ = Σᵢ αᵢ F(zᵢ),   α = argmin { ‖Σᵢ αᵢ (F(zᵢ) − zᵢ)‖² + λ ‖α‖² :  Σᵢ αᵢ = 1 }

    (Anderson 1965; Walker and Ni 2011), with λ relative to the largest residual remembered. A point
    whose residual is no smaller than the best one's is rejected: the memory is cleared, and the
    iteration goes on from the image of the best point. So it converges where F does, at a kink or
    from a bad start too. The fixed point, and the map that is differentiated, are those of
    `solver`, whose own acceleration is not used.

    What it remembers of the residuals R and images of F makes an estimate of (I − ∂F)⁻¹, the
    identity but for the differences seen (multisecant, type II: Fang and Saad 2009),

        I − ΔF (ΔRᵀ ΔR)⁻¹ ΔRᵀ,    which maps ΔR = −(I − ∂F) ΔZ to −ΔZ = ΔR − ΔF;

    `Shine` uses it.

    memory: m, points remembered.   regularisation: λ ≥ 0.
    """

    solver: Any
    memory: int = static(default=5)
    regularisation: float | Array = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.memory, int) or self.memory < 1:
            raise ValueError(f"memory must be a positive integer, got {self.memory!r}")
        weight = validate.scalar("regularisation", self.regularisation)
        settle(self, "regularisation", validate.nonnegative("regularisation", weight))

    def control(self, problem: Any, z: Tree) -> Memory:
        flat, _ = ravel_pytree(z)
        blank = jnp.zeros((self.memory, flat.size), flat.dtype)
        infinity = jnp.asarray(jnp.inf, flat.dtype)
        return Memory(z, blank, blank, jnp.zeros((), jnp.int32), z, infinity)

    def advance(self, problem: Any, z: Tree, control: Memory) -> tuple[Tree, Memory]:
        image = self.step(problem, z)
        residual, unravel = ravel_pytree(tree.sub(image, z))
        size = lax.stop_gradient(jnp.linalg.norm(residual))
        accepted = (size <= control.best) | (control.count == 0)
        row = control.count % self.memory
        images = control.images.at[row].set(ravel_pytree(image)[0])
        residuals = control.residuals.at[row].set(residual)
        alpha = self._weights(residuals, jnp.arange(self.memory) <= control.count)
        z_next = tree.where(accepted, unravel(alpha @ images), control.safe)
        safe = tree.where(accepted, image, control.safe)
        best = jnp.where(accepted, size, control.best)
        count = jnp.where(accepted, control.count + 1, 0)
        return z_next, Memory(image, images, residuals, count, safe, best)

    def estimate(self, problem: Any, z: Tree, control: Memory) -> linearised.Inverse:
        """b ↦ b − ΔF ΔR⁺ b, and its transpose."""
        _, unravel = ravel_pytree(z)
        newest = (control.count - 1) % self.memory
        stored = (jnp.arange(self.memory) < control.count)[:, None]
        dR = jnp.where(stored, control.residuals - control.residuals[newest], 0)
        dF = jnp.where(stored, control.images - control.images[newest], 0)
        size = jnp.linalg.norm(dR, axis=1, keepdims=True)
        dR, dF = dR / jnp.where(size > 0, size, 1), dF / jnp.where(size > 0, size, 1)
        inverse = jnp.linalg.pinv(dR, rtol=1e3 * tree.eps(dR))

        def solve(b):
            b, _ = ravel_pytree(b)
            return unravel(b - (b @ inverse) @ dF)

        def transpose(b):
            b, _ = ravel_pytree(b)
            return unravel(b - inverse @ (dF @ b))

        return linearised.Inverse(solve, transpose)

    def _weights(self, residuals: Array, stored: Array) -> Array:
        """α, zero for the rows that are not in use: solve (R Rᵀ + λ I) α ∝ 1."""
        gram = residuals @ residuals.T
        largest = jnp.max(jnp.where(stored, jnp.diag(gram), 0))
        gram = gram / jnp.where(largest > 0, largest, 1)
        eye = jnp.eye(self.memory, dtype=gram.dtype)
        ridge = jnp.maximum(self.regularisation, tree.eps(gram)) * eye
        system = jnp.where(stored[:, None] & stored, gram, eye) + ridge
        alpha = jnp.where(stored, jnp.linalg.solve(system, stored.astype(gram.dtype)), 0)
        return alpha / jnp.sum(alpha)
