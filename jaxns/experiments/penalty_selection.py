"""Hold-out selection of penalties on real data: by gradient in three modes, and by grid search.

The hypergradient is `jax.value_and_grad` of a function that calls `jaxns.solve`; modes: implicit
(arXiv 2105.01637 for this use), piggyback (arXiv 2206.00457) and one-step (arXiv 2305.13768).
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxns
from jaxns.experiments import config, derivative_error, selection_figure
from jaxns.experiments.data import Split, split_of
from jaxns.experiments.holdout import HoldOut, Jacobian, make_mode, relative_error
from jaxns.experiments.reporting import (
    Check,
    Experiment,
    ExperimentError,
    Posed,
    Table,
    Tidy,
    below,
    number,
    small,
)
from jaxns.experiments.session import Report, Session


@dataclasses.dataclass(frozen=True)
class Descent:
    """What an outer optimiser went through in one mode; row k is the k-th evaluation."""

    label: str
    log_penalties: np.ndarray
    errors: np.ndarray
    gradients: np.ndarray
    inner_steps: np.ndarray
    seconds: float
    compile_seconds: float
    derivative_error: float


@dataclasses.dataclass(frozen=True)
class GridSearch:
    """The validation error on a grid: the logarithms along each axis, and errors at all points."""

    axis: np.ndarray
    errors: np.ndarray
    inner_steps: int
    seconds: float
    compile_seconds: float

    @property
    def best(self) -> tuple[np.ndarray, float]:
        index = np.unravel_index(np.argmin(self.errors), self.errors.shape)
        return self.axis[list(index)], float(self.errors[index])


@dataclasses.dataclass(frozen=True)
class Result:
    model: str
    data: str
    penalties: tuple[str, ...]
    penalty_max: float
    samples: tuple[int, int]  # to train, to validate
    features: tuple[str, ...]
    modes: tuple[Descent, ...]
    grid: GridSearch
    curve: GridSearch
    derivative_errors: derivative_error.DerivativeErrors


def run(settings: config.PenaltySelection, report: Session) -> Result:
    split = split_of(settings.data)
    stop = jaxns.Stop(tol=settings.inner.tol, max_steps=settings.inner.max_steps)
    holdout = HoldOut(settings.model, split, stop)
    jacobians = {mode: holdout.jacobian(mode) for mode in settings.modes}
    grid = search(holdout, settings.search, settings.grid.points, "grid search", report)
    modes = tuple(
        descend(holdout, mode, jacobian, settings, report) for mode, jacobian in jacobians.items()
    )
    curve = search(holdout, settings.search, settings.grid.curve, "validation curve", report)
    errors = derivative_error.measure(
        holdout, modes[0].log_penalties[-1], jacobians, settings.derivative_error.steps, report
    )
    samples = (len(split.y), len(split.y_val))
    return Result(
        settings.model,
        settings.data.name,
        holdout.penalties,
        split.penalty_max,
        samples,
        split.names,
        modes,
        grid,
        curve,
        errors,
    )


def descend(
    holdout: HoldOut,
    mode: config.Mode,
    jacobian: Jacobian,
    settings: config.PenaltySelection,
    report: Report,
) -> Descent:
    """Follow the outer optimiser with hypergradients from `mode`, projected on the search range."""
    low, high, start = _log_range(holdout.split, settings.search)
    optimizer = _optimizer(settings.outer)
    t = jnp.full(len(holdout.penalties), start)
    state = optimizer.init(t)
    rule = make_mode(mode)

    def outer_step(t, state, arrays):
        value_and_grad = jax.value_and_grad(holdout.validation_error, has_aux=True)
        (error, (steps, _)), gradient = value_and_grad(t, arrays, rule)
        update, state = optimizer.update(gradient, state, t)
        return jnp.clip(t + update, low, high), state, (error, gradient, steps)

    arrays = holdout.arrays
    rows, total = [], settings.outer.steps + 1
    report(mode.label, 0, total, "compiling")
    outer_step, compile_seconds = _compiled(outer_step, t, state, arrays)
    began = time.perf_counter()
    for k in range(total):
        here = np.asarray(t)
        t, state, seen = outer_step(t, state, arrays)
        rows.append((here, *map(np.asarray, seen)))
        error, gradient, _ = rows[-1][1:]
        if not (np.isfinite(error) and np.all(np.isfinite(gradient))):
            raise ExperimentError(_not_finite(mode, holdout, here, error, gradient))
        report(mode.label, k + 1, total, f"validation error {error:.5f}")
    seconds = time.perf_counter() - began
    columns = map(np.stack, zip(*rows, strict=True))
    log_penalties, errors, gradients, inner = columns
    found = log_penalties[-1]
    derivative = jacobian(found, settings.inner.tol, settings.inner.max_steps)
    wrong = relative_error(derivative, holdout.reference(found)[1])
    return Descent(
        mode.label, log_penalties, errors, gradients, inner, seconds, compile_seconds, wrong
    )


def search(
    holdout: HoldOut, searched: config.Search, points: int, name: str, report: Report
) -> GridSearch:
    """The validation error at `points` penalties per axis, equally spaced in the logarithm."""
    low, high, _ = _log_range(holdout.split, searched)
    axis = np.linspace(low, high, points)
    dimension, arrays = len(holdout.penalties), holdout.arrays
    start = jnp.asarray(np.full(dimension, high))  # of the type of the points that follow
    began = time.perf_counter()
    jax.block_until_ready(holdout.evaluate(start, arrays))  # one step: the solution is zero
    compile_seconds = time.perf_counter() - began
    errors, inner_steps, total = [], 0, points**dimension
    began = time.perf_counter()
    for done, t in enumerate(itertools.product(axis, repeat=dimension), start=1):
        error, steps, _ = holdout.evaluate(jnp.asarray(t, start.dtype), arrays)
        errors.append(float(error))
        inner_steps += int(steps)
        report(name, done, total, "")
    seconds = time.perf_counter() - began
    if not np.all(np.isfinite(errors)):
        raise ExperimentError(f"{name}: a solve did not converge; raise inner.max_steps")
    shape = (points,) * dimension
    return GridSearch(axis, np.reshape(errors, shape), inner_steps, seconds, compile_seconds)


def table(result: Result) -> Table:
    """One row per mode, then the grid search."""
    rows = [
        (
            path.label,
            f"{path.errors[-1]:.6f}",
            *(number(p) for p in np.exp(path.log_penalties[-1])),
            str(len(path.errors)),
            f"{path.inner_steps.sum():,}",
            f"{path.seconds:.2f}",
            f"{path.compile_seconds:.1f}",
            small(path.derivative_error),
        )
        for path in result.modes
    ]
    grid, (where, best) = result.grid, result.grid.best
    rows.append(
        (
            "grid search",
            f"{best:.6f}",
            *(number(p) for p in np.exp(where)),
            str(grid.errors.size),
            f"{grid.inner_steps:,}",
            f"{grid.seconds:.2f}",
            f"{grid.compile_seconds:.1f}",
            "–",
        )
    )
    n, m = result.samples
    title = f"{result.model.replace('_', ' ')} on {result.data}, {len(result.features)} features"
    columns = (
        "method",
        "validation error",
        *result.penalties,
        "evaluations",
        "inner iterations",
        "time (s)",
        "compile (s)",
        "derivative's rel. error",
    )
    notes = (
        f"{n} samples to train, {m} to validate; errors are mean squares, in units of the variance "
        "of the training targets; a mode's row is where its last outer step ended",
        f"penalty_max = {result.penalty_max:.6g}, above which the lasso solution is zero",
        "derivative's error: of the Jacobian in the logarithms of the penalties, at the penalty "
        "found, against the closed form on the support",
    )
    return Table(title, columns, tuple(rows), notes)


def tidy(result: Result) -> Tidy:
    """One row per evaluation of an outer optimiser."""
    paths = result.modes
    return {
        "mode": np.concatenate([np.repeat(path.label, len(path.errors)) for path in paths]),
        "evaluation": np.concatenate([np.arange(len(path.errors)) for path in paths]),
        **{
            name: np.concatenate([np.exp(path.log_penalties[:, i]) for path in paths])
            for i, name in enumerate(result.penalties)
        },
        "validation_error": np.concatenate([path.errors for path in paths]),
        "inner_iterations": np.concatenate([path.inner_steps for path in paths]),
    }


def checks(result: Result) -> tuple[Check, ...]:
    """Of the modes that are exact at a fixed point: derivatives to six of sixteen digits, as those
    of piggyback lag behind its iterates, and values as good as the grid's."""
    _, best = result.grid.best
    exact = [path for path in result.modes if not path.label.startswith("one-step")]
    return tuple(
        check
        for path in exact
        for check in (
            below(f"{path.label}: derivative's relative error", path.derivative_error,
                  float(np.finfo(path.errors.dtype).eps ** 0.4)),
            below(f"{path.label}: validation error over the grid's best", path.errors[-1] / best,
                  1 + 1e-2),
        )
    )  # fmt: skip


