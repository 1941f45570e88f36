"""Docstrings as they are written here, plain text with formulas, to reStructuredText.

What is indented is a formula (or a program) and is kept as it is. A paragraph of lines `name: …`,
continued by deeper ones, is a list of what the names mean; three spaces separate two on one line.
Names in backticks are links where they lead somewhere; nothing else is markup.
"""

import ast
import re
from collections.abc import Iterator

ITEM = re.compile(r"((?:\w[\w.]*|\"\w+\"|\w+\([\w, ]*\))(?:, (?:\w+|\"\w+\"))*):(?: |$)")
NEXT_ITEM = re.compile(r"(?<=\S) {3,}(?=(?:\w+|\"\w+\")(?:, (?:\w+|\"\w+\"))*: )")

ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def inline(text: str) -> str:
    """Names in backticks as references, other code as code, and the rest to the letter."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(map(_code_or_text, parts))


def _code_or_text(part: str) -> str:
    if not re.fullmatch(r"`[^`]+`", part):
        text = re.sub(r"([\\*_|`])", r"\\\1", part)
        text = re.sub(r"^(\w+)([.)] )", r"\1\\\2", text)  # no numbered list
        text = re.sub(r"docs/(\w+)\.md", r":doc:`docs/\1.md </\1>`", text)
        return ARXIV.sub(r"`\g<0> <https://doi.org/10.48550/arXiv.\1>`__", text)
    name = re.fullmatch(r"`((?:\w+\.)*[A-Za-z]\w*)`", part)
    code = f":py:obj:`{name[1]}`" if name else f"`{part}`"
    return rf"\ {code}\ "


def convert(lines: list[str]) -> list[str]:
    """One docstring, or what stands under one of its names."""
    return [line for block in _blocks(lines) for line in ("", *_render(block))]


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Paragraphs; indented ones, and the blank lines between them, as one."""
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            if block and not block[-1].strip():  # only indented blocks go over blank lines
                if line.startswith(" "):
                    block.append(line)
                    continue
                yield block[:-1]
                block = []
            block.append(line)
        elif block and block[0].startswith(" ") and block[-1].strip():
            block.append("")
        elif block and block[-1].strip():
            yield block
            block = []
    if any(map(str.strip, block)):
        yield block


def _indent(lines: list[str], by: str = "    ") -> list[str]:
    return [by + line if line else "" for line in lines]


def _dedent(lines: list[str]) -> list[str]:
    least = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[least:] for line in lines]


def _render(block: list[str]) -> list[str]:
    if block[0].startswith(" "):
        return _literal(block)
    if block[0].startswith(">>> "):
        return block
    if re.match(r"(-|\d\.) ", block[0]):
        return _bullets(block)
    if ITEM.match(block[0]):
        return _items(block)
    text, *items = NEXT_ITEM.split(" ".join(map(str.strip, block)))
    return [inline(text), "", *_items(items)]


def _literal(block: list[str]) -> list[str]:
    code = _dedent(block)
    try:
        ast.parse("\n".join(code))
        language = "python" if any("(" in line for line in code) else "text"
    except SyntaxError:
        language = "text"
    return [f".. code-block:: {language}", "", *_indent(code)]


def _bullets(block: list[str]) -> list[str]:
    bullets: list[str] = []
    for line in block:
        if re.match(r"(-|\d\.) ", line):
            bullets.append(line)
        else:
            bullets[-1] += " " + line.strip()
    return [re.sub(r"^(-|\d\.) (.*)", lambda m: f"{m[1]} {inline(m[2])}", b) for b in bullets]


def _items(block: list[str]) -> list[str]:
    """A definition list: each name, with what it means under it."""
    items: list[tuple[str, list[str]]] = []
    for line in block:
        of_values = bool(items) and any(map(ITEM.match, map(str.strip, items[-1][1][1:])))
        inside = line.startswith(" ") and (of_values or ITEM.match(line.strip()))
        first, *others = [line] if inside else NEXT_ITEM.split(line)
        found = ITEM.match(first)
        if found is None:
            items[-1][1].append(first)
        else:
            items.append((found[1], [first[found.end() :]]))
        for other in others:
            name, text = other.split(": ", 1)
            items.append((name, [text]))
    rendered = []
    for name, (first, *under) in items:
        rendered += [f"``{name}``", *_indent(_meaning(first, _dedent(under))), ""]
    return rendered


def _meaning(first: str, under: list[str]) -> list[str]:
    """What follows a name: prose, then perhaps a list of values and what they mean."""
    cut = next((i for i, line in enumerate(under) if ITEM.match(line)), len(under))
    prose = " ".join(filter(None, [first.strip(), *(line.strip() for line in under[:cut])]))
    values = ["", *_items(under[cut:])] if under[cut:] else []
    return [inline(prose), *values] if prose else values[1:]


def process(app, what, name, thing, options, lines: list[str]) -> None:
    lines[:] = convert(lines)


def skip(app, what, name, member, skipped, options) -> bool | None:
    """What a class has from elsewhere, or from being a tuple, is not described here."""
    inherited = not getattr(member, "__module__", "jaxns").startswith("jaxns")
    return True if inherited or type(member).__name__ == "_tuplegetter" else None


def setup(app) -> dict:
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
