"""The steps of a solver of diffrax, which is imported when it is asked for."""

from typing import Any

import jax
from jax import Array

from jaxns.flows.schemes import Field
from jaxns.tree import Tree


def run(
    f: Field, x0: Tree, theta: Tree, ts: Array, solver: Any, checkpoints: int | None, every: bool
) -> tuple[Tree, Tree]:
    """The last state, and all after the first if `every`: one step between times."""
    try:
        import diffrax  # pyright: ignore[reportMissingImports]
    except ImportError:
        diffrax = None
    if diffrax is None or not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(f"method must be 'euler', 'rk4' or a solver of diffrax, got {solver!r}")
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, theta: f(x, theta, t)),
        solver,
        ts[0],
        ts[-1],
        None,
        x0,
        theta,
        saveat=diffrax.SaveAt(steps=True) if every else diffrax.SaveAt(t1=True),
        stepsize_controller=diffrax.StepTo(ts),
        adjoint=diffrax.DirectAdjoint()
        if checkpoints is None
        else diffrax.RecursiveCheckpointAdjoint(checkpoints=checkpoints),
        max_steps=ts.size - 1,
    )
    return jax.tree.map(lambda x: x[-1], found.ys), found.ys
