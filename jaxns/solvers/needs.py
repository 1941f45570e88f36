"""What a solver asks of a problem, and the sentence it fails with."""

from typing import Any


def need(solver: Any, problem: Any, role: str, ability: str, remedy: str) -> None:
    """Raise `TypeError` unless the function `problem.role` has the method `ability`."""
    name = type(solver).__name__
    if not hasattr(problem, role):
        raise TypeError(
            f"{name} solves problems with a function {role}, such as Composite(f, g); "
            f"{type(problem).__name__} has none"
        )
    function = getattr(problem, role)
    if not hasattr(function, ability):
        raise TypeError(
            f"{name} needs {ability} on {role}; {type(function).__name__} has none; {remedy}"
        )


def need_composite(solver: Any, problem: Any) -> None:
    """Raise `TypeError` unless the problem has the parts of `Composite(f, g, K, h)`."""
    if not all(hasattr(problem, part) for part in ("f", "g", "K", "h")):
        raise TypeError(
            f"{type(solver).__name__} solves min f(x) + g(Kx) + h(x), such as Composite(f, g, K); "
            f"{type(problem).__name__} is not of this form"
        )


def need_constant(solver: Any, problem: Any, role: str, constant: Any, remedy: str) -> None:
    """Raise `TypeError` if the Lipschitz constant that `problem.role` knows is None."""
    if constant is None:
        function = type(getattr(problem, role)).__name__
        raise TypeError(
            f"{type(solver).__name__} needs a Lipschitz constant of the gradient of {role}; "
            f"{function} has none; {remedy}"
        )


def need_no_penalty(solver: Any, problem: Any) -> None:
    """Raise `TypeError` unless g is smooth, so that f + g can be descended along its gradient."""
    need(solver, problem, "f", "gradient", "use a solver that takes the prox of f")
    g = type(problem.g).__name__
    remedy = f"use ForwardBackward, which takes the prox of {g}"
    need(solver, problem, "g", "gradient", remedy)


def need_plain(
    solver: Any, problem: Any, remedy: str, without: tuple[str, ...] = ("K", "h")
) -> None:
    """Raise `TypeError` if a problem has a third function h, or an operator between f and g."""
    if "K" in without and hasattr(problem, "split_form") and not hasattr(problem, "K"):
        raise TypeError(
            f"{type(solver).__name__} solves min f(x) + g(x), not "
            f"{type(problem).__name__}; use ADMM"
        )
    for part in without:
        if getattr(problem, part, None) is not None:
            allowed = "".join(f" + {p}(x)" for p in ("h",) if p not in without)
            raise TypeError(
                f"{type(solver).__name__} solves min f(x) + g(x){allowed}, without {part}; {remedy}"
            )
