"""`jaxns report`: a page of what was reproduced."""

import argparse

from jaxns.experiments.report import write
from jaxns_cli import shipped
from jaxns_cli.run import configs


def run(arguments: argparse.Namespace) -> int:
    folder = shipped.folder(arguments.folder)
    remarks = folder / "not_reproduced.md"
    text = remarks.read_text(encoding="utf-8") if remarks.exists() else ""
    write(configs(folder), arguments.results, text, arguments.out)
    return 0
