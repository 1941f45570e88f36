"""`import jaxopt` in other people's code, answered by this package."""

import importlib
import pkgutil
import sys
import types


def install() -> None:
    """Let `import jaxopt` and `import jaxopt._src.…` give the modules of `jaxns.compat.jaxopt`.

    From now on, in this interpreter. Raises `RuntimeError` if something has imported jaxopt before.
    """
    package = importlib.import_module("jaxns.compat.jaxopt")
    if sys.modules.get("jaxopt", package) is not package:
        raise RuntimeError("jaxopt is imported already: call install() before anything imports it")
    private = types.ModuleType("jaxopt._src", "The same modules: JAXopt keeps its sources here.")
    private.__path__ = []
    sys.modules["jaxopt"], sys.modules["jaxopt._src"] = package, private
    package.__dict__["_src"] = private
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        sys.modules[f"jaxopt.{found.name}"] = sys.modules[f"jaxopt._src.{found.name}"] = module
        setattr(private, found.name, module)
