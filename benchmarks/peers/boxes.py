"""Quadratic programs in a box, min_x ½ xᵀQx + qᵀx with l ≤ x ≤ u, of two kinds.

box: θ = q, the criterion ½ ‖x − target‖².   svm: the dual of a support vector machine without an
intercept, Q = (y yᵀ)∘(X Xᵀ), q = −1, l = 0, u = C; θ = log C, the criterion the squared hinge loss
of held-out data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from benchmarks.peers import by_cvxpylayers, by_jaxns, by_jaxopt, by_optimistix, by_qp
from benchmarks.peers.data import Split
from benchmarks.peers.method import Method, Reduced, Task
from jaxns.functions import Box, Quadratic

SOLVERS = ("Newton", "CoordinateDescent", "WorkingSet")  # beside the problem's own


class Terms(NamedTuple):
    Q: Any
    q: Any
    low: Any
    high: Any


class Boxed:
    """What the peers need to know: terms(data, θ), the smooth part and the projection."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def terms(self, data: Any, theta: Any) -> Terms:
        one = jnp.ones_like(data["start"])
        if self.kind == "svm":
            return Terms(data["Q"], -one, 0 * one, jnp.exp(theta) * one)
        return Terms(data["Q"], theta, -one, one)

    def smooth(self, x: Any, data: Any) -> Any:
        """½ xᵀQx + qᵀx where q is no hyperparameter, else without qᵀx, which the prox has."""
        linear = -jnp.sum(x) if self.kind == "svm" else 0.0
        return 0.5 * jnp.vdot(x, data["Q"] @ x) + linear

    def prox(self, v: Any, theta: Any, step: Any) -> Any:
        if self.kind == "svm":
            return jnp.clip(v, 0, jnp.exp(theta))
        return jnp.clip(v - step * theta, -1, 1)

    def criterion(self, data: Any, x: Any) -> Any:
        if self.kind == "svm":
            margins = data["w"] * (data["V"] @ (data["X"].T @ (data["y"] * x)))
            return jnp.mean(jnp.maximum(0, 1 - margins) ** 2)
        return 0.5 * jnp.sum((x - data["target"]) ** 2)

    def composite(self, data: Any, theta: Any) -> Any:
        if self.kind == "svm":
            return jaxns.problems.svm(data["X"], data["y"], jnp.exp(theta), intercept=False)
        Q, q, low, high = self.terms(data, theta)
        return jaxns.Composite(Quadratic(Q, q), Box(low, high))

    def program(self, data: Any, theta: Any) -> jaxns.QuadraticProgram:
        Q, q, low, high = self.terms(data, theta)
        one = jnp.eye(q.shape[0])
        G, h = jnp.concatenate([one, -one]), jnp.concatenate([high, -low])
        return jaxns.QuadraticProgram(Q, q, G=G, h=h)


def box(n: int, condition: float = 1e3) -> Task:
    """A random Q of this condition, about half of the bounds active."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(n, n)))[0]
    Q = (basis * np.geomspace(1 / condition, 1, n)) @ basis.T
    q = Q @ random.normal(size=n) * 1.5
    data = {"Q": (Q + Q.T) / 2, "start": np.zeros(n), "target": random.normal(size=n)}
    return _task(f"box QP/{n}", Boxed("box"), data, q)


def svm(name: str, split: Split, C: float) -> Task:
    signed = split.y[:, None] * split.X
    data = dict(zip("XyVw", split, strict=True))
    data |= {"Q": signed @ signed.T, "start": np.zeros(len(split.y))}
    return _task(f"SVM dual/{name}/{C:g}", Boxed("svm"), data, np.log(C))


def _task(name: str, model: Boxed, data: dict[str, np.ndarray], theta: Any) -> Task:
    data = {key: jnp.asarray(each) for key, each in data.items()}
    theta = jnp.asarray(theta)
    step = 1 / float(np.linalg.eigvalsh(np.asarray(data["Q"]))[-1])

    @jax.jit
    def moved(x):
        return model.prox(x - step * jax.grad(model.smooth)(x, data), theta, step)

    def gap(x):
        x = jnp.asarray(x)
        return float(jnp.linalg.norm(moved(x) - x) / jnp.linalg.norm(x))

    def reduced(x: np.ndarray) -> Reduced:
        """On the coordinates that are at no bound."""
        _, _, low, high = model.terms(data, theta)
        at_low, at_high = x <= low + 1e-10, x >= high - 1e-10
        free = np.flatnonzero(~(at_low | at_high))

        def embed(u, theta):
            _, _, low, high = model.terms(data, theta)
            return jnp.where(at_low, low, jnp.where(at_high, high, 0.0)).at[free].set(u)

        def objective(u, theta):
            x = embed(u, theta)
            Q, q, _, _ = model.terms(data, theta)
            return 0.5 * jnp.vdot(x, Q @ x) + jnp.vdot(q, x)

        return Reduced(x[free], objective, embed)

    n = data["start"].shape[0]
    return Task(
        name, data, theta, model.criterion, reduced, gap, methods(model, step, n),
        lambda data, v: step * (data["Q"] @ v), jnp.ones(n), f"Q v, {n} × {n}",
    )  # fmt: skip


def methods(model: Boxed, step: float, n: int) -> dict[str, Callable[[Task], Method]]:
    dual = (lambda machine: machine.dual) if model.kind == "svm" else (lambda x: x)
    ours = by_jaxns.methods(model.composite, SOLVERS, dual)
    ours["jaxns InteriorPoint"] = by_jaxns.method(model.program, None, lambda s: s.x)
    theirs = by_jaxopt.proximal(model, step) | by_jaxopt.box(model)
    theirs |= by_optimistix.fixed_point(model, step) | by_qp.boxed(model)
    return ours | theirs | (by_cvxpylayers.boxed(model) if n <= by_cvxpylayers.MOST else {})
