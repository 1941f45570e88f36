"""Derivatives of flows with kinks (arXiv 2201.03819): what they are, and descent along them.

A neural differential equation with ReLU separates two moons: its discrete adjoint against forward
sensitivities, finite differences, integrals along paths and checkpointed reverse passes, for three
elements s of ReLU's derivative at 0. Then flows from a kink, and the control of `flow_control`.
"""

from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from pydantic import Field
from sklearn.datasets import make_moons

from jaxns import flows, nonsmooth
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.flow_control import Control, Descent, descend
from jaxns.experiments.reporting import Table, below, between, small
from jaxns.experiments.session import Session

ELEMENTS = (0.0, 0.5, 1.0)


class Settings(Base):
    """points, steps, width, dimension: samples, Euler steps, units and states of the network.

    draws: of θ and of directions.   counts: midpoints of the paths.   moves: of the differences.
    flow_steps: of the flows from a kink.
    """

    points: Count = 40
    steps: Count = 30
    width: Count = 16
    dimension: Annotated[int, Field(ge=2)] = 3
    draws: Count = 20
    counts: Annotated[tuple[Count, ...], Field(min_length=3)] = (10, 30, 100, 300, 1000)
    moves: Annotated[tuple[Positive, ...], Field(min_length=3)] = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    flow_steps: Count = 20_000
    control: Control = Control()
    seed: Annotated[int, Field(ge=0)] = 0


class Measured(NamedTuple):
    """One row per draw. At x₀ and at a kink: (draws, s, 2).

    duality: |⟨v, δ⟩ − forward| / ‖v‖‖δ‖.   checkpointed: relative.   sizes: ‖v‖.
    paths: (draws, s, counts).   differences: (draws, moves).
    """

    duality: np.ndarray
    checkpointed: np.ndarray
    sizes: np.ndarray
    paths: np.ndarray
    differences: np.ndarray


class Moons:
    def __init__(self, settings: Settings) -> None:
        X, y = make_moons(settings.points, noise=0.1, random_state=settings.seed)
        beside = np.zeros((settings.points, settings.dimension - 2))
        self.x0, self.y = jnp.asarray(np.hstack([X, beside])), 2.0 * jnp.asarray(y) - 1
        self.ts = jnp.linspace(0.0, 1.0, settings.steps + 1)
        self.settings = settings

    def draw(self, key: Array) -> dict[str, Array]:
        d, m = self.settings.dimension, self.settings.width
        W, V, read = jax.random.split(key, 3)
        return {
            "W": jax.random.normal(W, (d, m)),
            "b": jnp.zeros(m),
            "V": jax.random.normal(V, (m, d)) / m**0.5,
            "read": jax.random.normal(read, (d,)),
        }

    def cost(self, theta, s=0.0, x0=None, checkpoints=None) -> Array:
        """The logistic loss of 1 + ⟨X(T), read⟩, X′ = Vᵀ relu(Wᵀ X + b)."""

        def field(x, theta, t):
            return nonsmooth.relu(x @ theta["W"] + theta["b"], at_zero=s) @ theta["V"]

        def final(x):
            return jnp.mean(jnp.logaddexp(0.0, -self.y * (1 + x @ theta["read"])))

        x0 = self.x0 if x0 is None else x0
        return flows.cost(field, None, final, x0, theta, self.ts, "euler", checkpoints)

    def adjoint(self, theta, delta, s, x0) -> tuple[Array, Array, Array]:
        f = partial(self.cost, s=s, x0=x0)
        few = partial(f, checkpoints=int(np.ceil(self.settings.steps**0.5)))
        forward = jax.jvp(f, (theta,), (delta,))[1]
        (v, _), (again, _), (d, _) = map(
            ravel_pytree, (jax.grad(f)(theta), jax.grad(few)(theta), delta)
        )
        size = jnp.linalg.norm(v)
        unit = jnp.where(size > 0, size, 1)  # with s = 0 nothing moves a state that rests at a kink
        return jnp.abs(v @ d - forward) / unit, jnp.linalg.norm(again - v) / unit, size

    def at_element(self, s, theta, delta, other) -> tuple[Array, ...]:
        starts = jnp.stack([self.x0, 0 * self.x0])  # from 0 all units are at kinks, at all times
        adjoint = lax.map(lambda x0: self.adjoint(theta, delta, s, x0), starts)
        tests = [
            flows.path_test(partial(self.cost, s=s), None, theta, other, count)
            for count in self.settings.counts
        ]
        return *adjoint, jnp.stack([jnp.abs(t.integral - t.difference) for t in tests])

    def measure(self, key: Array) -> Measured:
        theta, delta, other = (self.draw(k) for k in jax.random.split(key, 3))
        length = jnp.linalg.norm(ravel_pytree(delta)[0])
        delta = jax.tree.map(lambda d: d / length, delta)
        elements = jnp.asarray(ELEMENTS)
        duality, checkpointed, sizes, paths = lax.map(
            lambda s: self.at_element(s, theta, delta, other), elements
        )

        def error(t: Array) -> Array:
            moved = jax.tree.map(lambda p, d: p + t * d, theta, delta)
            slope = jax.jvp(self.cost, (theta,), (delta,))[1]
            return jnp.abs((self.cost(moved) - self.cost(theta)) / t - slope)

        differences = lax.map(error, jnp.asarray(self.settings.moves))
        return Measured(duality, checkpointed, sizes, paths, differences)


def neural(settings: Settings) -> Measured:
    keys = jax.random.split(jax.random.key(settings.seed), settings.draws)
    return jax.tree.map(np.asarray, jax.jit(partial(lax.map, Moons(settings).measure))(keys))


