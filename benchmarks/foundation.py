"""What the foundation costs: import, dispatch, and reverse piggyback against stored unrolling.

    python benchmarks/foundation.py [--repeats 15]

Times are medians on the machine at hand; compare the ratios, which are measured in turns inside one
process. Counts and bytes are exact.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxns

jax.config.update("jax_enable_x64", True)


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def in_turns(calls: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    for call in calls.values():
        jax.block_until_ready(call())
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(repeats)]
    return {name: [r[name] for r in rounds] for name in calls}


def import_cost(repeats: int) -> float:
    """Seconds that `import jaxns` adds to `import jax, jax.numpy`, in fresh processes."""
    program = (
        "import time, jax, jax.numpy; t = time.perf_counter(); "
        "import jaxns; print(time.perf_counter() - t)"
    )
    run = lambda: float(subprocess.check_output([sys.executable, "-c", program]))  # noqa: E731
    return statistics.median(run() for _ in range(max(3, repeats // 3)))


def small_lasso() -> Callable:
    rng = np.random.default_rng(0)
    A, b = jnp.asarray(rng.normal(size=(20, 5))), jnp.asarray(rng.normal(size=20))
    return lambda: jaxns.solve(jaxns.problems.lasso(A, b, 0.1)).x


def piggyback_against_unrolling(n: int, p: int, K: int) -> tuple[dict[str, Callable], dict]:
    """The gradient of Σx² in the penalty after K plain forward-backward steps of a lasso."""
    rng = np.random.default_rng(0)
    A, b = jnp.asarray(rng.normal(size=(n, p)) / np.sqrt(n)), jnp.asarray(rng.normal(size=n))
    alpha = float(1 / np.linalg.norm(A, 2) ** 2)
    solver = jaxns.ForwardBackward(alpha, acceleration=False)
    x0 = jnp.zeros(p)

    def problem(penalty):
        return jaxns.Composite(jaxns.functions.LeastSquares(A, b), jaxns.functions.L1(penalty))

    def ours(penalty):
        stop = jaxns.Stop(tol=None, max_steps=jnp.asarray(K))
        mode = jaxns.Piggyback()
        return jnp.sum(jaxns.solve(problem(penalty), solver, x0, mode=mode, stop=stop).x ** 2)

    def stored(penalty):
        step = lambda x, _: (solver.step(problem(penalty), x), None)  # noqa: E731
        return jnp.sum(jax.lax.scan(step, x0, length=K)[0] ** 2)

    compiled, memory, values = {}, {}, {}
    for name, loss in {"piggyback": ours, "stored unrolling": stored}.items():
        compiled[name] = jax.jit(jax.grad(loss)).lower(0.05).compile()
        memory[name] = compiled[name].memory_analysis().temp_size_in_bytes / (8 * p)
        values[name] = float(compiled[name](0.05))
    difference = abs(values["piggyback"] / values["stored unrolling"] - 1)
    calls = {name: (lambda c=c: c(0.05)) for name, c in compiled.items()}
    return calls, {"iterates": memory, "difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {repeats} repeats\n")
    print("| what | measured |\n|---|---|")
    print(f"| import, over jax | {import_cost(repeats):.3f} s |")
    second = in_turns({"solve": small_lasso()}, repeats)["solve"]
    milliseconds = 1e3 * statistics.median(second)
    print(f"| second call of `solve`, 20 × 5 lasso, eager | {milliseconds:.2f} ms |")
    for n, p, K in [(200, 1000, 800), (500, 5000, 300)]:
        calls, facts = piggyback_against_unrolling(n, p, K)
        times = in_turns(calls, repeats)
        pairs = zip(times["piggyback"], times["stored unrolling"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        ours, stored = facts["iterates"].values()
        print(
            f"| reverse piggyback / stored unrolling, lasso {n} × {p}, K = {K} | time {ratio:.2f}, "
            f"iterates stored {ours:.0f} / {stored:.0f}, difference {facts['difference']:.0e} |"
        )


if __name__ == "__main__":
    main()
