"""From a TOML file and `--set` overrides to a config, or to a sentence that says what is wrong."""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from jaxns.experiments import catalogue
from jaxns.experiments.config import Base


class ConfigError(ValueError):
    """A config that cannot be run: names the key, what was expected, and the nearest valid one."""


def load(path: Path, overrides: Sequence[str] = (), reduced: bool = False) -> Base:
    """Read and validate the config at `path`, with `key=value` overrides applied.

    reduced: whether its own overrides for a short run are applied first.
    """
    raw = _read(path)
    shorter = raw.get("reduced", {})
    if reduced and isinstance(shorter, dict):
        for key, value in shorter.items():
            _set(raw, key, value, f"{path}: reduced.{key}")
    for override in overrides:
        _apply(raw, override)
    name = raw.get("experiment")
    known = catalogue.NAMES
    if name is None:
        raise ConfigError(f"{path}: experiment is missing; expected {_listed(known)}")
    if name not in known:
        raise ConfigError(
            f"{path}: experiment: expected {_listed(known)}, got {name!r}"
            + _did_you_mean(str(name), known)
        )
    model = catalogue.find(name).settings
    try:
        return model.model_validate(_tuples(raw))
    except ValidationError as error:
        lines = [_explain(model, dict(problem)) for problem in error.errors()]
        raise ConfigError("\n       ".join(f"{path}: {line}" for line in lines)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error}") from None
    except OSError as error:
        beside = [str(p) for p in path.parent.glob("*.toml")]
        hint = _did_you_mean(str(path), beside, quote=str)
        raise ConfigError(f"cannot read {path}: {error.strerror}{hint}") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set the dotted key of `key=value`; the value is TOML, or failing that a bare string."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"--set {override}: expected key=value, such as outer.steps=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    _set(raw, key.strip(), value, f"--set {override}")


def _set(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    parts = key.split(".")
    here: Any = raw
    for depth, part in enumerate(parts[:-1]):
        here = _child(here, part, ".".join(parts[:depth]), where)
    last = parts[-1]
    if isinstance(here, list):
        _child(here, last, ".".join(parts[:-1]), where)
        here[int(last)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise ConfigError(f"{where}: {'.'.join(parts[:-1])} is a value, not a section")


def _child(here: Any, part: str, name: str, where: str) -> Any:
    if isinstance(here, dict):
        return here.setdefault(part, {})
    if not isinstance(here, list):
        raise ConfigError(f"{where}: {name} is a value, not a section")
    if not part.isdecimal() or int(part) >= len(here):
        raise ConfigError(
            f"{where}: {name} is a list; expected an index from 0 to {len(here) - 1}, got {part!r}"
        )
    return here[int(part)]


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_EXPECTED = {
    "model_type": "a section (a TOML table)",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_short": "at least one entry",
}


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    """One validation error of pydantic's as a sentence about a dotted key."""
    location, kind, value = problem["loc"], problem["type"], problem["input"]
    key = ".".join(map(str, location))
    if kind == "extra_forbidden":
        return f"{key} is not a known key{_nearest_key(model, location)}"
    if kind == "missing":
        return f"{key} is missing"
    message = str(problem["msg"])
    if kind == "value_error":
        prefix = f"{key}: " if key else ""
        return prefix + message.removeprefix("Value error, ")
    expected = _EXPECTED.get(kind, message.removeprefix("Input should be "))
    hint = ""
    if kind == "literal_error":
        hint = _did_you_mean(str(value), get_args(_annotation(model, location)))
    return f"{key}: expected {expected}, got {value!r}{hint}"


def _nearest_key(model: type[BaseModel], location: tuple) -> str:
    section = _annotation(model, location[:-1])
    prefix = "".join(f"{part}." for part in location[:-1])
    siblings = [prefix + name for name in section.model_fields]
    elsewhere = [key for key in _keys(model) if key not in siblings]
    name = str(location[-1])
    for keys in (siblings, elsewhere):
        last_parts = {key.rpartition(".")[2]: key for key in reversed(keys)}
        if near := difflib.get_close_matches(name, last_parts, n=1):
            return f"; did you mean {last_parts[near[0]]}?"
    return f"; expected {_listed(siblings, quote=str)}"


def _annotation(model: Any, location: Iterable) -> Any:
    """The type at a location: a section, the items of a list of sections, or a leaf."""
    for part in location:
        model = get_args(model)[0] if isinstance(part, int) else model.model_fields[part].annotation
    return model


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _did_you_mean(text: str, options: Iterable[str], quote: Any = repr) -> str:
    near = difflib.get_close_matches(text, list(options), n=1)
    return f"; did you mean {quote(near[0])}?" if near else ""


def _listed(options: Iterable[str], quote: Any = repr) -> str:
    *most, last = map(quote, options)
    return f"{', '.join(most)} or {last}" if most else last
