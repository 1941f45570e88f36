"""Methods that a function has because those it is built from have them."""

from collections.abc import Callable
from types import MethodType
from typing import Any


class MissingError(AttributeError, TypeError):
    """What is asked for is not known; `hasattr` says so too."""


class inherited:  # noqa: N801
    """A method that is there where every one of `parts()` has it; elsewhere its error says why."""

    def __init__(self, method: Callable, name: str | None = None) -> None:
        self.method = method
        self.name = name or method.__name__

    def __get__(self, whole: Any, cls: type | None = None) -> Any:
        if whole is None:
            return self.method
        for part in whole.parts():
            if not hasattr(part, self.name):
                raise MissingError(
                    f"{type(whole).__name__} has no {self.name}: {type(part).__name__}, which it "
                    "is made of, has none"
                )
        return MethodType(self.method, whole)


def inherited_from(name: str) -> Callable[[Callable], inherited]:
    """The same, for a method that is there where every one of `parts()` has the method `name`."""
    return lambda method: inherited(method, name)


def need_prox(whole: Any, f: Any) -> None:
    if not hasattr(f, "prox"):
        raise TypeError(f"{type(whole).__name__} needs a function with a prox, got {f!r}")


def need_function(name: str, f: Any) -> None:
    if isinstance(f, type) or not callable(f):
        raise TypeError(f"{name} must be a function such as those in jaxns.functions, got {f!r}")
