"""How often the loops and branches of a program run: told, or counted in a run."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, JaxprEqn

from jaxns import validate
from jaxns.nonsmooth import programs

Trips = float | Sequence[float] | Literal["measured"] | None


class Loops(NamedTuple):
    """By the identity of an equation: the mean number of trips of a `while`, None if not known; how
    often each branch of a `cond` is taken, each time that it is met, where it has been counted.
    """

    trips: dict[int, float | None]
    shares: dict[int, Sequence[float]]


def known(program: ClosedJaxpr, inputs: Sequence[Any], while_trips: Trips) -> Loops:
    """while_trips: for each `while` by itself, in the order of the program, or for all of them."""
    if isinstance(while_trips, str):
        validate.choice("while_trips", while_trips, ("measured",))
        return measured(program, inputs)
    whiles = [id(e) for e in _places(program) if e.primitive.name == "while"]
    each = while_trips if isinstance(while_trips, Sequence) else [while_trips] * len(whiles)
    if len(each) != len(whiles):
        raise ValueError(
            f"while_trips must be one number or one for each of the {len(whiles)} while loops, "
            f"got {len(each)}"
        )
    for trips in each:
        if trips is not None:
            validate.nonnegative("while_trips", validate.scalar("while_trips", trips))
    return Loops(dict(zip(whiles, each, strict=True)), {})


def measured(program: ClosedJaxpr, inputs: Sequence[Any]) -> Loops:
    """From one run of the program, compiled, with counters that its loops carry."""
    places = _places(program)
    width = max([2, *(len(e.params.get("branches", ())) for e in places)])
    at = {id(equation): i for i, equation in enumerate(places)}

    def counters(inputs: Sequence[Any]) -> Array:
        start = jnp.zeros((len(places), width), jnp.int32)
        return _run(program, inputs, start, at)[1]

    counted = np.asarray(jax.jit(counters)(list(inputs))) if places else np.zeros((0, width))
    trips: dict[int, float | None] = {}
    shares: dict[int, Sequence[float]] = {}
    for equation, row in zip(places, counted, strict=True):
        if equation.primitive.name == "while":
            trips[id(equation)] = float(row[1]) / max(float(row[0]), 1)
        else:
            shares[id(equation)] = (row / max(row.sum(), 1)).tolist()
    return Loops(trips, shares)


def _places(program: ClosedJaxpr) -> list[JaxprEqn]:
    """Every `while` and `cond`, once."""
    found = {id(e): e for e in programs.equations(program) if e.primitive.name in _COUNTED}
    return list(found.values())


_COUNTED = ("while", "cond")


def _run(
    program: ClosedJaxpr, inputs: Sequence[Any], counts: Array, at: dict[int, int]
) -> tuple[list[Any], Array]:
    """The results; counts, with (times met, trips) of a `while`, the branches taken of a `cond`."""

    def rule(equation: JaxprEqn, values: list[Any]) -> Sequence[Any]:
        nonlocal counts
        if not any(_places(part) for part in programs.inner(equation)) and id(equation) not in at:
            return programs.evaluate(equation, values)
        results, counts = _equation(equation, values, counts, at)
        return results

    results = programs.interpret(program, inputs, rule)
    return results, counts


def _equation(
    equation: JaxprEqn, values: list[Any], counts: Array, at: dict[int, int]
) -> tuple[Sequence[Any], Array]:
    params, name = equation.params, equation.primitive.name
    part = programs.called(equation)
    if part is not None:
        return _run(part, programs.arguments(equation, values), counts, at)
    if name == "while":
        m, n, i = params["cond_nconsts"], params["body_nconsts"], at[id(equation)]
        condition, body = params["cond_jaxpr"], params["body_jaxpr"]
        for_condition, for_body, start = values[:m], values[m : m + n], values[m + n :]

        def again(state: tuple[list[Any], Array]) -> Array:
            return programs.interpret(condition, [*for_condition, *state[0]], programs.evaluate)[0]

        def turn(state: tuple[list[Any], Array]) -> tuple[list[Any], Array]:
            return _run(body, [*for_body, *state[0]], state[1].at[i, 1].add(1), at)

        return lax.while_loop(again, turn, (_arrays(start), counts.at[i, 0].add(1)))
    if name == "cond":
        which, *operands = values
        i, branches = at[id(equation)], params["branches"]

        def take(k: int) -> Any:
            def branch(operands: list[Any], counts: Array) -> tuple[list[Any], Array]:
                results, counts = _run(branches[k], operands, counts.at[i, k].add(1), at)
                return _arrays(results), counts

            return branch

        index = jnp.clip(jnp.asarray(which, jnp.int32), 0, len(branches) - 1)
        return lax.switch(index, [take(k) for k in range(len(branches))], operands, counts)
    m, n = programs.scanned(equation)
    consts, carry, xs = values[:m], values[m : m + n], values[m + n :]

    def step(state: tuple[list[Any], Array], x: list[Any]) -> tuple[Any, list[Any]]:
        results, counts = _run(params["jaxpr"], [*consts, *state[0], *x], state[1], at)
        return (_arrays(results[:n]), counts), results[n:]

    (carry, counts), ys = lax.scan(
        step, (_arrays(carry), counts), xs, params["length"], params["reverse"]
    )
    return [*carry, *ys], counts


def _arrays(values: Sequence[Any]) -> list[Any]:
    return [jnp.asarray(value) for value in values]
