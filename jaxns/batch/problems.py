"""Many problems of one kind, solved at once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxns import tree, validate
from jaxns.batch.devices import in_groups, one_by_one, spread
from jaxns.batch.failures import raise_for
from jaxns.batch.lanes import Compaction
from jaxns.fixed_point import NOWHERE, Solution, Stop
from jaxns.modes import Auto, Implicit, Mode
from jaxns.solve import check, complete, set_up
from jaxns.struct import replace
from jaxns.tree import Tree


def solve(
    problems: Any,
    solver: Any = None,
    x0: Tree | Solution | None = None,
    *,
    over: Tree = None,
    mode: Mode = Implicit(),
    stop: Stop = Stop(),
    width: int | None = None,
    chunk: int = 2,
    mesh: jax.sharding.Mesh | None = None,
) -> Solution:
    """Solve many problems that differ in their numbers; as `jax.vmap(jaxns.solve)`, but faster.

    A lane that has converged leaves, and another takes its place, so that the cost follows the sum
    of the iterations, and not the number of problems times the slowest. Derivatives, in every mode,
    are those of `jaxns.solve`, lane by lane.

    problems: a problem each of whose arrays has a first axis, that of the batch; or, with `over`, a
        function from one item to a problem, whose arrays that it closes over are shared.
    over: what the items are: a pytree of arrays with that first axis.
    x0: a start for each, with that first axis too (or the `Solution` of an earlier batch).
    solver, mode, stop: as for `jaxns.solve`, one for all.
    width: how many run side by side; by default 65 536, but on a CPU 16, or 1 where the solver says
        that its steps are `sequential`.   chunk: lanes are exchanged when those that have ended
        have idled for so many steps of all of them, which is about what an exchange costs.
    mesh: devices over which the batch is spread, see `jaxns.batch.mesh`; each works alone. The
        number of problems need not be a multiple of theirs.

    Returns a `Solution` whose every field has the axis of the batch. Raises as `jaxns.solve` does;
    `ConvergenceError` names the lanes that failed.
    """
    check(solver, mode, stop)
    mode = mode.on(stop) if isinstance(mode, Auto) else mode
    if width is not None:
        width = int(validate.positive("width", validate.integer("width", width)))
    chunk = int(validate.positive("chunk", validate.integer("chunk", chunk)))
    quiet = _quiet(stop)
    build: Callable[[Any], Any] = problems
    if over is None:
        build, over = (lambda problem: problem), problems
    elif not callable(problems):
        raise TypeError(
            "problems must be a function of one item of `over`, such as "
            f"lambda penalty: Composite(f, L1(penalty)), got {type(problems).__name__}"
        )
    _check_batch(over, x0)
    width = _width(solver, build, over) if width is None else width
    alone = width // 2 if jax.default_backend() == "cpu" else 0
    loop = Compaction(width, chunk, alone)

    def one(item, start):
        run = set_up(build(item), solver, start)
        compacting = dataclasses.replace(run.iteration, loop=loop)
        return complete(run._replace(iteration=compacting), mode, quiet)

    each = in_groups(width) if getattr(mode, "own_loop", False) else jax.vmap
    found = spread(one, mesh, one_by_one if width == 1 else each)(over, x0)
    _tell(found, stop)
    return found


def path(
    build: Callable[[Any], Any],
    solver: Any = None,
    x0: Tree | Solution | None = None,
    *,
    over: Tree,
    mode: Mode = Implicit(),
    stop: Stop = Stop(),
) -> Solution:
    """Solve one problem after the other, each from the solution of the one before.

    For problems in an order in which solutions change little, such as a regularisation path of
    decreasing penalties: with `WorkingSet` each is then a look or two at the whole problem. One
    that fails leaves the start to the one after it as it was. Solutions and derivatives are those
    of `jaxns.solve`; a start has no influence on a fixed point, so with `Implicit` and `OneStep`
    the i-th depends on the i-th item alone, and all ∂xᵢ/∂θᵢ are one `jax.jvp` along ones (with
    `direction="both"`). `Piggyback` is refused: after a warm start there are too few steps to
    differentiate.

    build: from one item to a problem.   over: what the items are: a pytree of arrays whose first
        axis is the path.   x0: where the first starts.   The rest: as for `solve`.

    Returns a `Solution` whose every field has the axis of the path. `ConvergenceError` names the
    points that failed.
    """
    check(solver, mode, stop)
    mode = mode.on(stop) if isinstance(mode, Auto) else mode
    if not callable(build):
        raise TypeError(f"build must be a function of one item of over, got {type(build).__name__}")
    if getattr(mode, "own_loop", False):
        raise ValueError(
            "mode must be one that differentiates the solution, such as Implicit() or OneStep(); "
            f"after a warm start {type(mode).__name__} has too few steps to differentiate"
        )
    _check_batch(over)
    first = build(jax.tree.map(lambda a: a[0], over))
    start = complete(set_up(first, solver, x0), mode, NOWHERE)

    def go_on(before, item):
        found = complete(set_up(build(item), solver, before), mode, _quiet(stop))
        return lax.stop_gradient(tree.where(found.status.ok, found, before)), found

    _, found = lax.scan(go_on, lax.stop_gradient(start), over)
    _tell(found, stop)
    return found


def _quiet(stop: Stop) -> Stop:
    """Where nothing can be raised."""
    return replace(stop, on_failure="nan") if stop.on_failure == "raise" else stop


def _tell(found: Solution, stop: Stop) -> None:
    """Raise for what has failed, if it can be seen and is to be raised."""
    if stop.on_failure == "raise" and validate.is_known(found.status.code):
        codes = np.asarray(found.status.code)
        failed = np.flatnonzero(~found.status.ok)
        raise_for(failed, codes[failed], codes.size, "pass Stop(on_failure='nan' or 'ignore')")


def _width(solver: Any, build: Callable[[Any], Any], over: Tree) -> int:
    if jax.default_backend() != "cpu":
        return 65_536
    seen = [solver]

    def look(item):
        problem = build(item)
        if hasattr(problem, "default_solver"):  # `set_up` says what is wrong with one that has none
            seen[0] = problem.default_solver()

    if solver is None:
        jax.eval_shape(jax.vmap(look), over)
    return 1 if getattr(seen[0], "sequential", False) else 16


def _check_batch(*batches: Tree) -> None:
    """That all arrays share a first axis."""
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
    if len(sizes) != 1 or sizes == {()}:
        shapes = ", ".join(sorted({str(np.shape(leaf)) for leaf in jax.tree.leaves(batches)}))
        raise ValueError(
            "problems (or over) and x0 must have arrays with one first axis, that of the batch; "
            f"got shapes {shapes or 'of no arrays'}"
        )
