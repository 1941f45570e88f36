"""Programs as data: the equations of a function (its jaxpr), walked from the first to the last."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Literal, Var

CALLS = {  # equations that are one program, run once, and the parameter that holds it
    "call": "call_jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


def trace(f: Callable, *args: Any) -> tuple[ClosedJaxpr, list[Any], Any]:
    """The program of f at arguments of these shapes; the arguments, and its result, as leaves."""
    program, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    return program, jax.tree.leaves(args), jax.tree.structure(shapes)


def closed(program: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, ())


def called(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The program that an equation calls once with its own inputs, if it does no more than that."""
    if equation.primitive.name == "custom_linear_solve":
        return equation.params["jaxprs"].solve
    holder = CALLS.get(equation.primitive.name)
    return closed(equation.params[holder]) if holder else None


def arguments(equation: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    """Of the program that an equation calls, from the inputs of the equation."""
    if equation.primitive.name != "custom_linear_solve":
        return values
    lengths = equation.params["const_lengths"]
    before, many = lengths.matvec + lengths.vecmat, lengths.solve
    return [*values[before : before + many], *values[sum(lengths) :]]


def inner(equation: JaxprEqn) -> tuple[ClosedJaxpr, ...]:
    """The programs that running an equation runs: that of a call, a loop's, the branches'."""
    program = called(equation)
    params = equation.params
    if program is not None:
        return (program,)
    if equation.primitive.name == "scan":
        return (params["jaxpr"],)
    if equation.primitive.name == "while":
        return (params["cond_jaxpr"], params["body_jaxpr"])
    return tuple(params["branches"]) if equation.primitive.name == "cond" else ()


def scanned(equation: JaxprEqn) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many are carried on.

    Read off the shapes, since versions of JAX say it in different parameters: what is scanned has
    one axis more outside than inside, and what is carried has not.
    """
    inside = closed(equation.params["jaxpr"]).jaxpr

    def alike(outer: Sequence[Any], inner: Sequence[Any]) -> int:
        pairs = zip(outer, inner, strict=True)
        return sum(len(o.aval.shape) == len(i.aval.shape) for o, i in pairs)

    carried = alike(equation.outvars, inside.outvars)
    return alike(equation.invars, inside.invars) - carried, carried


def equations(program: Jaxpr | ClosedJaxpr) -> Iterator[JaxprEqn]:
    """All of them, each before those inside it."""
    for equation in closed(program).jaxpr.eqns:
        yield equation
        for part in inner(equation):
            yield from equations(part)


def live(program: Jaxpr) -> list[JaxprEqn]:
    """The equations that the results (or an effect) depend on."""
    needed = {v for v in program.outvars if isinstance(v, Var)}
    kept = []
    for equation in reversed(program.eqns):
        made = [v for v in equation.outvars if not isinstance(v, DropVar)]
        if equation.effects or not needed.isdisjoint(made):
            kept.append(equation)
            needed.update(v for v in equation.invars if isinstance(v, Var))
    return kept[::-1]


def interpret(
    program: ClosedJaxpr,
    inputs: Sequence[Any],
    rule: Callable[[JaxprEqn, list[Any]], Sequence[Any]],
    constant: Callable[[Any], Any] = lambda value: value,
) -> list[Any]:
    """Run a program whose values are whatever `rule` makes of an equation and its inputs.

    constant: makes such a value of a number that stands in the program.
    """
    jaxpr = program.jaxpr
    at: dict[Var, Any] = dict(zip(jaxpr.constvars, map(constant, program.consts), strict=True))
    at |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return constant(atom.val) if isinstance(atom, Literal) else at[atom]

    for equation in jaxpr.eqns:
        results = rule(equation, [read(atom) for atom in equation.invars])
        at |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def evaluate(equation: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    """What an equation computes."""
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # versions differ
    results = equation.primitive.bind(*functions, *inputs, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def where(equation: JaxprEqn) -> str:
    """The line of the user's that an equation comes from."""
    return source_info_util.summarize(equation.source_info)
