"""Four programs for one function, at its kink (arXiv 2206.00457, behaviour at a kink).

min ½ (x − 1)² + θ |x| has the solution (1 − θ)₊, with a kink at θ = 1, where its conservative
derivative is [−1, 0]. Forward-backward with four equal programs for the soft threshold converges to
the same x and to derivatives in that interval that depend on the program.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Fraction
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Check, Table, between, number
from jaxns.experiments.session import Session

PROGRAMS = {
    "sign · max(|z| − t, 0)": lambda z, t: jnp.sign(z) * jnp.maximum(jnp.abs(z) - t, 0),
    "z − clip(z, −t, t)": lambda z, t: z - jnp.clip(z, -t, t),
    "where(|z| > t, …)": lambda z, t: jnp.where(jnp.abs(z) > t, z - jnp.sign(z) * t, 0),
    "relu(z − t) − relu(−z − t)": lambda z, t: jax.nn.relu(z - t) - jax.nn.relu(-z - t),
}
ELEMENTS = dict(zip(PROGRAMS, (1 / 2, 1 / 2, 0.0, 0.0), strict=True))  # s: what each takes at 0


class Settings(Base):
    """stepsize: α of forward-backward in the table.   steps: that are made.

    points: stepsizes in the figure, equally spaced in (0, 1).
    """

    stepsize: Fraction = 0.5
    steps: Count = 400
    points: Count = 99


def run(settings: Settings, session: Session) -> Findings:
    alphas = np.linspace(0, 1, settings.points + 2)[1:-1]
    at = {name: partial(slope, program, settings.steps) for name, program in PROGRAMS.items()}
    found = {name: float(of(settings.stepsize)) for name, of in at.items()}
    every = {name: np.asarray(jax.vmap(of)(jnp.asarray(alphas))) for name, of in at.items()}

    h, exact = 1e-6, jaxns.Stop(tol=1e-15)
    x = [
        float(solution(PROGRAMS["where(|z| > t, …)"], settings.stepsize, 1.0 + move, exact))
        for move in (-h, 0.0, h)
    ]
    left, right = (x[1] - x[0]) / h, (x[2] - x[1]) / h
    differ = len({round(value, 9) for value in found.values()})
    checks = [
        between("every program, every stepsize: in [−1, 0]", list(every.values()), -1, 0),
        between("one-sided difference, left", left, -1 - 1e-5, -1 + 1e-5),
        between("one-sided difference, right", right, -1e-5, 1e-5),
        Check("the value depends on the program", f"{differ} values", differ > 1),
    ]
    for name, s in ELEMENTS.items():
        a = settings.stepsize
        exactly = -s * a / (1 - s * (1 - a))
        claim = f"{name}: −sα/(1 − s(1 − α)) with s = {s:g}"
        checks.append(between(claim, found[name], exactly - 1e-9, exactly + 1e-9))
    table = Table(
        f"dx/dθ of min ½ (x − 1)² + θ|x| at θ = 1, stepsize {settings.stepsize:g}",
        ("soft threshold as", "dx/dθ"),
        tuple((name, number(value)) for name, value in found.items()),
        (f"one-sided differences: {number(left)} and {number(right)}",),
    )
    lines = tuple(Curve(name, values, alphas) for name, values in every.items())
    panel = Panel("Derivative at the kink", "stepsize α", "dx/dθ", lines, yscale="linear",
                  ylim=(-1.05, 0.05))  # fmt: skip
    title = "At a kink, four equal programs have two derivatives, both in the conservative [−1, 0]"
    return Findings(title, table, (panel,), tuple(checks))


def solution(program, alpha, theta, stop: jaxns.Stop):
    def F(x, theta):
        return program(x - alpha * (x - 1.0), alpha * theta)

    mode = jaxns.Piggyback(direction="both")
    return jaxns.fixed_point(F, jnp.asarray(0.0), jnp.asarray(theta), mode=mode, stop=stop).x


def slope(program, steps: int, alpha):
    """By piggyback, at θ = 1."""
    stop = jaxns.Stop(tol=None, max_steps=steps)
    return jax.jvp(lambda theta: solution(program, alpha, theta, stop), (1.0,), (1.0,))[1]


EXPERIMENT = curves.experiment(Settings, run)
