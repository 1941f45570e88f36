"""A way to solve a task and differentiate the solution, by whichever library."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import timed

MAX_STEPS = 100_000
LOOPS = 20
LONG = 5.0  # seconds of a call after which tighter tolerances are not asked for


class Answer(NamedTuple):
    """x: the solution.   gradient: that of the criterion.   steps: how many, where it is told."""

    x: Any
    gradient: Any = None
    steps: Any = None


@dataclasses.dataclass(frozen=True)
class Method:
    """solve, both: tolerance -> `Answer`, without and with the gradient.

    compile: seconds of the first call of `both` that later calls do not take.
    """

    solve: Callable[[float], Answer]
    both: Callable[[float], Answer]
    compile: float


@dataclasses.dataclass(frozen=True)
class Task:
    """min_x of something that depends on θ, and the gradient of θ ↦ criterion(x*(θ)).

    data: a pytree of arrays, passed to programs as an argument.   theta: an array.
    criterion: (data, x) -> number.
    reduced: x -> `Reduced`: the smooth problem on the manifold on which x lies.
    gap: x -> how far x is from meeting the optimality conditions, relative.
    methods: by name, `Task -> Method`. Those of this library have names that begin with `jaxns`,
        the first of them the default.
    product: (data, v) -> v, what each iteration must do; from v = `start`; `what` this is.
    """

    name: str
    data: Any
    theta: Any
    criterion: Callable[[Any, Any], Any]
    reduced: Callable[[np.ndarray], "Reduced"]
    gap: Callable[[np.ndarray], float]
    methods: dict[str, Callable[["Task"], Method]]
    product: Callable[[Any, Any], Any]
    start: Any
    what: str

    @functools.cached_property
    def unit(self) -> float:
        """Seconds of the product, within a compiled loop."""

        @jax.jit
        def run(data, v):
            return jax.lax.fori_loop(0, LOOPS, lambda _, v: self.product(data, v), v)

        jax.block_until_ready(run(self.data, self.start))
        return min(timed(lambda: run(self.data, self.start)) for _ in range(5)) / LOOPS

    @property
    def most_steps(self) -> int:
        """Of a method that is given a limit: as many as have products that take `LONG` seconds."""
        return int(min(MAX_STEPS, LONG / self.unit))


class Reduced(NamedTuple):
    """min_u objective(u, θ), smooth, x = embed(u, θ) at its solution, from u.

    hessian: (u, θ) -> matrix, where automatic differentiation would take too much memory.
    """

    u: np.ndarray
    objective: Callable[[Any, Any], Any]
    embed: Callable[[Any, Any], Any]
    hessian: Callable[[Any, Any], Any] | None = None


def in_jax(task: Task, program: Callable[[Any, Any, Any], Any]) -> Method:
    """program: (data, θ, tol) -> x or (x, steps), compiled; tol is traced."""

    def solve(data, theta, tol):
        found = program(data, theta, tol)
        return found if isinstance(found, tuple) else (found, jnp.array(-1))

    def loss(theta, data, tol):
        x, steps = solve(data, theta, tol)
        return task.criterion(data, x), (x, steps)

    arguments = (task.data, jnp.asarray(task.theta), 1e-3)
    alone = jax.jit(solve).lower(*arguments).compile()
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    start = time.process_time()
    both = gradient.lower(arguments[1], arguments[0], arguments[2]).compile()
    spent = time.process_time() - start

    def answer_alone(tol):
        x, steps = alone(*arguments[:2], tol)
        return Answer(x, None, steps)

    def answer(tol):
        slope, (x, steps) = both(arguments[1], arguments[0], tol)
        return Answer(x, slope, steps)

    return Method(answer_alone, answer, spent)


def on_host(
    fit: Callable[[float], np.ndarray], gradient: Callable[[np.ndarray], np.ndarray]
) -> Method:
    """A solver of numbers, and the derivative of its solution written out."""

    def both(tol):
        x = fit(tol)
        return Answer(x, gradient(x))

    spent = []
    for _ in range(2):
        start = time.process_time()
        both(1e-2)
        spent.append(time.process_time() - start)
    return Method(lambda tol: Answer(fit(tol)), both, max(spent[0] - spent[1], 0.0))
