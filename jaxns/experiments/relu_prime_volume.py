"""How often ReLU'(0) decides a gradient (arXiv 2106.12915, section 3): volume of the zone S.

θ belongs to S if for some minibatch of an epoch the gradients with ReLU'(0) = 0 and with 1 differ
in one bit. Here N samples stand for an epoch of 60000: if the exact zeros are Poisson, which is
checked, 1 − (1 − p)^(60000/N) is the fraction for an epoch. MNIST is replaced by `digits`.
"""

import math
from functools import partial
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.stats import poisson

from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.relu_prime_draws import Drawn, Instance, Shape
from jaxns.experiments.reporting import Check, Table, below, between, number, small
from jaxns.experiments.rounded_networks import Arithmetic
from jaxns.experiments.session import Session

EPOCH = 60_000
HALF, SINGLE, DOUBLE = (Arithmetic(f"float{bits}") for bits in (16, 32, 64))
OTHERS = (Arithmetic("float16", False), Arithmetic("bfloat16"), Arithmetic("bfloat16", False))
PAPER = {  # (depth, width): θ in S of 1000, at 16 and at 32 bits; at 64 bits none
    (1, 256): (871, 54), (2, 256): (999, 258), (3, 256): (1000, 463), (5, 256): (1000, 647),
    (6, 256): (1000, 697), (3, 16): (333, 21), (3, 64): (1000, 163), (3, 512): (1000, 582),
    (3, 1024): (1000, 873),
}  # fmt: skip


class Settings(Base):
    """depths: of networks of width 256.   widths: of networks of depth 3.

    batches: of 256 samples; N samples in all.   inside: how many θ in S the paper's table predicts
    for those that are drawn.   drawn: how many at least, and at 64 bits.
    checked: how many whose gradients are compared on every minibatch, zeros or not.
    """

    depths: tuple[Count, ...] = (1, 2, 3, 5, 6)
    widths: tuple[Count, ...] = (16, 64, 256, 512, 1024)
    batches: Count = 39
    inside: Positive = 16.0
    drawn: Count = 40
    checked: Count = 3
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def epochs(self) -> float:
        """What part of an epoch the samples are."""
        return 256 * self.batches / EPOCH

    def shapes(self) -> tuple[list[Shape], list[Shape]]:
        return [(depth, 256) for depth in self.depths], [(3, width) for width in self.widths]

    def count(self, column: int, shape: Shape) -> int:
        expected = 1 - (1 - PAPER[shape][column] / 1000) ** self.epochs
        return max(self.drawn, math.ceil(self.inside / expected))


