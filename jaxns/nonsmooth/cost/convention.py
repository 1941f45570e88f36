"""How many operations an equation is: the convention that every count here states."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import JaxprEqn

from jaxns.nonsmooth import primitives

CONVENTION = (
    "one operation for each number of +, −, ×, max, min, |·|, a comparison or a choice; "
    "{nonlinear:g} for exp, log, tanh, 1/x, …; n log₂ n for sorting n; none for moving numbers"
)


def operations(equation: JaxprEqn, nonlinear: float) -> float | None:
    """Of an equation that runs no other program; None where the primitive is not known."""
    name = equation.primitive.name
    if name in primitives.FREE:
        return 0.0
    if name in primitives.SMOOTH_ARITHMETIC | primitives.PIECEWISE_ARITHMETIC:
        return float(_out(equation))
    if name in primitives.NONLINEAR:
        return nonlinear * _out(equation)
    if name in primitives.SMOOTH_REDUCTIONS | primitives.PIECEWISE_REDUCTIONS:
        return float(max(_in(equation) - _out(equation), 0))
    rule = RULES.get(name)
    return None if rule is None else float(rule(equation, nonlinear))


def _shape(equation: JaxprEqn, i: int = 0) -> Sequence[int]:
    return equation.invars[i].aval.shape  # pyright: ignore[reportAttributeAccessIssue]


def _in(equation: JaxprEqn) -> int:
    return math.prod(_shape(equation))


def _out(equation: JaxprEqn) -> int:
    return math.prod(equation.outvars[0].aval.shape)  # pyright: ignore[reportAttributeAccessIssue]


def _power(equation: JaxprEqn, nonlinear: float) -> float:
    """Squarings and products; a reciprocal if the exponent is negative."""
    y = equation.params["y"]
    products = abs(y).bit_length() + abs(y).bit_count() - 2 if y else 0
    return _out(equation) * (products + nonlinear * (y < 0))


def _product(equation: JaxprEqn, _: float) -> float:
    """K products and K − 1 sums for each entry."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    length = math.prod(_shape(equation)[i] for i in contracted)
    return _out(equation) * max(2 * length - 1, 0)


def _convolution(equation: JaxprEqn, _: float) -> float:
    kernel = _shape(equation, 1)
    channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return _out(equation) * (2 * math.prod(kernel) // channels - 1)


def _window(equation: JaxprEqn, _: float) -> float:
    return _out(equation) * (math.prod(equation.params["window_dimensions"]) - 1)


def _of_window(equation: JaxprEqn, _: float) -> float:
    """Each window is searched, and one of its numbers gets one addend."""
    return _in(equation) * math.prod(equation.params["window_dimensions"])


def _sorting(equation: JaxprEqn, _: float) -> float:
    length = max(_shape(equation)[equation.params["dimension"]], 1)
    return _in(equation) * math.log2(length)


def _top(equation: JaxprEqn, _: float) -> float:
    return _in(equation) * math.log2(max(equation.params["k"], 2))


def _updates(equation: JaxprEqn, _: float) -> float:
    return math.prod(_shape(equation, 2))


def _fourier(equation: JaxprEqn, _: float) -> float:
    lengths = math.prod(equation.params["fft_lengths"])
    return 5 * max(_in(equation), _out(equation)) * math.log2(max(lengths, 2))


def _matrix(of: Callable[[int, int], float]) -> Callable[[JaxprEqn, float], float]:
    """To leading order in the rows m and columns n, for each matrix of a stack."""

    def rule(equation: JaxprEqn, _: float) -> float:
        *stack, m, n = _shape(equation)
        return math.prod(stack) * of(m, n)

    return rule


def _triangular(equation: JaxprEqn, _: float) -> float:
    """n² for each right-hand side."""
    return math.prod(_shape(equation, 1)) * _shape(equation)[-1]


def _cumulative(equation: JaxprEqn, _: float) -> float:
    return _in(equation)


RULES: dict[str, Callable[[JaxprEqn, float], Any]] = {
    "div": lambda equation, nonlinear: _out(equation) * (1 + nonlinear),  # a (1/b)
    "one_minus_square": lambda equation, _: 2 * _out(equation),
    "integer_pow": _power,
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    "cummax": _cumulative,
    "cummin": _cumulative,
    "cumprod": _cumulative,
    "cumsum": _cumulative,
    "cumlogsumexp": lambda equation, nonlinear: _in(equation) * (3 + 2 * nonlinear),
    "reduce_window_max": _window,
    "reduce_window_min": _window,
    "reduce_window_sum": _window,
    "select_and_gather_add": _window,
    "select_and_scatter_add": _of_window,
    "sort": _sorting,
    "top_k": _top,
    "scatter-add": _updates,
    "scatter-max": _updates,
    "scatter-min": _updates,
    "scatter-mul": _updates,
    "fft": _fourier,
    "cholesky": _matrix(lambda _, n: n**3 / 3),
    "lu": _matrix(lambda m, n: max(m, n) * min(m, n) ** 2 - min(m, n) ** 3 / 3),
    "qr": _matrix(lambda m, n: 2 * max(m, n) * min(m, n) ** 2 - 2 * min(m, n) ** 3 / 3),
    "geqrf": _matrix(lambda m, n: 2 * max(m, n) * min(m, n) ** 2 - 2 * min(m, n) ** 3 / 3),
    "householder_product": _matrix(lambda m, n: 2 * m * n**2 - 2 * n**3 / 3),
    "eigh": _matrix(lambda _, n: 9 * n**3),
    "svd": _matrix(lambda m, n: 6 * max(m, n) * min(m, n) ** 2 + 20 * min(m, n) ** 3),
    "triangular_solve": _triangular,
}
