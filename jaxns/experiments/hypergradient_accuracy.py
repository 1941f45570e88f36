"""The error of a hypergradient against its work (arXiv 2105.01637), experiment F2.

d/d log λ of the mean squared error, on the other half of the samples, of a lasso at x_K, after K
epochs of coordinate descent. Work is counted in updates of one coordinate of x or of J: an epoch
over all is p of them, and so is a product with ∂F or its transpose.

- forward: piggyback, J beside x; K (p + p).
- backward: the same in reverse; K p, and three times as much to replay and go back (`cost`).
- implicit: GMRES on (I − ∂F)ᵀ w = z̄ at x_K; K p + (products) p.
- implicit forward: J alone, K epochs on the support S of x_K; K (p + |S|).
- the same after a fast solver: K/2 epochs with working sets, each as dear as two.
"""

import dataclasses
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from pydantic import Field

import jaxns
from jaxns.experiments import closed_form, curves
from jaxns.experiments.config import Base, Fraction, Section
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.datasets import Source, load
from jaxns.experiments.rates import identification
from jaxns.experiments.reporting import Table, below, between, small
from jaxns.experiments.session import Session
from jaxns.fixed_point import NOWHERE

PLAIN, FAST = jaxns.CoordinateDescent(working_sets=False), jaxns.CoordinateDescent()
METHODS = ("forward", "backward", "implicit", "implicit forward", "implicit forward, fast solver")
ASKED = 1e-5  # relative error whose work is compared


class Problem(Section):
    """level: λ over λ_max.   epochs: the largest K."""

    data: Source
    level: Fraction
    epochs: Annotated[int, Field(ge=20)]


