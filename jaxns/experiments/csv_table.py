"""A CSV file of numbers with a header, or a sentence that says where it is not one."""

import csv
import difflib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxns.experiments.reporting import ExperimentError


def read(
    path: Path, target: str, ignore: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features (n, p), targets (n,) and the names of the features.

    target: the column to predict.   ignore: columns to leave out; all others are features.
    Raises `ExperimentError` with the line and the column of what is not a finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read(str(path), csv.reader(file), target, ignore)
    except OSError as error:
        where = path.resolve()
        raise ExperimentError(f"data.path: cannot read {where}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExperimentError(f"data.path: {path} is not CSV in UTF-8: {error}") from None


def _read(
    path: str, lines: Iterator[list[str]], target: str, ignore: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    header = [name.strip() for name in next(lines, [])]
    if twice := {name for name in header if header.count(name) > 1}:
        raise ExperimentError(f"{path}: two columns are named {min(twice)!r}")
    for key, names in (("target", [target]), ("ignore", ignore)):
        for name in names:
            if name not in header:
                near = _near(name, header)
                raise ExperimentError(f"data.{key}: {path} has no column {name!r}{near}")
    names = [name for name in header if name != target and name not in ignore]
    if not names:
        raise ExperimentError(f"{path}: no column is left to predict {target!r} from")
    rows = []
    for number, cells in enumerate(lines, start=2):
        if not cells:
            continue
        if len(cells) != len(header):
            raise ExperimentError(
                f"{path}, row {number}: {len(cells)} cells, where the header has {len(header)}"
            )
        row = dict(zip(header, cells, strict=True))
        rows.append(
            [_number(row[name], name, f"{path}, row {number}") for name in (target, *names)]
        )
    if len(rows) < 4:
        raise ExperimentError(f"{path}: {len(rows)} rows of numbers; at least 4 are needed")
    table = np.array(rows)
    return table[:, 1:], table[:, 0], names


def _number(cell: str, column: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    what = f"{cell!r} is not a finite number" if cell.strip() else "an empty cell"
    raise ExperimentError(
        f"{where}, column {column!r}: {what}; mend or drop the row, encode the column as numbers, "
        f"or leave it out with data.ignore = [{column!r}]"
    )


def _near(name: str, header: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, header, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has: {', '.join(header)}"
