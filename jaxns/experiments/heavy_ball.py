"""The heavy-ball counterexample of arXiv 2206.00457: momentum breaks piggyback differentiation.

    x_{k+1} = x_k − ∇f(x_k) + β (x_k − x_{k−1}),   f(x) = x²/2 for x ≥ 0, x²/8 for x < 0.

From x_0 = x_{−1} = 0 nothing moves, and every derivative that a program computes is a product of
the matrices of the two pieces. Each is stable; with β = ¾ some of their products are not.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field

from jaxns import nonsmooth
from jaxns.experiments import curves
from jaxns.experiments.config import Base
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Table, below, between, number, small
from jaxns.experiments.session import Session

LEFT, RIGHT = 0.0, 1.0  # the gradient's element at 0: 1/4 or 1, as where(x > 0, …) or (x >= 0, …)
MOMENTUM = 3 / 4
PERIOD = [LEFT, LEFT, RIGHT, RIGHT]


class Settings(Base):
    """steps: how many are made (the paper's counterexample: 200)."""

    steps: Annotated[int, Field(ge=8, multiple_of=4)] = 200


def run(settings: Settings, session: Session) -> Findings:
    steps = settings.steps
    programs = {
        "one element, 1": ([RIGHT] * steps, MOMENTUM),
        "the other, 1/4": ([LEFT] * steps, MOMENTUM),
        "the two in turns": (PERIOD * (steps // 4), MOMENTUM),
        "the two in turns, gradient descent": (PERIOD * (steps // 4), 0.0),
    }
    found = {name: slopes(*program) for name, program in programs.items()}
    one, other, turns, descent = (dx for _, dx in found.values())
    visited = [np.abs(x).max() for x, _ in found.values()]
    k = np.arange(1, steps + 1)
    spectral = [max(np.abs(np.linalg.eigvals(matrix(h)))) for h in (1, 1 / 4)]
    product = np.linalg.matrix_power(cycle(), steps // 4)
    factors = np.abs(turns[7::4] / turns[3:-4:4])
    shown = tuple(
        Curve(name, lengths(dx), k, (9 / 8) ** (k / 4) if dx is turns else None)
        for name, (_, dx) in found.items()
    )
    rows = tuple((name, small(np.abs(x).max()), number(dx[-1])) for name, (x, dx) in found.items())
    table = Table(
        f"Heavy ball on a piecewise quadratic, {steps} steps from its minimiser",
        ("element of the gradient at 0", "largest |x_k|", "dx_k/dt at the end"),
        rows,
        (f"norm of the product of the steps' matrices: {np.linalg.norm(product, 2):.4g}",),
    )
    ylabel = r"$\|(dx_k/dt,\ dx_{k-1}/dt)\|$   (thin: $(9/8)^{k/4}$)"
    panel = Panel("Derivative in the start", "iteration k", ylabel, shown, ylim=(1e-16, 1e4))
    checks = (
        below("every program computes x_k = 0: |x_k|", visited, 0),
        between("each piece alone: spectral radius", spectral, 0.75**0.5 - 1e-9, 0.75**0.5 + 1e-9),
        below("one element: |dx_k/dt| at the end", np.abs([one[-1], other[-1]]), 1e-10),
        between("in turns: factor of four steps", factors[len(factors) // 2 :], *about(9 / 8)),
        between("in turns: dx_k/dt over the matrices'", turns[-1] / product[0].sum(), *about(1)),
        below("gradient descent, in turns: |dx_k/dt| at the end", abs(descent[-1]), 0),
    )
    return Findings(
        "With momentum, the derivatives of a converging iteration may diverge",
        table,
        (panel,),
        checks,
    )


def about(value: float) -> tuple[float, float]:
    return value * (1 - 1e-9), value * (1 + 1e-9)


def lengths(dx: np.ndarray) -> np.ndarray:
    """Of (dx_k/dt, dx_{k−1}/dt), which does not cross zero as dx_k/dt does."""
    return np.hypot(dx, np.concatenate([[1.0], dx[:-1]]))


def slopes(elements: list[float], momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """x_k and dx_k/dt, k = 1, 2, …, for x_0 = x_{−1} = t at t = 0."""

    def iterates(t):
        def step(state, element):
            x, before = state
            gradient = x / 4 + 0.75 * nonsmooth.relu(x, at_zero=element)
            after = x - gradient + momentum * (x - before)
            return (after, x), after

        return lax.scan(step, (t, t), jnp.asarray(elements))[1]

    x, dx = jax.jvp(iterates, (0.0,), (1.0,))
    return np.asarray(x), np.asarray(dx)


def matrix(h: float) -> np.ndarray:
    """The step where f has curvature h."""
    return np.array([[1 + MOMENTUM - h, -MOMENTUM], [1, 0]])


def cycle() -> np.ndarray:
    """Four steps: left, left, right, right."""
    left, right = matrix(1 / 4), matrix(1)
    return right @ right @ left @ left


EXPERIMENT = curves.experiment(Settings, run)
