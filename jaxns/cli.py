"""The command line: `jaxns list`, `jaxns run CONFIG.toml …`, `jaxns report`."""

import argparse
import importlib.util
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jaxns

EXTRA = ("pydantic", "rich", "matplotlib", "sklearn")
EPILOG = """\
examples:
  jaxns list
  jaxns run configs/diabetes_lasso.toml
  jaxns run configs/diabetes_lasso.toml --set outer.steps=10 --set data.degree=1 --out try
  jaxns run configs/derivative_convergence_lasso.toml --set precision=float32
  jaxns run --all --reduced --budget 20m
  jaxns run --all && jaxns report
  jaxns run configs/derivative_convergence_lasso.toml --set device=gpu --set mesh.batch=8

A run leaves DIR/result.json (everything computed, with its provenance), table.csv, figure.png and
figure.svg. It ends with what the paper says it must show, met or not. One that is interrupted goes
on where it stopped when it is run again.
"""
INTERRUPTED = "interrupted; run it again to go on where it stopped"
UNITS = {"s": 1 / 60, "m": 1.0, "h": 60.0}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0: done.   1: failed, or something that had to be shown was not.   2: wrong arguments or config.
    """
    arguments = _parser().parse_args(argv)
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        return _fail(
            f"running an experiment needs {', '.join(missing)}: "
            "pip install 'jax-nonsmooth[experiments]'"
        )
    return _as_host(arguments) if getattr(arguments, "hosts", None) else _obey(arguments)


def _obey(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    from jaxns.experiments.loading import ConfigError
    from jaxns.experiments.run import ExperimentError

    try:
        return arguments.command(arguments)
    except ConfigError as error:
        return _fail(str(error), status=2)
    except (ExperimentError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, status=130)


def _as_host(arguments: argparse.Namespace) -> int:
    from jaxns.experiments.hosts import Host, HostEndedError, on_host

    address, *numbers = arguments.hosts
    try:
        hosts, this = map(int, numbers)
        if not 0 <= this < hosts:
            raise ValueError(f"THIS must be from 0 to HOSTS - 1, got {this} of {hosts}")
        return on_host(Host(address, hosts, this, arguments.patience), _obey, arguments)
    except ValueError as error:
        return _fail(f"--hosts: {error}", status=2)
    except HostEndedError as error:
        return _fail(f"{error}. What was finished is kept: run it again on every host to go on")
    except KeyboardInterrupt:  # which its process has met, too
        return _fail(INTERRUPTED, status=130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxns",
        description="Differentiable nonsmooth optimisation in JAX: run an experiment from a file.",
    )
    parser.add_argument("--version", action="version", version=f"jaxns {jaxns.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run the experiments that config files describe",
        description="Run the experiments that config files describe.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(command=_run)
    run.add_argument(
        "configs", type=Path, nargs="*", metavar="CONFIG.toml", help="for example configs/*.toml"
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config; dotted for sections, value in TOML (repeatable)",
    )
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="of one config; default: results/<name of CONFIG>"
    )
    run.add_argument("--all", action="store_true", help="all configs of a folder, shortest first")
    run.add_argument(
        "--budget",
        type=_minutes,
        metavar="TIME",
        help="with --all: for example 20m",
    )
    run.add_argument(
        "--hosts",
        nargs=3,
        metavar=("ADDRESS:PORT", "HOSTS", "THIS"),
        help="of several hosts: where the first one listens, how many there are, which this is",
    )
    run.add_argument(
        "--patience",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="with --hosts: without a sign of life, after which a host counts as dead; default: 30",
    )
    run.add_argument(
        "--reduced", action="store_true", help="at the small size that each config describes"
    )
    listing = commands.add_parser("list", help="the configs there are, and what each shows")
    listing.set_defaults(command=_list)
    report = commands.add_parser(
        "report",
        help="a page of what was reproduced, from what jaxns run --all left in results",
        description="Write a page of Markdown from the records that jaxns run --all left.",
    )
    report.set_defaults(command=_report)
    report.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )
    report.add_argument("--out", type=Path, default=Path("docs/reproduction.md"), metavar="FILE")
    for command in (run, listing, report):
        command.add_argument(
            "--folder", type=Path, default=Path("configs"), metavar="DIR", help="default: configs"
        )
    return parser


def _list(arguments: argparse.Namespace) -> int:
    from jaxns.experiments.terminal import show_list

    show_list(_configs(arguments.folder))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from jaxns.experiments.report import write

    remarks = arguments.folder / "not_reproduced.md"
    text = remarks.read_text(encoding="utf-8") if remarks.exists() else ""
    configs = _configs(arguments.folder)
    write(configs, arguments.results, text, arguments.out)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from jaxns.experiments.loading import load
    from jaxns.experiments.run import run
    from jaxns.experiments.terminal import Terminal

    if arguments.all == bool(arguments.configs):
        return _fail("run: give config files, or --all", status=2)
    if arguments.out and len(arguments.configs) != 1:
        return _fail("run: --out is for one config", status=2)
    paths = arguments.configs
    if arguments.all:
        configs = _configs(arguments.folder)
        paths = sorted(configs, key=lambda path: configs[path].minutes)
        if arguments.budget is not None:
            total = itertools.accumulate(configs[path].minutes for path in paths)
            within = zip(paths, total, strict=True)
            paths = [path for path, minutes in within if minutes <= arguments.budget]
    loaded = {path: load(path, arguments.set, arguments.reduced) for path in paths}
    met = True
    for path, config in loaded.items():
        out = arguments.out or Path("results") / path.stem
        with Terminal() as terminal:
            outcome = run(config, out, terminal.report)
            terminal.show(outcome)
        met &= outcome.met
    return 0 if met else 1


def _configs(folder: Path) -> dict[Path, Any]:
    from jaxns.experiments.loading import ConfigError, load

    found = {path: load(path) for path in sorted(folder.glob("*.toml"))}
    if not found:
        raise ConfigError(f"no configs in {folder}: name their folder with --folder")
    return found


def _minutes(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS:
        number, unit = text, "m"
    try:
        return float(number) * UNITS[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a time such as 20m, got {text!r}") from None


def _fail(message: str, status: int = 1) -> int:
    sys.stderr.write(f"jaxns: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
