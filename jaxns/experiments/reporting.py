"""What an experiment tells whoever runs it: progress while it runs, a table at the end."""

import dataclasses
from collections.abc import Callable

Report = Callable[[str, int, int, str], None]
"""report(task, done, total, note), called after each unit of work."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, columns and rows of text, and remarks below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


class ExperimentError(RuntimeError):
    """An experiment that could not be completed; the message says where and what to change."""


def number(x: float, digits: int = 4) -> str:
    return f"{x:.{digits}g}"


def small(x: float) -> str:
    """An error: two digits are enough."""
    return "0" if x == 0 else f"{x:.1e}"
