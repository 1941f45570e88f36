"""What a run leaves: a JSON file with everything measured, and where and with what."""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.frame import Findings, Options

PACKAGES = (
    "jax", "jaxlib", "numpy", "scipy", "scikit-learn", "celer", "skglm", "jaxopt", "optimistix",
    "ott-jax", "POT", "qpax", "mpax", "proxsuite", "cvxpylayers", "diffcp",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of Python, and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """What the processor calls itself, where it says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def device() -> str:
    first = jax.devices()[0]
    return processor() if first.platform == "cpu" else f"{first.device_kind}, host {processor()}"


def record(name: str, options: Options, findings: Findings, spent: float) -> dict[str, Any]:
    return {
        "name": name,
        "device": device(),
        "versions": versions(),
        "repeats": options.repeats,
        "reduced": options.reduced,
        "left out": options.left_out,
        "seconds": round(spent),
        "tables": [vars(table) for table in findings.tables],
        "targets": [vars(target) for target in findings.targets],
        "figures": list(findings.figures),
        "numbers": findings.numbers,
    }


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(content), ensure_ascii=False, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """For JSON: numbers of four digits, and null for those that are not finite."""
    match value:
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case bool() | np.bool_():
            return bool(value)
        case float() | np.floating():
            return float(f"{value:.4g}") if np.isfinite(value) else None
        case np.integer():
            return int(value)
        case np.ndarray() | jax.Array():
            return _plain(np.asarray(value).tolist())
    return value
