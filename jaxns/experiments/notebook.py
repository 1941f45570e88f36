"""Experiments inside a notebook: run a config, then look at its table and its figure."""

import dataclasses
import html
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from jaxns.experiments.loading import load
from jaxns.experiments.reporting import Check, Experiment, Table
from jaxns.experiments.run import compute


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a config computed. Displayed by a notebook as its table and checks.

    result: everything, as the experiment holds it.
    """

    experiment: Experiment
    result: Any

    @property
    def table(self) -> Table:
        return self.experiment.table(self.result)

    @property
    def checks(self) -> tuple[Check, ...]:
        return self.experiment.checks(self.result)

    def figure(self) -> Figure:
        return self.experiment.draw(self.result)

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Any) -> str:
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

        table = self.table
        lines = [row("th", table.columns), *(row("td", cells) for cells in table.rows)]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.notes)
        checks = "".join(
            f"<li>{'✓' if check.met else '✗ not met:'} {html.escape(check.claim)}: "
            f"{html.escape(check.measured)}</li>"
            for check in self.checks
        )
        title = f"<p><b>{html.escape(table.title)}</b></p>"
        return f"{title}<table>{body}</table>{notes}<ul>{checks}</ul>"

    def __repr__(self) -> str:
        rows = (table := self.table).columns, *table.rows
        met = sum(check.met for check in self.checks)
        lines = ["  ".join(cells) for cells in rows]
        return "\n".join([table.title, *lines, f"{met} of {len(self.checks)} checks met"])


def see(config: Path | str, *overrides: str, reduced: bool = True) -> Seen:
    """Run a config, by default at its reduced size, and keep no files.

    config: its path.   overrides: as after `--set` on the command line, such as "steps=50".
    """
    settings = load(Path(config), overrides, reduced)
    with tempfile.TemporaryDirectory() as folder:
        experiment, result, _ = compute(settings, Path(folder), lambda *told: None)
    return Seen(experiment, result)
