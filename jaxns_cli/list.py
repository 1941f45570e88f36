"""`jaxns list`: the configs there are. Reads their heads only, and so answers at once."""

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from jaxns_cli import shipped
from jaxns_cli.main import UsageError

WIDE = 150  # columns when nobody's terminal says otherwise


def run(arguments: argparse.Namespace) -> int:
    folder = shipped.folder(arguments.folder)
    heads = [_head(path) for path in sorted(folder.glob("*.toml"))]
    if not heads:
        raise UsageError(f"no configs in {folder}: name their folder with --folder")
    if arguments.names:
        print(*(head["name"] for head in heads), sep="\n")
        return 0
    if arguments.json:
        print(json.dumps(heads, indent=1, ensure_ascii=False))
        return 0
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("config", "what it shows", "paper", "minutes"):
        table.add_column(column, no_wrap=column == "config")
    for head in heads:
        table.add_row(head["name"], head["title"], head["paper"], f"{head['minutes']:g}")
    console.print(table)
    console.print(f"in {folder}: jaxns run NAME", style="dim", highlight=False, soft_wrap=True)
    return 0


def _head(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    said = {key: raw.get(key, "") for key in ("experiment", "title", "paper")}
    minutes = raw.get("minutes", 1.0)
    return {"name": path.stem, "path": str(path), **said, "minutes": minutes}
