"""What a primitive with a kink does to values that have just begun to move.

A germ is c₀ + c₁ t + c₂ t²/2 for small t > 0: the tuple (c₀, c₁, c₂) of a value on its way, or
(c₀,) of one that stays. Germs are ordered as those values are, which is lexicographically. So

    max(a, b) = the larger germ,   |a| = a or −a,   a > b = whether it is so from t = 0⁺ on,

and relu′(0; v) = max(v, 0), |·|′(0; v) = |v|, max′(tie; v, w) = max(v, w) come out (arXiv
2206.01730, on directional derivatives). Two germs that agree in c₀, c₁ and c₂ count as equal.

Beside each rule stands the margin: how far the values are from where the rule changes its piece.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import JaxprEqn

Germ = tuple[Array, ...]
ORDER = 2


class Kink(NamedTuple):
    """after(equation, *germs) -> germs of its results.   margin(equation, *values) -> Array."""

    after: Callable[..., Sequence[Germ]]
    margin: Callable[..., Array]


def moves(germ: Germ) -> bool:
    return len(germ) > 1


def moving(germ: Germ) -> Germ:
    """The same, with its coefficients written out."""
    value = jnp.asarray(germ[0])
    return (value, *germ[1:]) if moves(germ) else (value, *[jnp.zeros_like(value)] * ORDER)


def still(value: Any) -> Germ:
    return (value,)


def first(germ: Germ) -> Array:
    """The first coefficient that is not 0: its sign is that of the germ."""
    return reduce(lambda later, c: jnp.where(c != 0, c, later), germ[::-1])


def greater(a: Germ, b: Germ) -> Array:
    """a > b from t = 0⁺ on."""
    (c, *after), (d, *later) = a, b
    if not after:
        return c > d
    return (c > d) | ((c == d) & greater(tuple(after), tuple(later)))


def equal(a: Germ, b: Germ) -> Array:
    """a = b, as far as is known (a coefficient may be NaN at the end of a function's domain)."""
    same = [(c == d) | (jnp.isnan(c) & jnp.isnan(d)) for c, d in zip(a[1:], b[1:], strict=True)]
    return reduce(jnp.logical_and, same, a[0] == b[0])


def pick(condition: Any, a: Germ, b: Germ) -> Germ:
    return tuple(jnp.where(condition, c, d) for c, d in zip(a, b, strict=True))


def larger(a: Germ, b: Germ) -> Germ:
    _, *later = pick(greater(b, a), b, a)
    return (jnp.maximum(a[0], b[0]), *later)


def minus(a: Germ) -> Germ:
    return tuple(-c for c in a)


def smaller(a: Germ, b: Germ) -> Germ:
    return minus(larger(minus(a), minus(b)))


def _binary(operation: Callable[[Germ, Germ], Germ | Array]) -> Kink:
    """On two numbers at a time, with a kink where they are equal."""

    def after(_, a, b):
        found = operation(moving(a), moving(b))
        return [found if isinstance(found, tuple) else still(found)]

    return Kink(after, lambda _, a, b: jnp.abs(a - b))


def _unary(operation: Callable[[Germ], Germ], distance: Callable = jnp.abs) -> Kink:
    return Kink(lambda _, a, **__: [operation(moving(a))], lambda _, a: distance(a))


def _absolute(a: Germ) -> Germ:
    _, *later = pick(first(a) < 0, minus(a), a)
    return (jnp.abs(a[0]), *later)


def _root(a: Germ) -> Germ:
    """√ of 0 + 0 t + c t²/2 is √(c/2) t; elsewhere that of a number."""
    value = jnp.sqrt(a[0])
    slope, bend = a[1] / (2 * value), (a[2] - a[1] ** 2 / (2 * a[0])) / (2 * value)
    flat = (a[0] == 0) & (a[1] == 0)
    unknown = jnp.where(a[2] == 0, 0, jnp.nan)  # a third coefficient would tell
    return (
        value,
        jnp.where(flat, jnp.sqrt(a[2] / 2), slope),
        jnp.where(flat, unknown.astype(value.dtype), bend),
    )


def _floor(a: Germ) -> Germ:
    below = (a[0] == jnp.floor(a[0])) & (first((jnp.zeros_like(a[0]), *a[1:])) < 0)
    return still(jnp.floor(a[0]) - below)


def _ceil(a: Germ) -> Germ:
    return minus(_floor(minus(a)))


def _to_integer(a: Germ) -> Germ:
    return still(jnp.where(a[0] > 0, _floor(a)[0], _ceil(a)[0]))


def _whole(a: Array) -> Array:
    return jnp.abs(a - jnp.round(a))


def _clamp(_, low: Germ, a: Germ, high: Germ) -> list[Germ]:
    return [larger(moving(low), smaller(moving(a), moving(high)))]


def _convert(equation: JaxprEqn, a: Germ) -> list[Germ]:
    dtype = equation.params["new_dtype"]
    if jnp.issubdtype(dtype, jnp.floating):
        return [tuple(c.astype(dtype) for c in moving(a))]
    made = (first(a) != 0) if dtype == jnp.bool_ else _to_integer(moving(a))[0]
    return [still(made.astype(dtype))]


def _select(_, which: Germ, *cases: Germ) -> list[Germ]:
    """Of cases that differ in value the program jumps; what is found is the piece after that."""
    columns = zip(*map(moving, cases), strict=True)
    return [tuple(lax.select_n(which[0], *column) for column in columns)]


def _extreme(equation: JaxprEqn, a: Germ, sign: int) -> tuple[Germ, Array]:
    """The largest (or smallest) germ along some axes, and the mask of where it is taken."""
    axes = equation.params["axes"]
    tied, best = jnp.full(a[0].shape, True), []
    for c in a:
        among = jnp.where(tied, sign * c, -jnp.inf)
        best.append(jnp.max(among, axes, keepdims=True))
        tied = tied & ((among == best[-1]) | jnp.isnan(best[-1]))
    return tuple(sign * jnp.squeeze(c, axes) for c in best), tied


def _reduce(sign: int) -> Kink:
    def after(equation, a):
        return [_extreme(equation, moving(a), sign)[0]]

    return Kink(after, partial(_gap_at_top, sign))


def _arg(sign: int) -> Kink:
    def after(equation, a):
        (axis,) = equation.params["axes"]
        _, tied = _extreme(equation, moving(a), sign)
        return [still(lax.argmax(tied, axis, equation.params["index_dtype"]))]

    return Kink(after, partial(_gap_at_top, sign))


def _gap_at_top(sign: int, equation: JaxprEqn, a: Array) -> Array:
    axes = equation.params["axes"]
    rest = tuple(i for i in range(a.ndim) if i not in axes)
    rows = jnp.sort(
        sign * jnp.transpose(a, rest + tuple(axes)).reshape(*[a.shape[i] for i in rest], -1)
    )
    return rows[..., -1] - rows[..., -2] if rows.shape[-1] > 1 else jnp.full(1, jnp.inf, a.dtype)


def _sort(equation: JaxprEqn, *operands: Germ) -> list[Germ]:
    """By the germs of the keys; what moves is carried along with its coefficients."""
    params = equation.params
    keys = [c for germ in operands[: params["num_keys"]] for c in germ]
    rest = [c for germ in operands[params["num_keys"] :] for c in germ]
    columns = iter(
        lax.sort(
            (*keys, *rest), dimension=params["dimension"], num_keys=len(keys),
            is_stable=params["is_stable"],
        )
    )  # fmt: skip
    return [tuple(next(columns) for _ in germ) for germ in operands]


def _gap_in_order(equation: JaxprEqn, key: Array, *_: Array) -> Array:
    """The smallest distance of two neighbours."""
    axis = equation.params["dimension" if "dimension" in equation.params else "axis"]
    return jnp.diff(jnp.sort(key, axis), axis=axis)


def _top(equation: JaxprEqn, a: Germ) -> list[Germ]:
    axis, k = equation.params["axis"] % a[0].ndim, equation.params["k"]
    place = lax.broadcasted_iota(jnp.int32, a[0].shape, axis)
    columns = lax.sort((*minus(moving(a)), place), dimension=axis, num_keys=ORDER + 1)
    *top, index = (lax.slice_in_dim(column, 0, k, axis=axis) for column in columns)
    return [minus(tuple(top)), still(index)]


def _cumulative(sign: int) -> Kink:
    choose = larger if sign > 0 else smaller

    def after(equation, a):
        axis, back = equation.params["axis"], equation.params["reverse"]
        return [lax.associative_scan(choose, moving(a), back, axis)]

    def margin(equation, a):
        axis, back = equation.params["axis"], equation.params["reverse"]
        best = (lax.cummax if sign > 0 else lax.cummin)(a, axis, back)
        n = a.shape[axis]
        new, old = ((0, n - 1), (1, n)) if back else ((1, n), (0, n - 1))
        part = partial(lax.slice_in_dim, axis=axis)
        return jnp.abs(part(a, *new) - part(best, *old))

    return Kink(after, margin)


def _window(sign: int) -> Kink:
    """Of max-pooling: the largest (or smallest) germ of each window, and its lead in its window."""
    choose = larger if sign > 0 else smaller
    names = ["window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation"]

    def reduce(equation, numbers, start, by):
        start = tuple(jnp.asarray(s, n.dtype) for s, n in zip(start, numbers, strict=True))
        return lax.reduce_window(numbers, start, by, *(equation.params[name] for name in names))

    def after(equation, a):
        return [tuple(reduce(equation, moving(a), (-sign * jnp.inf, *[0] * ORDER), choose))]

    def best(a, b):
        (first, second), (other, next_one) = a, b
        behind = jnp.maximum(jnp.minimum(first, other), jnp.maximum(second, next_one))
        return jnp.maximum(first, other), behind

    def margin(equation, a):
        alone = jnp.full_like(a, -jnp.inf)
        first, second = reduce(equation, (sign * a, alone), (-jnp.inf, -jnp.inf), best)
        return jnp.where(second == -jnp.inf, jnp.inf, first - second)

    return Kink(after, margin)


def _scatter(sign: int) -> Kink:
    """Of x.at[i].max(u): each coefficient among those that tie in the coefficients before."""
    scatter = lax.scatter_max if sign > 0 else lax.scatter_min

    def after(equation, x, places, u):
        params, where = equation.params, places[0]
        to, mode = params["dimension_numbers"], params["mode"]
        x, u = moving(x), moving(u)
        tied, among, found = jnp.full(x[0].shape, True), jnp.full(u[0].shape, True), []
        for c, d in zip(x, u, strict=True):
            c, d = (jnp.where(t, n, -sign * jnp.inf) for t, n in ((tied, c), (among, d)))
            found.append(scatter(c, where, d, to, mode=mode))
            tied, among = tied & (c == found[-1]), among & (d == _at(found[-1], where, to, d, mode))
        return [tuple(found)]

    def margin(equation, x, where, u):
        params = equation.params
        to, mode = params["dimension_numbers"], params["mode"]
        best = scatter(x, where, u, to, mode=mode)
        lost = jnp.where(x == best, jnp.inf, jnp.abs(x - best))
        there = _at(best, where, to, u, mode)
        winners = lax.scatter_add(
            (x == best).astype(x.dtype), where, (u == there).astype(x.dtype), to, mode=mode
        )
        behind = jnp.where(u == there, jnp.inf, jnp.abs(u - there))
        second = lax.scatter_min(lost, where, behind, to, mode=mode)
        return jnp.where(winners > 1, 0, second)

    return Kink(after, margin)


def _at(x: Array, where: Array, to: lax.ScatterDimensionNumbers, u: Array, mode: Any) -> Array:
    """The entries of x that u was scattered to, in its shape."""
    axes = (
        to.update_window_dims, to.inserted_window_dims, to.scatter_dims_to_operand_dims,
        to.operand_batching_dims, to.scatter_indices_batching_dims,
    )  # fmt: skip
    back = lax.GatherDimensionNumbers(*map(tuple, axes))
    single = (*to.inserted_window_dims, *to.operand_batching_dims)
    windows = iter(u.shape[i] for i in to.update_window_dims)
    sizes = [1 if i in single else next(windows) for i in range(x.ndim)]
    return lax.gather(x, where, back, sizes, mode=mode, fill_value=jnp.nan)


def _never(_, *values: Array) -> Array:
    return jnp.full(1, jnp.inf, jnp.result_type(float))


KINKS: dict[str, Kink] = {
    "abs": _unary(_absolute),
    "sign": _unary(lambda a: still(jnp.sign(first(a)))),
    "max": _binary(larger),
    "min": _binary(smaller),
    "gt": _binary(greater),
    "lt": _binary(lambda a, b: greater(b, a)),
    "ge": _binary(lambda a, b: greater(a, b) | equal(a, b)),
    "le": _binary(lambda a, b: greater(b, a) | equal(a, b)),
    "eq": _binary(equal),
    "ne": _binary(lambda a, b: ~equal(a, b)),
    "clamp": Kink(_clamp, lambda _, low, a, high: jnp.minimum(jnp.abs(a - low), jnp.abs(a - high))),
    "floor": _unary(_floor, _whole),
    "ceil": _unary(_ceil, _whole),
    "sqrt": _unary(_root),
    "convert_element_type": Kink(_convert, lambda _, a: _whole(a)),
    "is_finite": Kink(lambda _, a: [still(jnp.isfinite(a[0]))], _never),
    "select_n": Kink(_select, _never),
    "reduce_max": _reduce(1),
    "reduce_min": _reduce(-1),
    "reduce_window_max": _window(1),
    "reduce_window_min": _window(-1),
    "scatter-max": _scatter(1),
    "scatter-min": _scatter(-1),
    "argmax": _arg(1),
    "argmin": _arg(-1),
    "sort": Kink(_sort, _gap_in_order),
    "top_k": Kink(_top, _gap_in_order),
    "cummax": _cumulative(1),
    "cummin": _cumulative(-1),
}
