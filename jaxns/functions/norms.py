"""Penalties: value and proximity operator, prox_{step·g}(x) = argmin_u g(u) + ‖u − x‖²/(2 step).

Those that are smooth along a manifold through x also say which coordinates can move there,
`support(x)`, and the Hessian of g along it, `curvature(x, v)` for a v that is 0 off the support.
Where the derivative of a prox at a kink is chosen, that is the one at x of another function without
a kink there, `selected(x, step)`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.functions.margins import NoKinks, from_threshold, nearest
from jaxns.struct import settle, struct
from jaxns.tree import Tree


def soft_threshold(x: Array, threshold: Any, at_kink: Any = None) -> Array:
    """sign(x) max(|x| − threshold, 0), with derivative 0 at the kink (docs/kinks.md); NaN stays.

    A threshold of 0 has no kink: the identity, with derivative 1 everywhere.
    at_kink: another derivative at the kink, s in x and −sign(x) s in the threshold.
    """
    zero = (jnp.abs(x) <= threshold) & (threshold > 0)
    moved = x - threshold * jnp.sign(x)
    still = 0
    if at_kink is not None:
        still = jnp.where(jnp.abs(x) == threshold, lax.stop_gradient(at_kink) * moved, 0)
    return jnp.where(zero, still, moved).astype(x.dtype)


def shrink(x: Array, by: Any) -> Array:
    """x / (1 + by), in the type of x."""
    return (x / (1 + by)).astype(x.dtype)


def repeat(name: str, coefficients: Any, x: Array) -> Array:
    """The coefficients, one for each entry of x.

    For the functions g(x) = Σⱼ gⱼ(xⱼ), whose `separate(x)` is (None, g with coefficients repeated
    so): indexed along the first axis, they are those of some of the gⱼ.
    """
    return jnp.broadcast_to(per_leaf(name, coefficients, x), x.shape)


@struct
class Zero(NoKinks):
    """0, everywhere: no penalty."""

    quadratic = True

    def separate(self, x: Array) -> tuple[None, "Zero"]:
        return None, self

    def __call__(self, x: Tree) -> Array:
        return jnp.zeros((), tree.dtype(x))

    def prox(self, x: Tree, step: Any) -> Tree:
        return x

    def gradient(self, x: Tree) -> Tree:
        return tree.zeros_like(x)

    def lipschitz(self) -> float:
        return 0.0

    def support(self, x: Tree) -> Tree:
        return everywhere(x)

    def curvature(self, x: Tree, v: Tree) -> Tree:
        return tree.zeros_like(v)


@struct
class L1:
    r"""Σⱼ penaltyⱼ |xⱼ|.

    penalty: a number ≥ 0, an array that broadcasts against x (one per coordinate), or a pytree of
        these matching the structure of x.
    at_kink: the derivative of the prox where |xⱼ| = step·penaltyⱼ > 0, in [0, 1], given as the
        penalty is; by default 0. That in the threshold is −sign(xⱼ) times it (docs/kinks.md).
    """

    penalty: Any
    at_kink: Any = None

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))
        settle(self, "at_kink", _element(self.at_kink))

    def separate(self, x: Array) -> tuple[None, "L1"]:
        at_kink = None if self.at_kink is None else repeat("at_kink", self.at_kink, x)
        return None, L1(repeat("penalty", self.penalty, x), at_kink)

    def __call__(self, x: Tree) -> Array:
        return weighted_l1(per_leaf("penalty", self.penalty, x), x)

    def prox(self, x: Tree, step: Any) -> Tree:
        penalty = per_leaf("penalty", self.penalty, x)

        def threshold(p, xi, s=None):
            return soft_threshold(xi, step * p, s)

        return jax.tree.map(threshold, penalty, x, *_chosen(self.at_kink, x))

    def prox_margin(self, x: Tree, step: Any) -> Array:
        """To the nearest edge of a dead zone."""
        penalty = per_leaf("penalty", self.penalty, x)
        return nearest(
            jax.tree.map(lambda p, xi: from_threshold(jnp.abs(xi), step * p), penalty, x)
        )

    def support(self, x: Tree) -> Tree:
        penalty = per_leaf("penalty", self.penalty, x)
        return jax.tree.map(lambda p, xi: (xi != 0) | (p == 0), penalty, x)

    def curvature(self, x: Tree, v: Tree) -> Tree:
        return tree.zeros_like(v)

    def selected(self, x: Tree, step: Any) -> "L1 | ElasticNet":
        if self.at_kink is None:
            return self
        return ElasticNet(self.penalty, 0.0, self.at_kink).selected(x, step)

    def smoothed(self, mu: Any) -> "PseudoHuber":
        return PseudoHuber(self.penalty, mu)


@struct
class PseudoHuber:
    r"""Σⱼ penaltyⱼ s(xⱼ), s(x) = √(x² + μ²) − μ: what `L1` is smoothed to (arXiv 2309.01781).

    s is generalised self-concordant: |s‴| ≤ M (s″)^{ν/2}, with ν = 8/3 and M = 3 μ^{ν/2 − 2}. For
    μ = 1 the ratio |s‴|/(s″)^{ν/2} is 3|x| (1 + x²)^{(3ν − 10)/4}, so that ν is the largest order
    for which it is bounded, and 3 the least bound.

    penalty: as for `L1`.   mu: μ > 0.
    """

    penalty: Any
    mu: Any

    order: ClassVar[float] = 8 / 3

    def __call__(self, x: Tree) -> Array:
        s = jax.tree.map(lambda xi: jnp.sqrt(xi**2 + self.mu**2) - self.mu, x)
        return weighted_sum(per_leaf("penalty", self.penalty, x), s)

    def second(self, x: Tree) -> Tree:
        """s″(xⱼ) = μ² (xⱼ² + μ²)^{−3/2}, of which penaltyⱼ times is the Hessian's diagonal."""
        return jax.tree.map(lambda xi: self.mu**2 * (xi**2 + self.mu**2) ** -1.5, x)

    def weighted(self, v: Tree) -> Tree:
        """penaltyⱼ vⱼ."""
        return jax.tree.map(jnp.multiply, per_leaf("penalty", self.penalty, v), v)

    def constant(self) -> Any:
        """M."""
        return 3 * self.mu ** (self.order / 2 - 2)

    def lipschitz(self) -> Array:
        """The largest penaltyⱼ/μ."""
        return SquaredL2(self.penalty).lipschitz() / self.mu


