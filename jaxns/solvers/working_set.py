"""Proximal Newton on the few coordinates that matter."""

import bisect
import itertools
import math
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.solvers import linearised, momentum, stepsize
from jaxns.solvers.chosen import largest
from jaxns.solvers.forward_backward import ForwardBackward
from jaxns.solvers.gathered import Gathered, minimise
from jaxns.solvers.needs import need, need_plain
from jaxns.solvers.proximal_newton import search
from jaxns.struct import replace, static, struct

# Of working sets. Not powers of 2: rows so far apart push each other out of a processor's caches.
SIZES = (120, 248, 376, 504, 1000, 1336, 2000)
APART = 1.5  # a size is left out where all of x is less than so many times larger
FIRST = 100  # coordinates that are looked at from a start without support
PER_SAMPLE = 2  # blocks in a working set that holds enough of them
PER_ROOT = 2  # coordinates in one that is small, by the root of the design's number of entries
FEW = 504  # … and in one that is small, and may be needed, whatever these say
NEAR = 0.5  # how much longer the gradient step is that tells which coordinates may move soon
ACCURACY = 0.03  # of the residual of the whole problem: to what the small one is solved
ROUNDING = 100  # times eps: the relative residual below which nothing is left to do


@struct
class WorkingSet:
    r"""Minimise f(x) + Σⱼ gⱼ(xⱼ), f convex, by proximal Newton on a working set of the blocks.

        p = prox_{αg}(x − α ∇f(x))
        W = the blocks that can move at x, as many again of those that p moves most, and, up to one
            of `sizes`, those that come next: moved by the prox of a longer gradient step
        u = argmin_u  ∇f(x)_Wᵀ (u − x_W) + ½ (u − x_W)ᵀ H_WW (u − x_W) + g_W(u),   H = ∇²f(x)
        x_W ← x_W + t (u − x_W)

    (working sets in the manner of Massias et al., arXiv 1802.07481.) The small problem needs H_WW
    only, so that its steps cost |W|² whatever the size of the data; it is solved to a fraction of
    the residual of the whole one (`jaxns.solvers.gathered`). t = 1 for a quadratic f, else such
    that the objective decreases. A support that no working set can hold is left to accelerated
    forward-backward steps.

    F, which is iterated to its fixed point and differentiated, is the forward-backward map x ↦ p,
    with α = 1/‖H_WW‖ of the last working set: it contracts near the solution, where nothing else
    moves. `Piggyback` takes for the derivative of u that of the solution with the support of u.

    stepsize: α > 0, if it is to be another.
    sizes: of working sets, in coordinates, increasing. Each is compiled, but for those beyond some
        500 that are more than all of x or two blocks for every sample need, or for which H_WW would
        have many more entries than the data.
    f: with `hessian(x, index)`, such as a loss of a linear predictor, or `Quadratic`.
    g: with `separate(x)`, as for `CoordinateDescent`, and partly smooth.   x: a vector.
    """

    sequential: ClassVar[bool] = True

    stepsize: float | Array | None = None
    sizes: tuple[int, ...] = static(default=SIZES)

    def __post_init__(self) -> None:
        stepsize.check(self)
        rising = all(a < b for a, b in itertools.pairwise((0, *self.sizes)))
        if not self.sizes or not rising:
            raise ValueError(f"sizes must be positive and increasing, got {self.sizes}")

    def prepare(self, problem: Any, x0: Array) -> "WorkingSet":
        remedy = "use ForwardBackward"
        need_plain(self, problem, "use PrimalDual, or DavisYin for h")
        need(self, problem, "f", "hessian", remedy)
        need(self, problem, "g", "separate", f"it is no sum over coordinates; {remedy}")
        need(self, problem, "g", "support", remedy)
        if not (isinstance(x0, jax.Array) and x0.ndim == 1):
            raise TypeError(f"WorkingSet needs an unknown that is a vector; {remedy}")
        return self

    def init(self, problem: Any, x0: Array) -> Array:
        return x0

    def step(self, problem: Any, x: Array) -> Array:
        return ForwardBackward(self.stepsize).step(problem, x)

    def solution(self, problem: Any, x: Array) -> Array:
        return x

    def margin(self, problem: Any, x: Array) -> Array | None:
        return ForwardBackward(self.stepsize).margin(problem, x)

    def scale(self, problem: Any, x: Array) -> Any:
        return ForwardBackward(self.stepsize).scale(problem, x)

    def linearisation(self, problem: Any, x: Array) -> linearised.Inverse | None:
        return ForwardBackward(self.stepsize).linearisation(problem, x)

    def control(self, problem: Any, x: Array) -> momentum.Momentum:
        alpha = self.stepsize
        if alpha is None:
            alpha = stepsize.initial(problem.f.gradient, x)
        return momentum.start(x, jnp.asarray(alpha, x.dtype))

    def settle(self, control: momentum.Momentum) -> "WorkingSet":
        return replace(self, stepsize=control.stepsize)

    def advance(
        self, problem: Any, x: Array, control: momentum.Momentum
    ) -> tuple[Array, momentum.Momentum]:
        alpha: Any = control.stepsize
        slope = problem.f.gradient(x)
        p = problem.g.prox(x - alpha * slope, alpha)
        z, t, alpha = self._improve(*lax.stop_gradient((problem, x, slope, p, alpha, control)))
        return _as_solution(problem, z, alpha), momentum.Momentum(p, t, alpha)

    def _improve(
        self, problem: Any, x: Array, slope: Array, p: Array, alpha: Array, before: Any
    ) -> tuple[Array, Array, Array]:
        """The next point, and t and α of the next step."""
        blocks = Blocks.of(problem.g, x)
        moving = blocks.reduce(jnp.any, problem.g.support(x), False)
        moved = blocks.reduce(jnp.max, jnp.abs(x - p), 0)
        few = jnp.sum(moving, dtype=jnp.int32)
        more = jnp.sum(~moving & (moved > 0), dtype=jnp.int32)
        wanted = tree.over_lanes(few + jnp.minimum(more, jnp.maximum(few, blocks.holds(FIRST))))

        sizes = self._sizes(problem.f, blocks)
        longer = problem.g.prox(x - (1 + NEAR) * alpha * slope, alpha)
        near = blocks.reduce(jnp.max, jnp.abs(x - longer), 0)
        urgent = jnp.where(moved > 0, jnp.max(near) + moved, near)
        urgent = jnp.where(moving, jnp.inf, urgent)
        left = jnp.max(moved)

        def refine(size):
            chosen = blocks.at(largest(urgent, size))
            return self._refine(problem, x, slope, chosen, left, alpha)

        def onward():
            z, after = ForwardBackward().advance(problem, x, before)
            return z, after.t, after.stepsize

        ways: list[Any] = [partial(refine, size) for size in sizes]
        fits = jnp.sum(wanted > jnp.asarray(sizes[:-1]), dtype=jnp.int32)
        if sizes[-1] < blocks.count:
            ways.append(onward)
            full = tree.over_lanes(few + jnp.minimum(more, 1)) > sizes[-1]
            fits = jnp.where(full, len(sizes), fits)
        rounding = ROUNDING * tree.eps(x) * (tree.largest(x) + alpha * tree.largest(slope))
        done = ~tree.any_lane(left > rounding)
        return lax.switch(jnp.where(done, len(ways), fits), [*ways, lambda: (p, before.t, alpha)])

    def _refine(
        self, problem: Any, x: Array, slope: Array, blocks: "Blocks", left: Array, alpha: Array
    ) -> tuple[Array, Array, Array]:
        """One proximal Newton step on these blocks."""
        index, rows = blocks.index.ravel(), blocks.index.reshape(blocks.count, -1)
        H = problem.f.hessian(x, jnp.where(rows < x.size, rows, rows[:, :1]).ravel())
        if blocks.index.ndim > 1:  # what fills up a block stays where it is
            known = index < x.size
            H = jnp.where(known[:, None] & known, H, jnp.eye(index.size, dtype=x.dtype))
        here = blocks.take(x)
        c = (H @ here.ravel()).reshape(here.shape) - blocks.take(slope)
        u, bound = minimise(Gathered(H, c, blocks.g), here, ACCURACY * left / alpha)
        d = jnp.zeros_like(x).at[index].set((u - here).ravel(), mode="drop")
        if not getattr(problem.f, "quadratic", False):
            d = search(problem, x, d) * d
        return x + d, jnp.ones_like(bound), alpha if self.stepsize is not None else 1 / bound

    def _sizes(self, f: Any, blocks: "Blocks") -> list[int]:
        """How many blocks there may be in a working set."""
        count, sizes = blocks.count, [blocks.holds(size) for size in self.sizes]
        if count <= sizes[-1]:
            sizes = [*(size for size in sizes if APART * size <= count), count]
        if not hasattr(f, "samples"):
            return sizes
        few, small = blocks.holds(FEW), blocks.holds(PER_ROOT * math.isqrt(f.entries))
        last = bisect.bisect_left(sizes, max(few, PER_SAMPLE * f.samples)) + 1
        return sizes[: max(1, min(last, bisect.bisect(sizes, max(few, small))))]


