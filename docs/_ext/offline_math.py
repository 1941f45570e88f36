"""MathJax from the site itself: the part of sphinx-mathjax-offline that sets TeX in HTML."""

import importlib.util
import shutil
from pathlib import Path

PARTS = ("tex-chtml.js", "output/chtml/fonts")


def copy(app, error) -> None:
    if error is not None or app.builder.format != "html":
        return
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    assert package is not None
    assert package.origin is not None
    here, there = Path(package.origin).parent / "static", Path(app.outdir) / "_static"
    for part in PARTS:
        source, target = here / "mathjax" / part, there / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)


def setup(app) -> dict:
    app.connect("build-finished", copy)
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
