"""The outer loop: minimise a function of the solution of an inner problem."""

import time
from collections.abc import Callable
from functools import partial
from os import PathLike
from types import FunctionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxns import tree, validate
from jaxns.bilevel.accuracy import LOOSEST, accurate
from jaxns.bilevel.checkpoint import Checkpoint
from jaxns.bilevel.descent import adaptive
from jaxns.bilevel.levels import Bilevel, How, hypergradient, starting
from jaxns.bilevel.progress import bar
from jaxns.bilevel.space import Free, constrain, free
from jaxns.closure import hoist
from jaxns.fixed_point import ConvergenceError, Solution, Status, Stop
from jaxns.modes import Implicit, Mode
from jaxns.struct import Stateless, seal, struct
from jaxns.tree import Tree

PATIENCE = 10  # evaluations


class History(NamedTuple):
    """What every evaluation found, along the first axis of each array.

    value: outer(x(θ), θ) at `theta`.   gradient: in u, with θ = constrain(u) in the space that was
    asked for (`Positive`: in log θ).   gradient_norm: its norm.   error: its relative error, as
    measured; NaN without `accuracy`.
    inner_steps, adjoint_steps: in all inner problems together.   residual, adjoint_residual: the
    largest.   tol: of the inner solves.   status: the worst, a code of `jaxns.Status`.
    seconds: from the start of the loop to the end of the evaluation, compilation included; NaN
    from `scan`.
    """

    value: Array
    gradient: Tree
    gradient_norm: Array
    theta: Tree
    inner_steps: Array
    adjoint_steps: Array
    residual: Array
    adjoint_residual: Array
    error: Array
    tol: Array
    status: Array
    seconds: Array


class Best(NamedTuple):
    value: Array
    theta: Tree
    solution: Solution


class State(NamedTuple):
    """Everything that the next step depends on."""

    u: Tree
    optimizer: Any
    solution: Solution
    adjoint: Tree
    tol: Array
    best: Best


class Setting(NamedTuple):
    """What does not change: the arguments of `minimize`, sealed."""

    bilevel: Bilevel
    space: Any
    how: How
    accuracy: Any


@struct
class Result:
    """The best point visited and how the search went.

    theta, value: the hyperparameters of the smallest outer value, and that value.
    x: the inner solution there.   solution: its `Solution`.
    history: see `History`.
    converged: whether the gradient got as small as `tol` asks for.
    """

    theta: Tree
    value: Array
    solution: Solution
    history: History
    converged: bool | Array

    @property
    def x(self) -> Tree:
        return self.solution.x


