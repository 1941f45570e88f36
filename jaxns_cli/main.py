"""From arguments to an exit status."""

import argparse
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence

from jaxns_cli import doctor
from jaxns_cli.parser import build

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
NEEDS = {
    "list": ("rich",),
    **dict.fromkeys(("run", "report", "certify"), ("pydantic", "rich", "matplotlib", "sklearn")),
    "completion": ("shtab",),
}
EXTRAS = {"completion": "completion"}  # and otherwise `experiments`
ALONE = ("bench", "completion", "doctor", "list")  # which do not import jaxns themselves


class UsageError(Exception):
    """Arguments that go together wrongly; exit status 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, which `jaxns --help` explains."""
    parser = build()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command != "bench":  # whose program reads them
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    needed = NEEDS.get(arguments.command, ())
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        extra = EXTRAS.get(arguments.command, "experiments")
        return fail(
            f"jaxns {arguments.command} needs {', '.join(missing)}: "
            f"pip install 'jax-nonsmooth[{extra}]'"
        )
    try:
        return _several(arguments) if getattr(arguments, "hosts", None) else obey(arguments)
    except UsageError as error:
        return fail(str(error), USAGE)
    except BrokenPipeError:  # who reads has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return fail("interrupted; a run goes on where it stopped when it is run again", INTERRUPTED)


def obey(arguments: argparse.Namespace) -> int:
    """Run the command here; what a user can mend becomes a line on stderr."""
    if arguments.command in ALONE:
        return _module(arguments).run(arguments)
    (name,) = doctor.namesake()
    if not name.ok:
        return fail(f"{name.found}. {name.cure}")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return _experiments(arguments)
    except ImportError as error:
        return fail(f"{error}\n`jaxns doctor` looks for the cause")


def _experiments(arguments: argparse.Namespace) -> int:
    from jaxns.experiments.loading import ConfigError
    from jaxns.experiments.reporting import ExperimentError

    try:
        return _module(arguments).run(arguments)
    except ConfigError as error:
        return fail(str(error), USAGE)
    except (ExperimentError, OSError) as error:
        return fail(str(error))


def fail(message: str, status: int = FAILED) -> int:
    sys.stderr.write(f"jaxns: {message}\n")
    return status


def _module(arguments: argparse.Namespace):
    return importlib.import_module(f"jaxns_cli.{arguments.command}")


def _several(arguments: argparse.Namespace) -> int:
    from jaxns.experiments.hosts import Host, HostEndedError, on_host

    address, *numbers = arguments.hosts
    try:
        hosts, this = map(int, numbers)
        if not 0 <= this < hosts:
            raise ValueError(f"THIS must be from 0 to HOSTS - 1, got {this} of {hosts}")
        return on_host(Host(address, hosts, this, arguments.patience), obey, arguments)
    except ValueError as error:
        raise UsageError(f"--hosts: {error}") from None
    except HostEndedError as error:
        return fail(f"{error}. What was finished is kept: run it again on every host to go on")
