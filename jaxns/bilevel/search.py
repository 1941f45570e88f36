"""Grid and random search: the same problem, the same record, and no gradient."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import tree, validate
from jaxns.bilevel.levels import Bilevel, How, starting
from jaxns.bilevel.minimize import Best, History, Result, closes_over
from jaxns.bilevel.space import Box, is_space
from jaxns.closure import hoist
from jaxns.fixed_point import ConvergenceError, Solution, Stop
from jaxns.modes import Implicit
from jaxns.solve import solve
from jaxns.struct import seal
from jaxns.tree import Tree


def product(axes: Tree) -> Tree:
    """Every combination of the points of some axes, for `grid_search`.

    axes: a pytree of 1-D arrays.   Returns one like it, all of its leaves of length Π lengths, the
    last axis varying fastest.
    """
    leaves, structure = jax.tree.flatten(axes)
    leaves = [validate.array("axes", leaf, 1) for leaf in leaves]
    return jax.tree.unflatten(structure, [a.ravel() for a in jnp.meshgrid(*leaves, indexing="ij")])


def grid_search(
    outer: Callable,
    inner: Callable,
    thetas: Tree,
    *,
    each: Tree = None,
    solver: Any = None,
    stop: Stop = Stop(),
    batch: int = 1,
    warm: bool = True,
    x0: Tree | None = None,
) -> Result:
    """Evaluate θ ↦ outer(x(θ), θ), where x(θ) solves inner(θ), at given points; keep the best.

    outer, inner, each, solver, stop, x0: as for `jaxns.bilevel.minimize`.
    thetas: the points, along the first axis of each leaf; see `product`.
    batch: points that are solved together (`vmap`); their rows tell the same seconds.
    warm: whether solves start from those before them, lane by lane, or all from x0. A path of
        penalties goes fastest from the largest down.

    In the record, what belongs to gradients is NaN or 0. A point where an inner solve fails has the
    value NaN, unless `stop.on_failure` is "ignore". Raises `ConvergenceError` where all have.
    """
    thetas = jax.tree.map(partial(validate.array, "thetas"), thetas)
    count = _length(thetas)
    validate.positive("batch", validate.integer("batch", batch))
    if not isinstance(stop, Stop):
        raise TypeError(f"stop must be a jaxns.Stop(…), got {type(stop).__name__}")
    bilevel, how = seal((Bilevel(outer, inner, each), How(solver, Implicit(), stop)))
    solution = starting(bilevel, jax.tree.map(lambda a: a[0], thetas), solver, x0)
    start = cold = jax.tree.map(lambda a: jnp.repeat(a[None], batch, 0), solution)
    best = Best(jnp.asarray(jnp.inf), jax.tree.map(lambda a: a[0], thetas), solution)
    rows, evaluate = [], None
    began = time.perf_counter()
    for done in range(0, count, batch):
        index = np.minimum(np.arange(done, done + batch), count - 1)  # the last chunk is filled up
        chunk = jax.tree.map(lambda a, i=index: a[i], thetas)
        if evaluate is None:
            evaluate = _compiled(bilevel, how, chunk, start)
        chunk_rows, chunk_best, after = evaluate(chunk, start)
        seconds = np.full(batch, time.perf_counter() - began)
        chunk_rows = jax.device_get(chunk_rows._replace(seconds=seconds))
        rows.append(jax.tree.map(lambda a, m=count - done: a[:m], chunk_rows))
        best = chunk_best if chunk_best.value < best.value else best
        start = after if warm else cold
    history = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
    if not np.isfinite(best.value):
        raise ConvergenceError(
            "at none of the points did the inner solve converge to a finite outer value: raise "
            "max_steps, loosen tol, or pass stop=Stop(on_failure='ignore')"
        )
    return Result(best.theta, best.value, best.solution, history, False)


def random_search(
    outer: Callable,
    inner: Callable,
    theta0: Tree,
    *,
    key: Array,
    space: Any,
    points: int = 50,
    **options: Any,
) -> Result:
    """`grid_search` at theta0 and at points drawn uniformly from `space`.

    theta0: the first point, which says the structure and the shapes of θ.
    key: of `jax.random`.   space: `Box(low, high)`, or `Box(low, high, log=True)` for points whose
        logarithms are uniform (Bergstra and Bengio 2012); for all of θ or as a pytree like it.
    points: in all.   options: of `grid_search`.
    """
    theta0 = jax.tree.map(partial(validate.array, "theta0"), theta0)
    validate.positive("points", validate.integer("points", points))
    leaves, structure = jax.tree.flatten(theta0)
    keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))

    def draw(box, below, keys):
        if not isinstance(box, Box):
            raise TypeError(f"space must be a Box to draw from, got {type(box).__name__}")
        low, high = box.ends()

        def one(first, key):
            shape = (points - 1, *first.shape)
            x = jax.random.uniform(key, shape, first.dtype, low, high)
            return jnp.concatenate([first[None], jnp.exp(x) if box.log else x])

        return jax.tree.map(one, below, keys)

    thetas = jax.tree.map(draw, space, theta0, keys, is_leaf=is_space)
    return grid_search(outer, inner, thetas, **options)


def _evaluate(
    bilevel: Bilevel, how: How, thetas: Tree, starts: Solution
) -> tuple[History, Best, Solution]:
    """A row for each of the points, the best of them, and where to go on from."""

    def one(theta, start):
        def part(problem, start):
            return solve(problem, how.solver, start, mode=how.mode, stop=how.stop)

        solution = bilevel.over(part)(theta, start)
        value = bilevel.outer(solution.x, theta)
        unknown = jnp.full_like(value, jnp.nan)
        row = dict.fromkeys(History._fields, unknown) | {
            "value": value,
            "theta": theta,
            "inner_steps": jnp.sum(solution.steps),
            "adjoint_steps": jnp.zeros((), jnp.int32),
            "residual": jnp.max(solution.residual),
            "tol": unknown if how.stop.tol is None else unknown * 0 + how.stop.tol,
            "status": jnp.max(solution.status.code),
        }
        # What failed is no place to start from.
        after = tree.where(jnp.isfinite(value), solution, start)
        return History(**row), Best(value, theta, solution), after

    rows, found, after = jax.vmap(one)(thetas, starts)
    least = jnp.argmin(jnp.where(jnp.isfinite(found.value), found.value, jnp.inf))
    best = jax.tree.map(lambda a: a[least], found)
    return rows, best, after


_evaluate_of = jax.jit(_evaluate)


def _compiled(bilevel: Bilevel, how: How, thetas: Tree, starts: Solution) -> Callable:
    """`_evaluate` as a function of points and starts, compiled once for what has no closures."""
    if not any(closes_over(function) for function in (bilevel.outer, bilevel.inner)):
        return partial(_evaluate_of, bilevel, how)
    evaluate = partial(_evaluate, bilevel, how)
    explicit, arrays = hoist(lambda *args: evaluate(*args), thetas, starts)
    return partial(jax.jit(explicit), arrays)


def _length(thetas: Tree) -> int:
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(thetas)}
    if len(lengths) != 1 or lengths <= {(), (0,)}:
        raise ValueError(
            "thetas must hold points along the first axis, as many in each leaf; got shapes "
            f"{jax.tree.map(np.shape, thetas)}"
        )
    return lengths.pop()[0]
