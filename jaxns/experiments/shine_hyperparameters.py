"""Hyperparameters by shared inverses (SHINE, arXiv 2106.00553), experiment G1.

The penalty of ℓ₂-regularised logistic regression, chosen by the loss on held-out samples. HOAG's
outer loop (Pedregosa, arXiv 1602.02355): inner solves by L-BFGS, each from the one before, to a
tolerance that falls geometrically; steps u ← u − ∇/L in u = log λ, where L is halved after a
decrease of L/2 times the step squared, and doubled after an increase. The schemes differ in the
derivative alone. Work is counted in products with the data: of a gradient, of a Hessian-vector
product, one each.
"""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from pydantic import Field
from scipy.interpolate import CubicSpline

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.datasets import Source, labels, load
from jaxns.experiments.reporting import Table, below, between, number, small
from jaxns.experiments.session import Session

RANGE = (1e-5, 1e1)  # of λ
SHARE, HOAG = (0.78, 30), (0.9, 10)  # factor of the tolerance, memory of L-BFGS
NEAR = 1e-2  # of the least held-out loss: the suboptimality to which work is compared


def by_cg(tol: Any, most: int, probe: jaxns.Probe | None) -> jaxns.Implicit:
    return jaxns.Implicit(method="cg", tol=tol, max_steps=most, on_failure="ignore", probe=probe)


SCHEMES: dict[str, tuple[tuple[float, int], Callable]] = {
    "SHINE": (SHARE, lambda tol, probe: jaxns.Shine()),
    "SHINE, refined": (SHARE, lambda tol, probe: jaxns.Shine(refine=5, probe=probe)),
    "Jacobian-free": (SHARE, lambda tol, probe: jaxns.OneStep()),
    "HOAG": (HOAG, lambda tol, probe: by_cg(tol, 1000, probe)),
    "HOAG, 5 backward": (HOAG, lambda tol, probe: by_cg(tol, 5, probe)),
}
SEARCHES = ("grid", "random")


class Settings(Base):
    """outer: iterations, and points of the searches.   seeds: random splits, 90 % to fit.

    start: the first λ, times the samples.   tol: of the first inner solve.
    curve: points at which the held-out loss is known exactly, between which it is interpolated.
    """

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    outer: Annotated[int, Field(ge=2)] = 30
    seeds: Count = 10
    start: Positive = 1.0
    tol: Positive = 1e-3
    curve: Annotated[int, Field(ge=20)] = 200


@dataclasses.dataclass(frozen=True)
class Compared:
    """work, behind: by scheme, (seeds, outer): products with the data so far, and the least
    suboptimality so far, over the least loss.   backward: Hessian-vector products in all, by
    scheme, the median.   flops: of a backward pass over those of a product, loops counted once.
    loops: over the pairs, in SHINE's backward pass.   products: of CG to 1e-10."""

    shape: tuple[int, ...]
    work: dict[str, np.ndarray]
    behind: dict[str, np.ndarray]
    backward: dict[str, float]
    flops: dict[str, float]
    loops: int
    products: int

    def work_to(self, asked: float, scheme: str) -> float:
        """The median over splits; infinite where most never get there."""
        there = self.behind[scheme] <= asked
        first = np.argmax(there, axis=1)
        work = np.take_along_axis(self.work[scheme], first[:, None], 1)[:, 0]
        return float(np.median(np.where(there.any(1), work, np.inf)))

    def end(self, scheme: str) -> float:
        return float(np.median(self.behind[scheme][:, -1]))


