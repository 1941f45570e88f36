"""The lock that containers are built from."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read(path):
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def numbers(version):
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def test_what_is_needed_is_locked_with_hashes_in_a_version_that_is_allowed():
    """Of the extras that the images take, for CPU and CUDA."""
    project = read("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    locked = {package["name"]: package for package in read("containers/uv.lock")["package"]}
    taken = ("completion", "experiments", "gpu")
    needed = [*project["dependencies"], *(one for extra in taken for one in extras[extra])]
    for requirement in needed:
        name, least = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement).groups()
        package = locked[name]
        assert numbers(package["version"]) >= numbers(least), requirement
        assert all(wheel["hash"].startswith("sha256:") for wheel in package["wheels"])
    cuda = re.search(r"cuda\d+", extras["gpu"][0])[0]
    assert f"jax-{cuda}-plugin" in locked


def test_both_images_come_from_that_lock():
    recipe = (ROOT / "containers" / "Dockerfile").read_text(encoding="utf-8")
    assert "uv sync --project containers --frozen" in recipe
    bound = re.search(r"hatchling==([\d.]+)", str(read("containers/pyproject.toml")))
    assert bound
    manifest = read("containers/uv.lock")["manifest"]
    assert {"name": "hatchling", "specifier": f"=={bound[1]}"} in manifest["build-constraints"]
