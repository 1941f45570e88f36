"""The shared fixed-point module: iterate z ← F(θ, z), decide when to stop, say how it ended.

Everything here is about one map F. It knows no problem, no solver and no derivative rule.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxns import tree, validate
from jaxns.struct import replace, settle, static, struct
from jaxns.tree import Tree

PATIENCE = 500  # steps without progress before a run may count as stalled
MANY = 0.6  # of the digits: 1e-10 in float64, 1e-4 in float32


@dataclasses.dataclass(frozen=True)
class Iteration:
    """The map F and, where there is one, the faster way to iterate it. Hashable: a static argument.

    step:     (theta, z) -> F(z), pure; its Jacobian is what the modes differentiate.
    control:  (theta, z0) -> what `advance` carries besides z, or None to iterate `step` itself.
              It has a field `image`: F at the point visited last (at the start, z0). A field
              `verdict`, where it has one, is the code of a `Status` that the solver itself has
              found (INFEASIBLE, UNBOUNDED), or RUNNING's: any other ends the run.
    advance:  (theta, z, control) -> (next z, control), with `control.image = F(z)`.
    settle:   (theta, control) -> theta with the adaptive parameters (stepsize, penalty) that the
              run ended with, so that the map differentiated is the map that was iterated.
    stationary: theta -> the theta of a map with the same fixed points as F, for who only wants the
        derivative of these.
    scale:    (theta, z0) -> the size of the numbers that a step adds up, where that may be more
        than ‖z‖ (the solution may be zero, and what cancels to give it is not): eps times this is
        the rounding level of F.
    correct:  (theta, z, F(z) − z, max_steps) -> d with (I − ∂F(z)) d ≈ F(z) − z, by products with
        ∂F of which there are `max_steps` at most; or None. A run that has converged to many digits
        ends with this correction: see `iterate`.
    loop:     (going, body, start) -> the end: `lax.while_loop`, or better for many lanes.
    """

    step: Callable[[Any, Tree], Tree]
    control: Callable[[Any, Tree], Any] = lambda theta, z: None
    advance: Callable[[Any, Tree, Any], tuple[Tree, Any]] | None = None
    settle: Callable[[Any, Any], Any] = lambda theta, control: theta
    stationary: Callable[[Any], Any] = lambda theta: theta
    scale: Callable[[Any, Tree], Any] = lambda theta, z: 0.0
    linearisation: Callable[[Any, Tree], Any] = lambda theta, z: None
    estimate: Callable[[Any, Tree, Any], Any] = lambda theta, z, control: None
    correct: Callable[[Any, Tree, Tree, Any], Any] = lambda theta, z, gap, max_steps: None
    loop: Callable[[Callable, Callable, Any], Any] = tree.while_loop


@struct
class Stop:
    """When to stop.

    tol: relative fixed-point residual ‖F(z) − z‖ / max(‖F(z)‖, ‖z‖) at which the solve has
        converged; never asked to be below 10 times the spacing of the numbers. `None` asks for
        exactly `max_steps` steps.
    max_steps: evaluations of F at most.
    on_failure: what a solve that did not converge gives back. "raise" (the default) raises
        `ConvergenceError` where the status can be seen, that is outside `jit` and `vmap`, and
        does as "nan" inside them; "nan" makes the solution and every derivative of it NaN (lane
        by lane under `vmap`); "ignore" returns the last iterate.
    """

    tol: float | Array | None = 1e-12
    max_steps: int | Array = 100_000
    on_failure: str = static(default="raise")

    def __post_init__(self) -> None:
        validate.choice("on_failure", self.on_failure, FAILURE_POLICIES)
        if self.tol is not None:
            settle(self, "tol", validate.nonnegative("tol", validate.scalar("tol", self.tol)))
        max_steps = validate.integer("max_steps", self.max_steps)
        settle(self, "max_steps", validate.nonnegative("max_steps", max_steps))


FAILURE_POLICIES = ("raise", "nan", "ignore")
NOWHERE = Stop(tol=None, max_steps=0, on_failure="ignore")  # to read and differentiate at the start


@struct
class Status:
    """How a solve ended: compare with the constants, ask `.ok`, or print it.

    code: int32 array (one per lane under `vmap`).
    """

    code: int | Array

    RUNNING: ClassVar["Status"]
    CONVERGED: ClassVar["Status"]
    STALLED: ClassVar["Status"]
    COMPLETED: ClassVar["Status"]
    MAX_STEPS: ClassVar["Status"]
    DIVERGED: ClassVar["Status"]
    INFEASIBLE: ClassVar["Status"]
    UNBOUNDED: ClassVar["Status"]

    @property
    def ok(self) -> Any:
        """Whether the result can be used: converged, stalled at rounding level, or completed."""
        return self.code <= Status.COMPLETED.code

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, Status):
            return NotImplemented
        if not (validate.is_known(self.code) and validate.is_known(other.code)):
            return jnp.equal(self.code, other.code)
        same = np.equal(self.code, other.code)
        return same if np.ndim(same) else bool(same)

    def __hash__(self) -> int:
        return hash(int(self.code))

    def __str__(self) -> str:
        if not validate.is_known(self.code):
            return "not known while tracing"
        codes = np.asarray(self.code)
        if not codes.ndim:
            return _WORDS[int(codes)]
        return ", ".join(
            f"{np.sum(codes == code)} {words}"
            for code, words in _WORDS.items()
            if np.any(codes == code)
        )

    def __repr__(self) -> str:
        return f"Status({str(self)!r})"


_WORDS = {
    -1: "running",
    0: "converged",
    1: "stalled at rounding level",
    2: "completed the number of steps asked for",
    3: "reached max_steps",
    4: "diverged (NaN or infinity)",
    5: "found that the constraints cannot be met (infeasible)",
    6: "found that the objective has no lower bound (unbounded)",
}
Status.RUNNING, Status.CONVERGED, Status.STALLED = Status(-1), Status(0), Status(1)
Status.COMPLETED, Status.MAX_STEPS, Status.DIVERGED = Status(2), Status(3), Status(4)
Status.INFEASIBLE, Status.UNBOUNDED = Status(5), Status(6)


class ConvergenceError(RuntimeError):
    """A solve, or the linear system of its derivative, did not reach its tolerance."""


class Progress(NamedTuple):
    """What the loop remembers about the run, beside the state: all scalars."""

    steps: Array
    residual: Array  # relative, of the last step
    best: Array  # smallest residual so far, and the step that had it
    best_step: Array
    largest: Array  # largest ‖z‖ so far
    scale: Array  # what `Iteration.scale` said at the start
    code: Array


class Run(NamedTuple):
    """Where a run is: `z` is where F is evaluated next, `control` what `advance` carries."""

    z: Tree
    control: Any
    progress: Progress

    @property
    def image(self) -> Tree:
        """The newest value of F."""
        return self.z if self.control is None else self.control.image

    def at_image(self, image: Tree) -> "Run":
        """With another newest value of F."""
        if self.control is None:
            return self._replace(z=image)
        return self._replace(control=replace(self.control, image=image))


def begin(iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
    real = tree.dtype(z0)
    zero = jnp.zeros((), jnp.int32)
    infinity = jnp.asarray(jnp.inf, real)
    out_of_steps = _out_of_steps(stop)
    code = jnp.where(jnp.asarray(stop.max_steps) <= 0, out_of_steps.code, Status.RUNNING.code)
    scale = jnp.asarray(lax.stop_gradient(iteration.scale(theta, z0)), real)
    nothing = jnp.zeros((), real)
    code = jnp.asarray(code, jnp.int32)
    progress = Progress(zero, infinity, infinity, zero, nothing, scale, code)
    return tree.vary_like(Run(z0, iteration.control(theta, z0), progress), theta)


def move(iteration: Iteration, theta: Any, z: Tree, control: Any) -> tuple[Tree, Any]:
    """One evaluation of F: the next (z, control)."""
    if control is None:
        return iteration.step(theta, z), None
    assert iteration.advance is not None
    return iteration.advance(theta, z, control)


def proceed(iteration: Iteration, theta: Any, stop: Stop, run: Run) -> Run:
    """Make one step and judge it by its relative residual."""
    z, control = move(iteration, theta, run.z, run.control)
    after = Run(z, control, run.progress)
    progress = _judge(stop, run.progress, *lax.stop_gradient((run.z, after.image)))
    if hasattr(control, "verdict"):
        found = control.verdict != Status.RUNNING.code
        code = jnp.where(found, control.verdict, progress.code).astype(jnp.int32)
        progress = progress._replace(code=code)
    return after._replace(progress=progress)


def is_running(run: Run) -> Array:
    return run.progress.code == Status.RUNNING.code


def proceed_to_end(iteration: Iteration, theta: Any, stop: Stop, run: Run) -> Run:
    return iteration.loop(is_running, partial(proceed, iteration, theta, stop), run)


@partial(jax.jit, static_argnums=0)
def iterate(iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
    """Run z ← F(θ, z) from z0 until `stop` says so.

    A small residual is no small error where F contracts slowly. So a run that has converged to a
    `tol` of more than `MANY` of the digits ends with Newton's correction of the equation F(z) = z,
    where the iteration has one and it makes the residual smaller: z ← F(z + d).
    """
    run = proceed_to_end(iteration, theta, stop, begin(iteration, theta, z0, stop))
    return _corrected(iteration, theta, stop, run)


def _corrected(iteration: Iteration, theta: Any, stop: Stop, run: Run) -> Run:
    if stop.tol is None:
        return run
    if run.control is not None:
        theta = iteration.settle(theta, run.control)

    def correct(run: Run) -> Run:
        z, progress = run.image, run.progress
        gap = tree.sub(iteration.step(theta, z), z)
        d = iteration.correct(theta, z, gap, progress.steps // 8 + 20)
        if d is None:
            return run
        candidate = tree.add(z, d)
        image = iteration.step(theta, candidate)
        left, size = tree.norm(tree.sub(image, candidate)), tree.norm(image)
        residual = jnp.where(left == 0, 0, left / size)
        after = run.at_image(image)._replace(
            progress=progress._replace(steps=progress.steps + 2, residual=residual)
        )
        return tree.where(wanted & (left < tree.norm(gap)), after, run)

    eps = tree.eps(run.image)
    wanted = (run.progress.code == Status.CONVERGED.code) & (stop.tol <= eps**MANY)
    wanted &= run.progress.residual > 10 * eps
    return lax.cond(tree.any_lane(wanted), correct, lambda run: run, run)


def _judge(stop: Stop, progress: Progress, z: Tree, image: Tree) -> Progress:
    eps = tree.eps(z)
    steps = progress.steps + 1
    gap, size = tree.norm(tree.sub(image, z)), jnp.maximum(tree.norm(image), tree.norm(z))
    residual = jnp.where(gap == 0, 0, gap / size)
    largest = jnp.maximum(progress.largest, size)

    better = residual < 0.99 * progress.best
    best = jnp.where(better, residual, progress.best)
    best_step = jnp.where(better, steps, progress.best_step)

    finite = jnp.isfinite(gap) & jnp.isfinite(size)
    if stop.tol is None:
        converged = stalled = jnp.zeros((), bool)
    else:
        # The second test is for solutions that are zero: nothing is small relative to them.
        converged = (residual <= jnp.maximum(stop.tol, 10 * eps)) | (gap <= eps**2 * largest)
        # No progress for as long as it took to get here, at a level where only rounding is left.
        stalled = (best <= eps**0.5) & (steps > 2 * best_step + PATIENCE)
        stalled |= gap <= eps * progress.scale
    code = jnp.select(
        [~finite, converged, stalled, steps >= jnp.asarray(stop.max_steps)],
        [s.code for s in (Status.DIVERGED, Status.CONVERGED, Status.STALLED, _out_of_steps(stop))],
        Status.RUNNING.code,
    )
    code = jnp.asarray(code, jnp.int32)
    return Progress(steps, residual, best, best_step, largest, progress.scale, code)


def _out_of_steps(stop: Stop) -> Status:
    return Status.COMPLETED if stop.tol is None else Status.MAX_STEPS


def conform(iteration: Iteration, theta: Any, z0: Tree, name: str = "z0") -> Tree:
    """z0 in the shape and type that F keeps, or an error that says how F changes it.

    Called while tracing: nothing is computed.
    """
    for leaf in jax.tree.leaves(z0):
        validate.array(name, leaf)
    image = jax.eval_shape(iteration.step, theta, z0)
    if jax.tree.structure(image) != jax.tree.structure(z0):
        raise TypeError(
            f"one step must return the structure of {name}, {jax.tree.structure(z0)}, "
            f"got {jax.tree.structure(image)}"
        )
    for before, after in zip(jax.tree.leaves(z0), jax.tree.leaves(image), strict=True):
        if before.shape != after.shape:
            raise ValueError(
                f"one step must keep the shape of {name}, {before.shape}, got {after.shape}"
            )
    z0 = jax.tree.map(lambda a, b: jnp.asarray(a, jnp.result_type(a, b)), z0, image)
    return tree.settle_axes(partial(iteration.step, theta), z0)


@struct
class Solution:
    """What a solve returns.

    x: what was asked for.   z: the solver's governing variable, the fixed point of F.
    steps: evaluations of F.   residual: ‖F(z) − z‖ / max(‖F(z)‖, ‖z‖) at the last step.
    status: how it ended, a `Status`.

    Derivatives flow through `x` and `z` only.
    """

    x: Tree
    z: Tree
    steps: Array
    residual: Array
    status: Status


def trust(z: Tree, status: Status, stop: Stop, what: str) -> Tree:
    """z if the solve succeeded; otherwise what `stop.on_failure` says."""
    if stop.on_failure == "ignore":
        return z

    def message() -> str:
        hopeless = np.any(np.asarray(status.code) >= Status.INFEASIBLE.code)
        remedy = "" if hopeless else "raise max_steps, loosen tol, or "
        return f"{what} {status}: {remedy}pass Stop(on_failure='nan' or 'ignore')"

    return refuse(status.ok, z, stop.on_failure, message)


def refuse(ok: Array, z: Tree, on_failure: str, message: Callable[[], str]) -> Tree:
    """z where `ok`; otherwise an error if it can be raised, else NaN, in z and its derivatives."""
    if on_failure == "ignore":
        return z
    if on_failure == "raise" and validate.is_known(ok):
        if not np.all(np.asarray(ok)):
            raise ConvergenceError(message())
        return z
    return jax.tree.map(lambda zi: zi * jnp.where(ok, 1, jnp.nan).astype(zi.dtype), z)