def _optimizer(outer: config.Outer) -> optax.GradientTransformation:
    rate = outer.learning_rate
    if outer.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, outer.steps)
    return getattr(optax, outer.optimizer)(rate)


def _log_range(split: Split, searched: config.Search) -> tuple[float, float, float]:
    fractions = np.array([searched.lowest, searched.highest, searched.start])
    low, high, start = np.log(fractions * split.penalty_max)
    return float(low), float(high), float(start)


def _compiled(fun: Callable, *args: Any) -> tuple[Callable, float]:
    """`fun` compiled for `args` ahead of time, and how long that took."""
    began = time.perf_counter()
    compiled = jax.jit(fun).lower(*args).compile()
    return compiled, time.perf_counter() - began


def _not_finite(
    mode: config.Mode, holdout: HoldOut, t: np.ndarray, error: np.ndarray, gradient: np.ndarray
) -> str:
    where = ", ".join(f"{n} {p:.3g}" for n, p in zip(holdout.penalties, np.exp(t), strict=True))
    return (
        f"{mode.label} at {where}: validation error {error}, hypergradient {gradient}: the inner "
        "solve or the linear system of its derivative did not converge; raise inner.max_steps or "
        "search.lowest"
    )


def problems(settings: config.PenaltySelection) -> dict[str, Posed]:
    """The inner problem where the descent starts, and the validation error of its solution."""
    split = split_of(settings.data)
    holdout = HoldOut(settings.model, split, jaxns.Stop())
    start = jnp.full(len(holdout.penalties), _log_range(split, settings.search)[2])
    X, y, X_val, y_val = holdout.arrays
    said = ", ".join(f"{n} {p:.4g}" for n, p in zip(holdout.penalties, jnp.exp(start), strict=True))
    return {
        f"{settings.model.replace('_', ' ')}, {said}": Posed(
            holdout.problem(start, X, y),
            tol=settings.inner.tol,
            outer=lambda x: jnp.mean((X_val @ x - y_val) ** 2),
        )
    }


EXPERIMENT = Experiment(
    config.PenaltySelection, run, table, tidy, selection_figure.draw, checks, problems
)
