"""What Sinkhorn costs: the solve, its derivative, and one iteration against its exponentials.

    OPENBLAS_NUM_THREADS=1 taskset -c 0 python benchmarks/sinkhorn.py [--repeats 5] [--pot]

Squared distances of uniform points in the unit square, random weights, ε = r·mean(C), float64.
Times are medians of the process's CPU seconds, compilation excluded: on a core that is shared they
are what wall time would be on one that is not. Pin the process to one core.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxns

jax.config.update("jax_enable_x64", True)
TARGETS = {0.1: 0.35, 0.01: 0.65, 0.001: 2.0}  # seconds to a marginal error of 1e-6


def instance(n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    random = np.random.default_rng(0)
    x, y = random.random((n, 2)), random.random((n, 2))
    a, b = random.random(n), random.random(n)
    cost = np.sum((x[:, None] - y) ** 2, axis=-1)
    return jnp.asarray(cost), jnp.asarray(a / a.sum()), jnp.asarray(b / b.sum())


def seconds(call: Callable, repeats: int) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(call())
        times.append(time.process_time() - start)
    return statistics.median(times)


def marginal_error(P: jax.Array, a: jax.Array, b: jax.Array) -> float:
    return float(jnp.sum(jnp.abs(P.sum(1) - a)) + jnp.sum(jnp.abs(P.sum(0) - b)))


def solves(n: int, repeats: int, pot: bool) -> None:
    """Time of a solve to the default tolerance and to a looser one, and of a backward pass."""
    C, a, b = instance(n)
    W = jnp.asarray(np.random.default_rng(1).normal(size=(n, n)))
    print(
        f"\n| n = {n}, r | solve | marginals | steps | status | tol=1e-4 | marginals | backward |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for r in TARGETS:
        epsilon = r * float(jnp.mean(C))

        def run(epsilon=epsilon, **stop):
            return jaxns.solve(jaxns.Transport(C, a, b, epsilon), stop=jaxns.Stop(**stop))

        sol, loose = run(), run(tol=1e-4)
        plan = lambda C, e=epsilon: jaxns.solve(jaxns.Transport(C, a, b, e)).x.plan  # noqa: E731
        _, pull = jax.vjp(plan, C)
        cells = [
            f"{r:g}",
            f"{seconds(run, repeats):.3f} s",
            f"{marginal_error(sol.x.plan, a, b):.0e}",
            f"{int(sol.steps)}",
            str(sol.status),
            f"{seconds(lambda run=run: run(tol=1e-4), repeats):.3f} s",
            f"{marginal_error(loose.x.plan, a, b):.0e}",
            f"{seconds(lambda pull=pull: pull(W), repeats):.3f} s",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
        if pot:
            against_pot(C, a, b, epsilon)


def against_pot(C: jax.Array, a: jax.Array, b: jax.Array, epsilon: float) -> None:
    import ot

    data = [np.asarray(z) for z in (a, b, C)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in ("sinkhorn", "sinkhorn_log"):
            start = time.process_time()
            P = ot.sinkhorn(*data, epsilon, method=method, stopThr=1e-7, numItermax=3000)
            took = time.process_time() - start
            error = marginal_error(jnp.asarray(P), a, b)
            print(f"| POT {method} | {took:.3f} s | {error:.0e} | | | | | |", flush=True)


def iteration(n: int, repeats: int) -> None:
    """One plain iteration in the log domain, over 2 n² exponentials, and one on the kernel."""
    C, a, b = instance(n)
    problem = jaxns.Transport(C, a, b, 0.01 * float(jnp.mean(C)))
    solver = jaxns.Sinkhorn(acceleration=False)
    loops = 20

    def repeated(body: Callable, start: jax.Array) -> Callable:
        compiled = jax.jit(lambda z: jax.lax.fori_loop(0, loops, lambda _, z: body(z), z))
        return lambda: compiled(start)

    def exponentials(z):
        each = jnp.exp(z[:, None] - C)
        return 1e-9 * jnp.sum(each, axis=1)

    log = repeated(lambda f: solver.step(problem, f), jnp.zeros(n))
    floor = repeated(exponentials, jnp.zeros(n))
    ratios, times = [], []
    for _ in range(repeats):
        of_log, of_floor = seconds(log, 1), 2 * seconds(floor, 1)
        ratios.append(of_log / of_floor)
        times.append((of_log, of_floor))
    of_log, of_floor = (statistics.median(t) / loops * 1e3 for t in zip(*times, strict=True))
    print(
        f"\none log iteration, n = {n}: {of_log:.2f} ms; its exponentials {of_floor:.2f} ms; "
        f"ratio {statistics.median(ratios):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pot", action="store_true", help="compare with POT")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {options.repeats} repeats")
    for n in (64, 256, 1000):
        solves(n, options.repeats, options.pot)
    for n in (256, 1000):
        iteration(n, options.repeats)


if __name__ == "__main__":
    main()