class FromKinks(NamedTuple):
    """dX(T)/dX(0) at 0: of X′ = |X| for s in [−1, 1], of the zero field for (1 + s)/2."""

    s: np.ndarray
    absolute: np.ndarray
    zero: np.ndarray


def from_kinks(settings: Settings) -> FromKinks:
    ts, s = jnp.linspace(0.0, 1.0, settings.flow_steps + 1), jnp.linspace(-1, 1, 11)

    def absolute(x, s, t):
        return nonsmooth.absolute(x, at_zero=s)

    def zero(x, s, t):
        relu = partial(nonsmooth.relu, at_zero=(1 + s) / 2)
        return relu(x) - relu(-x) - x

    def slopes(field) -> np.ndarray:
        def end(x0, s):
            return flows.cost(field, None, lambda x: x, x0, s, ts, "euler")

        return np.asarray(jax.jit(jax.vmap(jax.grad(end), (None, 0)))(0.0, s))

    return FromKinks(np.asarray(s), slopes(absolute), slopes(zero))


def run(settings: Settings, session: Session) -> Findings:
    units = {
        "neural": partial(neural, settings),
        "kinks": partial(from_kinks, settings),
        "control": partial(descend, settings.control),
    }
    m, kinks, descent = session.each("parts", units)
    paths, typical = np.median(m.paths, axis=0), np.median(m.differences, axis=0)
    exact, h = np.exp(kinks.s), 1 / settings.flow_steps
    chosen = np.linalg.norm(np.diff(m.sizes[..., 1]), axis=1)
    excess = descent.costs[-1] / descent.least - 1
    checks = (
        below("⟨adjoint, δ⟩ from the forward sensitivity, every s, at kinks too", m.duality, 1e-12),
        between("forward differences: order in the move", order(settings.moves, typical), 0.9, 1.1),
        between("chain rule along segments: order in the number of points, every s",
                [order(settings.counts, row) for row in paths], -np.inf, -1),
        below("checkpointed adjoint from the stored one", m.checkpointed, 1e-12),
        below("X′ = |X| from 0: from eˢ, in steps", np.abs(kinks.absolute / exact - 1) / h, 1),
        below("X′ = 0 with kinks: from e²ˢ⁻¹, in steps", np.abs(kinks.zero / exact - 1) / h, 1),
        between("at kinks s matters: change of ‖v‖ over the three", chosen, 1e-6, np.inf),
        below("control: cost, end over start", descent.costs[-1] / descent.costs[0], 1),
        below("control: residual of stationarity, end over start",
              descent.residuals[-1] / descent.residuals[0], 1e-2),
        below("control: excess over where the proximal gradient leads", excess, 1e-2),
    )  # fmt: skip
    shown = [
        (e[:, i, j].max()) for i in range(3) for e in (m.duality, m.checkpointed) for j in (0, 1)
    ]
    rows = tuple(
        (f"{s:g}", *map(small, shown[4 * i : 4 * i + 4]), small(float(paths[i, -1])))
        for i, s in enumerate(ELEMENTS)
    )
    table = Table(
        f"A neural differential equation, {settings.draws} random θ, the worst",
        ("s", "duality", "… at kinks", "checkpoints", "… at kinks", "chain rule (median)"),
        rows,
        (f"control: {np.sum(descent.u != 0)} of {len(descent.u)} values are not 0",),
    )
    title = "Derivatives of flows with kinks: dual, conservative, and good to descend along"
    return Findings(title, table, panels(settings, m, kinks, descent), checks, 2)


def order(at, values: np.ndarray) -> float:
    return np.polyfit(np.log(at), np.log(values), 1)[0]


def panels(
    settings: Settings, m: Measured, kinks: FromKinks, descent: Descent
) -> tuple[Panel, ...]:
    moves, counts = np.array(settings.moves), np.array(settings.counts)
    k = np.unique(np.geomspace(1, settings.control.iterations, 200).astype(int))
    gamma = settings.control.gamma(k)
    least = np.minimum.accumulate(descent.costs)[k - 1] - descent.least
    differences = Curve(
        "random θ and directions", m.differences, moves,
        np.median(m.differences[:, -1]) * moves / moves[-1],
    )  # fmt: skip
    chain = tuple(
        Curve(f"s = {s:g}", m.paths[:, i], counts, np.median(m.paths[:, 0, 0]) * counts[0] / counts)
        for i, s in enumerate(ELEMENTS)
    )
    of_absolute = Curve("X′ = |X|   (thin: eˢ)", kinks.absolute, kinks.s, np.exp(kinks.s))
    relu_s = (1 + kinks.s) / 2
    of_zero = Curve("X′ = relu(X) − relu(−X) − X = 0   (thin: e²ˢ⁻¹)", kinks.zero, relu_s,
                    np.exp(2 * relu_s - 1))  # fmt: skip
    descended = (
        Curve("residual of stationarity, L²", descent.residuals[k - 1], k,
              descent.residuals[-1] * gamma / gamma[-1]),
        Curve("least cost so far, above where the proximal gradient leads", least, k),
    )  # fmt: skip
    return (
        Panel("Forward difference of the discrete cost", "length of the move of θ (thin: order 1)",
              "|difference − ⟨v, δ⟩|", (differences,), xscale="log"),
        Panel("Chain rule along random segments, one for all s", "midpoints (thin: order 1)",
              "|∫⟨v, θ′⟩dτ − ΔL|", chain, xscale="log"),
        Panel("Derivative of a flow that starts at its kink, T = 1", "element s at the kink",
              "dX(T)/dX(0)", (of_absolute, of_zero), yscale="linear"),
        Panel("Control of a mass against a one-sided spring", "step k (thin: as γ_k)",
              "residual; cost", descended, xscale="log"),
    )  # fmt: skip


EXPERIMENT = curves.experiment(Settings, run)
