"""One-step differentiation of Newton's method (arXiv 2305.13768): weighted logistic regression.

    min_b Σᵢ wᵢ log(1 + exp(−yᵢ xᵢᵀb)) + e^λ/2 ‖b‖²,   ∂b/∂w at wᵢ = 1/n, n = 2p, λ = −5.

Newton's map has no derivative at the solution, and one step is as good as implicit; gradient
descent's has nearly the derivative 1. The data are drawn as the paper's are. Its times are not
measured; what the modes store, and which errors they leave, is.
"""

import dataclasses
from functools import cached_property, partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field

import jaxns
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Table, below, between, small
from jaxns.experiments.session import Session
from jaxns.functions import Logistic, SquaredL2

NEWTON = jaxns.Newton()
MODES = {"one step": jaxns.OneStep(), "implicit": jaxns.Implicit(), "automatic": jaxns.Piggyback()}
LENGTHS = {"one step": (10, 40), "implicit": (10, 40), "automatic": (10, 20, 40)}  # runs, in steps
SAMPLES = 30  # iterates of gradient descent at which one step and implicit are evaluated


class Settings(Base):
    """sizes: p, of which the first is followed step by step; n = 2p.

    newton, descent: how many steps of either.
    """

    sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (50, 106, 224, 473, 1000)
    newton: Annotated[int, Field(ge=8)] = 10
    descent: Annotated[int, Field(ge=100)] = 2500
    seed: Annotated[int, Field(ge=0)] = 0


class Instance:
    def __init__(self, settings: Settings, p: int) -> None:
        random = np.random.default_rng(settings.seed)
        labels = np.repeat([1.0, -1.0], p)
        X = random.normal(size=(2 * p, p - 1)) - labels[:, None] / np.sqrt(p - 1)
        X = np.column_stack([np.ones(2 * p), (X - X.mean(0)) / X.std(0)])
        self.X, self.labels = jnp.asarray(X), jnp.asarray(labels)
        self.w = jnp.full(2 * p, 1 / (2 * p))
        self.start = jnp.zeros(p).at[0].set(0.5)

    @cached_property
    def solution(self):
        """b, and its derivative in w."""
        x = self.solve(self.w).x
        return x, self.implicit(x)

    def problem(self, w) -> jaxns.Composite:
        return jaxns.Composite(Logistic(self.X, self.labels, weights=w), SquaredL2(np.exp(-5.0)))

    @partial(jax.jit, static_argnums=0)
    def implicit(self, x):
        """−H⁻¹M, H = ∂²/∂b² and M = ∂²/∂b∂w, at any x."""
        gradient = jax.grad(lambda w, x: self.problem(w)(x), argnums=1)
        M, H = jax.jacfwd(gradient, (0, 1))(self.w, x)
        return -jnp.linalg.solve(H, M)

    def solve(self, w, mode=MODES["implicit"], stop=jaxns.Stop(tol=1e-13)):
        return jaxns.solve(self.problem(w), NEWTON, self.start, mode=mode, stop=stop)


@dataclasses.dataclass(frozen=True)
class Errors:
    """Relative, after k steps: of x_k, and of the Jacobians at x_k. `at`: the k of the last two."""

    x: np.ndarray
    automatic: np.ndarray
    at: np.ndarray
    one_step: np.ndarray
    implicit: np.ndarray
    rho: float
    floor: float


