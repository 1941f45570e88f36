"""Many problems: lanes that leave when they have converged, against `vmap` and `lax.map`.

    OPENBLAS_NUM_THREADS=1 python benchmarks/batch.py [--sizes 32 256] [--repeats 5] [--gradient]
    python benchmarks/batch.py --throughput 100 1000 10000 100000 1000000 [--block 16384]

Ratios are medians over the repeats of those within one repeat, compilation excluded: of the
process's CPU seconds on a CPU, else of wall time. Steps are counted: the first column is what a
loop makes, the sum over the problems; under `vmap` every lane makes those of the slowest.

With `--throughput`: problems per second of wall time, of streams of blocks, beside those of our
peers that are installed, streamed in the same way under `vmap`. The clock starts when a first block
has come back, compiled and solved. "apart" is how far an answer lies from that of `tol=1e-10`,
relative, the median of a block; "of the bandwidth" is what our steps must read at least, against
what a sum over a long array reads in the same time here.
"""

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxns
from jaxns.functions import L1, LeastSquares, Logistic

jax.config.update("jax_enable_x64", True)
STOP = jaxns.Stop(tol=1e-8, on_failure="nan")
STREAMED, SHARP = (jaxns.Stop(tol=tol, on_failure="nan") for tol in (1e-6, 1e-10))


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


def program(count: int, n: int = 20, m: int = 40) -> tuple[Callable, Any]:
    """min ½ xᵀQx + qᵀx with Gx ≤ h, of which 0 is strictly inside."""
    random = np.random.default_rng(3)
    root = random.standard_normal((count, n, n))
    Q = root @ np.swapaxes(root, 1, 2) / n + 0.1 * np.eye(n)
    q = random.standard_normal((count, n))
    G, h = random.standard_normal((count, m, n)), random.uniform(0.5, 1.5, (count, m))
    data = tuple(map(jnp.asarray, (Q, q, G, h)))
    return lambda item: jaxns.QuadraticProgram(item[0], item[1], G=item[2], h=item[3]), data


def by_jaxopt(loss: Callable, tol: float) -> Callable:
    """min loss(x, A, b) + penalty ‖x‖₁.   tol: absolute, for an error like ours."""
    import jaxopt

    how = jaxopt.ProximalGradient(loss, jaxopt.prox.prox_lasso, tol=tol, maxiter=10_000)

    def solve(item):
        A, b, penalty = item
        return how.run(jnp.zeros(A.shape[1], A.dtype), penalty, A, b).params

    return jax.vmap(solve)


def by_osqp() -> Callable:
    import jaxopt

    how = jaxopt.OSQP(tol=1e-6)

    def solve(item):
        Q, q, G, h = item
        return how.run(params_obj=(Q, q), params_ineq=(G, h)).params.primal

    return jax.vmap(solve)


def by_qpax() -> Callable:
    import qpax

    def solve(item):
        Q, q, G, h = item
        return qpax.solve_qp(Q, q, jnp.zeros((0, q.size)), jnp.zeros(0), G, h)[0]

    return jax.vmap(solve)


def by_mpax() -> Callable:
    import mpax

    how = mpax.raPDHG(eps_abs=1e-6, eps_rel=1e-6)

    def solve(item):
        Q, q, G, h = item
        free = jnp.full(q.size, jnp.inf)
        none = jnp.zeros((0, q.size)), jnp.zeros(0)
        problem = mpax.create_qp(Q, q, *none, -G, -h, -free, free, use_sparse_matrix=False)
        quadratic = dataclasses.replace(problem, is_lp=False)  # not to be looked at under vmap
        return how.optimize(quadratic).primal_solution

    return jax.vmap(solve)


def by_ott() -> Callable:
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    def solve(item):
        cost, a, b, epsilon = item
        how = Sinkhorn(threshold=1e-6, max_iterations=100_000)
        return how(LinearProblem(Geometry(cost, epsilon=epsilon), a, b)).matrix

    return jax.vmap(solve)


