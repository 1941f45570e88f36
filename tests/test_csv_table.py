"""A table of one's own: read as it stands, or refused with the place and the cure."""

import csv

import numpy as np
import pytest

pytest.importorskip("pydantic")
pytest.importorskip("sklearn")

from sklearn.datasets import load_diabetes

from jaxns.experiments.config import Data
from jaxns.experiments.csv_table import read
from jaxns.experiments.data import split_of
from jaxns.experiments.loading import ConfigError, load
from jaxns.experiments.reporting import ExperimentError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.csv"


def test_columns(path):
    path.write_text('﻿a, y,id\r\n1,2.5,x\r\n3,-4e1,y\r\n\r\n5,6,z\r\n7,8,"z, z"\r\n', "utf-8")
    features, targets, names = read(path, "y", ("id",))
    np.testing.assert_array_equal(features, [[1], [3], [5], [7]])
    np.testing.assert_array_equal(targets, [2.5, -40, 6, 8])
    assert names == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "data.target: .* has no column 'y'"),
        ("a,yy\n1,2\n", "no column 'y'; did you mean 'yy'"),
        ("a;price\n1;2\n", "no column 'y'; it has: a;price"),
        ("y\n1\n", "no column is left to predict 'y' from"),
        ("a,a,y\n1,1,2\n", "two columns are named 'a'"),
        ("a,y\n1,2\n1,2,3\n", "row 3: 3 cells, where the header has 2"),
        ("a,y\n1,2\nParis,3\n", r"row 3, column 'a': 'Paris' is not .*data.ignore = \['a'\]"),
        ("a,y\n1,2\n ,3\n", "row 3, column 'a': an empty cell"),
        ("a,y\n1,2\n4,nan\n", "row 3, column 'y': 'nan' is not a finite number"),
        ("a,y\n1,-inf\n", "row 2, column 'y': '-inf' is not a finite number"),
        ("a,y\n1,2\n3,4\n5,6\n", "3 rows of numbers; at least 4"),
    ],
)
def test_what_is_not_a_table_of_numbers(text, said, path):
    path.write_text(text)
    with pytest.raises(ExperimentError, match=said):
        read(path, "y")


def test_files_that_cannot_be_read(path):
    with pytest.raises(ExperimentError, match=r"cannot read /.*mine.csv: No such file"):
        read(path, "y")
    path.write_bytes(b"a,y\n\xff,2\n")
    with pytest.raises(ExperimentError, match="not CSV in UTF-8"):
        read(path, "y")


def test_a_file_of_the_diabetes_data_is_the_diabetes_data(path):
    bunch = load_diabetes()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*bunch.feature_names, "progress"])
        writer.writerows(np.column_stack([bunch.data, bunch.target]).tolist())
    mine, theirs = split_of(Data(path=str(path), target="progress")), split_of(Data())
    assert mine.names == theirs.names
    for name in ("X", "y", "X_val", "y_val"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize(
    ("column", "said"), [("a", "no feature varies"), ("y", "the target 'y' varies")]
)
def test_what_does_not_vary(column, said, path):
    numbers = {"a": range(8), "y": range(8), column: [1] * 8}
    rows = zip(numbers["a"], numbers["y"], strict=True)
    path.write_text("a,y\n" + "".join(f"{a},{y}\n" for a, y in rows))
    with pytest.raises(ExperimentError, match=said):
        split_of(Data(path=str(path), target="y", degree=1))


@pytest.mark.parametrize(
    ("section", "said"),
    [('path = "mine.csv"', "path needs target"), ('target = "y"', "path is missing")],
)
def test_half_a_file(section, said, tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text(f'experiment = "penalty_selection"\ntitle = "Mine"\n[data]\n{section}\n')
    with pytest.raises(ConfigError, match=said):
        load(config)