def run(settings: Settings, session: Session) -> Findings:
    deep, wide = settings.shapes()
    shapes = list(dict.fromkeys(deep + wide))

    def instance(shape: Shape, arithmetic: Arithmetic) -> Instance:
        return Instance(shape, arithmetic, settings.batches, settings.seed)

    def draw(shape: Shape, arithmetic: Arithmetic, count: int) -> Drawn:
        return instance(shape, arithmetic).volume(count)

    def arms(arithmetic: Arithmetic, count=lambda _: settings.drawn, of=shapes):
        units = {f"{arithmetic.label}, {s}": partial(draw, s, arithmetic, count(s)) for s in of}
        return dict(zip(of, session.each("volume", units), strict=True))

    def on_each(arithmetic: Arithmetic, s1: float) -> np.ndarray:
        return instance((3, 256), arithmetic).each_batch(s1, settings.checked)

    half, single = (arms(each, partial(settings.count, k)) for k, each in enumerate((HALF, SINGLE)))
    double = arms(DOUBLE)
    others = {other.label: arms(other, lambda _: 2, [(3, 256)])[3, 256] for other in OTHERS}
    compared = {
        f"{each.label}, s = {s1:g}": partial(on_each, each, s1)
        for each in (HALF, SINGLE)
        for s1 in (0.0, 1.0)
    }
    control16, pairs16, control32, pairs32 = session.each("every minibatch", compared)
    density = {shape: instance(shape, SINGLE).density() for shape in shapes}

    pairs = np.concatenate([pairs16, pairs32]).reshape(-1, 2)
    control = np.concatenate([control16, control32])[..., 1]
    checks = [
        below(f"s = 0 against s = 0, {control.size} minibatches: gradients that differ",
              control.sum(), 0),
        below(f"s = 0 against s = 1, {np.sum(pairs[:, 0] == 0)} minibatches without a zero: "
              "gradients that differ", pairs[pairs[:, 0] == 0, 1].sum(), 0),
        between("… with a zero: gradients that differ, per minibatch",
                pairs[pairs[:, 0] > 0, 1].mean(), 0.5, 1),
        below("64 bits: θ in S, and exact zeros",
              [np.sum(d.first >= 0) + d.zeros.sum() for d in double.values()], 0),
        *(increasing(name, [single[shape] for shape in row])
          for name, row in (("depth", deep), ("width", wide))),
        *(against_table(settings, f"{bits} bits", found, k)
          for k, (bits, found) in enumerate([(16, half), (32, single)])),
        between("16 bits: fraction of θ in S in an epoch, where the table has at least 0.99",
                [epoch(settings, half[s]) for s in shapes if PAPER[s][0] >= 990], 0.9, 1),
        *poisson_checks(settings, half, single, density),
    ]  # fmt: skip
    return Findings(
        "Whether ReLU'(0) is 0 or 1 changes gradients at 16 bits, at 32 half of the time",
        table(settings, half, single, double, others, density),
        panels(settings, half, single, double, density),
        tuple(checks),
        columns=2,
    )


def epoch(settings: Settings, drawn: Drawn) -> float:
    return of_epoch(settings, drawn.fraction)


def of_epoch(settings: Settings, fraction: float) -> float:
    return 1 - (1 - fraction) ** (1 / settings.epochs)


def increasing(name: str, row: list[Drawn]) -> Check:
    """From the first to the last, and no step goes down as far as 95 % intervals can tell."""
    down = sum(after.interval[1] < before.interval[0] for before, after in pairwise(row))
    fractions = ", ".join(number(drawn.fraction, 2) for drawn in row)
    claim = f"32 bits: the fraction increases with {name}"
    return Check(claim, fractions, row[-1].fraction > row[0].fraction and not down)


def against_table(settings: Settings, name: str, found: dict[Shape, Drawn], k: int) -> Check:
    """That a factor of at most 2 is not excluded by a 95 % interval."""
    paper = {shape: PAPER[shape][k] / 1000 for shape in found}
    ratios = [epoch(settings, drawn) / paper[s] for s, drawn in found.items()]
    ends = {s: [of_epoch(settings, end) / paper[s] for end in d.interval] for s, d in found.items()}
    claim = f"{name}: fraction in an epoch within a factor 2 of the paper's (95 % intervals)"
    measured = f"factors {min(ratios):.2f} … {max(ratios):.2f}"
    return Check(claim, measured, all(low <= 2 and high >= 0.5 for low, high in ends.values()))


def poisson_checks(settings: Settings, half, single, density) -> list[Check]:
    drawn = [*half.values(), *single.values()]
    spread = [standardised_dispersion(each.zeros) for each in drawn if each.zeros.any()]

    def zeros(found: dict[Shape, Drawn]) -> int:
        return sum(int(each.zeros.sum()) for each in found.values())

    predicted = sum(2.0**-24 * density[s] * d.calls * len(d.zeros) for s, d in half.items())
    in_table = sum(
        -math.log1p(-PAPER[s][1] / 1000) * settings.epochs * len(d.zeros) for s, d in single.items()
    )
    rate = zeros(single) / sum(each.calls * len(each.zeros) for each in single.values())
    return [
        between("zeros per θ: (variance/mean − 1) √(n/2), Poisson", spread, -4, 4),
        between("16 bits: zeros over 2⁻²⁴ · density at 0 · calls", zeros(half) / predicted, 0.5, 2),
        between(f"32 bits: zeros, {small(rate)} per call, over those that the paper's table is of",
                zeros(single) / in_table, 0.5, 2),
    ]  # fmt: skip


