"""Proximal coordinate descent, cyclic, over coordinates or blocks of them, with working sets."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.solvers import stepsize
from jaxns.solvers.chosen import largest
from jaxns.solvers.forward_backward import ForwardBackward
from jaxns.solvers.needs import need, need_constant, need_plain
from jaxns.struct import replace, static, struct

STRETCH = 32  # visits between two predictors that a reverse pass keeps
SIZES = (32, 128, 512)  # of the working sets that are tried
MOST_PASSES = 100  # over a working set between two epochs


@struct
class Blocks:
    """The blocks that are visited, along the first axis: single coordinates, or several each.

    index: j.   feature: how the predictor changes with xⱼ.   stepsize: 1/Lⱼ.   g: gⱼ.
    """

    index: Array
    feature: Array
    stepsize: Array
    g: Any


@struct
class Visited:
    """image: F at the point visited last."""

    image: Array


@struct
class CoordinateDescent:
    r"""Minimise f(x) + Σⱼ gⱼ(xⱼ) over one coordinate, or block of coordinates, after the other.

        x_j ← prox_{g_j/L_j}(x_j − ∂_j f(x)/L_j),   j = 1, …, p in turn

    F is one epoch, a pass over all of them (arXiv 2105.01637, proximal coordinate descent). Only
    the predictor t = Ax (t = Qx for a quadratic f) is remembered of x, and updated by a column at a
    time, so that an epoch costs two products with A, like a proximal gradient step. Once the
    support S is found, it contracts at the Gauss-Seidel rate of the Hessian restricted to S.

    working_sets: after each epoch, go on with the few blocks that it moved most, for as many passes
        as cost another epoch (working sets in the manner of Massias et al., arXiv 1802.07481). The
        residual stays that of a whole epoch, and the map that is differentiated is the epoch.
        `Implicit` differentiates the fixed point as one of `ForwardBackward`, which costs less.
    features, stepsizes: constants of a solve, filled in by `prepare`.

    f: a loss of a linear predictor, or `Quadratic`.   x: (p,), or (p, k) with rows for coordinates.
    g: with `separate(x)`, the pair (index, g) of a sum over blocks: the rows of index are the
        blocks, or None for single coordinates, and the leaves of g have a first axis of blocks.
    """

    working_sets: bool = static(default=True)
    features: Any = None
    stepsizes: Any = None

    def prepare(self, problem: Any, x0: Array) -> "CoordinateDescent":
        remedy = "use ForwardBackward"
        need(self, problem, "f", "partial", remedy)
        need(self, problem, "g", "separate", f"it is no sum over coordinates; {remedy}")
        need_plain(self, problem, "use PrimalDual")
        index, _ = problem.g.separate(x0)
        features = problem.f.features()
        features = _pad(features if index is None else _take(features, index))
        hessians = jax.vmap(problem.f.block)(features, _visits(index, x0))
        need_constant(self, problem, "f", hessians, remedy)
        largest = hessians if index is None else jnp.linalg.eigvalsh(hessians)[:, -1]
        return replace(self, features=features, stepsizes=stepsize.from_lipschitz(largest))

    def init(self, problem: Any, x0: Array) -> Array:
        return x0

    def step(self, problem: Any, x: Array) -> Array:
        return _sweep(problem.f, self._blocks(problem, x), x)

    def solution(self, problem: Any, x: Array) -> Array:
        return x

    def stationary(self, problem: Any) -> ForwardBackward:
        return ForwardBackward(jnp.min(self.stepsizes))

    def scale(self, problem: Any, x: Array) -> Any:
        gradient = _take(problem.f.gradient(x), self._blocks(problem, x).index)
        return tree.norm(jax.vmap(jnp.multiply)(self.stepsizes, gradient))

    def control(self, problem: Any, x: Array) -> Visited | None:
        return Visited(x) if self.working_sets and self._sizes() else None

    def advance(self, problem: Any, x: Array, control: Visited) -> tuple[Array, Visited]:
        blocks, sizes = self._blocks(problem, x), self._sizes()
        image = _sweep(problem.f, blocks, x)
        change = lax.stop_gradient(jnp.abs(_take(image - x, blocks.index)))
        moved = change.reshape(len(change), -1).max(axis=1) / self.stepsizes

        def refine(size, x):
            chosen = largest(moved, size)
            passes = min(len(moved) // size, MOST_PASSES)
            return _sweep(problem.f, jax.tree.map(lambda a: a[chosen], blocks), x, passes)

        count = tree.over_lanes(jnp.sum(moved > 0))
        smallest = jnp.sum(count > jnp.asarray(sizes))  # past the largest: that one
        after = lax.switch(smallest, [partial(refine, size) for size in sizes], image)
        return after, Visited(image)

    def _blocks(self, problem: Any, x: Array) -> Blocks:
        index, g = problem.g.separate(x)
        return Blocks(_visits(index, x), self.features, self.stepsizes, jax.tree.map(_pad, g))

    def _sizes(self) -> list[int]:
        """Of working sets over which two passes cost no more than an epoch."""
        return [size for size in SIZES if 2 * size <= len(self.stepsizes)]


def _sweep(f: Any, blocks: Blocks, x: Array, passes: int = 1) -> Array:
    """x after some passes over the blocks in their order."""

    def visit(t, block_and_x):
        b, x_j = block_and_x
        u = b.g.prox(x_j - b.stepsize * f.partial(b.feature, b.index, t), b.stepsize)
        return t + _outer(b.feature, u - x_j), u

    @jax.checkpoint
    def stretch(t, visits):
        return lax.scan(visit, t, visits)

    def one_pass(t_and_u, _):
        t, u = t_and_u
        return lax.scan(stretch, t, (stretches, u)), None

    stretches, u = jax.tree.map(_in_stretches, (blocks, _take(x, blocks.index)))
    start = f.predictor(x), u
    if passes == 1:
        (_, u), _ = one_pass(start, None)
    else:
        (_, u), _ = lax.scan(jax.checkpoint(one_pass), start, length=passes)
    return x.at[blocks.index].set(u.reshape(-1, *u.shape[2:]), mode="drop")


def _outer(feature: Array, change: Array) -> Array:
    """The change of the predictor: featureᵀ change."""
    if feature.ndim == 1:
        return jnp.multiply.outer(feature, change)
    return jnp.tensordot(feature, change, (0, 0))


# Blocks of fewer coordinates than others, and stretches of fewer blocks, are filled up with
# coordinates that are not there: an index past the end, which reads as 0 and writes nowhere.


def _take(a: Array, index: Array) -> Array:
    return a.at[index].get(mode="fill", fill_value=0)


def _visits(index: Any, x: Array) -> Array:
    index = jnp.arange(len(x)) if index is None else jnp.asarray(index)
    return _pad(index, len(x))


def _pad(a: Array, value: int = 0) -> Array:
    missing = -len(a) % min(STRETCH, len(a))
    return jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1), constant_values=value)


def _in_stretches(a: Array) -> Array:
    return a.reshape(-1, min(STRETCH, len(a)), *a.shape[1:])
