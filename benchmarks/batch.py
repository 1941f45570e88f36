"""Many problems: lanes that leave when they have converged, against `vmap` and `lax.map`.

    OPENBLAS_NUM_THREADS=1 python benchmarks/batch.py [--sizes 32 256] [--repeats 5] [--gradient]

Ratios are medians over the repeats of those within one repeat, compilation excluded: of the
process's CPU seconds on a CPU, else of wall time. Steps are counted: the first column is what a
loop makes, the sum over the problems; under `vmap` every lane makes those of the slowest.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxns
from jaxns.functions import L1, LeastSquares, Logistic

jax.config.update("jax_enable_x64", True)
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


def seconds(call: Callable, data: Any) -> float:
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    start = clock()
    jax.block_until_ready(call(data))
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gradient", action="store_true", help="of a sum over the solutions")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    print(f"{device.platform}: {device.device_kind}, jax {jax.__version__}\n")
    print("| problems | steps in all | slowest × number | batch, ms | / map | / vmap | first |")
    print("|---|---|---|---|---|---|---|")
    for name, (make, solver) in CASES.items():
        for size in arguments.sizes:
            build, data = make(size)
            calls = ways(build, solver, arguments.gradient)
            first = {way: seconds(call, data) for way, call in calls.items()}
            rounds = [
                {way: seconds(call, data) for way, call in calls.items()}
                for _ in range(arguments.repeats)
            ]
            found = calls["batch"](data)
            steps = np.asarray(found[0][1] if arguments.gradient else found)
            ratio = {
                way: statistics.median(r["batch"] / r[way] for r in rounds)
                for way in ("map", "vmap")
            }
            cells = [
                f"{size} × {name}",
                str(steps.sum()),
                str(steps.max() * size),
                f"{1e3 * statistics.median(r['batch'] for r in rounds):.1f}",
                *(f"{ratio[way]:.2f}" for way in ("map", "vmap")),
                ", ".join(f"{way} {spent:.1f} s" for way, spent in first.items()),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
