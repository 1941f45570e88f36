"""Watching a backward pass: what it found out comes back as if it were a gradient."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import linear
from jaxns.struct import struct
from jaxns.tree import Tree


@struct
class Probe:
    """How the linear system of a backward pass went, read as the gradient of this argument.

        def loss(penalty, probe):
            return outer(jaxns.solve(build(penalty), mode=jaxns.Implicit(probe=probe)).x)

        slope, report = jax.grad(loss, argnums=(0, 1))(penalty, jaxns.Probe())

    Under `jit` and `vmap` like any gradient, without a callback. One probe watches one solve: those
    of several solves, or of the lanes of a `vmap` that share one, add up as gradients do.

    residual: ‖z̄ − (I − Aᵀ) w‖ / ‖z̄‖.   steps: applications of Aᵀ.
    converged: 1 where the residual is at the tolerance, else 0.
    adjoint: w, in the shape of z, if zeros of that shape are passed (`Solution.z` has it): where a
        later backward pass can start, `Implicit(start=report.adjoint)`.
    """

    residual: float | Array = 0.0
    steps: float | Array = 0.0
    converged: float | Array = 0.0
    adjoint: Tree = None


def read(probe: Probe, report: linear.Report, w: Tree) -> Probe:
    """The cotangent of `probe`: what there is to report, in the types of its numbers."""
    found = Probe(*report, None if probe.adjoint is None else w)
    return jax.tree.map(_as, probe, found)


def _as(like: Any, value: Array) -> Array:
    return jnp.asarray(value, jnp.result_type(like)).reshape(jnp.shape(like))
