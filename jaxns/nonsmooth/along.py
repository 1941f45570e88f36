"""Programs run on germs: along a ray, from just behind the point where it starts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, JaxprEqn

from jaxns.nonsmooth import programs
from jaxns.nonsmooth.germs import KINKS, Germ, moves, moving, still
from jaxns.nonsmooth.primitives import IDENTITIES, SMOOTH

HARMLESS = frozenset(("is_finite", "select_n"))  # where what they are told is: the kink is there


class Site(NamedTuple):
    """An equation with a kink: its primitive, and the line that it comes from."""

    primitive: str
    where: str


class UnknownRuleError(NotImplementedError):
    """A primitive whose one-sided derivative is not known."""


Seen = list[tuple[Site, Array]]  # the kinks on the way, with their margins


def run(program: ClosedJaxpr, inputs: Sequence[Germ], watch: bool) -> tuple[list[Germ], Seen]:
    """The germs of the results.

    watch: also the margin of every equation with a kink; then a primitive without a rule is seen
        with the margin NaN, and raises nothing.
    """
    seen: Seen = []

    def rule(equation: JaxprEqn, values: list[Germ]) -> Sequence[Germ]:
        results, also = _equation(equation, values, watch)
        for site, margin in also:  # a program that is not the user's: where it is called
            place = site.where or programs.where(equation)
            seen.append((Site(site.primitive, place), margin))
        return results

    return programs.interpret(program, inputs, rule, still), seen


def _equation(equation: JaxprEqn, values: list[Germ], watch: bool) -> tuple[Sequence[Germ], Seen]:
    name = equation.primitive.name
    if not any(map(moves, values)):
        return _as_it_is(equation, values), []
    if name in IDENTITIES:
        return values, []  # of the function: a choice between pieces is often made behind it
    if name in KINKS and not _smooth(equation):
        return _kink(equation, values, watch)
    if name in SMOOTH:
        return _expand(equation, values), []
    if name == "custom_jvp_call" and not has_kinks(equation):
        return _expand(equation, values), []
    if name == "custom_linear_solve" and not any(map(_kinks_in, equation.params["jaxprs"][:1])):
        return _expand(equation, values), []
    if name in LOOPS:
        return LOOPS[name](equation, values, watch)
    program = programs.called(equation)
    if program is not None and not (_implicit(equation) or name == "custom_linear_solve"):
        return run(program, values, watch)
    site = Site(name, programs.where(equation))
    if watch:
        return [moving(still(v)) if _floats(v) else still(v) for v in _values(equation, values)], [
            (site, jnp.asarray(jnp.nan))
        ]
    raise UnknownRuleError(
        f"no one-sided rule for the primitive {name!r} ({site.where}): use method='nearby', which "
        "differentiates beside the kink, or write it with max, min, abs, where, sort"
    )


def _implicit(equation: JaxprEqn) -> bool:
    """Whether it is a rule in place of a loop that stops at a tolerance, as that of a solve is."""
    inside = (e.primitive.name for p in programs.inner(equation) for e in programs.equations(p))
    return equation.primitive.name in ("custom_jvp_call", "custom_vjp_call") and "while" in inside


def is_known(name: str) -> bool:
    """Whether there is a margin for every kink that the primitive has."""
    return name in KINKS


def has_kinks(equation: JaxprEqn) -> bool:
    """Whether there is, in it or in the programs that it runs, what may have a kink."""
    parts = programs.inner(equation)
    if parts:
        return any(map(_kinks_in, parts))
    name = equation.primitive.name
    return name not in HARMLESS and not (name in SMOOTH and _smooth(equation))


def _kinks_in(program: ClosedJaxpr) -> bool:
    return any(has_kinks(equation) for equation in programs.closed(program).jaxpr.eqns)


def _smooth(equation: JaxprEqn) -> bool:
    """Of what is in SMOOTH: sqrt ends at 0, and a conversion may round."""
    name = equation.primitive.name
    if name == "convert_element_type":
        return bool(jnp.issubdtype(equation.params["new_dtype"], jnp.floating))
    return name not in KINKS


def _floats(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _values(equation: JaxprEqn, inputs: Sequence[Germ]) -> list[Any]:
    return programs.evaluate(equation, [germ[0] for germ in inputs])


def _as_it_is(equation: JaxprEqn, inputs: Sequence[Germ]) -> list[Germ]:
    return [still(value) for value in _values(equation, inputs)]


def _kink(equation: JaxprEqn, values: list[Germ], watch: bool) -> tuple[Sequence[Germ], Seen]:
    name = equation.primitive.name
    kink = KINKS[name]
    results = kink.after(equation, *values)
    itself = name in ("eq", "ne") and equation.invars[0] is equation.invars[1]  # x != x: is NaN
    if not watch or name in HARMLESS or itself:
        return results, []
    margin = jnp.min(kink.margin(equation, *(germ[0] for germ in values)), initial=jnp.inf)
    return results, [(Site(name, programs.where(equation)), margin)]


def _expand(equation: JaxprEqn, inputs: Sequence[Germ]) -> list[Germ]:
    """Of a smooth f: f(c₀), f′(c₀) c₁ and f″(c₀)[c₁, c₁] + f′(c₀) c₂."""
    values = _values(equation, inputs)
    floating = [i for i, value in enumerate(values) if _floats(value)]
    if not floating:
        return [still(value) for value in values]
    moved = [i for i, germ in enumerate(inputs) if moves(germ)]
    c0, c1, c2 = zip(*(inputs[i] for i in moved), strict=True)

    def f(*points: Array) -> list[Array]:
        given = dict(zip(moved, points, strict=True))
        found = programs.evaluate(equation, [given.get(i, g[0]) for i, g in enumerate(inputs)])
        return [found[i] for i in floating]

    def slope(points: Any, rates: Any) -> tuple[list[Array], list[Array]]:
        return jax.jvp(f, points, rates)

    (zeroth, once), (_, twice) = jax.jvp(slope, (c0, c1), (c1, c2))
    made = dict(zip(floating, zip(zeroth, once, twice, strict=True), strict=True))
    return [made.get(i, still(value)) for i, value in enumerate(values)]


# Loops and branches: their germs are carried, and so are the margins.


def _carried(body: Callable, start: list[Germ], *others: Any) -> tuple[list[Germ], list[Site]]:
    """The start with those germs written out that move at some step; and the sites of the body."""
    sites: list[Site] = []
    while True:

        def shapes(start: Any, others: Any) -> Any:
            after, seen = body(start, *others)
            sites[:] = [site for site, _ in seen]
            return after

        after = jax.eval_shape(shapes, start, others)
        grown = [
            moving(germ) if moves(then) else germ for germ, then in zip(start, after, strict=True)
        ]
        if all(moves(a) == moves(b) for a, b in zip(start, grown, strict=True)):
            return [tuple(map(jnp.asarray, germ)) for germ in start], sites
        start = grown


def _fit(after: Sequence[Germ], before: Sequence[Germ]) -> list[Germ]:
    return [moving(a) if moves(b) else a for a, b in zip(after, before, strict=True)]


def _margins(seen: Seen) -> Array:
    dtype = jnp.result_type(float)
    return jnp.stack([m.astype(dtype) for _, m in seen]) if seen else jnp.zeros(0, dtype)


def _closest(a: Array, b: Array) -> Array:
    return jnp.where(jnp.isnan(a) | jnp.isnan(b), jnp.nan, jnp.minimum(a, b))


def _scan(equation: JaxprEqn, values: list[Germ], watch: bool) -> tuple[Sequence[Germ], Seen]:
    params = equation.params
    consts, carry, xs = _split(values, *programs.scanned(equation))
    if not watch and not has_kinks(equation):
        return _expand(equation, values), []

    def body(carry: list[Germ], x: list[Germ]) -> tuple[list[Germ], Seen]:
        results, seen = run(params["jaxpr"], [*consts, *carry, *x], watch)
        return results, seen

    def only_carry(carry: list[Germ], x: list[Germ]) -> tuple[list[Germ], Seen]:
        results, seen = body(carry, x)
        return results[: len(carry)], seen

    slices = [
        tuple(jax.ShapeDtypeStruct(c.shape[1:], c.dtype) for c in map(jnp.asarray, germ))
        for germ in xs
    ]
    start, sites = _carried(only_carry, carry, slices)

    def step(carry: list[Germ], x: list[Germ]) -> tuple[list[Germ], tuple[list[Germ], Array]]:
        results, seen = body(carry, x)
        after, ys = results[: len(carry)], results[len(carry) :]
        return _fit(after, carry), (ys, _margins(seen))

    last, (ys, margins) = lax.scan(
        step, start, xs, length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return [*last, *ys], _seen(sites, jnp.min(margins, 0, initial=jnp.inf))


def _while(equation: JaxprEqn, values: list[Germ], watch: bool) -> tuple[Sequence[Germ], Seen]:
    params = equation.params
    for_condition, for_body, carry = _split(values, params["cond_nconsts"], params["body_nconsts"])

    def again(carry: list[Germ]) -> tuple[list[Germ], Seen]:
        return run(params["cond_jaxpr"], [*for_condition, *carry], watch)

    def step(carry: list[Germ]) -> tuple[list[Germ], Seen]:
        return run(params["body_jaxpr"], [*for_body, *carry], watch)

    start, sites = _carried(step, carry)
    (_, first), inside = again(start), len(sites)
    sites = [*sites, *(site for site, _ in first)]

    def body(state: tuple[list[Germ], Array]) -> tuple[list[Germ], Array]:
        carry, margins = state
        results, seen = step(carry)
        after = _fit(results, carry)
        return after, _closest(margins, _margins([*seen, *again(after)[1]]))

    margins = jnp.concatenate([jnp.full(inside, jnp.inf, jnp.result_type(float)), _margins(first)])
    last, margins = lax.while_loop(lambda state: again(state[0])[0][0][0], body, (start, margins))
    return last, _seen(sites, margins)


def _cond(equation: JaxprEqn, values: list[Germ], watch: bool) -> tuple[Sequence[Germ], Seen]:
    (which, *operands), branches = values, equation.params["branches"]
    operands = [tuple(map(jnp.asarray, germ)) for germ in operands]
    found: list[tuple[list[Germ], list[Site]]] = []

    def shapes(branch: ClosedJaxpr) -> Callable:
        def of(operands: list[Germ]) -> list[Germ]:
            results, seen = run(branch, operands, watch)
            found.append((results, [site for site, _ in seen]))
            return results

        return of

    for branch in branches:
        jax.eval_shape(shapes(branch), operands)
    moved = [any(map(moves, column)) for column in zip(*(r for r, _ in found), strict=True)]
    sites = [site for _, here in found for site in here]

    def take(k: int) -> Callable:
        before = sum(len(here) for _, here in found[:k])

        def of(operands: list[Germ]) -> tuple[list[Germ], Array]:
            results, seen = run(branches[k], operands, watch)
            margins = jnp.full(len(sites), jnp.inf, jnp.result_type(float))
            margins = margins.at[before : before + len(seen)].set(_margins(seen))
            wide = [moving(g) if m else g for g, m in zip(results, moved, strict=True)]
            return [tuple(map(jnp.asarray, germ)) for germ in wide], margins

        return of

    index = jnp.clip(which[0].astype(jnp.int32), 0, len(branches) - 1)
    results, margins = lax.switch(index, [take(k) for k in range(len(branches))], operands)
    return results, _seen(sites, margins)


def _seen(sites: list[Site], margins: Array) -> Seen:
    return [(site, margins[i]) for i, site in enumerate(sites)]


def _split(values: list[Germ], first: int, second: int) -> tuple[list, list, list]:
    return values[:first], values[first : first + second], values[first + second :]


LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
