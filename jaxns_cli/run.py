"""`jaxns run`: experiments, from config files or by their names."""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from jaxns.experiments.config import Base
from jaxns.experiments.loading import ConfigError, load
from jaxns.experiments.run import Outcome
from jaxns.experiments.run import run as run_experiment
from jaxns.experiments.terminal import Terminal
from jaxns_cli import shipped
from jaxns_cli.main import UsageError


def run(arguments: argparse.Namespace) -> int:
    if arguments.all == bool(arguments.configs):
        raise UsageError("run: give config files or names, or --all")
    if arguments.out and len(arguments.configs) != 1:
        raise UsageError("run: --out is for one config")
    paths = [shipped.find(config, arguments.folder) for config in arguments.configs]
    if arguments.all:
        paths = _all(arguments)
    loaded = {path: load(path, arguments.set, arguments.reduced) for path in paths}
    done: list[dict[str, Any]] = []
    for path, config in loaded.items():
        out = arguments.out or Path("results") / path.stem
        with Terminal(quiet=arguments.json) as terminal:
            outcome = run_experiment(config, out, terminal.report)
            if not arguments.json:
                terminal.show(outcome)
        done.append(_summary(path, config, out, outcome))
    if arguments.json:
        print(json.dumps(done, indent=1, ensure_ascii=False))
    return 0 if all(one["met"] for one in done) else 1


def configs(folder: Path) -> dict[Path, Base]:
    """Those of a folder, each as its file says."""
    found = {path: load(path) for path in sorted(folder.glob("*.toml"))}
    if not found:
        raise ConfigError(f"no configs in {folder}: name their folder with --folder")
    return found


def _all(arguments: argparse.Namespace) -> list[Path]:
    """The shortest first, as many as fit into the budget."""
    found = configs(shipped.folder(arguments.folder))
    paths = sorted(found, key=lambda path: found[path].minutes)
    if arguments.budget is None:
        return paths
    total = itertools.accumulate(found[path].minutes for path in paths)
    within = zip(paths, total, strict=True)
    return [path for path, minutes in within if minutes <= arguments.budget]


def _summary(path: Path, config: Base, out: Path, outcome: Outcome) -> dict[str, Any]:
    return {
        "config": str(path),
        "title": config.title,
        "out": str(out),
        "met": outcome.met,
        "checks": [dataclasses.asdict(check) for check in outcome.checks],
        "table": dataclasses.asdict(outcome.table),
        "files": [str(file) for file in outcome.files],
    }
