"""Derivatives of solutions of monotone inclusions 0 ∈ A(x) + B(x) (arXiv 2212.07844).

The solution is the fixed point of x ↦ (I + γA)⁻¹(x − γBx) for every γ > 0, and its derivative is
U⁻¹V, U = I − ∂_x, V = ∂_θ of that map, whatever γ is: the map need not converge. Three settings: a
strongly convex problem, a dual and a saddle point. The paper has no experiments; these are checks
of its formula.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.rates import fitted_rate
from jaxns.experiments.reporting import Table, below, between, number, small
from jaxns.experiments.session import Session
from jaxns.functions import Box, ElasticNet, LeastSquares, Quadratic, SquaredDistance

EXACT = jaxns.Stop(tol=1e-15)
Map = Callable[[Any, Array], Array]


class Settings(Base):
    """stepsizes: γ of the formula.   steps: of Chambolle-Pock, followed with its derivative."""

    stepsizes: Annotated[tuple[Positive, ...], Field(min_length=2)] = (0.01, 0.1, 1.0, 10.0)
    steps: Count = 150
    seed: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True)
class Setting:
    """errors, conditions: for each γ, of U⁻¹V against differences, relatively, and of U.

    spread: of the derivatives by all γ and by the other map.   free: coordinates off a flat piece.
    """

    name: str
    errors: np.ndarray
    conditions: np.ndarray
    other: float
    spread: float
    free: str


@dataclasses.dataclass(frozen=True)
class Along:
    """Relative errors of x_k and J_k of Chambolle-Pock; spectral radius and norm of ∂F."""

    x: np.ndarray
    J: np.ndarray
    radius: float
    norm: float


def run(settings: Settings, session: Session) -> Findings:
    units = {
        "strongly convex": partial(strongly_convex, settings),
        "dual": partial(dual, settings),
    }
    ((of_saddle, along),) = session.each("saddle point", {"": partial(saddle_point, settings)})
    found = [*session.each("minimisation", units), of_saddle]
    rates = [fitted_rate(along.x), fitted_rate(along.J)]
    checks = (
        *(below(f"{s.name}: one J for every γ and map", s.spread, 1e-9) for s in found),
        *(below(f"{s.name}: J from central differences", s.errors, 1e-8) for s in found),
        below("Chambolle-Pock: rate of x over the spectral radius", rates[0] / along.radius, 1.05),
        below("Chambolle-Pock: rate of J over the spectral radius", rates[1] / along.radius, 1.05),
        between("… which is less than the norm, by", along.norm / along.radius, 1, 2),
        below("Chambolle-Pock: last error of J", along.J[-1], 1e-10),
    )
    rows = tuple(
        (s.name, s.free, *(small(e) for e in s.errors), small(s.other), small(s.spread))
        for s in found
    )
    table = Table(
        "Relative distance of U⁻¹V from central differences of the solution",
        ("setting", "coordinates free to move", *(f"γ = {g:g}" for g in settings.stepsizes),
         "other map", "spread"),
        rows,
        (
            f"Chambolle-Pock: rate of x {number(rates[0])}, of J {number(rates[1])}, "
            f"spectral radius {number(along.radius)}, norm {number(along.norm)}",
        ),
    )  # fmt: skip
    gammas = np.array(settings.stepsizes)
    k = np.arange(settings.steps + 1)
    label = f"relative error (thin: {along.radius:.3f}ᵏ)"
    panels = (
        Panel("J against differences", "γ", "relative error",
              tuple(Curve(s.name, s.errors, gammas) for s in found),
              xscale="log", ylim=(1e-13, 1e-5)),
        Panel("Condition of U", "γ", "condition number",
              tuple(Curve(s.name, s.conditions, gammas) for s in found), xscale="log"),
        Panel("Chambolle-Pock, saddle point", "step k", label,
              (Curve("x_k", along.x, guide=along.radius**k), Curve("J_k", along.J)),
              ylim=(1e-16, 10)),
    )  # fmt: skip
    title = "Solutions of monotone inclusions: one derivative for every stepsize and every map"
    return Findings(title, table, panels, checks)


def strongly_convex(settings: Settings) -> Setting:
    """E1: an elastic net, in its ℓ₁ penalty."""
    random = np.random.default_rng(settings.seed)
    A = jnp.asarray(random.normal(size=(30, 60)) / np.sqrt(30))
    b = jnp.asarray(random.normal(size=30)) + A[:, :5].sum(axis=1)

    def build(theta):
        return jaxns.Composite(LeastSquares(A, b), ElasticNet(theta, 0.5))

    return splitting("strongly convex", settings, build, 0.3, lambda x: x != 0)


def dual(settings: Settings) -> Setting:
    """E2: the dual of ½ ‖x − y‖² + θ ‖Dx‖₁."""
    n, theta = 40, 0.2
    random = np.random.default_rng(settings.seed)
    y = jnp.asarray(np.repeat([0.0, 1.0], n // 2) + 0.3 * random.normal(size=n))
    D = jnp.diff(jnp.eye(n), axis=0)

    def build(theta):
        return jaxns.Composite(Quadratic(D @ D.T, -D @ y), Box(-theta, theta))

    return splitting("dual", settings, build, theta, lambda v: np.abs(v) < theta)


def splitting(name: str, settings: Settings, build, theta: float, free) -> Setting:
    """Forward-backward with every γ; the other map is Douglas-Rachford's."""
    solver = jaxns.DouglasRachford(1.0)

    def solution(theta):
        return jaxns.solve(build(theta), stop=EXACT).x

    x, z = solution(theta), jaxns.solve(build(theta), solver, stop=EXACT).z
    dz, _ = through(step_of(solver, build), theta, z)
    other = jax.jvp(lambda t, z: solver.solution(build(t), z), (theta, z), (1.0, dz))[1]
    maps = [step_of(jaxns.ForwardBackward(g), build) for g in settings.stepsizes]
    return compare(name, maps, theta, x, other, solution, free(np.asarray(x)))