def standardised_dispersion(counts: np.ndarray) -> float:
    return float((np.var(counts, ddof=1) / np.mean(counts) - 1) * np.sqrt((len(counts) - 1) / 2))


def table(settings, half, single, double, others, density) -> Table:
    rows = []
    for arithmetic, found, k in ((HALF, half, 0), (SINGLE, single, 1), (DOUBLE, double, None)):
        for (depth, width), drawn in found.items():
            low, high = (of_epoch(settings, end) for end in drawn.interval)
            rows.append((
                arithmetic.label, f"{depth} × {width}", str(len(drawn.first)),
                str(int(drawn.zeros.sum())), small(drawn.rate),
                f"{epoch(settings, drawn):.3f} [{low:.3f}, {high:.3f}]",
                "0" if k is None else f"{PAPER[depth, width][k] / 1000:.3f}",
                small(drawn.difference),
            ))  # fmt: skip
    notes = [f"{name}: {small(d.rate)} zeros per ReLU call (3 × 256)" for name, d in others.items()]
    return Table(
        f"Fraction of θ in S in an epoch, from {256 * settings.batches} samples",
        ("precision", "network", "θ", "zeros", "per call", "in S [95 %]", "paper",
         "‖∇₁ − ∇₀‖/‖∇₀‖"),
        tuple(rows),
        tuple(notes),
    )  # fmt: skip


def panels(settings, half, single, double, density) -> tuple[Panel, ...]:
    deep, wide = settings.shapes()
    ylabel = "fraction of θ in S   (dotted: paper)"

    def fractions(title: str, xlabel: str, row: list[Shape], axis: int, xscale: str) -> Panel:
        at = np.array([shape[axis] for shape in row])
        curves = tuple(
            Curve(
                arithmetic.label,
                np.array([epoch(settings, found[shape]) for shape in row]),
                at,
                np.array([paper(shape) for shape in row]),
                band=None
                if arithmetic is DOUBLE
                else np.transpose(
                    [[of_epoch(settings, end) for end in found[s].interval] for s in row]
                ),
            )
            for arithmetic, found, paper in (
                (HALF, half, lambda shape: PAPER[shape][0] / 1000),
                (SINGLE, single, lambda shape: PAPER[shape][1] / 1000),
                (DOUBLE, double, lambda shape: 0.0),
            )
        )
        return Panel(title, xlabel, ylabel, curves, xscale, "linear", (-0.03, 1.03))

    at = np.array([depth for depth, _ in deep])
    rates = (
        Curve(HALF.label, np.array([half[s].rate for s in deep]), at,
              np.array([2.0**-24 * density[s] for s in deep])),
        Curve(SINGLE.label, np.array([single[s].rate for s in deep]), at),
    )  # fmt: skip
    zeros = half[deep[-1]].zeros
    k = np.arange(zeros.max() + 2)
    share = np.array([np.mean(zeros == i) for i in k])
    counts = (Curve(f"{HALF.label}, {deep[-1][0]} layers", share, k, poisson.pmf(k, zeros.mean())),)
    return (
        fractions("Depth (width 256)", "hidden layers", deep, 0, "linear"),
        fractions("Width (3 hidden layers)", "width", wide, 1, "log"),
        Panel("Preactivations that are exactly 0", "hidden layers",
              "share of calls   (dotted: predicted)", rates),
        Panel("Zeros are Poisson", "zeros in all samples",
              "share of θ   (dotted: Poisson)", counts, yscale="linear"),
    )  # fmt: skip


EXPERIMENT = curves.experiment(Settings, run)