@struct
class SquaredL2(NoKinks):
    """½ Σⱼ penaltyⱼ xⱼ².   penalty: as for `L1`."""

    penalty: Any
    quadratic = True

    def __post_init__(self) -> None:
        settle(self, "penalty", validate.coefficients("penalty", self.penalty))

    def separate(self, x: Array) -> tuple[None, "SquaredL2"]:
        return None, SquaredL2(repeat("penalty", self.penalty, x))

    def __call__(self, x: Tree) -> Array:
        penalty = per_leaf("penalty", self.penalty, x)
        return weighted_sum(penalty, jax.tree.map(lambda xi: 0.5 * xi**2, x))

    def prox(self, x: Tree, step: Any) -> Tree:
        penalty = per_leaf("penalty", self.penalty, x)
        return jax.tree.map(lambda p, xi: shrink(xi, step * p), penalty, x)

    def gradient(self, x: Tree) -> Tree:
        penalty = per_leaf("penalty", self.penalty, x)
        return jax.tree.map(lambda p, xi: p * xi, penalty, x)

    def support(self, x: Tree) -> Tree:
        return everywhere(x)

    def curvature(self, x: Tree, v: Tree) -> Tree:
        return self.gradient(v)

    def lipschitz(self) -> Array:
        return jnp.max(jnp.stack([jnp.max(jnp.asarray(p)) for p in jax.tree.leaves(self.penalty)]))

    def strong_convexity(self) -> Array:
        return jnp.min(jnp.stack([jnp.min(jnp.asarray(p)) for p in jax.tree.leaves(self.penalty)]))


