"""Run a test file of JAXopt's with `jaxns.compat.jaxopt` under its name.

    python jaxopt_runner.py CLONE FILE.py MODULES [TESTS]

MODULES, with commas between them, are those that must be ours. What this package has not (the
solvers that have another home, and the utilities of the tests) comes from the clone, and runs on
our base classes. The last line printed is a JSON object of outcomes.
"""

import ast
import importlib
import importlib.util
import json
import sys
import unittest
from pathlib import Path
from typing import Any, NamedTuple


def fill_in(clone: Path) -> None:
    """Let the clone supply the modules and classes that our package lacks."""
    package, private = sys.modules["jaxopt"], sys.modules["jaxopt._src"]
    private.__path__ = [str(clone / "jaxopt" / "_src")]
    package.__path__ = [*package.__path__, str(clone / "jaxopt")]
    exported = ast.parse((clone / "jaxopt" / "__init__.py").read_text(encoding="utf-8"))
    for node in exported.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if not hasattr(package, alias.name):
                    try:
                        home = importlib.import_module(node.module)
                        setattr(package, alias.name, getattr(home, alias.name, None))
                        if node.module == "jaxopt":
                            importlib.import_module(f"jaxopt.{alias.name}")
                    except (ImportError, AttributeError) as error:
                        print(f"{alias.name} is left out: {error}", file=sys.stderr)


def line_searches() -> None:
    """What the clone's line searches ask of the base classes, and nobody else does."""
    base = importlib.import_module("jaxns.compat.jaxopt.base")
    loop = importlib.import_module("jaxns.compat.jaxopt.loop")

    class LineSearchStep(NamedTuple):
        stepsize: Any
        state: Any

    class IterativeLineSearch(base.IterativeSolver):
        def run(self, init_stepsize, params, value=None, grad=None, *given, **named):
            rest = {"descent_direction": None, "fun_args": [], "fun_kwargs": {}}
            rest |= dict(zip(rest, given, strict=False)) | named
            arguments = params, value, grad, *rest.values()
            start = self.init_state(init_stepsize, *arguments)
            return loop.while_loop(
                lambda step: step.state.error > self.tol,
                lambda step: self.update(*step, *arguments),
                self.update(init_stepsize, start, *arguments),
                self.maxiter - 1,
                unroll=self._get_unroll_option(),
                jit=self.jit,
            )

        def _get_unroll_option(self):
            return not self.jit if self.unroll == "auto" else self.unroll

    base.LineSearchStep, base.IterativeLineSearch = LineSearchStep, IterativeLineSearch
    base.IterativeSolver._get_unroll_option = IterativeLineSearch._get_unroll_option
    base._make_funs_without_aux = without_aux


def without_aux(fun: Any, value_and_grad: Any, has_aux: bool) -> tuple:
    """The same functions as the base classes have, without aux."""
    base = importlib.import_module("jaxns.compat.jaxopt.base")
    value, gradient, both = base._make_funs_with_aux(fun, value_and_grad, has_aux)

    def value_and_gradient(*args, **kwargs):
        (value, _), gradient = both(*args, **kwargs)
        return value, gradient

    return (
        lambda *a, **k: value(*a, **k)[0],
        lambda *a, **k: gradient(*a, **k)[0],
        value_and_gradient,
    )


class Outcomes(unittest.TextTestResult):
    """The name of every test and its error, or None."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.by_name: dict[str, str | None] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.by_name[test.id().split(".", 1)[1]] = None

    def _failed(self, test: unittest.TestCase, error: tuple) -> None:
        self.by_name[test.id().split(".", 1)[1]] = f"{error[0].__name__}: {error[1]}"

    def addError(self, test: unittest.TestCase, err: tuple) -> None:
        super().addError(test, err)
        self._failed(test, err)

    def addFailure(self, test: unittest.TestCase, err: tuple) -> None:
        super().addFailure(test, err)
        self._failed(test, err)


def main(clone: Path, file: str, ours: list[str], names: list[str]) -> None:
    from absl import flags

    import jaxns.compat.jaxopt

    flags.FLAGS([file])
    jaxns.compat.jaxopt.install()
    for name in ours:
        module = importlib.import_module(f"jaxopt._src.{name}")
        assert module.__name__ == f"jaxns.compat.jaxopt.{name}", f"{name} is not ours"
    line_searches()
    fill_in(clone)
    spec = importlib.util.spec_from_file_location(Path(file).stem, clone / "tests" / file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    loader = unittest.TestLoader()
    found = (
        loader.loadTestsFromNames(names, module) if names else loader.loadTestsFromModule(module)
    )
    result = unittest.TextTestRunner(resultclass=Outcomes, verbosity=2).run(found)
    print(json.dumps(result.by_name))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","), sys.argv[4:])
