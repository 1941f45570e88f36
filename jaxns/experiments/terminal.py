"""The terminal: progress while an experiment runs, and its table at the end."""

import sys
import time
from types import TracebackType
from typing import Self

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from jaxns.experiments.reporting import Table
from jaxns.experiments.run import Outcome

EVERY = 2.0  # seconds between plain lines of progress
WIDE = 150  # columns when nobody's terminal says otherwise


class Terminal:
    """Progress bars on a terminal, a plain line now and then elsewhere (pipes, logs).

    quiet: nothing on standard output; progress goes to standard error.
    """

    def __init__(self, quiet: bool = False) -> None:
        stream = sys.stderr if quiet else sys.stdout
        self.interactive = stream.isatty()
        width = None if self.interactive else WIDE
        self.console = Console(file=stream, width=width, soft_wrap=False)
        self.tasks: dict[str, TaskID] = {}
        self.last_line = 0.0
        self.bars = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self.console,
            disable=not self.interactive,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def report(self, task: str, done: int, total: int, note: str) -> None:
        if self.interactive:
            if task not in self.tasks:
                self.tasks[task] = self.bars.add_task(task, total=total, note=note)
            self.bars.update(self.tasks[task], completed=done, note=note)
        elif done == total or time.monotonic() > self.last_line + EVERY:
            self.last_line = time.monotonic()
            self.console.print(f"{task}: {done}/{total} {note}".rstrip(), highlight=False)

    def show(self, outcome: Outcome) -> None:
        self.bars.stop()
        self.console.print()
        self.console.print(_rich(outcome.table))
        for note in outcome.table.notes:
            self.console.print(note, style="dim", highlight=False)
        for check in outcome.checks:
            style, word = ("green", "met    ") if check.met else ("bold red", "NOT MET")
            self.console.print(
                word, f"{check.claim}: {check.measured}", style=style, highlight=False
            )
        for path in outcome.files:
            self.console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _rich(table: Table) -> rich_table.Table:
    drawn = rich_table.Table(title=table.title, box=box.SIMPLE_HEAD, title_style="bold")
    for index, column in enumerate(table.columns):
        drawn.add_column(
            column, justify="right" if index and table.title else "left", no_wrap=not index
        )
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
