"""The subgradient method with errors that stay (arXiv 2404.19517): how far from critical it ends.

    x_{k+1} = x_k − α_k (v_k + e_k),   v_k ∈ ∂f(x_k),   ‖e_k‖ ≤ ε,
    limsup dist(x_k, crit f) ≤ C ε^ρ.

For f(x) = |x|^q the worst error, away from 0, holds the iterates at |x| = (ε/q)^{1/(q − 1)}, whence
ρ = 1/(q − 1). For f(x, y) = (x² − y³)² + |x|, whose one critical point is 0, x is sharp and f(0, y)
is y⁶, whence ρ = 1/5. Errors that nobody chose, of differences and of short numbers, are measured
on ‖Ax − b‖_{3/2}^{3/2} with Ax* = b, where ‖v‖ ≥ 3/2 σ_min(A)^{3/2} ‖x − x*‖^{1/2}, so that ρ = 2.
"""

from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from jaxns.experiments import curves
from jaxns.experiments.config import Base, Fraction, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.inexact_measures import (
    DECREASING,
    averages,
    constant,
    sharp,
    sources,
    vanishing,
)
from jaxns.experiments.reporting import Check, Table, below, between, number, small
from jaxns.experiments.session import Session

CUSP = "(x² − y³)² + |x|"
Two = Annotated[tuple[Positive, ...], Field(min_length=2)]


class Settings(Base):
    """steps: that are made; distances are the largest over the last tenth of them.

    powers: q.   eps: ε.   constant: the constant steps, from short to long.   floors: their ε.
    sharp: the ε of q = 1.   drift: one that is too large for it.   differences: h.
    starts: in the plane, by `seed`.
    """

    steps: Annotated[int, Field(ge=1000)] = 100_000
    powers: tuple[Annotated[float, Field(gt=1)], ...] = (1.5, 2.0, 3.0, 4.0)
    eps: Two = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    constant: Two = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    floors: Two = (0.02, 0.05, 0.1)
    sharp: tuple[Fraction, ...] = (0.2, 0.5, 0.9)
    drift: Annotated[float, Field(gt=1)] = 1.2
    differences: Two = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    starts: Annotated[int, Field(ge=1)] = 5
    seed: Annotated[int, Field(ge=0)] = 0


