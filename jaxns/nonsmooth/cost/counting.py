"""Arithmetic operations, counted in the equations of a program."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from jax.extend.core import ClosedJaxpr

from jaxns import validate
from jaxns.nonsmooth import programs
from jaxns.nonsmooth.cost.convention import CONVENTION, operations
from jaxns.nonsmooth.cost.loops import Loops, Trips, known
from jaxns.struct import static, struct


@struct
class Cost:
    """Operations of a program; prints as a table.

    by_primitive: operations of each primitive.
    unknown: primitives of unknown cost, counted as none, and loops of unknown length ("while"),
        counted as one trip, with how many equations there are: then the total is a lower bound.
    convention: what an operation is.
    """

    by_primitive: dict[str, float]
    unknown: dict[str, int]
    convention: str = static(default="")

    @property
    def total(self) -> float:
        return sum(self.by_primitive.values())

    @property
    def known(self) -> bool:
        """Whether the total is all there is."""
        return not self.unknown

    def __str__(self) -> str:
        ordered = sorted(self.by_primitive.items(), key=lambda item: -item[1])
        lines = [f"{name:<22}{operations:>14,.0f}" for name, operations in ordered if operations]
        sign = "total" if self.known else "total, at least"
        lines.append(f"{sign:<22}{self.total:>14,.0f}")
        lines += [f"NOT KNOWN: {name} ({times} times)" for name, times in self.unknown.items()]
        return "\n".join([*lines, self.convention])


def count(f: Callable, *args: Any, nonlinear: float = 1.0, while_trips: Trips = None) -> Cost:
    """Operations that f(*args) is made of, in the cost model of arXiv 2206.01730: additive.

    Each equation of the program costs what `Cost.convention` says; linear algebra its leading order
    (Cholesky n³/3, LU ⅔ n³, triangular solve n² a column). Calls, custom rules and checkpoints cost
    what they call, a `scan` its body times its length, a `cond` the dearest branch, a `while` its
    body and condition times its trips. What the result does not depend on costs nothing.

    args: pytrees of arrays; only shapes matter, unless trips are measured.
    nonlinear: operations of one exp, log, tanh, 1/x, …
    while_trips: how often each `while` runs its body, each time that it is met: one number for all,
        or one for each in the order of the program (an outer loop before those in it), or
        "measured": the program is run once, compiled, with counters that its loops carry, and each
        branch of a `cond` then counts as often as it was taken. By default they are unknown.
    """
    nonlinear = validate.positive("nonlinear", validate.scalar("nonlinear", nonlinear))
    program, inputs, _ = programs.trace(f, *args)
    return of_program(program, nonlinear, known(program, inputs, while_trips))


def of_program(program: ClosedJaxpr, nonlinear: float, loops: Loops) -> Cost:
    total, unknown = _walk(program, nonlinear, loops)
    names = {name: float(total[name]) for name in total}
    return Cost(names, dict(unknown), CONVENTION.format(nonlinear=nonlinear))


def _walk(
    program: ClosedJaxpr, nonlinear: float, loops: Loops
) -> tuple[dict[str, float], dict[str, int]]:
    total: dict[str, float] = defaultdict(float)
    unknown: dict[str, int] = defaultdict(int)

    def add(part: ClosedJaxpr, times: float) -> None:
        inside, not_known = _walk(part, nonlinear, loops)
        for name, number in not_known.items():
            unknown[name] += number
        for name, cost in inside.items():
            total[name] += times * cost

    for equation in programs.live(programs.closed(program).jaxpr):
        name, params, here = equation.primitive.name, equation.params, id(equation)
        part = programs.called(equation)
        if part is not None:
            add(part, 1)
        elif name == "scan":
            add(params["jaxpr"], params["length"])
        elif name == "while":
            trips = loops.trips.get(here)
            if trips is None:
                unknown[name] += 1
                trips = 1
            add(params["body_jaxpr"], trips)
            add(params["cond_jaxpr"], trips + 1)
        elif name == "cond" and here in loops.shares:
            for branch, share in zip(params["branches"], loops.shares[here], strict=False):
                add(branch, share)
        elif name == "cond":
            walked = [_walk(branch, nonlinear, loops)[0] for branch in params["branches"]]
            dearest = walked.index(max(walked, key=lambda each: sum(each.values())))
            for k, branch in enumerate(params["branches"]):
                add(branch, k == dearest)
        else:
            cost = operations(equation, nonlinear)
            if cost is None:
                unknown[name] += 1
            total[name] += cost or 0.0
    return total, unknown
