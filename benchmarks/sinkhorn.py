"""What entropic transport costs.

The solve to the default tolerance, its derivative, and one iteration against its exponentials:
squared distances of n uniform points in the unit square, random weights, ε = r·mean(C), float64.
POT is asked for 1e-7 and given 3000 iterations, which is not enough where r = 0.001; its marginal
error stands beside its time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from benchmarks.frame import Findings, Options, Table
from benchmarks.timing import chain, in_turns, medians, ratio, seconds

REPEATS = 5


def instance(n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    random = np.random.default_rng(0)
    x, y = random.random((n, 2)), random.random((n, 2))
    a, b = random.random(n), random.random(n)
    cost = np.sum((x[:, None] - y) ** 2, axis=-1)
    return jnp.asarray(cost), jnp.asarray(a / a.sum()), jnp.asarray(b / b.sum())


def marginal_error(P: jax.Array, a: jax.Array, b: jax.Array) -> float:
    return float(jnp.sum(jnp.abs(P.sum(1) - a)) + jnp.sum(jnp.abs(P.sum(0) - b)))


def solves(n: int, r: float, repeats: int) -> dict[str, Any]:
    """A solve to the default tolerance, a backward pass, and POT where it is installed."""
    C, a, b = instance(n)
    W = jnp.asarray(np.random.default_rng(1).normal(size=(n, n)))
    epsilon = r * float(jnp.mean(C))

    def solve():
        return jaxns.solve(jaxns.Transport(C, a, b, epsilon))

    plan = lambda C: jaxns.solve(jaxns.Transport(C, a, b, epsilon)).x.plan  # noqa: E731
    _, pull = jax.vjp(plan, C)
    calls = {"solve": solve, "backward": lambda: pull(W), **pot(C, a, b, epsilon)}
    found = {name: call() for name, call in calls.items()}
    plans = {"solve": found["solve"].x.plan} | {
        name: jnp.asarray(found[name]) for name in calls if name.startswith("POT")
    }
    slow = {name: call for name, call in calls.items() if name == "POT sinkhorn_log"}
    quick = {name: call for name, call in calls.items() if name not in slow}
    return {
        "steps": int(found["solve"].steps),
        "seconds": medians(in_turns(quick, repeats) | {k: [seconds(c)] for k, c in slow.items()}),
        "marginal error": {name: marginal_error(P, a, b) for name, P in plans.items()},
    }


def pot(C: jax.Array, a: jax.Array, b: jax.Array, epsilon: float) -> dict[str, Callable]:
    try:
        import ot
    except ModuleNotFoundError:
        return {}
    data = [np.asarray(z) for z in (a, b, C)]

    def by(method):
        return lambda: ot.sinkhorn(*data, epsilon, method=method, stopThr=1e-7, numItermax=3000)

    return {f"POT {method}": by(method) for method in ("sinkhorn", "sinkhorn_log")}


def iteration(n: int, repeats: int) -> float:
    """One plain iteration in the log domain, over its 2 n² exponentials."""
    C, a, b = instance(n)
    problem = jaxns.Transport(C, a, b, 0.01 * float(jnp.mean(C)))
    solver = jaxns.Sinkhorn(acceleration=False)

    def exponentials(z):
        for _ in range(2):
            z = 1e-9 * jnp.sum(jnp.exp(z[:, None] - C), axis=1)
        return z

    calls = {
        "log": chain(lambda f: solver.step(problem, f), jnp.zeros(n), 20),
        "floor": chain(exponentials, jnp.zeros(n), 20),
    }
    return ratio(in_turns(calls, repeats), "log", "floor")


def run(options: Options) -> Findings:
    table = Table(
        ("n, r", "solve", "marginal error", "Newton steps", "backward", "POT `sinkhorn`",
         "POT `sinkhorn_log`")
    )  # fmt: skip
    numbers = {}
    for n in (32, 64) if options.reduced else (256, 1000):
        for r in (0.1, 0.01) if options.reduced else (0.1, 0.01, 0.001):
            found = solves(n, r, options.repeats)
            took, error = found["seconds"], found["marginal error"]
            theirs = [
                f"{took[name]:.3f} s, {error[name]:.0e}" if name in took else "–"
                for name in ("POT sinkhorn", "POT sinkhorn_log")
            ]
            table.row(
                f"{n}, {r:g}", f"{took['solve']:.3f} s", f"{error['solve']:.0e}", found["steps"],
                f"{took['backward']:.3f} s", *theirs,
            )  # fmt: skip
            numbers[f"{n}, {r:g}"] = found
    floor = Table(("n", "log iteration / its exponentials"))
    for n in (64,) if options.reduced else (256, 1000):
        numbers[f"iteration, {n}"] = iteration(n, options.repeats)
        floor.row(n, f"{numbers[f'iteration, {n}']:.2f}")
    return Findings((table, floor), numbers=numbers)
