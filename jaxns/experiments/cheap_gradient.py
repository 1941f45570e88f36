"""What gradients cost beside their programs: the cheap gradient principle, measured.

Nonsmooth automatic differentiation (arXiv 2206.01730): backwards at most 5 times the program in
any dimension, forwards in proportion to the directions. Beside the programs of its reference table,
a gradient through a solve of a lasso by three modes, foreseen and counted.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.gradient_programs import (
    REFERENCES,
    arguments,
    layers,
    pairs,
    product,
    scalars,
)
from jaxns.experiments.reporting import Check, Table, below, between, number
from jaxns.experiments.session import Session
from jaxns.nonsmooth import cost

MODES = {
    "Piggyback": jaxns.Piggyback(), "Implicit": jaxns.Implicit(), "OneStep": jaxns.OneStep(),
}  # fmt: skip

REFERENCE_JAX = "0.10."  # the version that the table of REFERENCES was measured with


class Settings(Base):
    """sizes: n.   programs: random ones for each n.   directions: p.

    rows, columns: of the lasso's design.   steps: K that its solve makes.
    """

    sizes: Annotated[tuple[Count, ...], Field(min_length=3)] = (2, 8, 32, 128, 512)
    programs: Count = 20
    directions: Annotated[tuple[Count, ...], Field(min_length=3)] = (1, 8, 32, 128)
    rows: Count = 60
    columns: Count = 30
    steps: Annotated[tuple[Count, ...], Field(min_length=2)] = (10, 30, 100, 300)
    seed: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True)
class Row:
    """The ratios of one program: equations, XLA's flops, its bytes as it gives them."""

    operations: float
    flops: float
    bytes: float
    blame: tuple[str, ...] = ()


def reference(f: Callable, shape: Any, options: dict[str, Any]) -> Row:
    args = arguments(shape)
    found = cost.ratio(f, *args, **options)
    gradient = jax.value_and_grad(f, options.get("argnums", 0))
    one, two = (cost.compiled(g, *args, correct=False).bytes for g in (f, gradient))
    return Row(found.jaxpr, found.xla_flops, two / one, tuple(found.blame))


def scalar_ratios(settings: Settings, n: int) -> np.ndarray:
    random = np.random.default_rng([settings.seed, n])
    programs = [scalars(random, n) for _ in range(settings.programs)]
    return np.array([cost.ratio(f, [1.0] * n, xla=False).jaxpr for f in programs])


# A gradient through a solve


def solve_cost(settings: Settings, steps: int) -> jaxns.GradientCost:
    random = np.random.default_rng(settings.seed)
    X = jnp.asarray(random.normal(size=(settings.rows, settings.columns)))
    y = jnp.asarray(random.normal(size=settings.rows))
    lasso = jaxns.problems.lasso(X, y, 0.1)
    solver, stop = jaxns.ForwardBackward(acceleration=False), jaxns.Stop(None, steps)
    found = jaxns.gradient_cost(lasso, solver, modes=tuple(MODES.values()), stop=stop)
    return jax.tree.map(float, found)


