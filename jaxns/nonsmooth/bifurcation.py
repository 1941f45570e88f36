"""Does a gradient depend on the element chosen at a kink, at this precision, on this data?

    S = { θ : ∇_{s₀} ℓ_i(θ) ≠ ∇_{s₁} ℓ_i(θ) for some minibatch i },

where ∇_s takes s for ReLU'(0): the bifurcation zone of arXiv 2106.12915, section 3. In exact
arithmetic its measure is 0. In floating point a preactivation is exactly 0 with a probability of
about the spacing of the numbers that its sum can be, times its density at 0.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.struct import struct
from jaxns.tree import Tree

Loss = Callable[[Tree, Tree, Array], Array]
"""loss(params, batch, s): a scalar, with s for the element, as of `jaxns.nonsmooth.relu`."""


@struct
class Bifurcation:
    """What `scan` found.

    first: the first minibatch whose two gradients differ; −1 if there is none.
    difference: ‖∇_{s₁} − ∇_{s₀}‖ / ‖∇_{s₀}‖ there, in float32 or better; 0 if there is none.
    zeros: how many exact zeros there are in all minibatches; None unless they were counted.
    """

    first: Array
    difference: Array
    zeros: Array | None


@struct
class Volume:
    """What `volume` found.

    fraction: of the θ that are in S.   interval: of Clopper and Pearson for its expectation.
    scans: a `Bifurcation` whose leaves have one entry for each θ.
    """

    fraction: float
    interval: tuple[float, float]
    scans: Bifurcation


def scan(
    loss: Loss,
    params: Tree,
    batches: Tree,
    s0: Any = 0.0,
    s1: Any = 1.0,
    zeros: Callable[[Tree, Tree], Array] | None = None,
) -> Bifurcation:
    """Look for a minibatch where the gradients with s₀ and with s₁ are not the same numbers.

    params, batches: floating-point pytrees; the first axis of each leaf of `batches` counts them.
        All of `params` are compared, without a tolerance; NaN equals NaN.
    zeros: of (params, batch), how many preactivations are exactly 0. Where there is none, gradients
        cannot differ and are not computed, which is several times cheaper; without it they are,
        until the first difference.

    Both gradients come from one compiled program, into which s goes as data, so that what differs
    is not the order of operations. Pure, for `jit` and `vmap`.
    """
    elements = jnp.stack([jnp.asarray(s, float) for s in (s0, s1)])

    def compare(batch: Tree) -> tuple[Array, Array]:
        pair = lax.map(lambda s: jax.grad(loss)(params, batch, s), elements)
        g0, g1 = (jax.tree.map(lambda leaf, k=k: leaf[k], pair) for k in (0, 1))
        same = jax.tree.map(lambda a, b: jnp.array_equal(a, b, equal_nan=True), g0, g1)
        g0, g1 = (jax.tree.map(_at_least_float32, g) for g in (g0, g1))
        relative = tree.norm(tree.sub(g1, g0)) / tree.norm(g0)
        return ~jnp.all(jnp.stack(jax.tree.leaves(same))), relative.astype(float)

    def step(found: tuple[Array, Array], numbered: tuple[Array, Tree]) -> tuple[Any, Array | None]:
        i, batch = numbered
        count = None if zeros is None else zeros(params, batch)
        look = (found[0] < 0) & (True if count is None else count > 0)
        differ, relative = lax.cond(look, compare, lambda _: (False, 0.0), batch)
        return (jnp.where(differ, i, found[0]), jnp.where(differ, relative, found[1])), count

    leaves = jax.tree.leaves(batches)
    if not leaves:
        raise ValueError("batches must hold arrays, got none")
    numbers = jnp.arange(len(leaves[0]))
    (first, difference), counts = lax.scan(step, (-1, 0.0), (numbers, batches))
    return Bifurcation(first, difference, None if counts is None else jnp.sum(counts))


def volume(
    loss: Loss,
    init: Callable[[Array], Tree],
    batches: Tree,
    key: Array,
    count: int,
    s0: Any = 0.0,
    s1: Any = 1.0,
    zeros: Callable[[Tree, Tree], Array] | None = None,
    confidence: float = 0.95,
) -> Volume:
    """The probability of S for θ = init(key), from `count` draws; the rest as for `scan`.

    The interval is exact for a binomial (Clopper and Pearson 1934).
    """
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a positive integer, got {count!r}")

    @jax.jit
    def every(keys: Array, batches: Tree, s0: Array, s1: Array) -> Bifurcation:
        return lax.map(lambda key: scan(loss, init(key), batches, s0, s1, zeros), keys)

    scans = every(jax.random.split(key, count), batches, s0, s1)
    inside = int(jnp.sum(scans.first >= 0))
    return Volume(inside / count, binomial_interval(inside, count, confidence), scans)


def binomial_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The probabilities p under which neither tail from `successes` has less than half of the rest:
    P(X ≥ successes) and P(X ≤ successes) at least (1 − confidence)/2, for X binomial."""
    from scipy.stats import beta

    validate.between("confidence", confidence, 0, 1)
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in [0, {trials}], got {successes}")
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
