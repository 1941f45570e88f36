"""Every public name has its entry, under whichever of its names it is found; and every link a page.

What is missing is a warning, and so an error where warnings are.
"""

import importlib
import pkgutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

from sphinx.util import logging
from sphinx.util.nodes import make_refnode

import jaxns

logger = logging.getLogger(__name__)


def public_modules() -> list[ModuleType]:
    """The packages with a table of contents, and the public modules that these list."""
    names = ["jaxns", *(m.name for m in pkgutil.walk_packages(jaxns.__path__, "jaxns.") if m.ispkg)]
    packages = [importlib.import_module(n) for n in names if not n.startswith("jaxns.experiments")]
    members = [getattr(p, name) for p in packages for name in getattr(p, "__all__", [])]
    inside = [m for m in members if isinstance(m, ModuleType) and m not in packages]
    return [*packages, *dict.fromkeys(inside)]


def find(name: str) -> object | None:
    """What jaxns.… is, for a name that may go through modules and classes; None if nothing."""
    thing: object = jaxns
    for part in name.split(".")[1:]:
        thing = getattr(thing, part, sys.modules.get(f"{getattr(thing, '__name__', '')}.{part}"))
    return thing


def entries(env) -> dict[int, str]:
    """The documented name of each object that has an entry, by identity."""
    domain = env.domains.python_domain
    names = [*domain.objects, *domain.modules]
    return {id(thing): name for name in names if (thing := find(name)) is not None}


def check_names(app, env) -> None:
    modules = public_modules()
    app.entries = known = entries(env)
    for module in modules:
        public = [getattr(module, name) for name in getattr(module, "__all__", [])]
        names = [f"{module.__name__}.{name}" for name in getattr(module, "__all__", [])]
        for name, thing in zip([module.__name__, *names], [module, *public], strict=True):
            if id(thing) not in known:
                logger.warning("%s is public and on no page of the API", name)


def resolve(app, env, node, contnode):
    """A name by which something is known, to the entry that it has under another."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removeprefix("jaxns.")
    around = node.get("py:module") or "jaxns"
    for scope in dict.fromkeys([around, "jaxns", *(m.__name__ for m in public_modules())]):
        name = app.entries.get(id(find(f"{scope}.{target}")))
        if name is not None:
            domain = env.domains.python_domain
            entry = domain.objects.get(name) or domain.modules[name]
            return make_refnode(app.builder, node["refdoc"], entry[0], entry[1], contnode, name)
    return None


class Page(HTMLParser):
    """The links of a page, and the places in it that one can link to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.places |= {found[key] or "" for key in ("id", "name") if key in found}
        self.links += [found[key] or "" for key in ("href", "src") if key in found]


def check_links(app, error) -> None:
    """Each link within the built site leads to a file, and to a place in it."""
    if error is not None or app.builder.format != "html":
        return
    files = [f for f in Path(app.outdir).rglob("*.html") if "_static" not in f.parts]
    pages = {file.resolve(): Page(file.read_text(encoding="utf-8")) for file in files}
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            place = unquote(parts.fragment)
            lost = place and there in pages and place not in pages[there].places
            if lost or not there.exists():
                logger.warning("%s links to %s, which does not exist", file.name, link)


def setup(app) -> dict:
    app.connect("env-check-consistency", check_names)
    app.connect("missing-reference", resolve)
    app.connect("build-finished", check_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
