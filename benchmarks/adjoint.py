"""What a gradient costs beyond the solve: the linear system of implicit differentiation.

    python benchmarks/adjoint.py [--repeats 15]

Times are medians of ratios taken in turns inside one process. The lasso has a correlated design
and a tenth of the penalty that gives zero; "iteration" is one evaluation of the forward-backward
map, "structured" and so on the linear system alone, "backward" the whole pullback.
"""

import argparse
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from foundation import in_turns

import jaxns

jax.config.update("jax_enable_x64", True)


def lasso(n: int, p: int, nonzeros: int) -> tuple[Callable, jax.Array]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    for j in range(1, p):
        X[:, j] = 0.5 * X[:, j - 1] + np.sqrt(0.75) * X[:, j]
    truth = np.zeros(p)
    truth[rng.choice(p, nonzeros, replace=False)] = rng.choice([-1.0, 1.0], nonzeros)
    y = X @ truth + 0.1 * rng.normal(size=n)
    X, y = jnp.asarray(X), jnp.asarray(y)
    largest = float(jnp.abs(X.T @ y).max()) / n
    return lambda t: jaxns.problems.lasso(X, y, 0.1 * largest * t), jnp.asarray(rng.normal(size=p))


def measure(n: int, p: int, nonzeros: int, repeats: int) -> None:
    build, weights = lasso(n, p, nonzeros)
    solver = jaxns.ForwardBackward()
    problem = build(1.0)
    prepared = solver.prepare(problem, jnp.zeros(p))
    solution = jaxns.solve(problem, solver)
    loops = 20

    @jax.jit
    def iterations(problem, z):
        return jax.lax.fori_loop(0, loops, lambda _, z: prepared.step(problem, z), z)

    @jax.jit
    def system(problem, z, v):  # each depends on the last
        inverse = prepared.linearisation(problem, z)
        assert inverse is not None
        body = lambda _, w: w + 1e-9 * inverse.transpose(v + 1e-9 * w)  # noqa: E731
        return jax.lax.fori_loop(0, loops, body, v)

    def run(t, method):
        mode = jaxns.Implicit(method=method)
        return jnp.vdot(weights, jaxns.solve(build(t), solver, mode=mode).x)

    backward = jax.jit(lambda pull: pull(1.0))
    forward = jax.jit(lambda t: run(t, "auto"))
    timed = {
        "iteration": lambda: iterations(problem, solution.z),
        "system": lambda: system(problem, solution.z, weights),
        "solve": lambda: forward(1.0),
    }
    for method in ("auto", "bicgstab", "gmres"):
        _, pull = jax.vjp(lambda t, method=method: run(t, method), 1.0)
        timed[method] = lambda pull=pull: backward(pull)
    named = in_turns(timed, repeats)

    def ratio(a: str, b: str, scale: float = 1.0) -> float:
        return scale * statistics.median(x / y for x, y in zip(named[a], named[b], strict=True))

    cells = [
        f"{n} × {p}, {int(jnp.sum(solution.x != 0))} nonzeros",
        f"{int(solution.steps)}",
        f"{ratio('system', 'iteration'):.2f}",
        *(f"{ratio(m, 'iteration', loops):.1f}" for m in ("auto", "bicgstab", "gmres")),
        *(f"{100 * ratio(m, 'solve'):.1f} %" for m in ("auto", "bicgstab", "gmres")),
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    print(f"jax {jax.__version__}, {jax.default_backend()}, {repeats} repeats\n")
    print(
        "| lasso | steps of the solve | structured system, in iterations | backward in iterations: "
        "auto | bicgstab | gmres | backward over solve: auto | bicgstab | gmres |\n"
        + "|---" * 9
        + "|"
    )
    measure(200, 1000, 20, repeats)
    measure(500, 20_000, 20, repeats)


if __name__ == "__main__":
    main()