class Settings(Base):
    """points: values of K, from 5 to a problem's epochs (the paper: 10)."""

    points: Annotated[int, Field(ge=3)] = 10
    problems: Annotated[tuple[Problem, ...], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class Measured:
    """work, errors: by method, at each K; relative.   slopes: of log error of the implicit
    hypergradient over the log of ‖x − x*‖, of the least duality gap, of the residual's gap.
    updates: of coordinates in a Jacobian epoch on S, on all.   apart: backward from forward."""

    shape: tuple[int, int]
    size: int
    work: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    slopes: tuple[float, float, float]
    updates: tuple[int, int]
    apart: float

    def work_to(self, asked: float, method: str) -> float:
        """Updates to a relative error, by the line through the logarithms of the errors."""
        e, work = np.log(np.maximum(self.errors[method], 1e-300)), self.work[method]
        after = int(np.argmax(e < np.log(asked)))
        if e[after] >= np.log(asked):
            return float("inf")
        if after == 0:
            return float(work[0])
        return float(
            np.interp(-np.log(asked), -e[after - 1 : after + 1], work[after - 1 : after + 1])
        )


class Lasso:
    """Half of the samples to fit, the other half to judge by."""

    def __init__(self, problem: Problem) -> None:
        X, y = load(problem.data)
        n = len(y) // 2
        self.A, self.b, self.V, self.w = map(jnp.asarray, (X[:n], y[:n], X[n:], y[n:]))
        self.t = float(
            np.log(problem.level * jaxns.problems.lasso(X[:n], y[:n], 1.0).max_penalty())
        )

    def build(self, t: Any) -> jaxns.Composite:
        return jaxns.problems.lasso(self.A, self.b, jnp.exp(t))

    def outer(self, x: jax.Array) -> jax.Array:
        return jnp.mean((self.V @ x - self.w) ** 2)

    def solve(self, t: Any, solver: Any, stop: jaxns.Stop, mode: Any, x0: Any = None) -> Any:
        return self.outer(jaxns.solve(self.build(t), solver, x0, mode=mode, stop=stop).x)

    def exact(self, guess: np.ndarray) -> closed_form.Reference:
        A, b = np.asarray(self.A), np.asarray(self.b)
        return closed_form.reference(
            A.T @ A / len(b), A.T @ b / len(b), float(np.exp(self.t)), 0.0, guess
        )

    def restricted(self, x: np.ndarray, epochs: int) -> float:
        """Implicit forward: J on the support of x alone, where x stands."""
        S = np.flatnonzero(x)
        if not len(S):
            return 0.0

        def on_support(t):
            problem = jaxns.problems.lasso(self.A[:, S], self.b, jnp.exp(t))
            mode = jaxns.OneStep(epochs, direction="both")
            return jaxns.solve(problem, PLAIN, x[S], mode=mode, stop=NOWHERE).x

        J = jax.jvp(on_support, (self.t,), (1.0,))[1]
        return float(jax.grad(self.outer)(jnp.asarray(x))[S] @ J)

    def gaps(self, x: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
        """P(x) − D(θ) at the best θ, where D = min P, and at the residual, scaled feasible.

        The first is P(x) − P(x*), without its cancellation: ‖A(x − x*)‖²/2n, and λ‖·‖₁ over its
        tangent at x* with the slope −∇f(x*).
        """
        n, penalty, A = len(self.b), np.exp(self.t), np.asarray(self.A)
        slope = A.T @ np.asarray(self.b - self.A @ exact) / n
        bent = penalty * np.abs(x) - slope * x  # 0 where x has the sign of x*, to rounding
        bent = np.where(np.sign(x) == np.sign(exact), 0, bent)
        least = np.sum((A @ (x - exact)) ** 2) / (2 * n) + bent.sum()
        r = np.asarray(self.b - self.A @ x)
        r = r / max(1.0, float(np.abs(A.T @ r).max() / (n * penalty)))
        dual = float(self.b @ self.b - (self.b - r) @ (self.b - r)) / (2 * n)
        return float(least), float(self.build(self.t)(jnp.asarray(x))) - dual


def run(settings: Settings, session: Session) -> Findings:
    units = {
        f"{p.data.name}, λ/λ_max = {p.level:g}": partial(measure, p, settings.points)
        for p in settings.problems
    }
    found = dict(zip(units, session.each("problems", units), strict=True))
    every = list(found.values())
    slopes = np.array([m.slopes for m in every])
    to = {name: np.array([m.work_to(ASKED, name) for m in every]) for name in METHODS}
    spare = [m.updates[0] - m.size for m in every]
    checks = (
        between("implicit: slope of log error over log ‖x − x*‖", slopes[:, 0], 0.85, 1.15),
        between("implicit: slope of log error over log duality gap, best dual point",
                slopes[:, 1], 0.35, 0.65),
        below("backward from forward, relatively", [m.apart for m in every], 1e-10),
        between("implicit forward: updates in a Jacobian epoch, less |S| (in blocks of up to 32)",
                spare, 0, 31),
        below("the same over p", [m.updates[0] / m.shape[1] for m in every], 0.5),
        below(f"work to an error of {ASKED:g}: implicit forward over forward",
              to["implicit forward"] / to["forward"], 1),
        below(f"work to an error of {ASKED:g}: forward over backward",
              to["forward"] / to["backward"], 1),
    )  # fmt: skip
    rows = tuple(
        (name, "{} × {}".format(*m.shape), str(m.size), *(f"{to[k][i]:.3g}" for k in METHODS),
         *(f"{slope:.3f}" for slope in m.slopes), small(m.errors["implicit"][-1]))
        for i, (name, m) in enumerate(found.items())
    )  # fmt: skip
    table = Table(
        f"Coordinate updates to a relative error of {ASKED:g} of the hypergradient",
        ("problem", "size", "|S|", *METHODS, "slope in ‖x − x*‖", "in the gap",
         "in the residual's gap", "implicit, at the end"),
        rows,
        ("at the residual, scaled to be feasible, the duality gap is linear in ‖x − x*‖: its slope "
         "is that of the distance",),
    )  # fmt: skip
    panels = tuple(
        Panel(name, "updates of a coordinate", "relative error of the hypergradient",
              tuple(Curve(k, np.maximum(m.errors[k], 1e-16), m.work[k]) for k in METHODS),
              xscale="log", ylim=(1e-16, 1e2))
        for name, m in found.items()
    )  # fmt: skip
    title = "Hypergradients of a lasso: the same error for less work on the support"
    return Findings(title, table, panels, checks, columns=min(2, len(panels)))


def measure(problem: Problem, points: int) -> Measured:
    it = Lasso(problem)
    path = jaxns.derivative_path(it.build, it.t, problem.epochs, solver=PLAIN)
    x, J = np.asarray(path.x), np.asarray(path.jacobian)
    exact = it.exact(x[-1])
    slope = jax.jit(jax.grad(it.outer))
    reference = float(slope(exact.x) @ (np.exp(it.t) * exact.d_l1))

    @jax.jit
    def implicit(x):
        def value(t, probe):
            mode = jaxns.Implicit(method="gmres", probe=probe, on_failure="ignore")
            return it.solve(t, PLAIN, NOWHERE, mode, x)

        gradient, seen = jax.grad(value, argnums=(0, 1))(it.t, jaxns.Probe())
        return gradient, seen.steps

    @jax.jit
    def backward(epochs):
        stop = jaxns.Stop(tol=None, max_steps=epochs)
        return jax.grad(it.solve)(it.t, PLAIN, stop, jaxns.Piggyback())

    @jax.jit
    def fast(epochs):
        stop = jaxns.Stop(tol=None, max_steps=epochs)
        return jaxns.solve(it.build(it.t), FAST, stop=stop).x

    K = np.linspace(5, problem.epochs, points).astype(int)
    x_fast = [np.asarray(fast((k + 1) // 2)) for k in K]
    at_iterates = [implicit(x[k]) for k in K]
    found = {
        "forward": [slope(x[k]) @ J[k] for k in K],
        "backward": [backward(k) for k in K],
        "implicit": [gradient for gradient, _ in at_iterates],
        "implicit forward": [it.restricted(x[k], int(k)) for k in K],
        "implicit forward, fast solver": [
            it.restricted(x, int(k)) for x, k in zip(x_fast, K, strict=True)
        ],
    }
    p, sizes = x.shape[1], np.count_nonzero(x[K], axis=1)
    replayed = int(jaxns.Piggyback().cost(1, 0, x[0], None)[0])
    work = {
        "forward": 2 * K * p,
        "backward": (1 + replayed) * K * p,
        "implicit": (K + np.array([float(steps) for _, steps in at_iterates])) * p,
        "implicit forward": K * (p + sizes),
        "implicit forward, fast solver": 2 * ((K + 1) // 2) * p
        + K * np.array([np.count_nonzero(x) for x in x_fast]),
    }

    def error(values):
        return np.abs(np.array(values, float) / reference - 1)

    after = np.unique(np.linspace(identification(np.sign(x)), problem.epochs, 40).astype(int))
    return Measured(
        (len(it.b), p),
        len(exact.support),
        work,
        {name: error(values) for name, values in found.items()},
        slopes(it, x[after], exact.x, error([implicit(x[k])[0] for k in after])),
        (jacobian_updates(it, exact.x[exact.support], exact.support),
         jacobian_updates(it, exact.x, np.arange(p))),
        float(np.max(np.abs(np.array(found["backward"]) / np.array(found["forward"]) - 1))),
    )  # fmt: skip


def slopes(
    it: Lasso, x: np.ndarray, exact: np.ndarray, errors: np.ndarray
) -> tuple[float, float, float]:
    """Of log error over the logs of three distances, where all are above rounding."""
    distance = np.linalg.norm(x - exact, axis=1)
    least, residual = np.array([it.gaps(one, exact) for one in x]).T

    def slope(d: np.ndarray, floor: float) -> float:
        clear = (errors > 1e-10) & (d > floor)
        return float(np.polyfit(np.log(d[clear]), np.log(errors[clear]), 1)[0])

    return slope(distance, 1e-13), slope(least, 1e-26), slope(residual, 1e-13)


def jacobian_updates(it: Lasso, x: np.ndarray, S: np.ndarray) -> int:
    """Coordinates that the program v ↦ ∂F v on the columns S visits."""
    problem = jaxns.problems.lasso(it.A[:, S], it.b, float(np.exp(it.t)))
    solver = PLAIN.prepare(problem, jnp.asarray(x))

    def epoch(v):
        return jax.jvp(lambda x: solver.step(problem, x), (x,), (v,))[1]

    return innermost_trips(jax.make_jaxpr(epoch)(x).jaxpr)


def innermost_trips(jaxpr: Any) -> int:
    """How often the body of a scan without a scan inside is run."""
    total = 0
    for equation in jaxpr.eqns:
        inner = sum(map(innermost_trips, jaxprs_in_params(equation.params)))
        if equation.primitive.name == "scan":
            inner = equation.params["length"] * max(inner, 1)
        total += inner
    return total


EXPERIMENT = curves.experiment(Settings, run)
