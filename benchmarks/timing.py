"""How time is measured: calls take turns within a process, and what is compared are ratios.

On a CPU a time is the process's CPU seconds, which on a core that is shared are what the clock
would show on one that is not; elsewhere it is the clock's.
"""

import statistics
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax

Name = TypeVar("Name", bound=Hashable)
Times = dict[Name, list[float]]
LEAST = 4e-3  # seconds that are timed at once


def seconds(call: Callable[[], Any]) -> float:
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    start = clock()
    jax.block_until_ready(call())
    return clock() - start


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call, of several at once where it is short."""
    first = seconds(call)
    if first >= LEAST:
        return first
    number = int(LEAST / max(first, 1e-6)) + 1
    return seconds(lambda: [jax.block_until_ready(call()) for _ in range(number)]) / number


def in_turns(calls: dict[Name, Callable[[], Any]], repeats: int) -> Times[Name]:
    """The times of each call in `repeats` rounds, after one that is not counted."""
    for call in calls.values():
        jax.block_until_ready(call())
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(repeats)]
    return {name: [r[name] for r in rounds] for name in calls}


def ratio(times: Times[Name], a: Name, b: Name) -> float:
    """The median over the rounds of a's time over b's."""
    return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))


def medians(times: Times[Name]) -> dict[Name, float]:
    return {name: statistics.median(each) for name, each in times.items()}


def chain(body: Callable[[Any], Any], x: Any, length: int) -> Callable[[], Any]:
    """x ← body(x), so many times: what a step of the loop costs, without the call's overhead."""
    run = jax.jit(lambda x: jax.lax.fori_loop(0, length, lambda _, x: body(x), x))
    compiled = run.lower(x).compile()
    return lambda: compiled(x)
