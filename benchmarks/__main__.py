"""The command line: `python -m benchmarks NAME`, `--list`, `report`."""

import argparse
import importlib
import math
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.frame import NAMES, Options, Table
from benchmarks.report import page, text_of

HERE = Path(__file__).parent
RECORDS = HERE / "records"
PAGE = HERE.parent / "docs" / "performance.md"
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 something is missing, 2 wrong arguments."""
    arguments = _parser().parse_args(argv)
    if arguments.list:
        for name in NAMES:
            print(f"{name:20} {text_of(name)[0]}")
        return 0
    if arguments.name == "report":
        return _report(arguments.results, arguments.page)
    if arguments.name is None:
        return _fail("say which benchmark: python -m benchmarks NAME, or --list", 2)
    if arguments.name not in NAMES:
        return _fail(f"no benchmark named {arguments.name!r}; there are: {', '.join(NAMES)}", 2)
    return _run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of --list, or report")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--reduced", action="store_true", help="small sizes, seconds")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="rounds of each measurement")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this text")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="begin no case after these"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw figures into this folder")
    parser.add_argument("--core", type=int, metavar="I", help="pin the process to this core")
    parser.add_argument("--results", type=Path, default=RECORDS, help="of report: the JSON files")
    parser.add_argument("--page", type=Path, default=PAGE, help="of report: the page to write")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _run(arguments: argparse.Namespace) -> int:
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    for variable in THREADS:  # a BLAS with threads of its own is slower on cores that are shared
        os.environ.setdefault(variable, "1")
    import jax

    from benchmarks import records

    jax.config.update("jax_enable_x64", True)
    try:
        program = importlib.import_module(f"benchmarks.{arguments.name}")
    except ModuleNotFoundError as error:
        return _fail(f"{error}; pip install 'jax-nonsmooth[bench]'")
    options = Options(
        arguments.repeats or (1 if arguments.reduced else program.REPEATS),
        arguments.reduced,
        arguments.only,
        arguments.minutes,
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peers: deprecations, and what was not reached
        findings = program.run(options)
    spent = time.perf_counter() - start
    print(f"{records.device()}, jax {jax.__version__}, {options.repeats} repeats")
    for table in findings.tables:
        print(f"\n{table}")
    if findings.targets:
        rows = [(t.claim, t.measured, "yes" if t.met else "no") for t in findings.targets]
        print(f"\n{Table(('target', 'measured', 'reached'), rows)}")
    if arguments.figures:
        arguments.figures.mkdir(parents=True, exist_ok=True)
        for name, draw in findings.figures.items():
            draw().savefig(arguments.figures / name, dpi=110)
    if arguments.json:
        records.write(arguments.json, records.record(arguments.name, options, findings, spent))
    return 0


def _report(results: Path, target: Path) -> int:
    try:
        target.write_text(page(results), encoding="utf-8")
    except FileNotFoundError as error:
        return _fail(str(error))
    return 0


def _fail(message: str, status: int = 1) -> int:
    print(message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
