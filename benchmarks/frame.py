"""What every benchmark is made of: options go in; tables, targets and figures come out.

A benchmark is a module of this package with a docstring, which becomes its section of the page (the
first line its title), `REPEATS: int`, and `run(options) -> Findings`. Its name stands in `NAMES`.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

NAMES = (
    "lasso",
    "sparse_models",
    "paths",
    "transport",
    "quadratic",
    "structured",
    "foundation",
    "stationary_cost",
    "adjoint",
    "newton",
    "sinkhorn",
    "batch",
    "throughput",
    "bilevel",
    "stochastic_bilevel",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """repeats: rounds that a median is taken of.   reduced: sizes that take seconds.

    only: a part of the name of the cases to run.   minutes: after which no other case is begun.
    left_out: the cases that were not.
    """

    repeats: int
    reduced: bool = False
    only: str = ""
    minutes: float = math.inf
    left_out: list[str] = dataclasses.field(default_factory=list)

    def chosen(self, names: Iterable[str]) -> Iterator[str]:
        """Those of the cases that are asked for, while there is time."""
        start = time.perf_counter()
        for name in names:
            if self.only in name and time.perf_counter() - start <= 60 * self.minutes:
                yield name
            else:
                self.left_out.append(name)


@dataclasses.dataclass
class Table:
    """Columns and rows of text, with a paragraph before and remarks after."""

    columns: Sequence[str]
    rows: list[Sequence[str]] = dataclasses.field(default_factory=list)
    text: str = ""
    notes: Sequence[str] = ()

    def row(self, *cells: Any) -> None:
        """Add a row, and show it while the program goes on."""
        self.rows.append([str(cell) for cell in cells])
        progress(" | ".join(self.rows[-1]))

    def __str__(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join(part for part in (self.text, table, *self.notes) if part)


@dataclasses.dataclass(frozen=True)
class Target:
    """What was to be reached, what was measured, and where not, the profile that says why."""

    claim: str
    measured: str
    met: bool
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Findings:
    """figures: functions that draw one, by file name.   numbers: everything measured."""

    tables: Sequence[Table]
    targets: Sequence[Target] = ()
    figures: dict[str, Callable[[], Any]] = dataclasses.field(default_factory=dict)
    numbers: Any = None


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
