"""The command line: `jaxns run CONFIG.toml [--set key=value ...] [--out DIR]`."""

import argparse
import importlib.util
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import jaxns

EXTRA = ("pydantic", "rich", "matplotlib", "sklearn")
EPILOG = """\
examples:
  jaxns run configs/diabetes_lasso.toml
  jaxns run configs/diabetes_lasso.toml --set outer.steps=10 --set data.degree=1 --out try
  jaxns run configs/derivative_convergence_lasso.toml --set precision=float32

A run leaves DIR/result.json (everything computed, with its provenance) and DIR/figure.png.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (0 done, 1 failed, 2 wrong arguments or config)."""
    arguments = _parser().parse_args(argv)
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        return _fail(
            f"running an experiment needs {', '.join(missing)}: "
            "pip install 'jax-nonsmooth[experiments]'"
        )
    return _run(arguments.config, arguments.set, arguments.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxns",
        description="Differentiable nonsmooth optimisation in JAX: run an experiment from a file.",
    )
    parser.add_argument("--version", action="version", version=f"jaxns {jaxns.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run the experiment that a config file describes",
        description="Run the experiment that a config file describes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("config", type=Path, metavar="CONFIG.toml", help="for example configs/*.toml")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config; dotted for sections, value in TOML (repeatable)",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="default: results/<name of CONFIG>")
    return parser


def _run(path: Path, overrides: Sequence[str], out: Path | None) -> int:
    from jaxns.experiments.loading import ConfigError, load
    from jaxns.experiments.run import ExperimentError, run
    from jaxns.experiments.terminal import Terminal

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        config = load(path, overrides)
        with Terminal() as terminal:
            outcome = run(config, out or Path("results") / path.stem, terminal.report)
            terminal.show(outcome)
    except ConfigError as error:
        return _fail(str(error), status=2)
    except (ExperimentError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)
    return 0


def _fail(message: str, status: int = 1) -> int:
    sys.stderr.write(f"jaxns: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
