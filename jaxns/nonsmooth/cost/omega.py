"""The nonsmooth cheap gradient theorem, operation by operation (arXiv 2206.01730)."""

from typing import NamedTuple

from jaxns import validate

ADD = MULTIPLY = TEST = 1.0


class Omega(NamedTuple):
    """One elementary function g of `arguments` variables.

    cost: of g.   derived: of g and an element of its conservative gradient together.
    reverse: ω_b = (derived + arguments (c_× + c_+)) / cost, whatever the dimension.
    forward: ω_f = (derived + p arguments c_× + p (arguments − 1) c_+) / cost, p directions at once.
    expanded: whether it is in the dictionary; otherwise it is to be written with those that are.
    """

    arguments: int
    cost: float
    derived: float
    reverse: float
    forward: float
    expanded: bool


def omega_table(nonlinear: float = 1.0, directions: int = 1) -> dict[str, Omega]:
    """ω of every elementary function: a derivative costs at most the largest times the program.

    nonlinear: the cost of exp, log, tanh, …, at least 1; +, ×, and a sign test cost 1.
    directions: p.

    The bound is 5 backwards and 3 p + 1 forwards for what is in the dictionary. A maximum or a
    quotient counted as one operation would break it: max(a, b) = b + relu(a − b) costs 3, and
    a/b = a (1/b) costs 1 + nonlinear.
    """
    c = validate.within("nonlinear", validate.scalar("nonlinear", nonlinear), 1, float("inf"))
    p = validate.positive("directions", validate.integer("directions", directions))
    rows = {  # arguments, cost, derived
        "a + b": (2, ADD, ADD),
        "a × b": (2, MULTIPLY, MULTIPLY),
        "a + constant": (1, ADD, ADD),
        "a × constant": (1, MULTIPLY, MULTIPLY),
        "relu, |a|": (1, TEST, 2 * TEST),
        "exp": (1, c, c),
        "log, √a, 1/a": (1, c, c + 1),
        "tanh, sigmoid": (1, c, c + 2),
        "max(a, b) as one": (2, 1.0, 2.0),
        "a/b as one": (2, 1.0, 4.0),
    }

    def omega(name: str, n: int, cost: float, derived: float) -> Omega:
        reverse = (derived + n * (MULTIPLY + ADD)) / cost
        forward = (derived + p * n * MULTIPLY + p * (n - 1) * ADD) / cost
        return Omega(n, cost, derived, reverse, forward, not name.endswith("as one"))

    return {name: omega(name, *row) for name, row in rows.items()}
