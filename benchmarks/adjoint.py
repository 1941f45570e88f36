"""What a gradient costs beyond the solve.

A lasso at a tenth of the penalty that gives zero, correlated features, forward-backward, float64.
"Structured system" is the linear system alone, restricted to the gathered support; "backward" the
whole pullback, with `Implicit(method=…)`; both in evaluations of the forward-backward map and, in
brackets, over the solve. The last column is the time of value and gradient by `OneStep()`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from benchmarks.frame import Findings, Options, Table, Target
from benchmarks.timing import in_turns, ratio

REPEATS = 15
METHODS = ("auto", "bicgstab", "gmres")


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


def measure(n: int, p: int, nonzeros: int, repeats: int, table: Table) -> dict[str, Any]:
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

    def loss(t, mode):
        return jnp.vdot(weights, jaxns.solve(build(t), solver, mode=mode).x)

    backward = jax.jit(lambda pull: pull(1.0))
    forward = jax.jit(lambda t: loss(t, jaxns.Implicit()))
    one_step = jax.jit(jax.value_and_grad(lambda t: loss(t, jaxns.OneStep())))
    timed = {
        "iteration": lambda: iterations(problem, solution.z),
        "system": lambda: system(problem, solution.z, weights),
        "solve": lambda: forward(1.0),
        "OneStep": lambda: one_step(1.0),
    }
    for method in METHODS:
        mode = jaxns.Implicit(method=method)
        _, pull = jax.vjp(lambda t, mode=mode: loss(t, mode), 1.0)
        timed[method] = lambda pull=pull: backward(pull)
    times = in_turns(timed, repeats)
    numbers = {
        "nonzeros": int(jnp.sum(solution.x != 0)),
        "steps": int(solution.steps),
        "system over iteration": ratio(times, "system", "iteration"),
        "in iterations": {m: loops * ratio(times, m, "iteration") for m in METHODS},
        "over the solve": {m: ratio(times, m, "solve") for m in METHODS},
        "OneStep gradient over the solve": ratio(times, "OneStep", "solve"),
    }
    table.row(
        f"{n} × {p}, {numbers['nonzeros']} nonzeros",
        numbers["steps"],
        f"{numbers['system over iteration']:.2f}",
        *(
            f"{numbers['in iterations'][m]:.1f} ({100 * numbers['over the solve'][m]:.1f} %)"
            for m in METHODS
        ),
        f"{numbers['OneStep gradient over the solve']:.2f}",
    )
    return numbers


def run(options: Options) -> Findings:
    table = Table(
        ("lasso", "steps", "structured system", *(f"backward, {m}" for m in METHODS),
         "`OneStep` gradient / solve")
    )  # fmt: skip
    sizes = [(40, 100, 5)] if options.reduced else [(200, 1000, 20), (500, 20_000, 20)]
    numbers = {f"{n} × {p}": measure(n, p, k, options.repeats, table) for n, p, k in sizes}
    targets = []
    for name, found in numbers.items():
        share = found["over the solve"]["auto"]
        why = (
            f"{found['steps']} steps of the solve leave {0.05 * found['steps']:.0f} evaluations of "
            f"the map for a pullback, which takes {found['in iterations']['auto']:.1f}"
        )
        targets += [
            Target(
                f"backward pass of `Implicit` at most 5 % of the solve, lasso {name}",
                f"{100 * share:.1f} %",
                share <= 0.05,
                "" if share <= 0.05 else why,
            ),
            Target(
                f"gradient by `OneStep` at most 1.1 × the plain solve, lasso {name}",
                f"{found['OneStep gradient over the solve']:.2f}",
                found["OneStep gradient over the solve"] <= 1.1,
            ),
        ]
    return Findings((table,), targets, numbers=numbers)