@struct
class ElasticNet:
    """Σⱼ l1ⱼ |xⱼ| + ½ Σⱼ l2ⱼ xⱼ².   l1, l2: as the penalty of `L1`.

    at_kink: as that of `L1`, before shrinkage.
    """

    l1: Any
    l2: Any
    at_kink: Any = None

    def __post_init__(self) -> None:
        settle(self, "l1", validate.coefficients("l1", self.l1))
        settle(self, "l2", validate.coefficients("l2", self.l2))
        settle(self, "at_kink", _element(self.at_kink))

    def separate(self, x: Array) -> tuple[None, "ElasticNet"]:
        at_kink = None if self.at_kink is None else repeat("at_kink", self.at_kink, x)
        return None, ElasticNet(repeat("l1", self.l1, x), repeat("l2", self.l2, x), at_kink)

    def __call__(self, x: Tree) -> Array:
        l1, l2 = per_leaf("l1", self.l1, x), per_leaf("l2", self.l2, x)
        squares = jax.tree.map(lambda xi: 0.5 * xi**2, x)
        return weighted_l1(l1, x) + weighted_sum(l2, squares)

    def prox(self, x: Tree, step: Any) -> Tree:
        """Soft-threshold, then shrink."""
        l1, l2 = per_leaf("l1", self.l1, x), per_leaf("l2", self.l2, x)

        def threshold(a, b, xi, s=None):
            return shrink(soft_threshold(xi, step * a, s), step * b)

        return jax.tree.map(threshold, l1, l2, x, *_chosen(self.at_kink, x))

    def prox_margin(self, x: Tree, step: Any) -> Array:
        return L1(self.l1).prox_margin(x, step)

    def support(self, x: Tree) -> Tree:
        l1 = per_leaf("l1", self.l1, x)
        return jax.tree.map(lambda p, xi: (xi != 0) | (p == 0), l1, x)

    def curvature(self, x: Tree, v: Tree) -> Tree:
        l2 = per_leaf("l2", self.l2, x)
        return jax.tree.map(lambda p, vi: p * vi, l2, v)

    def selected(self, x: Tree, step: Any) -> "ElasticNet":
        """At a kink with at_kink = s > 0, shrink all the more: by s/(1 + step l2)."""
        if self.at_kink is None:
            return self
        l1, l2 = per_leaf("l1", self.l1, x), per_leaf("l2", self.l2, x)
        (s,) = _chosen(self.at_kink, x)
        here = jax.tree.map(
            lambda a, xi, si: (jnp.abs(xi) == step * a) & (a > 0) & (si > 0), l1, x, s
        )

        def more(yes, b, si):
            return jnp.where(yes, ((1 + step * b) / jnp.where(yes, si, 1) - 1) / step, b)

        return ElasticNet(
            jax.tree.map(lambda yes, a: jnp.where(yes, 0, a), here, l1),
            jax.tree.map(more, here, l2, s),
        )


def per_leaf(name: str, coefficients: Any, x: Tree, against: str = "x") -> Tree:
    """The coefficients repeated to the leaves of x, in their types, checked to broadcast.

    against: what x is, in the words of an error.
    """
    try:
        spread = tree.spread(coefficients, x)
    except ValueError as error:
        raise ValueError(
            f"{name} must be one number or follow the structure of x, {jax.tree.structure(x)}; "
            f"got {jax.tree.structure(coefficients)}"
        ) from error

    def check(c, xi):
        c = jnp.asarray(c, jnp.result_type(xi))
        if not _broadcasts(c.shape, xi.shape):
            raise ValueError(
                f"{name} must broadcast against {against} of shape {xi.shape}, got {c.shape}"
            )
        return c

    return jax.tree.map(check, spread, x)


def _element(at_kink: Any) -> Any:
    """A chosen derivative at a kink, validated; None where none is chosen."""
    if at_kink is None:
        return None
    at_kink = validate.coefficients("at_kink", at_kink)
    return jax.tree.map(lambda s: validate.within("at_kink", s, 0, 1), at_kink)


def _chosen(at_kink: Any, x: Tree) -> tuple[Tree, ...]:
    """The chosen derivatives, one for each entry of x, if any."""
    return () if at_kink is None else (per_leaf("at_kink", at_kink, x),)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    aligned = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(a in (1, b) for a, b in aligned)


def total(parts: Tree) -> Array:
    """The sum of all entries of all leaves."""
    sums = [jnp.sum(leaf) for leaf in jax.tree.leaves(parts)]
    return sum(sums, start=jnp.zeros((), tree.dtype(parts)))


def weighted_sum(coefficients: Tree, x: Tree) -> Array:
    return total(jax.tree.map(jnp.multiply, coefficients, x))


def weighted_l1(coefficients: Tree, x: Tree) -> Array:
    return weighted_sum(coefficients, jax.tree.map(jnp.abs, x))


def everywhere(x: Tree) -> Tree:
    """The support of a function that is smooth: every coordinate."""
    return jax.tree.map(lambda xi: jnp.ones_like(xi, bool), x)