def minimize(
    outer: Callable,
    inner: Callable,
    theta0: Tree,
    *,
    each: Tree = None,
    space: Any = Free(),
    optimizer: Any = None,
    solver: Any = None,
    mode: Mode = Implicit(),
    stop: Stop = Stop(),
    accuracy: float | None = None,
    steps: int = 50,
    tol: float = 1e-5,
    x0: Tree | None = None,
    callback: Callable | None = None,
    progress: bool = False,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 1,
) -> Result:
    """Minimise θ ↦ outer(x(θ), θ), where x(θ) solves inner(θ), by hypergradients.

    outer: (x, θ) -> scalar.   inner: θ -> problem.   theta0: where θ starts, a pytree of numbers.
    each: a pytree of arrays, for many inner problems: see `Bilevel`.
    space: where θ lies: `Free()`, `Positive()`, `Box(low, high)`, for all of θ or as a pytree like
        it. The search is in u with θ = constrain(u).
    optimizer: any of optax, on u; by default `adaptive()`.
    solver, mode, stop, x0: as for `jaxns.solve`. Every solve, and every linear system of
        `Implicit`, starts from the one before; with a mode that differentiates the steps that ran
        (`Piggyback`), or what they learned (`Shine`), every solve starts from x0.
    accuracy: the error that a hypergradient may have, as a fraction of its norm. Inner tolerances
        are then chosen by measuring it (see `jaxns.bilevel.accuracy`), `stop.tol` being the
        tightest; by default every solve goes to `stop.tol`. For the modes that look at the last
        point only (`Implicit`, `OneStep`).
    steps: evaluations at most.   tol: ends where ‖∇‖ ≤ tol · |value|, ∇ in u; and, where no
        optimizer is given, when ten evaluations have lowered the value by less than tol² of it: a
        minimum may be a kink, where no gradient is small.
    callback: called after each evaluation with its number and a `History` of that one row; ends the
        search by returning True.
    progress: whether to show a bar on the terminal, with rich (the extra `experiments`).
    checkpoint: a directory that keeps the search, saved after every `checkpoint_every` evaluations
        and at the end. Where it holds one already, that goes on where it was left, with the history
        and to the numbers that it would have found undisturbed; `steps` counts all evaluations.
        The first two evaluations are made again, to see that it is the same search: `ValueError`
        if not.

    Raises `ValueError` or `TypeError` for arguments that cannot be right, and `ConvergenceError`
    where an inner solve fails at the first point and `stop.on_failure` is "raise"; later on, such a
    point counts as a bad one: `adaptive` then makes a shorter step.
    """
    every = validate.positive(
        "checkpoint_every", validate.integer("checkpoint_every", checkpoint_every)
    )
    setting, descent, state = _begin(
        outer, inner, theta0, each, space, optimizer, solver, mode, stop, accuracy, steps, x0
    )
    step = _compiled(setting, descent, state)
    rows: list[History] = []
    kept = None if checkpoint is None else Checkpoint(checkpoint)
    if kept is not None:
        state, rows = kept.resume(step, state)
    began = time.perf_counter() - (rows[-1].seconds if rows else 0)

    def converged() -> bool:
        return bool(rows) and bool(rows[-1].gradient_norm <= tol * abs(rows[-1].value))

    def ended() -> bool:
        return len(rows) >= steps or converged() or (optimizer is None and _stuck(rows, tol))

    with bar(progress, len(rows), steps) as show:
        while not ended():
            state, row = step(state)
            seconds = np.asarray(time.perf_counter() - began, row.seconds.dtype)
            rows.append(jax.device_get(row._replace(seconds=seconds)))
            if len(rows) == 1:
                _check_first(rows[0], stop)
            if kept is not None and len(rows) % every == 0:
                kept.save(state, rows)
            show(len(rows), rows[-1])
            if callback is not None and callback(len(rows), rows[-1]):
                break
    if kept is not None and len(rows) % every:
        kept.save(state, rows)
    history = jax.tree.map(lambda *cells: np.stack(cells), *rows)
    return Result(state.best.theta, state.best.value, state.best.solution, history, converged())


def scan(
    outer: Callable,
    inner: Callable,
    theta0: Tree,
    *,
    each: Tree = None,
    space: Any = Free(),
    optimizer: Any = None,
    solver: Any = None,
    mode: Mode = Implicit(),
    stop: Stop = Stop(),
    accuracy: float | None = None,
    steps: int = 50,
    x0: Tree | None = None,
) -> Result:
    """`minimize` as one `lax.scan` of exactly `steps` evaluations, under `jit` and `vmap`.

    Arguments as there. Nothing can raise in it: a failed inner solve has the value NaN.
    """
    setting, optimizer, state = _begin(
        outer, inner, theta0, each, space, optimizer, solver, mode, stop, accuracy, steps, x0
    )
    state, history = lax.scan(lambda s, _: _step(optimizer, setting, s), state, length=steps)
    best, small = state.best, jnp.any(history.gradient_norm == 0)
    return Result(best.theta, best.value, best.solution, history, small)


