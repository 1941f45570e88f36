"""Paths of penalties.

A lasso's solutions for 100 penalties, from just below the one that gives zero to its hundredth, in
one call: `jaxns.batch.path` with `WorkingSet`, alone and with all the derivatives ∂xᵢ/∂λᵢ, beside
`celer_path` and scikit-learn's `lasso_path`, at two of their tolerances. "apart" is the largest
distance of a solution from ours at `tol=1e-12`, relative. Each column is in CPU seconds; the first
call of ours compiles.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from benchmarks.frame import Findings, Options, Table
from benchmarks.peers import data
from benchmarks.timing import in_turns, medians, ratio, seconds
from jaxns.functions import L1, LeastSquares

REPEATS = 5
CASES = {
    "diab2": lambda: data.diabetes(2),
    "diab3": lambda: data.diabetes(3),
    "corr500x5000": lambda: data.correlated(500, 5000),
}
TOLERANCES = (1e-6, 1e-10)


def ours(X: Any, y: Any, tol: float) -> tuple[Callable, Callable]:
    """(penalties) -> solutions; and -> solutions, derivatives."""
    f, both = LeastSquares(X, y, scale="mean"), jaxns.Implicit(direction="both")

    def solutions(penalties):
        return jaxns.batch.path(
            lambda penalty: jaxns.Composite(f, L1(penalty)),
            jaxns.WorkingSet(),
            over=penalties,
            mode=both,
            stop=jaxns.Stop(tol=tol, on_failure="nan"),
        ).x

    def with_slopes(penalties):
        return jax.jvp(solutions, (penalties,), (jnp.ones_like(penalties),))

    return jax.jit(solutions), jax.jit(with_slopes)


def peers(X: np.ndarray, y: np.ndarray, penalties: np.ndarray) -> dict[str, Callable]:
    """Solutions by row, by each that is installed."""
    from sklearn.linear_model import lasso_path

    X, found = np.asfortranarray(X), {}
    for tol in TOLERANCES:
        options = {"alphas": penalties, "tol": tol}
        if find_spec("celer"):
            from celer import celer_path

            found[f"celer, {tol:.0e}"] = lambda o=options: celer_path(X, y, "lasso", **o)[1].T
        found[f"scikit-learn, {tol:.0e}"] = lambda o=options: (
            lasso_path(X, y, max_iter=100_000, **o)[1].T
        )
    return found


def measure(table: Table, name: str, options: Options) -> dict[str, Any]:
    split = CASES[name]()
    X, y = np.asarray(split.X), split.y
    most = np.max(np.abs(X.T @ y)) / len(y)
    penalties = most * np.geomspace(0.99, 0.01, 10 if options.reduced else 100)
    solutions, with_slopes = ours(jnp.asarray(X), jnp.asarray(y), 1e-8)
    calls = {
        "jaxns": lambda: solutions(penalties),
        "jaxns, with derivatives": lambda: with_slopes(penalties),
        **peers(X, y, penalties),
    }
    first = {way: seconds(call) for way, call in calls.items() if way.startswith("jaxns")}
    times = in_turns(calls, options.repeats)
    sharp = np.asarray(ours(jnp.asarray(X), jnp.asarray(y), 1e-12)[0](penalties))
    size = np.linalg.norm(sharp, axis=1)

    def apart(x):
        return np.max(np.linalg.norm(np.asarray(x) - sharp, axis=1) / size)

    found = {}
    for way, call in calls.items():
        x = call()[0] if "derivatives" in way else call()
        took, over = medians(times)[way], ratio(times, way, "jaxns")
        found[way] = {"seconds": took, "over": over, "apart": apart(x), "first": first.get(way)}
        compiled = f"{first[way]:.1f}" if way in first else ""
        table.row(name, way, f"{took:.3g}", f"{over:.2f}", f"{apart(x):.0e}", compiled)
    return found


def run(options: Options) -> Findings:
    table = Table(("data", "by", "CPU s", "over ours", "apart", "first call, CPU s"))
    cases = list(CASES)[:1] if options.reduced else list(CASES)
    numbers = {name: measure(table, name, options) for name in options.chosen(cases)}
    return Findings([table], numbers=numbers)