def run(settings: Settings, session: Session) -> Findings:
    it, steps = settings, settings.steps
    starts = np.random.default_rng(it.seed).uniform(-1, 1, (it.starts, 2))
    units = {
        "vanishing steps": partial(vanishing, it.powers, it.eps, starts, steps),
        "constant steps": partial(constant, it.floors, it.constant, steps),
        "sharp": partial(sharp, (*it.sharp, it.drift), steps),
        "averages": partial(averages, (1.0, *it.powers), it.eps),
        "sources": partial(sources, it.differences, steps, it.seed),
    }
    (line, plane), floors, blocks, ratios, (found, least) = session.each("runs", units)

    eps, checks, rows = np.array(settings.eps), [], []
    for q, distances in zip(settings.powers, line, strict=True):
        exact = (eps / q) ** (1 / (q - 1))
        relative = slope(eps, distances) * (q - 1)
        checks += [
            between(f"q = {q:g}: slope over 1/(q − 1)", relative, 0.95, 1.05),
            between(f"q = {q:g}: limsup over (ε/q)^{{1/(q − 1)}}", distances / exact, 0.95, 1.05),
        ]
        rows.append((f"|x|^{q:g}", number(1 / (q - 1)), number(relative / (q - 1))))
    slopes = [slope(eps, distances) for distances in plane]
    checks.append(
        between(f"{CUSP}: slope over 1/5, every start", np.multiply(slopes, 5), 0.95, 1.05)
    )
    rows.append((CUSP, "0.2", number(float(np.median(slopes)))))

    alphas, errors = np.array(settings.constant), np.array(settings.floors)[:, None]
    for name, measured, room, exact in (
        ("q = 1.5", floors[0], floors[1], (errors / 1.5) ** 2),
        (CUSP, floors[2], floors[3], (errors / 6) ** (1 / 5)),
    ):
        above = (measured - exact) / room
        checks += [
            below(f"{name}, constant step: (floor − ε-floor)/(α (L + ε))", above, 1),
            between(f"{name}: floor over ε-floor at α = {alphas[0]:g}",
                    measured[:, 0] / exact[:, 0], 0.95, 1.05),
            Check(f"{name}: the longest step has a higher floor",
                  small(float(np.min(measured[:, -1] / exact[:, 0]))) + " times, at least",
                  bool(np.all(measured[:, -1] > 1.05 * exact[:, 0]))),
        ]  # fmt: skip
    k, size = blocks
    scaled = [
        x[-1] / DECREASING(k[-1]) / (1 + e) for e, x in zip(settings.sharp, size, strict=False)
    ]
    checks += [
        below("q = 1, ε < 1: |x_k|/(α_k (1 + ε)) at the end", scaled, 1),
        Check(f"q = 1, ε = {settings.drift:g}: it drifts away from |x_0| = 1",
              f"|x_K| = {size[-1][-1]:.3g}", bool(size[-1][-1] > 1)),
        below("f(x̄_K) over its bound, every q, ε and K", ratios, 1),
    ]  # fmt: skip
    e, d = np.array([s.eps for s in found]), np.array([s.distance for s in found])
    law, n = (e / 1.5) ** 2 / least**3, len(settings.differences)
    relative = slope(e[:n], d[:n])
    checks += [
        between("differences: slope in the measured ε over 2", relative / 2, 0.95, 1.05),
        below("differences, short numbers: distance over (ε/q)²/σ³", d / law, 1),
    ]
    rows.append(("‖Ax − b‖^1.5, differences", "2", number(relative)))

    panels = (
        Panel(
            "Steps that vanish", "size of the error ε", "limsup of the distance (thin: theory)",
            (
                *(Curve(f"|x|^{q:g}", x, eps, (eps / q) ** (1 / (q - 1)))
                  for q, x in zip(settings.powers, line, strict=True)),
                Curve(CUSP, plane, eps, (eps / 6) ** (1 / 5)),
            ),
            xscale="log",
        ),
        Panel(
            "Constant steps, |x|^1.5", "step α", "distance (thin: without a step's part)",
            tuple(Curve(f"ε = {e:g}", x, alphas, np.full(len(alphas), (e / 1.5) ** 2))
                  for e, x in zip(settings.floors, floors[0], strict=True)),
            xscale="log",
        ),
        Panel(
            "A sharp function, |x|", "iteration k", "largest |x|, block by block (thin: α_k)",
            tuple(Curve(f"ε = {e:g}", x, k, np.asarray(DECREASING(k)))
                  for e, x in zip((*settings.sharp, settings.drift), size, strict=True)),
            xscale="log",
        ),
        Panel(
            "Errors that nobody chose, ‖Ax − b‖^1.5", "measured size of the error ε",
            "distance (thin: (ε/q)²/σ³)",
            (
                Curve(f"differences, h = {min(it.differences):g} … {max(it.differences):g}",
                      d[:n], e[:n], law[:n]),
                *(Curve(s.name, np.array([s.distance]), np.array([s.eps])) for s in found[n:]),
            ),
            xscale="log",
        ),
    )  # fmt: skip
    table = Table(
        f"Exponent ρ of the distance in ε, {settings.steps} steps",
        ("function", "theory", "measured slope"),
        tuple(rows),
        tuple(f"{s.name}: ε = {small(s.eps)}, distance {small(s.distance)}" for s in found[n:]),
    )
    title = "Subgradients with errors of size ε end within C ε^ρ of the critical points"
    return Findings(title, table, panels, tuple(checks), columns=2)


def slope(eps: np.ndarray, distances: np.ndarray) -> float:
    """Of the line through the logarithms."""
    return float(np.polyfit(np.log(eps), np.log(distances), 1)[0])


EXPERIMENT = curves.experiment(Settings, run)