def _begin(
    outer, inner, theta0, each, space, optimizer, solver, mode, stop, accuracy, steps, x0
) -> tuple[Setting, Any, State]:
    import optax

    for name, function in (("outer", outer), ("inner", inner)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, got {type(function).__name__}")
    validate.positive("steps", validate.integer("steps", steps))
    if not isinstance(stop, Stop):
        raise TypeError(f"stop must be a jaxns.Stop(…), got {type(stop).__name__}")
    if accuracy is not None:
        validate.positive("accuracy", validate.scalar("accuracy", accuracy))
        if not getattr(mode, "pointwise", False) or stop.tol is None:
            raise ValueError(
                "accuracy needs a mode that looks at the last point only, such as Implicit(), "
                "and a stop with a tol, the tightest one"
            )
    theta0 = jax.tree.map(partial(validate.array, "theta0"), theta0)
    u = free(space, theta0)
    optimizer = optax.with_extra_args_support(adaptive() if optimizer is None else optimizer)
    bilevel, how = seal((Bilevel(outer, inner, each), How(solver, mode, stop)))
    solution = starting(bilevel, theta0, solver, x0)
    loosest = jnp.asarray(LOOSEST, tree.dtype(u))
    best = Best(jnp.inf * loosest, constrain(space, u), solution)
    adjoint = tree.zeros_like(solution.z)
    state = State(u, optimizer.init(u), solution, adjoint, loosest, best)
    return Setting(bilevel, space, how, accuracy), optimizer, state


def _step(optimizer: Any, setting: Setting, state: State) -> tuple[State, History]:
    """Evaluate at u, and let the optimiser say where next."""
    bilevel, space, how, accuracy = setting
    u, theta = state.u, constrain(space, state.u)
    if accuracy is None:
        tol = jnp.asarray(jnp.nan if how.stop.tol is None else how.stop.tol, state.tol.dtype)
        found = hypergradient(bilevel, space, u, how, state.solution, state.adjoint)
        next_tol = state.tol
    else:
        found, tol, next_tol = accurate(
            bilevel, space, u, how, state.solution, state.adjoint, state.tol, accuracy
        )
    value, gradient = found.value, found.gradient
    fine = jnp.isfinite(value) & jnp.all(jnp.isfinite(tree.norm(gradient)))
    row = History(
        value=value,
        gradient=gradient,
        gradient_norm=tree.norm(gradient),
        theta=theta,
        inner_steps=found.inner_steps,
        adjoint_steps=found.adjoint_steps,
        residual=found.residual,
        adjoint_residual=found.adjoint_residual,
        error=found.error,
        tol=tol,
        status=jnp.max(found.solution.status.code),
        seconds=jnp.full_like(value, jnp.nan),
    )
    best = tree.where(
        fine & (value < state.best.value), Best(value, theta, found.solution), state.best
    )
    updates, memory = optimizer.update(gradient, state.optimizer, u, value=value)
    # What failed is no place to start from; and the derivative of the steps that ran, or what a
    # run learned, is as good as there are steps: such modes always begin where they first did.
    warm = fine & getattr(how.mode, "pointwise", False)
    solution = tree.where(warm, found.solution, state.solution)
    adjoint = tree.where(fine, found.adjoint, tree.zeros_like(state.adjoint))
    return State(tree.add(u, updates), memory, solution, adjoint, next_tol, best), row


_step_of = jax.jit(_step, static_argnums=0)


def _compiled(setting: Setting, optimizer: Any, state: State) -> Callable:
    """The step as a function of the state, compiled once for functions without closures."""
    functions = (setting.bilevel.outer, setting.bilevel.inner)
    if not any(closes_over(function) for function in functions):
        return partial(_step_of, optimizer, setting)
    explicit, arrays = hoist(lambda state: _step(optimizer, setting, state), state)
    return partial(jax.jit(explicit), arrays)


def closes_over(function: Any) -> bool:
    """Whether it may hold what is not seen to change: closures, methods of objects, partials."""
    if not isinstance(function, Stateless):
        return False  # a callable pytree: all that it holds is an argument
    plain = function.wrapped
    return not isinstance(plain, FunctionType) or plain.__closure__ is not None


def _stuck(rows: list[History], tol: float) -> bool:
    """Whether the last evaluations have brought next to nothing."""
    best = np.fmin.accumulate([row.value for row in rows])
    return len(best) > PATIENCE and bool(best[-1 - PATIENCE] - best[-1] < tol**2 * abs(best[-1]))


def _check_first(row: History, stop: Stop) -> None:
    failed = row.status > Status.COMPLETED.code
    if failed and stop.on_failure == "raise":
        raise ConvergenceError(
            f"the inner solve at theta0 {Status(row.status)}: raise max_steps, loosen tol, or pass "
            "stop=Stop(on_failure='nan' or 'ignore')"
        )
    if not np.isfinite(row.value) or not np.isfinite(row.gradient_norm):
        raise ConvergenceError(
            f"at theta0 the outer value is {row.value} and its gradient has norm "
            f"{row.gradient_norm}: start elsewhere, or look at it with jaxns.certify"
        )
