"""What a derivative costs, as a multiple of the program it is the derivative of."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.extend.core import Literal as Constant

from jaxns import validate
from jaxns.nonsmooth import programs
from jaxns.nonsmooth.cost.compiled import Compiled, compiled
from jaxns.nonsmooth.cost.counting import Cost, count
from jaxns.nonsmooth.cost.loops import Trips
from jaxns.nonsmooth.cost.omega import omega_table
from jaxns.nonsmooth.primitives import FREE
from jaxns.struct import static, struct

UNITS = ("custom_jvp_call", "custom_vjp_call")  # have a derivative of their own, blamed as one


@struct
class Ratio:
    """A program beside its derivative, value included; prints as a table.

    value, derivative: the operations of each.   compiled: XLA's account of each.
    bound: that of arXiv 2206.01730 on the ratio of operations, from `omega_table`.
    blame: where a ratio is above the bound, what in the program costs more than the bound when it
        is differentiated by itself, with that ratio; or else the largest parts of the derivative.
    """

    value: Cost
    derivative: Cost
    compiled: tuple[Compiled, Compiled]
    bound: float
    blame: dict[str, float]
    mode: str = static(default="reverse")

    @property
    def jaxpr(self) -> float:
        """Of operations in the equations; NaN where some are not known."""
        if not (self.value.known and self.derivative.known):
            return math.nan
        return _over(self.derivative.total, self.value.total)

    @property
    def xla_flops(self) -> float:
        return _over(self.compiled[1].flops, self.compiled[0].flops)

    @property
    def xla_bytes(self) -> float:
        return _over(self.compiled[1].bytes, self.compiled[0].bytes)

    @property
    def seconds(self) -> float:
        return _over(self.compiled[1].seconds, self.compiled[0].seconds)

    @property
    def within(self) -> bool:
        """Whether neither count is above the bound; False also where one is not known."""
        counts = [self.jaxpr, *([] if math.isnan(self.xla_flops) else [self.xla_flops])]
        return all(count <= self.bound * (1 + 1e-9) for count in counts)

    def __str__(self) -> str:
        first, second = self.compiled
        rows = [
            ("operations", self.value.total, self.derivative.total, self.jaxpr),
            ("XLA flops", first.flops, second.flops, self.xla_flops),
            ("XLA bytes", first.bytes, second.bytes, self.xla_bytes),
            ("seconds", first.seconds, second.seconds, self.seconds),
        ]
        lines = [f"{'':<12}{'value':>14}{self.mode:>14}{'ratio':>9}"]
        lines += [
            f"{name:<12}{a:>14.6g}{b:>14.6g}{r:>9.2f}"
            for name, a, b, r in rows
            if not math.isnan(a)
        ]
        lines.append(f"bound {self.bound:.4g}: {'kept' if self.within else 'NOT KEPT'}")
        lines += [f"  {name}: {ratio:.3g}" for name, ratio in self.blame.items()]
        unknown = {**self.value.unknown, **self.derivative.unknown}
        lines += [f"NOT KNOWN: {name} ({times} times)" for name, times in unknown.items()]
        return "\n".join([*lines, self.value.convention])


class _Program(NamedTuple):
    f: Callable
    args: tuple


def ratio(
    f: Callable,
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    mode: Literal["reverse", "forward"] = "reverse",
    directions: int = 1,
    nonlinear: float = 1.0,
    while_trips: Trips | tuple[Trips, Trips] = None,
    xla: bool = True,
    repeats: int = 0,
) -> Ratio:
    """cost(value and derivative of f) / cost(f) at args, counted three ways.

    The nonsmooth cheap gradient principle (arXiv 2206.01730): backwards the ratio is at most 5,
    whatever the dimension, for programs made of +, ×, relu, exp, …; forwards along p directions it
    is linear in p. A program may be differentiated at more than that, where a rule of the library
    is dearer than the mathematics; `Ratio.blame` then says which.

    f: mode="reverse" differentiates a scalar f; mode="forward" any, along p = `directions`.
    argnums: which arguments to differentiate, pytrees of floating-point arrays.
    nonlinear, while_trips: as for `count`; a pair of the latter is for f and for its derivative.
    xla: compile both, for XLA's flops and bytes.   repeats: how often each is timed; 0: not.
    """
    validate.choice("mode", mode, ("reverse", "forward"))
    p = validate.positive("directions", validate.integer("directions", directions))
    trips = while_trips if isinstance(while_trips, tuple) else (while_trips, while_trips)
    which = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    value = _Program(f, args)
    derivative = _reverse(f, args, which) if mode == "reverse" else _forward(f, args, which, p)
    both = tuple(zip((value, derivative), trips, strict=True))
    costs = [count(g, *a, nonlinear=nonlinear, while_trips=t) for (g, a), t in both]
    nothing = Compiled(math.nan, math.nan, math.nan)
    account = [
        compiled(g, *a, nonlinear=nonlinear, while_trips=t, repeats=repeats) if xla else nothing
        for (g, a), t in both
    ]
    omegas = [o for o in omega_table(max(nonlinear, 1.0), p).values() if o.expanded]
    bound = max(o.reverse if mode == "reverse" else o.forward for o in omegas)
    found = Ratio(costs[0], costs[1], (account[0], account[1]), bound, {}, mode)
    if mode == "reverse" and found.value.known and found.derivative.known and not found.within:
        found = Ratio(
            found.value, found.derivative, found.compiled, bound,
            _blame(value, found, nonlinear, xla), mode,
        )  # fmt: skip
    return found


def _over(a: float, b: float) -> float:
    return a / b if b else math.nan


def _reverse(f: Callable, args: tuple, which: tuple[int, ...]) -> _Program:
    return _Program(jax.value_and_grad(f, which), args)


def _forward(f: Callable, args: tuple, which: tuple[int, ...], p: int) -> _Program:
    """The value, and p derivatives along directions that are arguments."""
    chosen = [args[i] for i in which]
    ways = jax.tree.map(lambda a: jnp.ones((p, *jnp.shape(a)), jnp.result_type(a)), chosen)

    def derivative(ways: Any, *args: Any) -> Any:
        def of(*chosen: Any) -> Any:
            full = list(args)
            for i, value in zip(which, chosen, strict=True):
                full[i] = value
            return f(*full)

        at = tuple(args[i] for i in which)
        return jax.vmap(lambda way: jax.jvp(of, at, tuple(way)), out_axes=(None, 0))(ways)

    return _Program(derivative, (ways, *args))


# Who is to blame


def _blame(value: _Program, found: Ratio, nonlinear: float, xla: bool) -> dict[str, float]:
    program, _, _ = programs.trace(value.f, *value.args)
    by_itself: dict[str, float] = {}
    for equation in _distinct(program):
        local = _alone(equation, nonlinear, xla)
        name = _name(equation)
        if local > found.bound * (1 + 1e-9):
            by_itself[name] = max(local, by_itself.get(name, 0.0))
    if by_itself:
        return dict(sorted(by_itself.items(), key=lambda item: -item[1]))
    largest = sorted(found.derivative.by_primitive.items(), key=lambda item: -item[1])[:3]
    total = found.value.total
    return {f"{name} of the derivative": operations / total for name, operations in largest}


def _name(equation: JaxprEqn) -> str:
    if equation.primitive.name in UNITS:
        name = equation.params["call_jaxpr"].jaxpr.debug_info.func_name
        return f"{equation.primitive.name} {name}"
    return equation.primitive.name


def _distinct(program: ClosedJaxpr) -> Iterator[JaxprEqn]:
    """One equation of each kind (primitive, shapes, parameters) that computes and is smooth."""
    seen = set()
    for equation in _units(program):
        kind = (equation.primitive.name, str(equation.params), *map(str, _shapes(equation)))
        if kind not in seen and equation.primitive.name not in FREE:
            seen.add(kind)
            yield equation


def _units(program: ClosedJaxpr) -> Iterator[JaxprEqn]:
    for equation in programs.live(program.jaxpr):
        parts = () if equation.primitive.name in UNITS else programs.inner(equation)
        if not parts:
            yield equation
        for part in parts:
            yield from _units(part)


def _shapes(equation: JaxprEqn) -> list[Any]:
    return [v.aval for v in equation.invars]


def _alone(equation: JaxprEqn, nonlinear: float, xla: bool) -> float:
    """The ratio of one equation, differentiated in its inputs that are not constants."""
    constant = {i: v.val for i, v in enumerate(equation.invars) if isinstance(v, Constant)}
    moving = [
        i
        for i, aval in enumerate(_shapes(equation))
        if i not in constant and jnp.issubdtype(aval.dtype, jnp.floating)
    ]
    out = equation.outvars[0].aval
    if not moving or not jnp.issubdtype(out.dtype, jnp.floating):  # pyright: ignore[reportAttributeAccessIssue]
        return 0.0
    given = {
        i: jnp.ones(aval.shape, aval.dtype)
        for i, aval in enumerate(_shapes(equation))
        if i not in constant
    }

    def value(given: dict[int, Any]) -> Any:
        full = {**constant, **given}
        return programs.evaluate(equation, [full[i] for i in range(len(equation.invars))])[0]

    def derivative(given: dict[int, Any], cotangent: Any) -> Any:
        fixed = {i: a for i, a in given.items() if i not in moving}
        chosen = {i: given[i] for i in moving}
        result, pull = jax.vjp(lambda chosen: value({**fixed, **chosen}), chosen)
        return result, pull(cotangent)

    cotangent = jnp.ones(out.shape, out.dtype)  # pyright: ignore[reportAttributeAccessIssue]
    both = ((value, (given,)), (derivative, (given, cotangent)))
    one, two = (count(g, *a, nonlinear=nonlinear).total for g, a in both)
    local = _over(two, one)
    if xla:
        one, two = (compiled(g, *a, nonlinear=nonlinear).flops for g, a in both)
        local = max(local, _over(two, one) if one else 0.0)
    return local if not math.isnan(local) else 0.0
