"""The arrows of the architecture, read from the imports themselves."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import jaxns

PACKAGE = Path(jaxns.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

CARRIERS = {"struct", "tree", "validate"}
EVERYTHING = {
    *CARRIERS, "closure", "operators", "linear", "fixed_point", "modes", "solve", "functions",
    "problems", "solvers", "divergence", "nonsmooth", "trust", "bilevel", "optimizers", "flows",
    "batch", "taylor", "kernels", "jaxns",
}  # fmt: skip

# Which rooms of the package (its modules and subpackages) a room may import. A new room gets a row.
ARROWS: dict[str, set[str]] = {
    "struct": set(),
    "tree": set(),
    "validate": set(),
    "closure": set(),
    "_conflict": set(),
    "operators": CARRIERS,
    "linear": CARRIERS,
    "fixed_point": CARRIERS,
    "modes": CARRIERS | {"linear", "fixed_point"},
    "solve": CARRIERS | {"closure", "fixed_point", "modes"},
    "functions": CARRIERS | {"closure", "operators"},
    "nonsmooth": CARRIERS | {"functions"},
    "problems": CARRIERS | {"closure", "operators", "functions"},
    "solvers": CARRIERS | {"linear", "operators"},
    "trust": CARRIERS | {"linear", "fixed_point", "modes", "solve", "nonsmooth"},
    "bilevel": CARRIERS
    | {"closure", "fixed_point", "modes", "solve", "trust", "functions", "problems", "solvers"},
    "divergence": {"fixed_point", "modes", "problems", "solve"},
    "optimizers": CARRIERS | {"linear"},
    "flows": CARRIERS | {"nonsmooth"},
    "taylor": CARRIERS,
    "batch": CARRIERS | {"closure", "fixed_point", "modes", "solve"},
    "kernels": CARRIERS | {"linear"},
    "adapters": CARRIERS
    | {"linear", "fixed_point", "modes", "solve", "functions", "problems", "solvers"},
    "jaxns": {
        "_conflict",
        "divergence",
        "struct",
        "fixed_point",
        "modes",
        "solve",
        "functions",
        "nonsmooth",
        "problems",
        "solvers",
        "trust",
        "bilevel",
        "optimizers",
        "flows",
        "batch",
        "taylor",
        "kernels",
    },
    "compat": CARRIERS
    | {
        "closure",
        "operators",
        "linear",
        "fixed_point",
        "modes",
        "solve",
        "functions",
        "nonsmooth",
        "problems",
        "solvers",
    },
    "experiments": EVERYTHING,
    "cli": set(),  # the command line, jaxns_cli, is a package beside
    "__main__": set(),
}

# The one arrow that may go up, from inside one method: a problem names a sensible solver.
UPWARD = ("problems", "default_solver", "solvers")

EAGERLY = {"optax", "chex", "matplotlib", "sklearn", "pydantic", "rich", "scipy"}  # never these


class Import(NamedTuple):
    file: str
    line: int
    module: str
    function: str | None  # the innermost function it stands in

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE.parent).as_posix()


def room(file: Path) -> str:
    """The module or subpackage of jaxns that a file belongs to; "jaxns" for jaxns/__init__.py."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "jaxns" if first == "__init__" else first


def imports_of(file: Path) -> Iterator[Import]:
    """Every module that a file imports, wherever the statement stands."""

    def visit(node: ast.AST, function: str | None) -> Iterator[Import]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name_of(file), node.lineno, alias.name, function)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(file)}:{node.lineno}: import by the full name"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield Import(name_of(file), node.lineno, module, function)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    yield from visit(ast.parse(file.read_text(encoding="utf-8")), None)


def target(module: str) -> str | None:
    """The room that an imported module (or `jaxns.room.name`) is in, if it is ours."""
    package, *inside = module.split(".")
    if package != "jaxns":
        return None
    first = inside[0] if inside else "jaxns"
    in_package = (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file()
    return first if in_package else "jaxns"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_follow_the_arrows(file):
    here = room(file)
    assert here in ARROWS, f"{name_of(file)}: say in ARROWS what {here!r} may import"
    for found in imports_of(file):
        there = target(found.module)
        if there is None or there == here or (here, found.function, there) == UPWARD:
            continue
        assert there in ARROWS[here], found.where


def test_every_row_has_no_arrow_back():
    for start in ARROWS:
        reached, frontier = set(), set(ARROWS[start]) - {start}
        while frontier:
            reached |= frontier
            frontier = set().union(*(ARROWS[there] for there in frontier)) - reached
        assert start not in reached, f"{start} imports itself through {sorted(reached)}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_public_jax(file):
    for found in imports_of(file):
        assert not found.module.startswith("jax._src"), found.where
    assert "jax._src" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_are_small_and_named_for_what_they_hold(file):
    assert file.name not in {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{name_of(file)} has {lines} lines"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_library_does_not_print(file):
    if room(file) in {"__main__", "experiments"}:
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        assert not (called and node.func.id == "print"), f"{name_of(file)}:{node.lineno}"


def public_modules() -> list[str]:
    inits = [file.parent for file in FILES if file.name == "__init__.py"]
    names = [".".join(folder.relative_to(PACKAGE.parent).parts) for folder in inits]
    return [name for name in names if not name.startswith("jaxns.experiments")]


@pytest.mark.parametrize("name", public_modules())
def test_public_names_exist_and_have_docstrings(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        thing = getattr(module, public)
        generated = f"{public}("  # how the docstring starts that a dataclass writes itself
        assert not (thing.__doc__ or generated).startswith(generated), f"{name}.{public}"


def after_import(expression: str) -> str:
    """What `expression` is in a fresh interpreter that has imported jax, then jaxns."""
    code = f"import sys, jax; before = set(sys.modules); import jaxns; print({expression})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_importing_jaxns_imports_nothing_heavy():
    new = ast.literal_eval(
        after_import("sorted({m.split('.')[0] for m in set(sys.modules) - before})")
    )
    assert "jaxns" in new
    assert not EAGERLY & set(new)


def test_importing_jaxns_computes_nothing():
    """… so that `jax.distributed` can still be set up, and a device chosen."""
    assert after_import("jax._src.xla_bridge.backends_are_initialized()") == "False"


def test_importing_jaxns_leaves_jax_as_it_was():
    assert after_import("jax.config.jax_enable_x64") == "False"


@pytest.mark.parametrize("name", ["slow_tests.txt", "long_tests.txt"])
def test_the_lists_of_slow_tests_name_tests_that_exist(name):
    here = Path(__file__).parent
    for line in (here / name).read_text(encoding="utf-8").splitlines():
        file, _, test = line.partition("::")
        source = (here.parent / file).read_text(encoding="utf-8")
        assert f"def {test.partition('[')[0]}(" in source, line
