"""This library, by any of its solvers."""

import functools
from collections.abc import Callable
from typing import Any

import jaxns
from benchmarks.peers.method import Method, Task, in_jax


def method(
    build: Callable[[Any, Any], Any],
    solver: Any = None,
    answer: Callable[[Any], Any] = lambda x: x,
    mode: Any = jaxns.Implicit(),
) -> Callable[[Task], Method]:
    """build: (data, θ) -> problem.   answer: what is looked at of its solution."""

    def program(limit, data, theta, tol):
        stop = jaxns.Stop(tol=tol, max_steps=limit, on_failure="ignore")
        solution = jaxns.solve(build(data, theta), solver, mode=mode, stop=stop)
        return answer(solution.x), solution.steps

    return lambda task: in_jax(task, functools.partial(program, task.most_steps))


def methods(
    build: Callable[[Any, Any], Any],
    names: tuple[str, ...],
    answer: Callable[[Any], Any] = lambda x: x,
) -> dict[str, Callable[[Task], Method]]:
    """By the problem's own solver, which comes first, and by those that there are of `names`."""
    solvers = {"jaxns default": None} | {
        f"jaxns {name}": getattr(jaxns, name)() for name in names if hasattr(jaxns, name)
    }
    return {name: method(build, solver, answer) for name, solver in solvers.items()}
