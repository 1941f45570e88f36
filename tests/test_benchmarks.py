"""The benchmarks: their command line, the page that is generated, and what they call the truth."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.__main__ import PAGE, RECORDS, main
from benchmarks.frame import NAMES, Findings, Options, Table, Target
from benchmarks.records import record, write
from benchmarks.report import page, text_of

pytest.importorskip("sklearn")

from benchmarks.peers import by_hand, linear
from benchmarks.peers.certified import certified
from benchmarks.peers.data import split

ROOT = Path(__file__).parents[1]
LONG = [name for name in NAMES if name != "stationary_cost"]


def test_every_program_is_listed(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    programs = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "\nREPEATS = " in path.read_text()
    }
    assert programs == set(NAMES)


@pytest.mark.parametrize("arguments", [["nosuch"], []])
def test_a_wrong_name_is_an_error_that_says_what_there_is(arguments, capsys):
    assert main(arguments) == 2
    assert "--list" in (error := capsys.readouterr().err) or "stationary_cost" in error


def test_a_report_needs_records(tmp_path, capsys):
    assert main(["report", "--results", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_the_page_holds_what_was_recorded(tmp_path):
    target = Target("fast enough", "2.1 ×", False, "too many steps")
    findings = Findings([Table(("a", "b"), [("1", "2")], "Before.")], [target], {"x.png": None})
    found = record("newton", Options(3), findings, 1.0) | {"numbers": [np.nan, np.float64(1 / 3)]}
    write(tmp_path / "newton.json", found)
    assert json.loads((tmp_path / "newton.json").read_text())["numbers"] == [None, 0.3333]
    text = page(tmp_path)
    title, prose = text_of("newton")
    for part in (f"## {title}", prose, "| 1 | 2 |", "| fast enough | 2.1 × | **no** |",
                 "too many steps", "images/performance/x.png"):  # fmt: skip
        assert part in text


def test_the_documented_page_is_generated():
    assert PAGE.read_text(encoding="utf-8") == page(RECORDS)


def test_the_library_does_not_know_its_benchmarks():
    for path in (ROOT / "jaxns").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "benchmarks" for name in names), path


@pytest.mark.parametrize(
    "kind",
    [
        "group lasso",
        *(
            pytest.param(k, marks=pytest.mark.slow)
            for k in ("elastic net", "weighted lasso", "sparse logistic")
        ),
    ],
)
def test_what_is_certified_is_what_is_written_out(kind):
    """Two derivations of one derivative, at a solution by plain proximal gradient steps."""
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 10))
    y = X[:, 0] - 2 * X[:, 7] + 0.3 * random.normal(size=60)
    labels = kind == "sparse logistic"
    data = split(X, np.sign(y) if labels else y, labels)
    task = linear.task(kind, "data", data, 5)
    model = linear.Model(kind, data, task.theta)
    step, x = 1 / model.lipschitz(), jnp.zeros(10)
    for _ in range(60):
        slope = data.X.T @ np.asarray(_residual(model, x)) / len(data.y)
        x = model.prox(x - step * slope, task.theta, step)
    truth = certified(task, np.asarray(x))
    assert truth.gap < 1e-12
    np.testing.assert_allclose(by_hand.hypergradient(model, truth.x), truth.gradient, rtol=1e-8)


def test_a_support_that_has_no_derivative():
    """More coordinates than samples, as a peer's answer to a loose tolerance may have."""
    random = np.random.default_rng(0)
    data = split(random.normal(size=(6, 10)), random.normal(size=6), False)
    model = linear.Model("lasso", data, np.array(-1.0))
    assert np.isnan(by_hand.hypergradient(model, np.ones(10)))


def _residual(model, x):
    t, y = model.split.X @ np.asarray(x), model.split.y
    return -y / (1 + np.exp(y * t)) if model.logistic else t - y


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["stationary_cost", *(pytest.param(name, marks=pytest.mark.long) for name in LONG)]
)
def test_every_program_runs_reduced(name, tmp_path):
    file = tmp_path / "record.json"
    command = [sys.executable, "-m", "benchmarks", name, "--reduced", "--json", str(file)]
    command += ["--figures", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["reduced"]
    assert all(table["rows"] for table in found["tables"])
    for figure in found["figures"]:
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
