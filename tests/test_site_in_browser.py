"""The built site in a browser, as wide as a desk and as narrow as a phone.

Needs what `.ci/run` builds in docs/_build, playwright, and a Chromium to be found as `chromium`.
"""

import shutil
from pathlib import Path

import pytest

SITE = Path(__file__).parent.parent / "docs" / "_build"
PAGES = sorted(page for page in SITE.rglob("*.html") if "_static" not in page.parts)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.skipif(not PAGES, reason="docs/_build holds no site"),
]

# What sticks out of the window and cannot be scrolled to where it stands.
OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (e) => e.tagName !== 'ARTICLE' &&
    (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
  const out = [...document.querySelectorAll('article *')].filter(
    (e) => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  return document.documentElement.scrollWidth > width || out.length > 0
    ? out.map((e) => e.outerHTML.slice(0, 80)) : null;
}"""
BROKEN_IMAGES = "() => [...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)"
FORMULAS = """async () => {
  if (window.MathJax) await MathJax.startup.promise;
  const count = (s) => document.querySelectorAll(s).length;
  return [count('.math'), count('mjx-container'), count('mjx-merror')];
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_can_be_read(width):
    """No sideways scrolling, no missing picture, every formula set, nothing from the network."""
    sync_api = pytest.importorskip("playwright.sync_api")
    wrong: list[tuple[str, str, object]] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 844})
        outside: list[str] = []
        page.on("request", lambda r: r.url.startswith("http") and outside.append(r.url))
        for file in PAGES:
            page.goto(file.as_uri())
            name = file.relative_to(SITE).as_posix()
            formulas, done, errors = page.evaluate(FORMULAS)
            if done != formulas or errors:
                wrong.append((name, "formulas", (formulas, done, errors)))
            for what, script in [("overflow", OVERFLOWING), ("images", BROKEN_IMAGES)]:
                if found := page.evaluate(script):
                    wrong.append((name, what, found))
        browser.close()
    assert not wrong
    assert not outside
