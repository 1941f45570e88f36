"""What XLA and the clock say of a program."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, jaxpr_as_fun

from jaxns import validate
from jaxns.nonsmooth import programs
from jaxns.nonsmooth.cost.loops import Loops, Trips, known
from jaxns.struct import struct


@struct
class Compiled:
    """flops: XLA's count of operations, nonlinear ones among them.   bytes: read and written.

    seconds: the shortest of some runs, NaN if none was made. NaN also where a loop's length is not
    known.
    """

    flops: float
    bytes: float
    seconds: float


def compiled(
    f: Callable,
    *args: Any,
    nonlinear: float = 1.0,
    while_trips: Trips = None,
    repeats: int = 0,
    correct: bool = True,
) -> Compiled:
    """XLA's account of f(*args), compiled for this machine.

    XLA counts the body of a loop once, however often it runs. Here a `scan` counts as often as it
    is long, and a `while` as often as `while_trips` says (as for `count`): the bodies are compiled
    by themselves, so that what XLA would fuse across trips is not seen.

    nonlinear: operations of one exp, log, tanh, …   repeats: how often the program is timed.
    correct: False leaves XLA's numbers as they are.
    """
    program, inputs, _ = programs.trace(f, *args)
    loops = known(program, inputs, while_trips)
    numbers = _corrected(program, nonlinear, loops) if correct else _analysis(program, nonlinear)
    seconds = _shortest(program, inputs, repeats) if repeats else math.nan
    return Compiled(float(numbers[0]), float(numbers[1]), seconds)


def _analysis(program: ClosedJaxpr, nonlinear: float) -> np.ndarray:
    """(flops, bytes), as XLA gives them."""
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in program.jaxpr.invars]  # pyright: ignore[reportAttributeAccessIssue]
    lowered = jax.jit(jaxpr_as_fun(program), keep_unused=True).lower(*shapes)
    found: Any = lowered.compile().cost_analysis() or {}
    found = found[0] if isinstance(found, Sequence) else found  # versions differ
    flops = found.get("flops", 0.0) + nonlinear * found.get("transcendentals", 0.0)
    return np.array([flops, found.get("bytes accessed", 0.0)])


def _corrected(program: ClosedJaxpr, nonlinear: float, loops: Loops) -> np.ndarray:
    numbers = _analysis(program, nonlinear)
    for equation in _outermost(program):
        if equation.primitive.name == "scan":
            times: float = equation.params["length"]
            body = equation.params["jaxpr"]
        else:
            trips = loops.trips.get(id(equation))
            times = math.nan if trips is None else trips
            body = equation.params["body_jaxpr"]
        each = _corrected(body, nonlinear, loops)
        numbers = numbers + times * each - _analysis(body, nonlinear)
    return numbers


def _outermost(program: ClosedJaxpr) -> Iterator[JaxprEqn]:
    """The loops that are in no other."""
    for equation in programs.live(program.jaxpr):
        if equation.primitive.name in ("scan", "while"):
            yield equation
        else:
            for part in programs.inner(equation):
                yield from _outermost(part)


def _shortest(program: ClosedJaxpr, inputs: Sequence[Any], repeats: int) -> float:
    if validate.integer("repeats", repeats) < 1:
        raise ValueError(f"repeats must be a positive integer or 0, got {repeats!r}")
    run = jax.jit(jaxpr_as_fun(program))
    inputs = [jnp.asarray(value) for value in inputs]
    jax.block_until_ready(run(*inputs))

    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(*inputs))
        return time.perf_counter() - start

    return min(once() for _ in range(repeats))
