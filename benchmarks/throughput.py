"""Problems per second.

Streams of blocks of small problems, of wall time, beside those of our peers that are installed,
streamed in the same way under `vmap`. The clock starts when a first block has come back, compiled
and solved. "apart" is how far an answer lies from that of `tol=1e-10`, relative, the median of a
block; "of the bandwidth" is what our steps must read at least, against what a sum over a long array
reads in the same time here. On a GPU up to a million problems, on a CPU a thousand.
"""

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

import jaxns
from benchmarks.batch import lasso, logistic, transport
from benchmarks.frame import Findings, Options, Table

REPEATS = 5
BLOCK = 16_384  # problems of a stream at once
LONGEST = 120  # seconds that a peer may be foreseen to take for a row
STREAMED, SHARP = (jaxns.Stop(tol=tol, on_failure="nan") for tol in (1e-6, 1e-10))


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


# Of each kind: its problems, which part of a solution is compared, how many arrays as large as the
# first of the data a step must read, and our peers.
STREAMS = {
    "lasso 100 × 50": (lasso, lambda x: x, 2, {"jaxopt": lambda: by_jaxopt(least_squares, 1e-3)}),
    "logistic 200 × 30": (
        logistic, lambda x: x, 2, {"jaxopt": lambda: by_jaxopt(logistic_loss, 1e-6)},
    ),
    "QP 20 × 40": (
        program, lambda x: x.x, 0, {"qpax": by_qpax, "mpax": by_mpax, "jaxopt": by_osqp},
    ),
    "transport 64 × 64": (transport, lambda x: x.plan, 2, {"ott": by_ott}),
}  # fmt: skip


def bandwidth(repeats: int) -> float:
    """Bytes per second that a sum over 2 GiB reads (a quarter of it on a CPU)."""
    length = 2**28 if jax.default_backend() != "cpu" else 2**26
    total, long = jax.jit(jnp.sum), jnp.ones(length)
    jax.block_until_ready(total(long))
    spent = []
    for _ in range(repeats):
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


def measure(
    table: Table, name: str, count: int, peak: float, fewer: dict[str, float]
) -> dict[str, float]:
    """Problems per second by each.   fewer: the same of fewer problems."""
    make, read, reads, peers = STREAMS[name]
    size = min(count, BLOCK)
    build, data = make(size)
    block = jax.device_get(data)

    def solve(items, stop=STREAMED):
        return jaxns.batch.solve(build, over=items, stop=stop)

    def answers(found):
        return np.asarray(read(found.x))

    sharp = answers(jax.jit(lambda items: solve(items, SHARP))(data))
    speed, found = per_second(solve, block, size, count)
    steps = float(np.mean(found.steps))
    share = speed * steps * reads * block[0][0].nbytes / peak
    speeds = {"jaxns": speed}
    distance = f"{apart(answers(found), sharp):.0e}"
    bandwidth = f"{share:.2f}" if reads else ""
    table.row(f"{count} × {name}", "jaxns", f"{speed:.0f}", distance, f"{steps:.0f}", bandwidth)
    for peer, by in peers.items():
        if not find_spec(peer):
            continue
        if peer in fewer and count / fewer[peer] > LONGEST:
            reason = f"not run, {fewer[peer]:.2g} with fewer"
            table.row(f"{count} × {name}", peer, reason, "", "", "")
        else:
            speeds[peer], found = per_second(by(), block, size, count)
            distance = f"{apart(found, sharp):.0e}"
            table.row(f"{count} × {name}", peer, f"{speeds[peer]:.0f}", distance, "", "")
    return speeds


def run(options: Options) -> Findings:
    many = (100, 1_000) if jax.default_backend() == "cpu" else (100, 1_000, 10**4, 10**5, 10**6)
    counts = (16,) if options.reduced else many
    peak = bandwidth(options.repeats)
    table = Table(("problems", "by", "per second", "apart", "steps each", "of the bandwidth"))
    table.text = f"A sum reads {peak / 1e9:.1f} GB/s."
    cases = {
        f"{count} × {name}": (name, count) for name, count in itertools.product(STREAMS, counts)
    }
    numbers, known = {}, {name: {} for name in STREAMS}
    for case in options.chosen(cases):
        name, count = cases[case]
        numbers[case] = measure(table, name, count, peak, known[name])
        known[name] |= numbers[case]
    return Findings([table], numbers=numbers)
