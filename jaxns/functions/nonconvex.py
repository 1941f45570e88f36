"""Penalties that stop growing: nonconvex, with a prox that is unique for small enough steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import validate
from jaxns.functions.margins import from_threshold, nearest
from jaxns.functions.norms import per_leaf, soft_threshold, total
from jaxns.struct import settle, struct
from jaxns.tree import Tree


@struct
class MCP:
    """Σⱼ λ|xⱼ| − xⱼ²/(2γ) where |xⱼ| ≤ γλ, and γλ²/2 beyond (Zhang 2010); λ is the penalty.

    penalty, gamma: as the penalty of `L1`, gamma > 0.
    The prox needs step < γ: otherwise g(u) + ‖u − x‖²/(2 step) is not convex, and the minimiser
    jumps. A step that is too large is an error, and NaN where it is not known yet (under `jit`).
    """

    penalty: Any
    gamma: Any = 3.0

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))
        settle(self, "gamma", validate.coefficients("gamma", self.gamma))
        for leaf in jax.tree.leaves(self.gamma):
            validate.positive("gamma", leaf)

    def __call__(self, x: Tree) -> Array:
        def charge(penalty, gamma, x):
            inside = penalty * jnp.abs(x) - x**2 / (2 * gamma)
            return jnp.where(jnp.abs(x) > gamma * penalty, gamma * penalty**2 / 2, inside)

        return total(jax.tree.map(charge, *self._per_leaf(x), x))

    def prox(self, x: Tree, step: Any) -> Tree:
        """Firm thresholding: soft-thresholded and stretched up to γλ, kept beyond."""

        def threshold(penalty, gamma, x):
            s = small_step(step, gamma, "gamma")
            inside = soft_threshold(x, s * penalty) / (1 - s / gamma)
            return jnp.where(jnp.abs(x) >= gamma * penalty, x + 0 * s, inside).astype(x.dtype)

        return jax.tree.map(threshold, *self._per_leaf(x), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        def gaps(penalty, gamma, x):
            ends = (step * penalty, gamma * penalty)
            return [from_threshold(jnp.abs(x), end) for end in ends]

        return nearest(jax.tree.map(gaps, *self._per_leaf(x), x))

    def support(self, x: Tree) -> Tree:
        penalty, _ = self._per_leaf(x)
        return jax.tree.map(lambda p, xi: (xi != 0) | (p == 0), penalty, x)

    def curvature(self, x: Tree, v: Tree) -> Tree:
        def bend(penalty, gamma, x, v):
            return jnp.where((x != 0) & (jnp.abs(x) < gamma * penalty), -v / gamma, 0)

        return jax.tree.map(bend, *self._per_leaf(x), x, v)

    def _per_leaf(self, x: Tree) -> tuple[Tree, Tree]:
        return per_leaf("penalty", self.penalty, x), per_leaf("gamma", self.gamma, x)


@struct
class SCAD:
    """Σⱼ λ|xⱼ| up to λ, (2aλ|xⱼ| − xⱼ² − λ²)/(2(a − 1)) up to aλ, λ²(a + 1)/2 beyond (Fan and Li
    2001); λ is the penalty.

    penalty, a: as the penalty of `L1`, a > 2.
    The prox needs step < a − 1, just as that of `MCP` needs step < γ.
    """

    penalty: Any
    a: Any = 3.7

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))
        settle(self, "a", validate.coefficients("a", self.a))
        for leaf in jax.tree.leaves(self.a):
            if validate.is_known(leaf) and not np.all(np.asarray(leaf) > 2):
                raise ValueError(f"a must be greater than 2, got {leaf}")

    def __call__(self, x: Tree) -> Array:
        def charge(penalty, a, x):
            size = jnp.abs(x)
            bent = (2 * a * penalty * size - x**2 - penalty**2) / (2 * (a - 1))
            flat = jnp.where(size > a * penalty, penalty**2 * (a + 1) / 2, bent)
            return jnp.where(size <= penalty, penalty * size, flat)

        return total(jax.tree.map(charge, *self._per_leaf(x), x))

    def prox(self, x: Tree, step: Any) -> Tree:
        """Soft-thresholded up to (1 + step)λ, stretched up to aλ, kept beyond."""

        def threshold(penalty, a, x):
            s = small_step(step, a - 1, "a - 1")
            bent = ((a - 1) * x - s * a * penalty * jnp.sign(x)) / (a - 1 - s)
            soft = jnp.abs(x) <= (1 + s) * penalty
            near = jnp.where(soft, soft_threshold(x, s * penalty), bent)
            return jnp.where(jnp.abs(x) >= a * penalty, x + 0 * s, near).astype(x.dtype)

        return jax.tree.map(threshold, *self._per_leaf(x), x)

    def prox_margin(self, x: Tree, step: Any) -> Array:
        def gaps(penalty, a, x):
            ends = (step * penalty, (1 + step) * penalty, a * penalty)
            return [from_threshold(jnp.abs(x), end) for end in ends]

        return nearest(jax.tree.map(gaps, *self._per_leaf(x), x))

    def support(self, x: Tree) -> Tree:
        penalty, _ = self._per_leaf(x)
        return jax.tree.map(lambda p, xi: (xi != 0) | (p == 0), penalty, x)

    def curvature(self, x: Tree, v: Tree) -> Tree:
        def bend(penalty, a, x, v):
            size = jnp.abs(x)
            return jnp.where((penalty < size) & (size < a * penalty), -v / (a - 1), 0)

        return jax.tree.map(bend, *self._per_leaf(x), x, v)

    def _per_leaf(self, x: Tree) -> tuple[Tree, Tree]:
        return per_leaf("penalty", self.penalty, x), per_leaf("a", self.a, x)


def small_step(step: Any, bound: Array, name: str) -> Array:
    """The step if it is below the bound; an error where it is known not to be, else NaN."""
    if validate.is_known(step) and validate.is_known(bound) and np.any(step >= np.asarray(bound)):
        raise ValueError(
            f"the prox needs a step below {name} = {bound}, got {step}; reduce the step"
        )
    return jnp.where(step < bound, step, jnp.nan)