def least_squares(x: jax.Array, A: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum((A @ x - b) ** 2) / 2


def logistic_loss(x: jax.Array, A: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(jnp.logaddexp(0, -y * (A @ x)))


# Of each kind: its problems, how they are solved, which part of a solution is compared, how many
# arrays as large as the first of the data a step must read, and our peers.
STREAMS = {
    "lasso 100 × 50": (
        lasso, None, lambda x: x, 2, {"jaxopt": lambda: by_jaxopt(least_squares, 1e-3)},
    ),
    "logistic 200 × 30": (
        logistic, None, lambda x: x, 2, {"jaxopt": lambda: by_jaxopt(logistic_loss, 1e-6)},
    ),
    "QP 20 × 40": (
        program, None, lambda x: x.x, 0, {"qpax": by_qpax, "mpax": by_mpax, "jaxopt": by_osqp},
    ),
    "transport 64 × 64": (
        transport, None, lambda x: x.plan, 2, {"ott": by_ott},
    ),
}  # fmt: skip


def bandwidth() -> float:
    """Bytes per second that a sum over 2 GiB reads (a quarter of it on a CPU)."""
    length = 2**28 if jax.default_backend() != "cpu" else 2**26
    total, long = jax.jit(jnp.sum), jnp.ones(length)
    jax.block_until_ready(total(long))
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(total(long))
        spent.append(time.perf_counter() - start)
    return long.nbytes / statistics.median(spent)


def per_second(f: Callable, block: Any, size: int, count: int) -> tuple[float, Any]:
    """Of `count` problems, and the results of one block."""
    full, rest = divmod(count, size)
    parts = [block] * (1 + full) + [jax.tree.map(lambda leaf: leaf[:rest], block)] * (rest > 0)
    found = jaxns.batch.stream(f, iter(parts), size=size, on_failure="ignore")
    first = next(found)
    start = time.perf_counter()
    for _ in found:
        pass
    return count / (time.perf_counter() - start), first


def apart(a: np.ndarray, b: np.ndarray) -> float:
    axes = tuple(range(1, a.ndim))
    return float(np.median(np.sqrt(np.sum((a - b) ** 2, axes) / np.sum(b**2, axes))))


def throughput(counts: list[int], most: int) -> None:
    peak = bandwidth()
    print(f"a sum reads {peak / 1e9:.1f} GB/s\n")
    print("| problems | by | per second | apart | steps each | of the bandwidth |")
    print("|---|---|---|---|---|---|")
    for (name, case), count in itertools.product(STREAMS.items(), counts):
        make, solver, read, reads, peers = case
        size = min(count, most)
        build, data = make(size)
        block = jax.device_get(data)

        def solve(items, stop=STREAMED, build=build, solver=solver):
            return jaxns.batch.solve(build, solver, over=items, stop=stop)

        def answers(found, read=read):
            return np.asarray(read(found.x))

        sharp = answers(jax.jit(lambda items, s=solve: s(items, SHARP))(data))
        speed, found = per_second(solve, block, size, count)
        steps = float(np.mean(found.steps))
        share = speed * steps * reads * block[0][0].nbytes / peak
        cells = [f"{apart(answers(found), sharp):.0e}", f"{steps:.0f}"]
        cells += [f"{share:.2f}" if reads else ""]
        rows = {"jaxns": [f"{speed:.0f}", *cells]}
        for peer, by in peers.items():
            if find_spec(peer):
                speed, found = per_second(by(), block, size, count)
                rows[peer] = [f"{speed:.0f}", f"{apart(found, sharp):.0e}", "", ""]
        for by, row in rows.items():
            print("| " + " | ".join([f"{count} × {name}", by, *row]) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gradient", action="store_true", help="of a sum over the solutions")
    parser.add_argument("--throughput", type=int, nargs="+", help="so many problems, in streams")
    parser.add_argument("--block", type=int, default=16_384, help="problems of a stream at once")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    print(f"{device.platform}: {device.device_kind}, jax {jax.__version__}\n")
    if arguments.throughput:
        throughput(arguments.throughput, arguments.block)
        return
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
