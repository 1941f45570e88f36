"""Optimistix: it has no proximal method, so the prox-gradient map is given to its fixed points.

Its default linear solver is dense; above a thousand unknowns BiCGSTAB takes its place.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.peers.method import Method, Task, in_jax

DENSE = 1000


def fixed_point(
    model: Any, step: float, read: Callable[[Any, Any], Any] = lambda x, data: x
) -> dict[str, Callable[[Task], Method]]:
    """model: with `smooth(x, data)` and `prox(v, θ, step)`.   read: what is looked at of x."""

    def forward_backward(x, arguments):
        data, theta = arguments
        return model.prox(x - step * jax.grad(model.smooth)(x, data), theta, step)

    def program(limit, data, theta, tol):
        import lineax
        import optimistix

        start = data["start"]
        linear = (
            lineax.AutoLinearSolver(well_posed=None)
            if start.size <= DENSE
            else lineax.BiCGStab(rtol=1e-2 * tol, atol=1e-2 * tol, max_steps=5000)
        )
        found = optimistix.fixed_point(
            forward_backward,
            optimistix.FixedPointIteration(rtol=tol, atol=tol),
            start,
            (data, theta),
            adjoint=optimistix.ImplicitAdjoint(linear),
            max_steps=limit,
            throw=False,
        )
        return read(found.value, data), found.stats["num_steps"]

    return {
        "Optimistix fixed point": lambda task: in_jax(
            task, functools.partial(program, task.most_steps)
        )
    }
