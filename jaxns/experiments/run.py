"""Run an experiment: config in; tables, figures, checks and a record out."""

import csv
import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxns import batch
from jaxns.experiments import catalogue, record, style
from jaxns.experiments.config import Base
from jaxns.experiments.reporting import Check, Experiment, ExperimentError, Table, Tidy
from jaxns.experiments.session import Report, Session

__all__ = ["ExperimentError", "Outcome", "devices", "run"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run leaves: a table to show, the checks it made, and the files it wrote."""

    table: Table
    checks: tuple[Check, ...]
    files: tuple[Path, ...]

    @property
    def met(self) -> bool:
        return all(check.met for check in self.checks)


def run(settings: Base, out: Path, report: Report) -> Outcome:
    """Run the experiment that `settings` describes and write its record and figures into `out`.

    A run that was interrupted goes on from the units that it had finished. With several hosts each
    of them calls this, and the first one writes.
    """
    began = time.monotonic(), time.process_time()
    experiment, result, session = compute(settings, out, report)
    table, checks = experiment.table(result), experiment.checks(result)
    written: tuple[Path, ...] = ()
    if jax.process_index() == 0:
        spent = time.monotonic() - began[0], time.process_time() - began[1]
        written = (
            record.write(out / "result.json", settings, result, table, checks, spent),
            _write_csv(out / "table.csv", experiment.tidy(result)),
            *style.save(experiment.draw, result, out / "figure"),
        )
    session.close()
    return Outcome(table, checks, written)


def compute(settings: Base, out: Path, report: Report) -> tuple[Experiment, Any, Session]:
    """The experiment, what it computed, and the session, which keeps finished units in `out`.

    The precision and the device are those of the config for the duration of the run; nothing global
    is changed.
    """
    experiment = catalogue.find(settings.experiment)
    mesh, device = devices(settings)
    out.mkdir(parents=True, exist_ok=True)  # before the work, so that a bad path fails early
    session = Session(report, out, settings, mesh)
    with jax.enable_x64(settings.precision == "float64"), jax.default_device(device):
        result = experiment.run(settings, session)
    if mesh is not None and not session.spread:
        logger.warning("mesh: %s has no repetitions to spread, one device did all", settings.title)
    return experiment, result, session


def devices(settings: Base) -> tuple[Mesh | None, Any]:
    """The mesh to spread repetitions over, and where everything else happens."""
    try:
        mesh = batch.mesh(settings.mesh.batch, settings.device) if settings.mesh else None
        return mesh, jax.local_devices(backend=settings.device)[0] if settings.device else None
    except RuntimeError as error:
        there = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise ExperimentError(
            f"device: no {settings.device} here, only {there} ({error})"
        ) from None
    except ValueError as error:
        hint = "a CPU counts as many with XLA_FLAGS=--xla_force_host_platform_device_count=N"
        raise ExperimentError(f"mesh.batch: {error}; {hint}") from None


def _write_csv(path: Path, tidy: Tidy) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(tidy)
        writer.writerows(zip(*tidy.values(), strict=True))
    return path