class Instance:
    """One split: 90 % to fit, 5 % to choose by (and 5 % that the paper keeps to test on)."""

    def __init__(self, X: Array, y: Array, order: Any) -> None:
        n = len(y)
        fit, held = order[: 9 * n // 10], order[9 * n // 10 : 19 * n // 20]
        self.X, self.y, self.V, self.w = X[fit], y[fit], X[held], y[held]

    def problem(self, t: Any) -> jaxns.Composite:
        return jaxns.Composite(
            jaxns.functions.Logistic(self.X, self.y, scale="mean"),
            jaxns.functions.SquaredL2(jnp.exp(t)),
        )

    def outer(self, x: Array) -> Array:
        return jnp.mean(jax.nn.softplus(-self.w * (self.V @ x)))

    def solve(self, t: Any, x: Array, tol: Any, memory: int, mode: Any) -> jaxns.Solution:
        stop = jaxns.Stop(tol=tol, max_steps=1000, on_failure="ignore")
        return jaxns.solve(self.problem(t), jaxns.LBFGS(memory), x, mode=mode, stop=stop)

    def descend(self, scheme: str, settings: Settings) -> tuple[Array, Array, Array]:
        """log λ, inner gradients and Hessian-vector products of each outer iteration."""
        (factor, memory), make = SCHEMES[scheme]
        low, high = np.log(RANGE)

        def step(state, k):
            t, x, L, before, moved = state
            tol = settings.tol * factor**k

            def loss(t, probe):
                solution = self.solve(t, x, tol, memory, make(tol, probe))
                return self.outer(solution.x), lax.stop_gradient(solution)

            derivative = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
            (value, solution), (slope, seen) = derivative(t, jaxns.Probe())
            L = jnp.where(k == 0, jnp.abs(slope) + 1e-12, L)
            better = value <= before + tol * moved - L / 2 * moved**2
            L = L * jnp.where(k == 0, 1, jnp.where(better, 0.5, jnp.where(value > before, 2, 1)))
            after = jnp.clip(t - slope / L, low, high)
            state = after, solution.x, L, value, jnp.abs(after - t)
            return state, (t, solution.steps, seen.steps)

        zero = jnp.zeros(())
        t = jnp.log(settings.start / len(self.y)) + zero
        start = t, jnp.zeros_like(self.X[0]), zero + 1, zero + jnp.inf, zero
        return lax.scan(step, start, jnp.arange(settings.outer))[1]

    def visit(self, t: Array, tol: float) -> tuple[Array, Array]:
        """The held-out loss at each of some log λ, and the gradients it took."""

        def step(x, t):
            solution = self.solve(t, x, tol, SHARE[1], jaxns.Implicit())
            return solution.x, (self.outer(solution.x), solution.steps)

        return lax.scan(step, jnp.zeros_like(self.X[0]), t)[1]

    def pull(self, mode: Any, t: float) -> tuple[Callable, Array]:
        """The backward pass of one solve, and a cotangent for it."""
        x, pull = jax.vjp(
            lambda t: self.solve(t, jnp.zeros_like(self.X[0]), 1e-6, SHARE[1], mode).x, t
        )
        return pull, jax.grad(self.outer)(x)


def run(settings: Settings, session: Session) -> Findings:
    units = {
        source.name: partial(compare, source, settings, session) for source in settings.sources
    }
    found = dict(zip(units, session.each("data", units), strict=True))
    every = found.values()
    checks = (
        below("SHINE: arithmetic of a backward pass, over that of a Hessian-vector product",
              [c.flops["SHINE"] for c in every], 0.5),
        between("HOAG: the same, where such products are (in a loop, counted once)",
                [c.flops["HOAG"] for c in every], 1, 10),
        between("SHINE: loops over the secant pairs in a backward pass",
                [c.loops for c in every], 2, 2),
        between("conjugate gradients: Hessian-vector products to 1e-10",
                [c.products for c in every], 10, 1000),
    )  # fmt: skip
    names = (*SCHEMES, *SEARCHES)
    rows = tuple(
        (data, "{} × {}".format(*c.shape), scheme, number(c.work_to(NEAR, scheme), 3),
         number(float(np.median(c.work[scheme][:, -1])), 4), number(c.backward.get(scheme, 0.0)),
         small(c.end(scheme)))
        for data, c in found.items()
        for scheme in names
    )  # fmt: skip
    notes = tuple(
        f"{data}: all iterations of SHINE take {part:.2f} times the products of HOAG's, and end "
        f"{small(c.end('SHINE'))} above the least loss, against {small(c.end('HOAG'))}"
        for data, c in found.items()
        for part in [np.median(c.work["SHINE"][:, -1]) / np.median(c.work["HOAG"][:, -1])]
    )
    table = Table(
        f"Products with the data to {100 * NEAR:g} % above the least held-out loss, medians of "
        f"{settings.seeds} splits",
        ("data", "size", "scheme", f"to {100 * NEAR:g} %", "in all", "of these, backward",
         "suboptimality at the end"),
        rows, notes,
    )  # fmt: skip
    panels = tuple(
        Panel(f"{data}, {c.shape[0]} × {c.shape[1]}", "products with the data",
              "held-out loss over the least, − 1",
              tuple(against_work(name, c) for name in names), xscale="log", ylim=(1e-6, 1))
        for data, c in found.items()
    )  # fmt: skip
    title = "The penalty of a logistic regression: what sharing the inverse saves"
    return Findings(title, table, panels, checks)


def against_work(scheme: str, c: Compared) -> Curve:
    """As steps: what the work so far has brought."""
    work, behind = c.work[scheme], np.maximum(c.behind[scheme], 1e-9)
    at = np.geomspace(work[:, 0].max(), work[:, -1].max(), 60)
    done = [np.searchsorted(w, at, side="right") - 1 for w in work]
    return Curve(scheme, np.stack([b[k] for b, k in zip(behind, done, strict=True)]), at)


def compare(source: Source, settings: Settings, session: Session) -> Compared:
    X, y = load(source)
    X, y = jnp.asarray(X), jnp.asarray(labels(y))
    orders = [np.random.default_rng(seed).permutation(len(y)) for seed in range(settings.seeds)]

    def splits(method: Callable) -> Callable:
        every = session.vmap(lambda order, *more: method(Instance(X, y, order), *more))
        return lambda *more: [np.asarray(a) for a in every(jnp.stack(orders), *more)]

    low, high = np.log(RANGE)
    fine = np.linspace(high, low, settings.curve)
    known = splits(lambda it: it.visit(jnp.asarray(fine), 1e-8))()[0]
    splines = [CubicSpline(fine[::-1], values[::-1]) for values in known]
    dense = np.linspace(low, high, 100 * settings.curve)
    least = np.array([spline(dense).min() for spline in splines])

    def suboptimality(t: np.ndarray) -> np.ndarray:
        values = np.stack([spline(row) for spline, row in zip(splines, t, strict=True)])
        return np.minimum.accumulate(values / least[:, None] - 1, axis=1)

    work, behind, backward = {}, {}, {}
    for scheme in SCHEMES:
        t, inner, products = splits(lambda it, s=scheme: it.descend(s, settings))()
        work[scheme] = np.cumsum(inner + products, axis=1)
        behind[scheme] = suboptimality(t)
        backward[scheme] = float(np.median(products.sum(1)))
    tight = settings.tol * SHARE[0] ** settings.outer
    draws = [np.random.default_rng(seed).uniform(low, high, settings.outer)
             for seed in range(settings.seeds)]  # fmt: skip
    grid = np.tile(np.linspace(high, low, settings.outer), (settings.seeds, 1))
    for name, t in zip(SEARCHES, (grid, np.stack(draws)), strict=True):
        _, inner = splits(lambda it, t: it.visit(t, tight))(t)
        work[name], behind[name] = np.cumsum(inner, axis=1), suboptimality(t)

    it, t = Instance(X, y, orders[0]), float(np.log(settings.start / len(y)))
    product, flops, loops = 4 * it.X.size, {}, {}
    for name, mode in {"SHINE": jaxns.Shine(), "HOAG": by_cg(1e-10, 1000, None)}.items():
        pull, v = it.pull(mode, t)
        program: Any = jax.jit(pull).lower(v).compile()
        flops[name] = program.cost_analysis()["flops"] / product
        trips = re.findall(r'known_trip_count":\{"n":"(\d+)"', program.as_text())
        loops[name] = trips.count(str(SHARE[1]))

    def watched(probe):
        return it.outer(it.solve(t, jnp.zeros_like(it.X[0]), 1e-8, 10, by_cg(1e-10, 1000, probe)).x)

    steps = int(jax.grad(watched)(jaxns.Probe()).steps)
    return Compared(it.X.shape, work, behind, backward, flops, loops["SHINE"], steps)


EXPERIMENT = curves.experiment(Settings, run)
