"""What the site promises: every status, error, paper and public name is on it, drawn as it is."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import architecture_figure
import numpy as np
import pytest
from test_architecture import FILES, name_of, public_modules, room

import jaxns

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS / "_figures")]

pages = importlib.import_module("pages")
plain_docstrings = importlib.import_module("plain_docstrings")

TROUBLE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return re.split(r"^## ", TROUBLE.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]


def first_cells(heading: str) -> list[str]:
    rows = [line for line in section(heading).splitlines() if line.startswith("| ")]
    return [row.split("|")[1] for row in rows[1:]]


def test_every_status_has_a_row():
    statuses = {n for n, s in vars(jaxns.Status).items() if isinstance(s, jaxns.Status)}
    listed = [cell.strip(" `") for cell in first_cells("How a solve ended") if "---" not in cell]
    assert sorted(listed) == sorted(statuses)


def test_every_exception_has_a_row():
    defined = {
        node.name
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(b).endswith(("Error", "Exception", "Warning")) for b in node.bases)
    }
    listed = [cell.strip(" `") for cell in first_cells("The exceptions") if "---" not in cell]
    assert sorted(listed) == sorted(defined)


def raised(file: Path) -> Iterator[tuple[int, str]]:
    """Each message that a file raises or warns with; for one made elsewhere, all words nearby."""
    nearby = "\n".join(near.read_text(encoding="utf-8") for near in file.parent.glob("*.py"))
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or not call.args:
            continue
        warns = ast.unparse(call.func) == "warnings.warn"
        if isinstance(node, ast.Raise) or warns:
            parts = [n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant)]
            literal = re.search(r"\w", " ".join(map(str, parts)))
            yield call.lineno, ast.unparse(call.args[0]) if literal else nearby


def test_every_message_is_explained():
    told = re.findall("`([^`]+)`", " ".join(first_cells("Errors that name their cure")))
    met = set()
    for file in FILES:
        if room(file) in {"cli", "experiments"}:
            continue
        for line, message in raised(file):
            why = {pattern for pattern in told if pattern in message}
            assert why, f"{name_of(file)}:{line}: {message}"
            met |= why
    assert met == set(told)


def test_every_public_name_is_on_a_page_of_the_api():
    """Packages by `automodule`, which follows `__all__`; the names of jaxns itself one by one."""
    api = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    whole = set(re.findall(r"^\.\. automodule:: (\S+)$", api, re.MULTILINE))
    single = set(re.findall(r"^\.\. auto(?!module)\w+:: jaxns\.(\w+)$", api, re.MULTILINE))
    assert set(public_modules()) - {"jaxns"} <= whole
    here = [name for name in whole if not name.startswith("jaxns.adapters.")]  # without packages
    modules = {importlib.import_module(name) for name in here}
    covered = {id(getattr(module, name)) for module in modules for name in names(module)}
    for name in set(jaxns.__all__) - single:
        thing = getattr(jaxns, name)
        assert id(thing) in covered or thing in modules, name


def names(module) -> list[str]:
    return getattr(module, "__all__", [])


def test_every_paper_that_the_code_cites_is_in_the_bibliography():
    pattern = r"(?:arXiv\s+|^\s*|,\s+|;\s+)((?:0[7-9]|[12]\d)(?:0[1-9]|1[0-2])\.\d{4,5})\b"
    sources = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    cited = {i for i in re.findall(pattern, sources) if re.search(rf"arXiv[^)]*{i}", sources)}
    assert len(cited) > 30
    bibliography = (DOCS / "bibliography.md").read_text(encoding="utf-8")
    assert not {i for i in cited if f"https://doi.org/10.48550/arXiv.{i})" not in bibliography}


def test_every_page_has_its_place_in_the_navigation():
    tree = pages.toctrees((DOCS / "index.md").read_text(encoding="utf-8"))
    found = re.findall(r"^(?:\.\./)?(\S+\.(?:md|ipynb))$", tree, re.MULTILINE)
    pages_there_are = [*DOCS.glob("*.md"), *DOCS.glob("recipes/*.md")]
    notebooks = [f"notebooks/{file.name}" for file in (ROOT / "notebooks").glob("*.ipynb")]
    names = [page.relative_to(DOCS).as_posix() for page in pages_there_are]
    assert {*names, *notebooks} - {"index.md"} == set(found) - {"api/index.md"}


def test_the_arrows_are_drawn_as_they_are():
    """If not: python tests/architecture_figure.py > docs/images/architecture.svg."""
    drawn = (DOCS / "images" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == architecture_figure.svg()


@pytest.mark.parametrize(
    ("plain", "marked"),
    [
        ("Ax* + |b|_1", [r"Ax\* + \|b\|\_1"]),
        ("r. By default 1.", [r"r\. By default 1."]),
        ("as `Stop` says", [r"as \ :py:obj:`Stop`\  says"]),
        ("of `f(x)`", [r"of \ ``f(x)``\ "]),
        ("    z ← F(z)", [".. code-block:: text", "", "    z ← F(z)"]),
        ("a: one.   b: two\n    lines.", ["``a``", "    one.", "", "``b``", "    two lines.", ""]),
        (
            'method: how.\n    "lu": exactly.',
            ["``method``", "    how.", "", '    ``"lu"``', "        exactly.", "", ""],
        ),
        ("- one\n  more\n- two", ["- one more", "- two"]),
    ],
)
def test_docstrings_become_markup(plain, marked):
    found = [line.rstrip("\n") for line in plain_docstrings.convert(plain.splitlines())]
    assert [line for line in found if line] == [line for line in marked if line]


@pytest.mark.slow
def test_the_figure_of_precision_is_drawn_by_its_script(tmp_path):
    pytest.importorskip("matplotlib").use("agg")
    precision = importlib.import_module("precision")
    precision.draw(np.array([1e2]), tmp_path / "precision.png")
    assert (tmp_path / "precision.png").stat().st_size > 10_000
    X, y = precision.data(1e2)
    for value, wanted in zip(
        precision.found(X, y, np.float64, jaxns.Newton()), precision.exact(X, y), strict=True
    ):
        assert np.allclose(value, wanted, rtol=1e-10)