def run(settings: Settings, session: Session) -> Findings:
    n, p, K = map(np.array, (settings.sizes, settings.directions, settings.steps))
    units = {
        name: partial(reference, f, shape, options)
        for name, (f, shape, options, _) in REFERENCES.items()
    }
    rows = dict(zip(REFERENCES, session.each("programs", units), strict=True))
    random = session.each("scalars", {f"{k}": partial(scalar_ratios, settings, k) for k in n})
    solves = session.each("solves", {f"{k}": partial(solve_cost, settings, k) for k in K})
    backwards = {
        "random scalar programs": np.array(random).T,
        "Σ relu(xᵢxᵢ₊₁) + xᵢxᵢ₊₁": np.array([equations(pairs, k) for k in n]),
        "Πxᵢ by a scan": np.array([equations(product, k) for k in n]),
    }
    by_xla = np.array([cost.ratio(jnp.prod, jnp.ones(k)).xla_flops for k in n])
    forward = np.array([
        cost.ratio(layers, jnp.ones(64), mode="forward", directions=int(k), xla=False).jaxpr
        for k in p
    ])  # fmt: skip
    slope, start = np.polyfit(p, forward, 1)
    line = np.abs(forward - start - slope * p) / forward
    counts = [cost.count(product, jnp.ones(k)).total for k in n]
    flops = [cost.compiled(product, jnp.ones(k)).flops for k in n]
    trips = np.diff([counts, flops]) / np.diff(n)
    blame = rows["Πxᵢ by jnp.prod, n = 512"].blame
    checks = (
        *(below(f"{name}: at most 5, every n", r, 5) for name, r in backwards.items()),
        *(growth(name, r) for name, r in backwards.items()),
        between("forwards: slope in p", slope, 1, 3),
        below("forwards: distance from that line, over the ratio", line, 1e-2),
        between("a scan: cost of a trip over that of one at first", trips / trips[:, :1], 0.9, 1.1),
        Check("jnp.prod: who breaks the bound", ", ".join(blame), blame == ("reduce_prod",)),
        *(
            between(
                f"through a solve, {name}: foreseen over counted",
                of(solves, "foreseen", name) / of(solves, "measured", name),
                0.9,
                1.1,
            )
            for name in MODES
        ),
        *(like_reference(name, row) for name, row in rows.items()),
    )
    at_p = ", ".join(f"{ratio:.4g} (p = {k})" for k, ratio in zip(p, forward, strict=True))
    table = Table(
        "Cost of value and gradient over that of the value (in brackets: the reference)",
        ("program", "operations", "XLA flops", "XLA bytes"),
        tuple((name, *cells(row, REFERENCES[name][3])) for name, row in rows.items()),
        (
            "XLA counts a loop's body once: bytes are as it says, flops times the loop's length",
            f"forwards, relu(M relu(Mx)): {at_p}",
            *(through(int(k), found) for k, found in zip(K, solves, strict=True)),
        ),
    )
    gradient = np.full(len(p), rows["relu(M relu(Mx)), backwards"].operations)
    panels = (
        Panel(
            "Backwards: independent of the dimension", "dimension n",
            "value and gradient / value",
            (*(Curve(name, r, n) for name, r in backwards.items()),
             Curve("Πxᵢ by jnp.prod, XLA flops", by_xla, n),
             Curve("bound of the theorem, 5", np.full(len(n), 5.0), n)),
            xscale="log", ylim=(1, 40),
        ),
        Panel(
            "Forwards: linear in the directions", "directions p", "value and p derivatives / value",
            (Curve(f"relu(M relu(Mx)), slope {slope:.3f}", forward, p),
             Curve("bound of the theorem, 3p + 1", 3.0 * p + 1, p),
             Curve("its gradient, for all p where it is smooth", gradient, p)),
            xscale="log",
        ),
        Panel(
            "Through a solve: as its mode foresees", "iterations K",
            "solve and gradient / solve   (thin: foreseen)",
            tuple(
                Curve(f"lasso, forward-backward, {name}", of(solves, "measured", name), K,
                      of(solves, "foreseen", name))
                for name in MODES
            ),
            xscale="log", yscale="linear", ylim=(0.9, 5),
        ),
    )  # fmt: skip
    title = "A gradient costs a few times its program, in any dimension; p directions cost p times"
    return Findings(title, table, panels, checks)


def equations(f: Callable, n: int) -> float:
    return cost.ratio(f, jnp.ones(n), xla=False).jaxpr


def growth(name: str, ratios: np.ndarray) -> Check:
    """Of the worst: not above what it was for smaller n."""
    worst = np.atleast_2d(ratios).max(0)
    return below(f"{name}: largest n over those before", worst[-1] / worst[:-1].max(), 1.0)


def like_reference(name: str, row: Row) -> Check:
    """XLA counts otherwise in each version: compared where it is the reference's."""
    found, expected = (row.operations, row.flops, row.bytes), REFERENCES[name][3]
    same = jax.__version__.startswith(REFERENCE_JAX)
    compared = list(zip(found, expected, strict=True))[: None if same else 1]
    ratios = [ours / known for ours, known in compared if known]
    what = "over the reference" if same else f"operations over the reference (jax {REFERENCE_JAX}x)"
    return between(f"{name}: {what}", ratios, 0.9, 1.1)


def cells(row: Row, expected: tuple[float | None, ...]) -> list[str]:
    found = zip((row.operations, row.flops, row.bytes), expected, strict=True)
    return [f"{value:.2f}" + (f" ({known:g})" if known else "") for value, known in found]


def of(solves: list[jaxns.GradientCost], what: str, mode: str) -> np.ndarray:
    return np.array([getattr(found, what)[mode] for found in solves])


def through(steps: int, found: jaxns.GradientCost) -> str:
    modes = (
        f"{name} {number(found.measured[name], 3)} ({number(float(found.foreseen[name]), 3)})"
        for name in MODES
    )
    return f"through {steps} steps on a lasso (foreseen): {', '.join(modes)}"


EXPERIMENT = curves.experiment(Settings, run)
