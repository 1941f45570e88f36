"""The arguments of every command."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STATUS = """\
exit status:
  0    done, and everything that had to be shown was
  1    failed, or something that had to be shown was not, or the doctor found something wrong
  2    wrong arguments, or a config that cannot be run
  130  interrupted

With --json, standard output is one JSON document and nothing else; progress and errors are on
standard error. Colours appear on a terminal only, and never where NO_COLOR is set.
"""
RUN = """\
examples:
  jaxns list
  jaxns run diabetes_lasso
  jaxns run diabetes_lasso --set outer.steps=10 --set data.degree=1 --out try
  jaxns run derivative_convergence_lasso --set precision=float32
  jaxns run diabetes_lasso --set data.path=mine.csv --set data.target=price --out mine
  jaxns run --all --reduced --budget 20m
  jaxns run --all && jaxns report
  jaxns run configs/derivative_convergence_lasso.toml --set device=gpu --set mesh.batch=8

A run leaves DIR/result.json (everything computed, with its provenance), table.csv, figure.png and
figure.svg. It ends with what the paper says it must show, met or not. One that is interrupted goes
on where it stopped when it is run again.
"""
CERTIFY = """\
The problems of the config are solved, and each mode's derivative is held against the one at the
fixed point. For the selection of penalties it is the derivative of the validation error at
search.start. Exit status 1: no derivative can be vouched for, or there are several (a kink).

example: jaxns certify diabetes_lasso --set search.start=0.1
"""
COMPLETION = """\
examples:
  bash  jaxns completion bash > ~/.local/share/bash-completion/completions/jaxns
  zsh   jaxns completion zsh > DIR/_jaxns, where DIR is in $fpath before compinit
  fish  jaxns completion fish > ~/.config/fish/completions/jaxns.fish
"""
SHELLS = ("bash", "zsh", "fish")
UNITS = {"s": 1 / 60, "m": 1.0, "h": 60.0}


def build() -> argparse.ArgumentParser:
    """The parser; `arguments.command` is the name of the module that obeys."""
    parser = _described(
        argparse.ArgumentParser(prog="jaxns", epilog=STATUS),
        "Differentiable nonsmooth optimisation in JAX: experiments, certificates, benchmarks.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    run = commands.add_parser(
        "run", help="run experiments: a table, a figure and a record of each", epilog=RUN
    )
    _described(run, "Run the experiments that config files describe.")
    run.add_argument("configs", nargs="*", metavar="CONFIG", help="a TOML file, or a listed name")
    _overrides(run)
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="of one config; default: results/<name of CONFIG>"
    )
    run.add_argument("--all", action="store_true", help="all configs of a folder, shortest first")
    run.add_argument("--budget", type=_minutes, metavar="TIME", help="with --all: for example 20m")
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
    listing = commands.add_parser("list", help="the configs there are, and what each shows")
    listing.add_argument("--names", action="store_true", help="their names only, one a line")
    certify = commands.add_parser(
        "certify", help="whether the derivatives of a config's problems can be trusted"
    )
    certify.epilog = CERTIFY
    _described(certify, "Print certificates of the derivatives of the problems in a config.")
    certify.add_argument("config", metavar="CONFIG", help="a TOML file, or a listed name")
    _overrides(certify)
    report = commands.add_parser(
        "report", help="a page of what was reproduced, from what jaxns run --all left in results"
    )
    _described(report, "Write a page of Markdown from the records that jaxns run --all left.")
    report.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )
    report.add_argument("--out", type=Path, default=Path("docs/reproduction.md"), metavar="FILE")
    commands.add_parser(
        "bench", help="measure what the library costs: bench --list, bench --help", add_help=False
    )
    doctor = commands.add_parser("doctor", help="look at the installation: what is wrong, the cure")
    completion = commands.add_parser("completion", help="a script of completions for a shell")
    completion.epilog = COMPLETION
    _described(completion, "Print the completions of this command for a shell.")
    completion.add_argument("shell", choices=SHELLS)
    for command in (run, listing, certify, report):
        command.add_argument(
            "--folder",
            type=Path,
            metavar="DIR",
            help="of configs; default: ./configs if there are any, else those that come with jaxns",
        )
    for command in (run, listing, certify, doctor):
        command.add_argument("--json", action="store_true", help="JSON on standard output")
    return parser


def _described(parser: argparse.ArgumentParser, text: str) -> argparse.ArgumentParser:
    parser.description, parser.formatter_class = text, argparse.RawDescriptionHelpFormatter
    return parser


def _overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config; dotted for sections, value in TOML (repeatable)",
    )
    command.add_argument(
        "--reduced", action="store_true", help="at the small size that each config describes"
    )


class _Version(argparse.Action):
    """The version of jaxns, which is not imported before it is asked for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        import jaxns

        print(f"jaxns {jaxns.__version__}")
        parser.exit()


def _minutes(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS:
        number, unit = text, "m"
    try:
        return float(number) * UNITS[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a time such as 20m, got {text!r}") from None
