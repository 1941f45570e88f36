"""Methods side by side: error against seconds as the tolerance falls, and what follows from it."""

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.frame import Options, progress
from benchmarks.peers.certified import Truth, certified
from benchmarks.peers.method import LONG, Method, Task
from benchmarks.timing import timed

LADDER = tuple(10.0**-k for k in range(2, 13))
ACCURACIES = (1e-3, 1e-6, 1e-9)


class Rung(NamedTuple):
    """One tolerance: relative errors of x and of the gradient, seconds in each round."""

    tol: float
    steps: int | None
    x_error: float
    gradient_error: float
    solve: list[float]
    both: list[float]

    def time(self, what: str) -> float:
        return statistics.median(getattr(self, what))

    def error(self, what: str) -> float:
        return {"solve": self.x_error, "both": self.gradient_error}[what]


class Curve(NamedTuple):
    name: str
    rungs: list[Rung]
    compile: float

    def first(self, accuracy: float, what: str = "both") -> Rung | None:
        """The cheapest rung that has this accuracy: of the gradient, or of x for `solve`."""
        good = [rung for rung in self.rungs if rung.error(what) <= accuracy]
        return min(good, key=lambda rung: rung.time(what)) if good else None


class Comparison(NamedTuple):
    """unit: seconds of what an iteration must do once, and what this is."""

    name: str
    truth: Truth
    curves: list[Curve]
    unit: float
    what: str

    def ours(self) -> list[Curve]:
        return [curve for curve in self.curves if curve.name.startswith("jaxns")]

    def of(self, library: str) -> list[Curve]:
        return [curve for curve in self.curves if curve.name.startswith(library)]


def fastest(curves: Iterable[Curve], accuracy: float, what: str) -> tuple[Curve, Rung] | None:
    found = [(c, rung) for c in curves if (rung := c.first(accuracy, what)) is not None]
    return min(found, key=lambda each: each[1].time(what)) if found else None


def times_faster(ours: Rung, theirs: Rung, what: str = "both") -> float:
    """The median over the rounds of their time over ours; `backward` is `both` without `solve`.

    The latter is a difference of times: of their medians, and never less than a microsecond.
    """
    if what == "backward":
        a, b = (max(rung.time("both") - rung.time("solve"), 1e-6) for rung in (theirs, ours))
        return a / b
    pairs = zip(getattr(theirs, what), getattr(ours, what), strict=True)
    return statistics.median(a / b for a, b in pairs)


def relative(x: Any, truth: np.ndarray) -> float:
    error = np.linalg.norm(np.asarray(x) - truth) / np.linalg.norm(truth)
    return float(error) if np.isfinite(error) else np.inf


def compare(task: Task, options: Options) -> Comparison:
    """Every method that is installed and takes the task, until a tolerance is too slow."""
    ladder = LADDER[::2] if options.reduced else LADDER
    methods, truth = {}, None
    for name, make in task.methods.items():
        try:
            methods[name] = make(task)
        except (ModuleNotFoundError, TypeError, NotImplementedError) as error:
            progress(f"{task.name}: {name} left out, {error}")
            continue
        if truth is None:
            truth = certified(task, np.asarray(methods[name].solve(1e-13).x))
            progress(f"{task.name}: certified to {truth.gap:.0e}, {truth.size} unknowns")
    assert truth is not None
    curves = [
        Curve(name, climb(task.name, name, method, truth, ladder, options), method.compile)
        for name, method in methods.items()
    ]
    for _ in range(options.repeats - 1):
        for curve in curves:
            for rung in curve.rungs:
                again(methods[curve.name], rung)
    return Comparison(task.name, truth, curves, task.unit, task.what)


def climb(
    task: str, name: str, method: Method, truth: Truth, ladder: Iterable[float], options: Options
) -> list[Rung]:
    rungs = []
    for tol in ladder:
        try:
            found = jax.block_until_ready(method.both(tol))
            method.solve(tol)
        except Exception as error:  # peers raise what they like: of all kinds
            progress(f"{task}: {name} at {tol:.0e} failed: {str(error).splitlines()[:1]}")
            break
        steps = None if found.steps is None or found.steps < 0 else int(found.steps)
        errors = relative(found.x, truth.x), relative(found.gradient, truth.gradient)
        rung = Rung(tol, steps, *errors, [], [])
        again(method, rung)
        rungs.append(rung)
        progress(
            f"{task} | {name} | {tol:.0e} | {steps} | {errors[0]:.0e} {errors[1]:.0e} | "
            f"{1e3 * rung.time('solve'):.2f} {1e3 * rung.time('both'):.2f} ms"
        )
        slow = rung.time("both") > (LONG / 8 if options.reduced else LONG)
        if slow or max(errors) < 1e-11 or stuck(rungs):
            break
    return rungs


def stuck(rungs: list[Rung]) -> bool:
    """Whether the last tolerance took long to no avail."""
    if len(rungs) < 2:
        return False
    before, last = rungs[-2:]
    better = any(last.error(what) < 0.5 * before.error(what) for what in ("solve", "both"))
    return last.solve[0] > LONG / 20 and not better


def again(method: Method, rung: Rung) -> None:
    """One more round; calls of many seconds are timed once."""
    for call, times in ((method.solve, rung.solve), (method.both, rung.both)):
        if times and times[0] > LONG / 4:
            times.append(times[0])
        else:
            times.append(timed(lambda call=call: call(rung.tol)))
