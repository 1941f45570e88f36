"""Run an experiment: config in; a table, a figure and a record out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from jaxns.experiments import (
    config,
    convergence_figure,
    derivative_convergence,
    penalty_selection,
    record,
    selection_figure,
    style,
)
from jaxns.experiments.reporting import ExperimentError, Report, Table

__all__ = ["ExperimentError", "Outcome", "run"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """How one kind of config is run, tabulated and drawn."""

    run: Callable[[Any, Report], Any]
    table: Callable[[Any], Table]
    draw: Callable[[Any], Figure]


EXPERIMENTS: dict[type, Experiment] = {
    config.PenaltySelection: Experiment(
        penalty_selection.run, penalty_selection.table, selection_figure.draw
    ),
    config.DerivativeConvergence: Experiment(
        derivative_convergence.run, derivative_convergence.table, convergence_figure.draw
    ),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run leaves: a table to show, and the files it wrote."""

    table: Table
    files: tuple[Path, ...]


def run(settings: config.Config, out: Path, report: Report) -> Outcome:
    """Run the experiment that `settings` describes and write its record and figure into `out`.

    The precision is that of the config for the duration of the run; nothing global is changed.
    """
    experiment = EXPERIMENTS[type(settings)]
    out.mkdir(parents=True, exist_ok=True)  # before the work, so that a bad path fails early
    with jax.enable_x64(settings.precision == "float64"):
        result = experiment.run(settings, report)
    table = experiment.table(result)
    written = (
        record.write(out / "result.json", settings, result, table),
        style.save(experiment.draw, result, out / "figure.png"),
    )
    return Outcome(table, written)
