"""The page about a file of one's own, followed: its file, its config, its commands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from jaxns_cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "your_own_data.md"


@pytest.mark.slow
@pytest.mark.long
def test_the_page_can_be_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    first, *_ = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (config,) = re.findall(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    subprocess.run([sys.executable, "-c", first], check=True)
    Path("mine.toml").write_text(config, encoding="utf-8")
    commands = re.findall(r"^jaxns (run|certify) (.*)$", text, re.MULTILINE)
    assert [command for command, _ in commands] == ["run", "certify"]
    for command, rest in commands:
        assert main([command, *rest.split()]) == 0
    result = json.loads((tmp_path / "results" / "mine" / "result.json").read_text())["result"]
    assert result["features"] == ["area", "age", "floor", "noise"]
    assert result["data"] == "mine"
    assert (tmp_path / "results" / "mine" / "figure.png").stat().st_size > 20_000
