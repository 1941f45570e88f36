"""One-step differentiation of an interior-point method (arXiv 2305.13768): quadratic programs.

    min ½ xᵀQx + qᵀx   s.t.   Gx ≤ h, Ax = b;   the gradient of ‖x(b)‖²/2 in b.

The paper's iteration ends with a step of length α = 0.99999 along Newton's direction, so that its
one-step derivative is α times the exact one. `jaxns.InteriorPoint` ends with the Newton step on the
active constraints, of length 1; `jaxns.Relaxed` shortens it here. Not shown: times, and the error
of differentiating through all steps (this solver's last step forgets the ones before).
"""

import dataclasses
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Fraction
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Table, below, between, small
from jaxns.experiments.session import Session

SOLVER = jaxns.InteriorPoint()


class Settings(Base):
    """sizes: n; there are n/2 inequalities and n/4 equations.

    lengths: α of the last step.
    """

    sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (100, 178, 316, 562, 1000)
    lengths: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.9, 0.99, 0.999, 0.99999)
    seed: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True)
class Found:
    """Relative errors of the gradient: of each mode, and of one step for each length α."""

    steps: int
    active: int
    modes: dict[str, float]
    damped: np.ndarray


def run(settings: Settings, session: Session) -> Findings:
    units = {f"n = {n}": partial(measure, settings, n) for n in settings.sizes}
    found = session.each("quadratic programs", units)
    left = 1 - np.array(settings.lengths)
    ratios = np.array([f.damped / left for f in found])
    modes = list(found[0].modes)
    checks = (
        *(
            below(f"{mode}, every n: error", [f.modes[mode] for f in found], 1e-10)
            for mode in modes
        ),
        between("last step of length α: one-step error over 1 − α", ratios, 0.995, 1.005),
    )
    rows = tuple(
        (str(n), f"{f.active} of {n // 2}", str(f.steps), *(small(f.modes[mode]) for mode in modes),
         *(small(e) for e in f.damped))
        for n, f in zip(settings.sizes, found, strict=True)
    )  # fmt: skip
    table = Table(
        "Relative error of the gradient of ‖x(b)‖²/2 in b, against the system of the active set",
        ("n", "active", "steps", *modes, *(f"one step, α = {a:g}" for a in settings.lengths)),
        rows,
        ("uniform data, drawn as the paper's; its gradients are not known",),
    )
    panel = Panel(
        "Gradient by one step, the last one of length α", "1 − α",
        "relative error",
        (
            *(Curve(f"n = {n}", f.damped, left)
              for n, f in zip(settings.sizes, found, strict=True)),
            Curve("1 − α", left, left),
        ),
        xscale="log",
    )  # fmt: skip
    of_modes = Panel(
        "Gradient by each mode, the last step a full one", "n", "relative error",
        tuple(
            Curve(mode, np.array([f.modes[mode] for f in found]), np.array(settings.sizes))
            for mode in modes
        ),
        ylim=(1e-16, 1e-4),
    )  # fmt: skip
    title = "One step of an interior-point method is exact up to what its last step falls short"
    return Findings(title, table, (of_modes, panel), checks)


def measure(settings: Settings, n: int) -> Found:
    random = np.random.default_rng(settings.seed)
    p, m = n // 2, n // 4
    U, A, G, q, h, b = (
        random.uniform(-1, 1, shape) for shape in ((n, 2 * n), (m, n), (p, n), n, p, m)
    )
    Q = U @ U.T

    @partial(jax.jit, static_argnums=2)
    def gradient(b, data, mode):
        def outcome(b):
            solution = jaxns.solve(program(b, *data), SOLVER, mode=mode)
            return jnp.sum(solution.x.x**2) / 2, solution

        return jax.grad(outcome, has_aux=True)(b)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, None))
    def damped(length, w, b, data):
        """The last step, of this length, from the solution."""
        last = jaxns.Relaxed(SOLVER, length)
        return jax.grad(lambda b: jnp.sum(last.step(program(b, *data), w).x ** 2) / 2)(b)

    data = (Q, q, A, G, h)
    one_step, solution = gradient(b, data, jaxns.OneStep())
    implicit, _ = gradient(b, data, jaxns.Implicit())
    x, active = np.asarray(solution.x.x), np.asarray(solution.x.z > 0)
    exact = by_active_set(Q, np.vstack([G[active], A]), x)[-m:]

    def error(found):
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    short = damped(jnp.asarray(settings.lengths), solution.x, b, data)
    return Found(
        int(solution.steps), int(active.sum()),
        {"one step": error(one_step), "implicit": error(implicit)},
        np.array([error(g) for g in short]),
    )  # fmt: skip


def program(b, Q, q, A, G, h) -> jaxns.QuadraticProgram:
    return jaxns.QuadraticProgram(Q, q, A, b, G, h)


def by_active_set(Q: np.ndarray, rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(u, v) with Qu + rowsᵀv = x, rows u = 0: v is the gradient of ‖x‖²/2 in the right sides."""
    system = np.block([[Q, rows.T], [rows, np.zeros((len(rows), len(rows)))]])
    return np.linalg.solve(system, np.concatenate([x, np.zeros(len(rows))]))[len(x) :]


EXPERIMENT = curves.experiment(Settings, run)
