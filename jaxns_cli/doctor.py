"""`jaxns doctor`: what is installed, whether it works, and the cure where it does not.

Imports nothing beyond the standard library before it is looked at: the patient may be anything.
"""

import argparse
import dataclasses
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

OURS, NAMESAKE = "jax-nonsmooth", "jaxns"
PYTHON = (3, 11)
TOLERANCE = 1e-6  # of the gradient, relatively, against central differences in float64


@dataclasses.dataclass(frozen=True)
class Finding:
    """what: was looked at.   found: in a line.   ok: False if it is wrong, None if worth a thought.

    cure: what to do about it.
    """

    what: str
    found: str
    ok: bool | None = True
    cure: str = ""

    def __str__(self) -> str:
        mark = {True: "ok   ", None: "note ", False: "WRONG"}[self.ok]
        cure = f"\n      -> {self.cure}" if self.cure else ""
        return f"{mark} {self.what}: {self.found}{cure}"


def run(arguments: argparse.Namespace) -> int:
    findings: list[Finding] = []
    for look in (python, namesake, packages, extras, devices, precision, cache, solve):
        for finding in _safely(look):
            findings.append(finding)
            if not arguments.json:
                print(finding, flush=True)
    well = all(finding.ok is not False for finding in findings)
    if arguments.json:
        told = {"ok": well, "findings": [dataclasses.asdict(finding) for finding in findings]}
        print(json.dumps(told, indent=1, ensure_ascii=False))
    return 0 if well else 1


def _safely(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Whatever goes wrong while looking is a finding, too."""
    try:
        yield from look()
    except Exception as error:
        first = str(error).partition("\n")[0]
        cure = f"pip install --upgrade --force-reinstall {OURS}, in a fresh environment"
        yield Finding(look.__name__, f"{type(error).__name__}: {first}", False, cure)


def python() -> Iterator[Finding]:
    found = f"{platform.python_version()} at {sys.executable}, {platform.platform()}"
    old = sys.version_info < PYTHON
    yield Finding("python", found, not old, "use Python 3.11 or newer" if old else "")


def namesake() -> Iterator[Finding]:
    """The unrelated distribution that owns the same import name."""
    if (version := _version(NAMESAKE)) is None:
        yield Finding("name", f"the distribution {NAMESAKE!r} of PyPI is not installed beside")
        return
    yield Finding(
        "name",
        f"the distribution {NAMESAKE!r} {version}, a nested-sampling library with the same import "
        "name, is installed; the two overwrite each other's files",
        False,
        f"pip uninstall {NAMESAKE} {OURS}, then pip install the one you want",
    )


def packages() -> Iterator[Finding]:
    """This library and what it needs, in versions that it was tested with."""
    version = _version(OURS)
    import jaxns

    where = Path(jaxns.__file__).parent
    yield Finding(
        "jaxns",
        f"{jaxns.__version__} at {where}",
        None if version is None else True,
        f"no distribution {OURS!r} is installed: pip install it" if version is None else "",
    )
    for name, least, extra in _requirements():
        if extra is None:
            yield _required(name, least)


def _required(name: str, least: str) -> Finding:
    installed = _version(name)
    if installed is not None and _numbers(installed) >= _numbers(least):
        return Finding(name, installed)
    found = "not installed" if installed is None else f"{installed}, needs {least} or newer"
    return Finding(name, found, False, f"pip install --upgrade '{name}>={least}'")


def extras() -> Iterator[Finding]:
    """What is optional, and there as a whole; the GPU is left to `devices`."""
    groups: dict[str, list[str]] = {}
    for name, _, extra in _requirements():
        if extra is not None and name != OURS and not extra.startswith("gpu"):
            groups.setdefault(extra, []).append(name)
    there = {extra for extra, names in groups.items() if all(map(_version, names))}
    said = (("with", sorted(there)), ("without", sorted(groups.keys() - there)))
    found = "; ".join(f"{word} {', '.join(names)}" for word, names in said if names)
    lacking = "experiments" not in there
    cure = f"jaxns run needs: pip install '{OURS}[experiments]'" if lacking else ""
    yield Finding("extras", found or "none", None if lacking else True, cure)


def devices() -> Iterator[Finding]:
    import jax

    found = [f"{device.platform}: {device.device_kind}" for device in jax.devices()]
    said = ", ".join(f"{found.count(kind)} × {kind}" for kind in dict.fromkeys(found))
    cure = _idle_gpu() if jax.default_backend() == "cpu" else ""
    yield Finding("devices", said, None if cure else True, cure)


def _idle_gpu() -> str:
    """What to do where a GPU may be there and JAX does not use it."""
    plugins = [name for name in ("jax-cuda12-plugin", "jax-cuda13-plugin") if _version(name)]
    if plugins:
        return f"{plugins[0]} is installed but finds no GPU: look at its driver with nvidia-smi"
    if shutil.which("nvidia-smi"):
        return f"to use the GPU whose driver is here: pip install '{OURS}[gpu]'"
    return ""


def precision() -> Iterator[Finding]:
    if _setting("jax_enable_x64"):
        yield Finding("precision", "float64")
        return
    advice = 'for derivatives to more digits: jax.config.update("jax_enable_x64", True)'
    yield Finding("precision", "float32, as JAX starts", True, advice)


def cache() -> Iterator[Finding]:
    """Where compiled programs are kept between runs, and where `jaxns run` writes."""
    folder = _setting("jax_compilation_cache_dir")
    if folder is None:
        advice = "export JAX_COMPILATION_CACHE_DIR=~/.cache/jax keeps what was compiled"
        yield Finding("compilation cache", "none", True, advice)
    else:
        yield _writable("compilation cache", Path(folder), "JAX_COMPILATION_CACHE_DIR")
    yield _writable("results", Path("results"), "--out DIR of jaxns run")


def _setting(name: str) -> Any:
    import jax

    return getattr(jax.config, name)


def _writable(what: str, folder: Path, where: str) -> Finding:
    folder = folder.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Finding(what, f"{folder} is writable")
    return Finding(what, f"{existing} is not writable", False, f"choose another by {where}")


def solve() -> Iterator[Finding]:
    """A lasso, and the derivative of its solution against central differences."""
    import jax
    import jax.numpy as jnp

    import jaxns

    began = time.perf_counter()
    with jax.enable_x64(True):
        key_A, key_b = jax.random.split(jax.random.key(0))
        A, b = jax.random.normal(key_A, (20, 8)), jax.random.normal(key_b, (20,))

        @jax.jit
        @jax.value_and_grad
        def value(penalty):
            x = jaxns.solve(jaxns.problems.lasso(A, b, penalty)).x
            return jnp.sum(x**2)

        h = 1e-5
        (below, _), (_, slope), (above, _) = (value(0.05 + k * h) for k in (-1, 0, 1))
        central = (above - below) / (2 * h)
    error = float(abs(slope - central) / abs(central))
    spent = time.perf_counter() - began
    right = error < TOLERANCE
    yield Finding(
        "solve and gradient",
        f"in {spent:.1f} s with compilation; error {error:.0e} against central differences",
        right,
        "" if right else "the numbers of this JAX are wrong: reinstall jax and jaxlib",
    )


def _requirements() -> Iterator[tuple[str, str, str | None]]:
    """Name, least version, and the extra it belongs to (None: always needed)."""
    try:
        lines = metadata.requires(OURS) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        least = re.search(r">=\s*([\w.]+)", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if name:
            yield name[0], least[1] if least else "0", extra[1] if extra else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
