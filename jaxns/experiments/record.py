"""The record of a run: everything computed, and where it came from."""

import dataclasses
import datetime
import json
import math
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxns
from jaxns.experiments.config import Base
from jaxns.experiments.reporting import Check, Table

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scikit-learn", "matplotlib", "pydantic")


def write(
    path: Path,
    settings: Base,
    result: Any,
    table: Table,
    checks: tuple[Check, ...],
    spent: tuple[float, float],
) -> Path:
    """Write everything as JSON (not-a-number and infinity as null).

    spent: seconds on the clock, and of the processor.
    """
    seconds, cpu_seconds = (round(time, 1) for time in spent)
    content = {
        "config": settings.model_dump(),
        "provenance": {
            **provenance(settings),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        },
        "checks": checks,
        "table": table,
        "result": result,
    }
    path.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def provenance(settings: Base) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    devices = jax.devices(settings.device)[: settings.mesh.batch if settings.mesh else 1]
    return {
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "jaxns": jaxns.__version__, **versions},
        "device": f"{devices[0].platform}: {devices[0].device_kind}",
        "devices": len(devices),
        "hosts": jax.process_count(),
        "machine": platform.platform(),
        "precision": settings.precision,
        "seeds": _seeds(settings.model_dump()),
        "commit": _commit(),
    }


def _seeds(value: Any, prefix: str = "") -> dict[str, int]:
    """Every `seed` of a config by its dotted key."""
    items = enumerate(value) if isinstance(value, (list, tuple)) else value.items()
    found: dict[str, int] = {}
    for key, item in items:
        if key == "seed":
            found[f"{prefix}{key}"] = item
        elif isinstance(item, (dict, list, tuple)):
            found |= _seeds(item, f"{prefix}{key}.")
    return found


def _commit() -> str | None:
    """The commit of the checkout that jaxns runs from, if it is one; "+" marks local changes."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(here / "record.py"))
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
