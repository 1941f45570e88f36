"""What a wheel and a source archive hold."""

import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import jaxns

ROOT = Path(__file__).parents[1]
EXTRAS = {
    "adapters", "bench", "completion", "dev", "docs", "experiments", "flows", "gpu", "gpu-cuda12",
    "notebooks", "test",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    (path,) = WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"]
    )
    with zipfile.ZipFile(path) as archive:
        yield archive


def files_of(folder: str, suffix: str) -> set[str]:
    found = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob(f"*{suffix}")}
    return {name for name in found if not name.startswith("docs/_build/")}


def test_the_wheel_holds_the_library_and_what_the_command_runs(wheel):
    names = set(wheel.namelist())
    assert {"jaxns/py.typed", "jaxns_cli/py.typed"} <= names
    assert files_of("jaxns", ".py") | files_of("jaxns_cli", ".py") <= names
    shipped = files_of("configs", ".toml") | files_of("benchmarks", ".py")
    assert {f"jaxns_cli/bundle/{name}" for name in shipped} <= names
    assert "jaxns_cli/bundle/configs/not_reproduced.md" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"jaxns", "jaxns_cli"}


def test_the_metadata_are_those_of_the_sources(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith("METADATA"))
    said = Parser().parsestr(wheel.read(name).decode())
    assert said["Version"] == jaxns.__version__
    assert said["Requires-Python"] == ">=3.11"
    assert set(said.get_all("Provides-Extra", [])) >= EXTRAS


def test_the_version_has_one_source():
    """Beside the change log and the citation, which have to name it."""
    assert "version" not in tomllib.loads(text("pyproject.toml"))["project"]
    assert f"\nversion: {jaxns.__version__}\n" in text("CITATION.cff")
    assert f"\n## [{jaxns.__version__}]" in text("CHANGELOG.md")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_source_archive_holds_what_tests_it(tmp_path):
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = files_of("tests", ".py") | files_of("docs", ".md") | files_of("configs", ".toml")
    assert expected | {"pyproject.toml", "README.md", "LICENSE", "CONTRIBUTING.md"} <= names
