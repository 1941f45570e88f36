"""Many problems.

`jaxns.batch.solve`, in which lanes leave when they have converged, beside `jax.lax.map` and
`jax.vmap` of `jaxns.solve`, to `tol=1e-8`. Steps are counted: the first column is what a loop
makes, the sum over the problems; under `vmap` every lane makes those of the slowest. "First" is a
first call, mostly compilation. Every 32nd transport problem has a 20th of the others' ε.

On a few cores lanes gain little from standing side by side; what is gained is that nobody waits for
the slowest. Compiling two loops takes longer than compiling one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxns
from benchmarks.frame import Findings, Options, Table
from benchmarks.timing import in_turns, medians, ratio, seconds
from jaxns.functions import L1, LeastSquares, Logistic

REPEATS = 5
STOP = jaxns.Stop(tol=1e-8, on_failure="nan")


def lasso(count: int, rows: int = 100, columns: int = 50) -> tuple[Callable, Any]:
    """Designs with correlations in [0, 0.9], penalties over a decade."""
    random = np.random.default_rng(0)
    shared = random.random((count, 1, 1)) * 0.9
    A = np.sqrt(1 - shared) * random.standard_normal((count, rows, columns))
    A += np.sqrt(shared) * random.standard_normal((count, rows, 1))
    x = random.standard_normal((count, columns)) * (random.random((count, columns)) < 0.2)
    b = np.einsum("bnp,bp->bn", A, x) + 0.1 * random.standard_normal((count, rows))
    most = np.abs(np.einsum("bnp,bn->bp", A, b)).max(1)
    penalty = most * 10 ** random.uniform(-2, -1, count)
    data = tuple(map(jnp.asarray, (A, b, penalty)))
    return lambda item: jaxns.Composite(LeastSquares(*item[:2]), L1(item[2])), data


def logistic(count: int, rows: int = 200, columns: int = 30) -> tuple[Callable, Any]:
    random = np.random.default_rng(1)
    A = random.standard_normal((count, rows, columns))
    y = np.sign(A[..., 0] + 0.5 * random.standard_normal((count, rows)))
    penalty = 10 ** random.uniform(-3, -1, count)
    data = tuple(map(jnp.asarray, (A, y, penalty)))
    return lambda item: jaxns.Composite(Logistic(*item[:2], scale="mean"), L1(item[2])), data


def transport(count: int, n: int = 64) -> tuple[Callable, Any]:
    """Points in the unit square; ε = 0.1 of the mean cost, and for one problem of 32 a 200th."""
    random = np.random.default_rng(2)
    x, y = random.random((2, count, n, 2))
    cost = np.sum((x[:, :, None] - y[:, None]) ** 2, axis=-1)
    share = np.full(count, 0.1)
    share[::32] = 0.005
    epsilon = share * cost.mean((1, 2))
    marginal = np.full((count, n), 1 / n)
    data = tuple(map(jnp.asarray, (cost, marginal, marginal, epsilon)))
    return lambda item: jaxns.Transport(*item), data


CASES = {
    "lasso 100 × 50": (lasso, jaxns.ForwardBackward()),
    "logistic 200 × 30": (logistic, jaxns.ForwardBackward()),
    "transport 64 × 64": (transport, jaxns.Sinkhorn()),
}


def ways(build: Callable, solver: Any, gradient: bool) -> dict[str, Callable]:
    def answer(solution):
        return solution.x.plan if hasattr(solution.x, "plan") else solution.x

    def alone(item):
        return jaxns.solve(build(item), solver, stop=STOP)

    solves = {
        "batch": lambda data: jaxns.batch.solve(build, solver, over=data, stop=STOP),
        "vmap": jax.vmap(alone),
        "map": lambda data: lax.map(alone, data),
    }

    def with_gradient(solve):
        def total(data):
            solution = solve(data)
            return jnp.sum(jnp.sin(answer(solution))), solution.steps

        return jax.jit(jax.value_and_grad(total, has_aux=True))

    if gradient:
        return {name: with_gradient(solve) for name, solve in solves.items()}
    return {name: jax.jit(lambda data, s=solve: s(data).steps) for name, solve in solves.items()}


def measure(table: Table, name: str, size: int, gradient: bool, repeats: int) -> dict[str, Any]:
    make, solver = CASES[name]
    build, data = make(size)
    calls = {
        way: (lambda call=call: call(data)) for way, call in ways(build, solver, gradient).items()
    }
    first = {way: seconds(call) for way, call in calls.items()}
    times = in_turns(calls, repeats)
    found = calls["batch"]()
    steps = np.asarray(found[0][1] if gradient else found)
    cost = {way: ratio(times, "batch", way) for way in ("map", "vmap")}
    took = medians(times)["batch"]
    table.row(
        f"{size} × {name}",
        steps.sum(),
        steps.max() * size,
        f"{1e3 * took:.1f}",
        *(f"{cost[way]:.2f}" for way in ("map", "vmap")),
        ", ".join(f"{way} {spent:.1f} s" for way, spent in first.items()),
    )
    return {"steps": steps.sum(), "seconds": took, "over": cost, "first": first}


def run(options: Options) -> Findings:
    sizes = (8,) if options.reduced else (32, 256)
    columns = ("problems", "steps in all", "slowest × number", "batch, ms", "/ map", "/ vmap",
               "first")  # fmt: skip
    tables, numbers = [], {}
    for gradient in (False, True):
        table = Table(columns)
        if gradient:
            table.text = "With the gradient of a sum over the solutions, by `Implicit`:"
        for name in options.chosen(CASES):
            for size in sizes[:1] if gradient else sizes:
                what = f"{size} × {name}{', gradient' if gradient else ''}"
                numbers[what] = measure(table, name, size, gradient, options.repeats)
        tables.append(table)
    return Findings(tables, numbers=numbers)
