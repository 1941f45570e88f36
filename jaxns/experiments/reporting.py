"""What an experiment is, and what it leaves: a table, a figure, and what it was to show."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, columns and rows of text, and remarks below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Check:
    """A line that a paper says a correct reproduction must show, and what was measured."""

    claim: str
    measured: str
    met: bool


def below(claim: str, measured: Any, bound: float) -> Check:
    """That the largest of some numbers is at most `bound`; NaN is not."""
    worst = float(np.max(measured))
    return Check(claim, f"{worst:.2g} ≤ {bound:.2g}", bool(worst <= bound))


def between(claim: str, measured: Any, low: float, high: float) -> Check:
    """That all of some numbers lie between two; NaN does not."""
    least, most = float(np.min(measured)), float(np.max(measured))
    found = f"{least:.4g}" if least == most else f"{least:.4g} … {most:.4g}"
    return Check(claim, f"{found} in [{low:g}, {high:g}]", bool(low <= least and most <= high))


Tidy = dict[str, Sequence[Any] | np.ndarray]
"""A table for programs: columns of one length, one observation a row."""


@dataclasses.dataclass(frozen=True)
class Posed:
    """A problem as `jaxns.solve` takes it, to be certified.

    tol: of the solve.   outer: a function of the solution, whose derivative is looked at; by
    default a random combination of its coordinates.
    """

    problem: Any
    solver: Any = None
    tol: float = 1e-12
    outer: Callable[[Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """How one kind of config is read, run, tabulated, drawn and checked.

    settings: what the config may say.   run: (settings, `Session`) -> everything computed.
    table: for people.   tidy: for programs.   draw: the figure.   checks: the paper's lines.
    problems: settings -> what `jaxns certify` looks at, by name; None where there is no such thing.
    """

    settings: type
    run: Callable[[Any, Any], Any]
    table: Callable[[Any], Table]
    tidy: Callable[[Any], Tidy]
    draw: Callable[[Any], Figure]
    checks: Callable[[Any], tuple[Check, ...]]
    problems: Callable[[Any], Mapping[str, Posed]] | None = None


class ExperimentError(RuntimeError):
    """An experiment that could not be completed; the message says where and what to change."""


def number(x: float, digits: int = 4) -> str:
    return f"{x:.{digits}g}"


def small(x: float) -> str:
    """An error: two digits are enough."""
    return "0" if x == 0 else f"{x:.1e}"
