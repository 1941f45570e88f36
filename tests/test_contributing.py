"""The walkthroughs of CONTRIBUTING.md, followed to the letter in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("jaxns", "jaxns_cli", "tests", "docs", "benchmarks", "configs", "notebooks")
FILES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "pyproject.toml",
    "LICENSE",
)
STEP = re.compile(r"^```(python|diff|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def steps(title):
    """The blocks of a section: (language, text)."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found
    return STEP.findall(found[1])


def run(command, here, text=None):
    done = subprocess.run(
        command,
        cwd=here,
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(here)},
    )
    assert done.returncode == 0, f"{command}\n{text or ''}{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("title", ["A solver", "A prox", "A mode"])
def test_a_walkthrough_arrives(title, tmp_path):
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.ipynb"))
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    done = []
    for language, text in steps(title):
        done.append(language)
        match language:
            case "python":
                path, _, source = text.removeprefix("# ").partition("\n")
                assert not (tmp_path / path).exists()
                (tmp_path / path).write_text(source, encoding="utf-8")
            case "diff":
                run(["patch", "-p1", "--quiet", "--fuzz=0"], tmp_path, text)
            case "bash":
                for line in text.splitlines():
                    command = f"{sys.executable}{line.removeprefix('python')}"
                    run(["bash", "-c", command], tmp_path)
    assert set(done) == {"python", "diff", "bash"}
