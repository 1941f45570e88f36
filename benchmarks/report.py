"""The page docs/performance.md, from the files that the runs left."""

import ast
import json
from pathlib import Path
from typing import Any

from benchmarks.frame import NAMES, Table, Target

HEAD = """\
# Performance

Times are CPU seconds of one process, compilation excluded where nothing else is said; what to read
are the ratios, medians of those within one round, in turns in one process. Counts, bytes and errors
are exact. This page is generated from `benchmarks/records`; all of it, with the libraries of
`pip install 'jax-nonsmooth[bench]'`:

```bash
for name in $(python -m benchmarks --list | cut -d' ' -f1); do
  python -m benchmarks $name --core 0 \\
    --json benchmarks/records/$name.json --figures docs/images/performance
done
python -m benchmarks report
```
"""


def sections(folder: Path) -> list[dict[str, Any]]:
    """The records, in the order of `NAMES`; those of one program in the order of their files."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise FileNotFoundError(f"no records (*.json) in {folder}")
    return sorted(found, key=lambda record: NAMES.index(record["name"]))


def text_of(name: str) -> tuple[str, str]:
    """Title and prose of a program: its docstring, read without importing what it needs."""
    source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    title, _, prose = (ast.get_docstring(ast.parse(source)) or name).partition("\n")
    return title.rstrip("."), prose.strip()


def page(folder: Path) -> str:
    records = sections(folder)
    parts = [HEAD, *overview(records)]
    for i, record in enumerate(records):
        if i == 0 or record["name"] != records[i - 1]["name"]:
            title, prose = text_of(record["name"])
            parts += [f"## {title}", prose]
        parts += [*map(str, tables(record)), *figures(record)]
        parts += [unfold(target) for target in targets(record) if target.why]
        parts += [footer(record)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def unfold(target: Target) -> str:
    return f"<details><summary>Why not: {target.claim}</summary>\n\n{target.why}\n\n</details>"


def overview(records: list[dict[str, Any]]) -> list[str]:
    """What was to be reached, over all programs."""
    table = Table(("program", "target", "measured", "reached"))
    for record in records:
        for target in targets(record):
            reached = "yes" if target.met else "**no**"
            table.rows.append((record["name"], target.claim, target.measured, reached))
    return ["## Targets", str(table)] if table.rows else []


def tables(record: dict[str, Any]) -> list[Table]:
    return [Table(**table) for table in record["tables"]]


def targets(record: dict[str, Any]) -> list[Target]:
    return [Target(**target) for target in record["targets"]]


def figures(record: dict[str, Any]) -> list[str]:
    return [
        f"![{Path(name).stem.replace('_', ' ')}](images/performance/{name})"
        for name in record["figures"]
    ]


def footer(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    size = " at reduced size" if record["reduced"] else ""
    without = f" without {', '.join(record['left out'])}" if record["left out"] else ""
    return (
        f"`python -m benchmarks {record['name']}`{size}{without}, {record['repeats']} repeats: "
        f"{record['device']}; {versions}."
    )
