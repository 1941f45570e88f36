"""What the foundation costs.

Import, dispatch, and reverse piggyback against stored unrolling. "Iterates stored" is XLA's own
account of temporary memory, over the size of one iterate.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from benchmarks.frame import Findings, Options, Table, Target
from benchmarks.timing import in_turns, medians, ratio

REPEATS = 15


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


def piggyback_against_unrolling(
    n: int, p: int, K: int, unroll: bool = True
) -> tuple[dict[str, Callable], dict]:
    """The gradient of Σx² in the penalty after K plain forward-backward steps of a lasso."""
    rng = np.random.default_rng(0)
    A, b = jnp.asarray(rng.normal(size=(n, p)) / np.sqrt(n)), jnp.asarray(rng.normal(size=n))
    alpha = float(1 / np.linalg.norm(A, 2) ** 2)
    solver = jaxns.ForwardBackward(alpha, acceleration=False)
    x0 = jnp.zeros(p)

    def problem(penalty):
        return jaxns.Composite(jaxns.functions.LeastSquares(A, b), jaxns.functions.L1(penalty))

    def ours(penalty):
        stop = jaxns.Stop(tol=None, max_steps=K)
        mode = jaxns.Piggyback()
        return jnp.sum(jaxns.solve(problem(penalty), solver, x0, mode=mode, stop=stop).x ** 2)

    def stored(penalty):
        step = lambda x, _: (solver.step(problem(penalty), x), None)  # noqa: E731
        return jnp.sum(jax.lax.scan(step, x0, length=K)[0] ** 2)

    compiled, memory, values = {}, {}, {}
    losses = {"piggyback": ours, "stored unrolling": stored} if unroll else {"piggyback": ours}
    for name, loss in losses.items():
        compiled[name] = jax.jit(jax.grad(loss)).lower(0.05).compile()
        memory[name] = compiled[name].memory_analysis().temp_size_in_bytes / (8 * p)
        values[name] = float(compiled[name](0.05))
    difference = abs(values["piggyback"] / values.get("stored unrolling", np.nan) - 1)
    calls = {name: (lambda c=c: c(0.05)) for name, c in compiled.items()}
    return calls, {"iterates": memory, "difference": difference}


def stored_iterates(K: int, n: int = 60, p: int = 2000) -> float:
    """XLA's temporaries of the reverse pass after K steps, over the bytes of one iterate."""
    _, facts = piggyback_against_unrolling(n, p, K, unroll=False)
    return facts["iterates"]["piggyback"]


def run(options: Options) -> Findings:
    table = Table(("what", "measured"))
    table.row("import, over jax", f"{import_cost(options.repeats):.3f} s")
    second = medians(in_turns({"solve": small_lasso()}, options.repeats))["solve"]
    table.row("second call of `solve`, 20 × 5 lasso, eager", f"{1e3 * second:.2f} ms")
    numbers = {"second call": second}
    for n, p, K in [(40, 200, 100)] if options.reduced else [(200, 1000, 800), (500, 5000, 300)]:
        calls, facts = piggyback_against_unrolling(n, p, K)
        times = in_turns(calls, options.repeats)
        ours, stored = facts["iterates"].values()
        found = ratio(times, "piggyback", "stored unrolling")
        table.row(
            f"reverse piggyback / stored unrolling, lasso {n} × {p}, K = {K}",
            f"time {found:.2f}, iterates stored {ours:.0f} / {stored:.0f}, "
            f"difference {facts['difference']:.0e}",
        )
        numbers[f"{n} × {p}"] = {"ratio": found, "iterates": facts["iterates"]}
    memory = Table(
        ("K", "iterates stored", "over √K"),
        text="What reverse piggyback keeps for K steps: temporaries of the compiled gradient.",
    )
    steps = (16, 64, 256) if options.reduced else (16, 64, 256, 1024, 4096)
    iterates = [stored_iterates(K) for K in steps]
    for K, stored in zip(steps, iterates, strict=True):
        memory.row(K, f"{stored:.0f}", f"{stored / K**0.5:.1f}")
    slope = float(np.polyfit(np.log(steps), np.log(iterates), 1)[0])
    numbers["memory"] = dict(zip(steps, iterates, strict=True))
    grows = Target(
        "memory of reverse `Piggyback` O(√K): slope of log(iterates stored) over log K at most ½",
        f"{slope:.2f}",
        slope <= 0.5,
    )
    return Findings((table, memory), (grows,), numbers=numbers)
