"""The pages of the site: those that index.md links to, under its headings, and the notebooks.

So index.md is read on its own, and says once what there is: each of its sections that links to
pages becomes a section of the navigation. Links to files that are no pages become downloads.
"""

import re
import shutil
from pathlib import Path

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#:]+\.(?:md|ipynb))\)")
ANCHOR = re.compile(r'^<a id="(\w+)"></a>$', re.MULTILINE)
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s#]+)(?:#[^)\s]*)?\)")


def copy_notebooks(app, config) -> None:
    """notebooks/ into docs/notebooks/, where Sphinx finds them; git ignores the copies."""
    here, there = Path(app.srcdir).parent / "notebooks", Path(app.srcdir) / "notebooks"
    there.mkdir(exist_ok=True)
    for old in {file.name for file in there.iterdir()} - {file.name for file in here.iterdir()}:
        (there / old).unlink()
    for notebook in here.glob("*.ipynb"):
        copy = there / notebook.name
        if not copy.exists() or copy.read_bytes() != notebook.read_bytes():
            shutil.copy(notebook, copy)


def rewrite(app, docname: str, source: list[str]) -> None:
    """Links as they are in the repository to links as they are on the site."""
    text = source[0]
    if docname.startswith("notebooks/"):
        source[0] = text.replace("](../docs/", "](../")
        return
    up = "../" * docname.count("/")
    text = text.replace(f"]({up}../notebooks/", f"]({up}notebooks/")
    folder = (Path(app.srcdir) / docname).parent

    def download(link: re.Match) -> str:
        target = (folder / link[2]).resolve()
        if target.is_relative_to(app.srcdir):
            return link[0]
        words = link[1].strip("`")
        return f"{{download}}`{words} <{link[2]}>`" if target.is_file() else f"`{words}`"

    text = ANCHOR.sub(r"(\1)=", OUTSIDE.sub(download, text))
    source[0] = text + toctrees(text) if docname == "index" else text


def toctrees(index: str) -> str:
    """A hidden table of contents for each section of the index."""
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)
    trees = []
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        pages = list(dict.fromkeys(path for _, path in LINK.findall(body)))
        if pages:
            trees.append(["```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```"])
    return "".join("\n\n" + "\n".join(tree) for tree in trees) + "\n"


def setup(app) -> dict:
    app.connect("config-inited", copy_notebooks)
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