def run(settings: Settings, session: Session) -> Findings:
    first = Instance(settings, settings.sizes[0])
    X, w = np.asarray(first.X), np.asarray(first.w)
    stepsize = 1 / (np.linalg.norm(X.T * w @ X, 2) / 4 + np.exp(-5.0))
    k = np.unique(np.geomspace(1, settings.descent, SAMPLES).astype(int))
    descent = partial(jaxns.GradientDescent, stepsize)
    units = {
        "Newton": partial(follow, first, NEWTON, settings.newton, range(1, settings.newton + 1)),
        "gradient descent": lambda: follow(first, descent(), settings.descent, k),
    }
    newton, slow = session.each("step by step", units)
    sizes = {f"p = {p}": partial(differences, settings, p) for p in settings.sizes}
    found = session.each("at the solution", sizes)
    measures = {name: partial(memory, first, name) for name in MODES}
    stored = dict(zip(MODES, session.each("memory", measures), strict=True))

    behind = [
        newton.one_step[k] / newton.implicit[k - 1]
        for k in range(4, settings.newton)
        if newton.one_step[k] > 1e-11
    ]
    quadratic = [
        errors[k] / errors[k - 1] ** 2
        for errors in (newton.automatic[1:], newton.implicit)
        for k in range(4, settings.newton)
        if errors[k] > 1e-12
    ]
    growth = np.diff(stored["automatic"]) / np.diff(LENGTHS["automatic"])
    flat = [stored[name][-1] / stored[name][0] for name in ("one step", "implicit")]
    checks = (
        below("Newton, every p: ‖one step − implicit‖", [f["one step"] for f in found], 1e-11),
        below("Newton, every p: ‖automatic − implicit‖", [f["automatic"] for f in found], 1e-11),
        between("one step at k over implicit at k − 1, k ≥ 5", behind, 1 / 3, 3),
        below("automatic and implicit: error over its last one squared", quadratic, 10),
        between("gradient descent: error of one step over ‖A J*‖", slow.one_step[-1] / slow.floor,
                1 - 1e-6, 1 + 1e-6),
        between("… which is, of ‖J*‖", slow.floor, 0.5, 1),
        below("gradient descent: error of automatic, at the end", slow.automatic[-1], 1e-6),
        between("memory of automatic: bytes a step, of its mean", growth / growth.mean(), 0.8, 1.2),
        between("memory of one step and implicit: longest run over shortest", flat, 1, 1),
    )  # fmt: skip
    rows = tuple(
        (str(p), str(2 * p), f"{f['steps']:.0f}", small(f["one step"]), small(f["automatic"]))
        for p, f in zip(settings.sizes, found, strict=True)
    )
    table = Table(
        "Gradient of ‖b(w)‖²/2, b by Newton: distance to the implicit one",
        ("p", "n", "steps", "one step", "automatic"),
        rows,
        ("memory in the figure: temporaries of the compiled gradient, run of fixed length",),
    )
    panels = (
        errors_panel(f"Newton, p = {settings.sizes[0]}", newton, "linear"),
        errors_panel(f"Gradient descent, ρ = {slow.rho:.4f}", slow, "log"),
        Panel(
            "Memory of the gradient, Newton", "steps of the run", "KiB",
            tuple(Curve(name, v / 1024, np.array(LENGTHS[name])) for name, v in stored.items()),
            yscale="linear",
        ),
    )  # fmt: skip
    title = "One step of Newton's method is worth the whole derivative; one of gradient descent not"
    return Findings(title, table, panels, checks)


def errors_panel(title: str, e: Errors, xscale: str) -> Panel:
    lines = (
        Curve("one step", e.one_step, e.at),
        Curve("implicit", e.implicit, e.at),
        Curve("automatic", e.automatic[1:], np.arange(1, len(e.x))),
        Curve("the iterate itself", e.x[1:], np.arange(1, len(e.x))),
    )
    return Panel(title, "step k", "relative error", lines, xscale=xscale, ylim=(1e-16, 10))


def follow(it: Instance, solver, steps: int, at) -> Errors:
    """One step at k is the derivative of the step that ends at x_k, implicit is that at x_k."""
    x, exact = it.solution
    path = jaxns.derivative_path(it.problem, it.w, steps, solver=solver, x0=it.start)

    @jax.jit
    def errors(before, after):
        one_step = jax.jacrev(lambda w: solver.step(it.problem(w), before))(it.w)
        return relative(one_step, exact), relative(it.implicit(after), exact)

    k = np.array(at)
    one_step, implicit = np.array([errors(path.x[i - 1], path.x[i]) for i in k]).T
    A = jax.jit(jax.jacfwd(lambda x: solver.step(it.problem(it.w), x)))(x)
    return Errors(
        np.array([relative(z, x) for z in np.asarray(path.x)]),
        np.array([relative(J, exact) for J in np.asarray(path.jacobian)]),
        k, one_step, implicit, float(np.linalg.norm(A, 2)),
        float(np.linalg.norm(A @ exact) / np.linalg.norm(exact)),
    )  # fmt: skip


def relative(found, exact):
    return jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)


def differences(settings: Settings, p: int) -> dict[str, float]:
    """Of the gradients of ‖b‖²/2 from the implicit one; and how many steps it took."""
    it = Instance(settings, p)

    def gradient(mode):
        def half_square(w):
            solution = it.solve(w, mode)
            return jnp.sum(solution.x**2) / 2, solution.steps

        return jax.jit(jax.grad(half_square, has_aux=True))(it.w)

    found = {name: gradient(mode) for name, mode in MODES.items()}
    exact, steps = found["implicit"]
    return {n: float(jnp.linalg.norm(g - exact)) for n, (g, _) in found.items()} | {
        "steps": float(steps)
    }


def memory(it: Instance, name: str) -> np.ndarray:
    """Bytes of temporaries of the compiled gradient; automatic stores what each step needs."""

    def unrolled(w, steps):
        problem = it.problem(w)
        return lax.scan(lambda x, _: (NEWTON.step(problem, x), None), it.start, length=steps)[0]

    def solved(w, steps):
        return it.solve(w, MODES[name], jaxns.Stop(tol=None, max_steps=steps)).x

    def stored(steps):
        solution = unrolled if name == "automatic" else solved
        gradient = jax.jit(jax.grad(lambda w: jnp.sum(solution(w, steps) ** 2) / 2))
        return gradient.lower(it.w).compile().memory_analysis()

    return np.array([getattr(stored(k), "temp_size_in_bytes", np.nan) for k in LENGTHS[name]])


EXPERIMENT = curves.experiment(Settings, run)
