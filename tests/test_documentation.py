"""What the documents say is so: code runs, tables are complete, links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import solver_table
import transformation_table

import jaxns

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CONTRIBUTING, CHANGELOG = ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"
SOURCES = (file for file in (ROOT / "docs").rglob("*.md") if "_build" not in file.parts)
DOCUMENTS = [README, *sorted(SOURCES)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), re.DOTALL | re.MULTILINE)


def section(path: Path, marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n(.*?)<!-- /{marker} -->", text_of(path), re.DOTALL)
    assert found, f"{name_of(path)} has no section between {marker!r} markers"
    return found[1]


def code_names(text: str) -> list[str]:
    return re.findall(r"`(\w+)`", text)


def takes_long(path: Path) -> bool:
    certified = {"getting_started.md", "choosing_a_mode.md"}
    return path.parent.name == "recipes" or path.name in certified


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, marks=pytest.mark.slow if takes_long(p) else ())
        for p in DOCUMENTS
        if blocks(p, "python")
    ],
    ids=name_of,
)
def test_code_runs(path, tmp_path):
    """All blocks of one document, in one interpreter that has jax as it comes."""
    source = "\n".join(blocks(path, "python"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_ENABLE")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def test_table_of_solvers_is_complete():
    rows = section(README, "solvers").strip().splitlines()[2:]
    listed = [code_names(row.split("|")[1])[0] for row in rows]
    assert sorted(listed) == sorted(jaxns.solvers.__all__)


def test_table_of_functions_is_complete():
    rows = section(README, "functions").strip().splitlines()[2:]
    smooth, norms, sets, made, operators = (code_names(row.split("|")[2]) for row in rows)
    listed = smooth + norms + sets + made + operators
    assert sorted(listed) == sorted(jaxns.functions.__all__)
    assert all(hasattr(getattr(jaxns.functions, name), "gradient") for name in smooth)
    assert all(hasattr(getattr(jaxns.functions, name), "prox") for name in norms + sets)


def test_table_of_problems_is_what_the_code_says():
    assert section(README, "problems") == solver_table.table()


def test_table_of_transformations_is_what_the_tests_hold():
    page = ROOT / "docs" / "transformations.md"
    assert section(page, "transformations") == transformation_table.table()


def test_every_builder_and_mode_is_named():
    named = set(code_names(text_of(README)))
    assert set(jaxns.problems.__all__) <= named
    public = {name: getattr(jaxns.modes, name) for name in jaxns.modes.__all__ if name != "Mode"}
    modes = {
        name for name, mode in public.items() if isinstance(mode, type) and hasattr(mode, "run")
    }
    assert modes <= set(re.findall(r"`(\w+)\(", text_of(README)))


@pytest.mark.parametrize("path", [*DOCUMENTS, CONTRIBUTING, CHANGELOG], ids=name_of)
def test_links_lead_to_files(path):
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(path))
    local = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    missing = [link for link in local if not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("marker", ["main command", "test command"])
def test_each_command_needs_only_python(marker):
    found = re.search(rf"<!-- {marker} -->\n```bash\n(.*?)\n```", text_of(README), re.DOTALL)
    assert found
    command = found[1]
    assert "\n" not in command
    first, *others = command.split(" && ")
    made = re.fullmatch(r"python3 -m venv (\S+)", first)
    assert made
    assert all(step.startswith(f"{made[1]}/bin/") for step in others)


def test_the_main_command_runs_a_config_that_exists():
    command = re.search(r"jaxns run (\S+)", text_of(README))
    assert command
    assert (ROOT / command[1]).is_file()


def test_the_index_lists_every_page():
    index = text_of(ROOT / "docs" / "index.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index
