"""A value, its gradient, and how the solves in it went, from one call."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns.fixed_point import Status
from jaxns.modes import Implicit, Probe
from jaxns.solve import solve
from jaxns.struct import replace


class Record(NamedTuple):
    """How one solve and its backward pass went.

    steps, residual, status: as in `Solution`.
    adjoint_steps, adjoint_residual, adjoint_converged: as in `Probe`; NaN for a mode that has no
        probe (`Piggyback`).
    """

    steps: Array
    residual: Array
    status: Status
    adjoint_steps: Array
    adjoint_residual: Array
    adjoint_converged: Array


def with_report(
    loss: Callable, argnums: int | tuple[int, ...] = 0
) -> Callable[..., tuple[Array, Any, tuple[Record, ...]]]:
    """`jax.value_and_grad(loss)` that also tells how the solves went: (value, gradient, records).

        def loss(solve, penalty):
            return outer(solve(jaxns.problems.lasso(X, y, penalty)).x)

        value, gradient, (record,) = jaxns.with_report(loss)(0.1)

    loss: a function of `solve`, which stands for `jaxns.solve` and takes the same arguments, and of
        those to differentiate; there is one record for each call that it makes of `solve`.
    argnums: which of the arguments after `solve` to differentiate, counted from 0.

    The function returned works under `jit` and `vmap`.
    """

    @wraps(loss)
    def reported(*args):
        def run(probes: list[Probe], *args):
            records: list = []

            def watched(problem, solver=None, x0=None, *, mode=Implicit(), **options):
                seen = _has_probe(mode)
                if seen and probes:
                    mode = replace(mode, probe=probes[len(records)])
                solution = solve(problem, solver, x0, mode=mode, **options)
                info = (solution.steps, solution.residual, solution.status)
                records.append((*lax.stop_gradient(info), seen))
                return solution

            value = loss(watched, *args)
            return value, [record[:3] for record in records], [record[3] for record in records]

        count = []
        jax.eval_shape(lambda *args: count.append(len(run([], *args)[1])), *args)
        probes = [Probe() for _ in range(count[0])]
        which = (argnums,) if isinstance(argnums, int) else argnums
        seen: list = []

        def value_and_info(probes, *args):
            value, info, watched = run(probes, *args)
            seen[:] = watched
            return value, info

        derivative = jax.value_and_grad(
            value_and_info, argnums=(0, *(i + 1 for i in which)), has_aux=True
        )
        (value, info), (reports, *grads) = derivative(probes, *args)
        records = tuple(
            _record(how, report, has) for how, report, has in zip(info, reports, seen, strict=True)
        )
        return value, grads[0] if isinstance(argnums, int) else tuple(grads), records

    return reported


def _has_probe(mode: Any) -> bool:
    return hasattr(mode, "probe") and mode.direction == "reverse"


def _record(how: tuple, report: Probe, watched: bool) -> Record:
    steps, residual, status = how
    if not watched:
        report = Probe(jnp.nan, jnp.nan, jnp.nan)
    found = map(jnp.asarray, (report.steps, report.residual, report.converged))
    return Record(steps, residual, status, *found)