@struct
class Blocks:
    """Blocks of coordinates, with a function of each.

    index: (w,) coordinates, or (w, b) with a block in each row, filled up past the end.
    """

    index: Array
    g: Any

    @classmethod
    def of(cls, g: Any, x: Array) -> "Blocks":
        index, parts = g.separate(x)
        return cls(jnp.arange(x.size) if index is None else jnp.asarray(index), parts)

    @property
    def count(self) -> int:
        return len(self.index)

    def holds(self, coordinates: int) -> int:
        """How many blocks have so many coordinates."""
        return max(1, coordinates * self.count // self.index.size)

    def at(self, chosen: Array) -> "Blocks":
        return jax.tree.map(lambda a: a[chosen], self)

    def take(self, a: Array, missing: Any = 0) -> Array:
        return a.at[self.index].get(mode="fill", fill_value=missing)

    def reduce(self, function: Any, a: Array, missing: Any) -> Array:
        """A number for each block, of those of its coordinates."""
        return function(self.take(a, missing).reshape(self.count, -1), axis=1)


@jax.custom_jvp
def _as_solution(problem: Any, x: Array, alpha: Array) -> Array:
    """x, with the derivative that it has as the solution of the problem."""
    return x


@_as_solution.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    problem, x, alpha = primals

    def step(problem):
        return ForwardBackward(alpha).step(problem, x)

    p, change = jax.jvp(step, (problem,), (tangents[0],))
    inverse = linearised.forward_backward(problem, x, p, alpha)
    assert inverse is not None
    return x, inverse.solve(change)
