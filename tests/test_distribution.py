"""What is installed: the import name, and the unrelated distribution that shares it."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import jaxns
from jaxns import _conflict


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter with `path` ahead of what is installed."""
    lines = [*(f"import sys; sys.path.insert(0, {str(entry)!r})" for entry in path), code]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def namesake(tmp_path: Path) -> Path:
    """A directory in which the distribution `jaxns` of PyPI looks installed."""
    info = tmp_path / "jaxns-3.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jaxns\nVersion: 3.0.0\n")
    return tmp_path


def test_import_works_without_the_namesake():
    result = python("import jaxns; jaxns.solve")
    assert result.returncode == 0, result.stderr


def test_import_beside_the_namesake_fails_with_the_remedy(namesake):
    result = python("import jaxns", namesake)
    assert result.returncode != 0
    assert "ImportError" in result.stderr
    assert "'jaxns' 3.0.0 is installed" in result.stderr
    assert "pip uninstall jaxns jax-nonsmooth" in result.stderr


def test_check_names_both_distributions(namesake, monkeypatch):
    monkeypatch.syspath_prepend(namesake)
    with pytest.raises(ImportError, match=r"nested-sampling.*jax-nonsmooth"):
        _conflict.check()


def test_the_distribution_is_jax_nonsmooth():
    distribution = metadata.distribution("jax-nonsmooth")
    assert distribution.version == jaxns.__version__
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    scripts = {e.name: e.value for e in distribution.entry_points if e.group == "console_scripts"}
    assert scripts["jaxns"] == "jaxns_cli.main:main"