@jaxns.struct
class Saturating:
    """h with h*(v) = δ/2 ‖v‖² on |vᵢ| ≤ level: quadratic near 0, then linear."""

    level: float
    delta: float

    def __call__(self, w):
        inside = jnp.abs(w) <= self.delta * self.level
        far = self.level * jnp.abs(w) - self.delta * self.level**2 / 2
        return jnp.sum(jnp.where(inside, w**2 / (2 * self.delta), far))

    def prox(self, w, step):
        inside = jnp.abs(w) <= self.level * (self.delta + step)
        near = w / (1 + step / self.delta)
        return jnp.where(inside, near, w - step * self.level * jnp.sign(w))


def saddle_point(settings: Settings) -> tuple[Setting, Along]:
    """E3: ½ ‖x − b‖² + h(Kx), in the level of h; the other map is Chambolle-Pock's."""
    n, m, delta, theta = 30, 20, 0.5, 0.4
    random = np.random.default_rng(settings.seed)
    K = jnp.asarray(random.normal(size=(m, n)) / np.sqrt(n))
    b = jnp.asarray(random.normal(size=n))
    size = float(np.linalg.norm(K, 2))
    solver = jaxns.PrimalDual(tau=0.9 / size, sigma=0.9 / size, smooth=False)

    def build(theta):
        return jaxns.Composite(SquaredDistance(b), Saturating(theta, delta), K)

    def solution(theta):
        return jnp.concatenate(jaxns.solve(build(theta), solver, stop=EXACT).z)

    def chambolle_pock(theta, w):
        return jnp.concatenate(solver.step(build(theta), (w[:n], w[n:])))

    def resolvent(gamma, theta, w):
        """(I + γA)⁻¹(w − γBw), A = (∂f, ∂h*), B = [[0, Kᵀ], [−K, 0]]."""
        x, v = w[:n] - gamma * w[n:] @ K, w[n:] + gamma * K @ w[:n]
        x = (x + gamma * b) / (1 + gamma)
        return jnp.concatenate([x, jnp.clip(v / (1 + gamma * delta), -theta, theta)])

    w = solution(theta)
    J, U = through(chambolle_pock, theta, w)
    maps = [partial(resolvent, gamma) for gamma in settings.stepsizes]
    free = np.abs(np.asarray(w[n:])) < theta * (1 - 1e-9)
    setting = compare("saddle point", maps, theta, w, J, solution, free)

    path = jaxns.derivative_path(build, theta, settings.steps, solver=solver)
    A = np.eye(n + m) - U
    x_error = [relative(x, w[:n]) for x in np.asarray(path.x)]
    J_error = [relative(dx, J[:n]) for dx in np.asarray(path.jacobian)]
    radius = float(np.max(np.abs(np.linalg.eigvals(A))))
    return setting, Along(np.array(x_error), np.array(J_error), radius, float(np.linalg.norm(A, 2)))


def step_of(solver, build) -> Map:
    """F(θ, z) of a solver."""
    return lambda theta, z: solver.step(build(theta), z)


def through(F: Map, theta, z: Array) -> tuple[np.ndarray, np.ndarray]:
    """U⁻¹V and U = I − ∂_z F, V = ∂_θ F, at the fixed point z of F(θ, ·)."""
    A, V = jax.jit(jax.jacfwd(F, (1, 0)))(theta, z)
    U = np.eye(z.size) - A
    return np.linalg.solve(U, V), U


def compare(name: str, maps, theta, z, other, solution, free: np.ndarray) -> Setting:
    h = 1e-6
    differences = (solution(theta + h) - solution(theta - h)) / (2 * h)
    found = [through(F, theta, z) for F in maps]
    every = np.array([J for J, _ in found] + [other])
    return Setting(
        name,
        np.array([relative(J, differences) for J, _ in found]),
        np.array([np.linalg.cond(U) for _, U in found]),
        relative(other, differences),
        float(np.max(np.abs(every - every[0]))),
        f"{free.sum()} of {free.size}",
    )


def relative(found, exact) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


EXPERIMENT = curves.experiment(Settings, run)
