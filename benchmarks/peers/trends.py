"""Trend filtering: min_x ½ ‖x − y‖² + λ ‖Dx‖₁, D differences of second order; θ = log λ."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.linalg import null_space

import jaxns
from benchmarks.peers import by_cvxpylayers, by_jaxns, by_jaxopt, by_optimistix
from benchmarks.peers.method import Method, Reduced, Task

ORDER = 2
SOLVERS = ("ADMM",)  # beside the problem's own


class Dual:
    """x = y − Dᵀu, u the solution of min ½ ‖y − Dᵀu‖² with |u| ≤ λ: what the peers can solve."""

    def smooth(self, u: Any, data: Any) -> Any:
        return 0.5 * jnp.sum((data["y"] - transposed(u)) ** 2)

    def prox(self, v: Any, theta: Any, step: Any) -> Any:
        return jnp.clip(v, -jnp.exp(theta), jnp.exp(theta))


def transposed(u: Any) -> Any:
    """Dᵀu."""
    return jnp.diff(jnp.pad(u, ORDER), ORDER)


def task(n: int, divided: float) -> Task:
    """A piecewise linear signal with ten bends and noise; λ the one of a straight line, divided."""
    random = np.random.default_rng(0)
    t = np.linspace(0, 1, n)
    bends = np.sort(random.random(10))
    clean = np.maximum(t[:, None] - bends, 0) @ (20 * random.normal(size=10))
    y = clean + 0.3 * random.normal(size=n)
    D = np.diff(np.eye(n), ORDER, axis=0)
    theta = np.log(np.abs(np.linalg.lstsq(D.T, y, rcond=None)[0]).max() / divided)
    data = {"y": jnp.asarray(y), "clean": jnp.asarray(clean), "start": jnp.zeros(n - ORDER)}

    def build(data, theta):
        return jaxns.problems.trend_filtering(data["y"], jnp.exp(theta), ORDER)

    def reduced(x: np.ndarray) -> Reduced:
        """x = N u, N a basis of what has no other bends."""
        bent = D @ x
        kept = np.abs(bent) > 1e-7 * np.abs(bent).max()
        N, signs = null_space(D[~kept]), jnp.sign(bent[kept])

        def objective(u, theta):
            x = N @ u
            bends = jnp.vdot(signs, D[kept] @ x)
            return 0.5 * jnp.sum((x - y) ** 2) + jnp.exp(theta) * bends

        return Reduced(N.T @ x, objective, lambda u, _: N @ u)

    def gap(x: np.ndarray) -> float:
        """How much of y − x is no λ Dᵀs with |s| ≤ 1 and s = sign(Dx) where x bends."""
        u = np.linalg.lstsq(D.T, y - x, rcond=None)[0] / np.exp(theta)
        bent = D @ x
        kept = np.abs(bent) > 1e-7 * np.abs(bent).max()
        outside = np.maximum(np.abs(u) - 1, 0).max()
        return float(max(outside, np.abs(u[kept] - np.sign(bent[kept])).max(initial=0)))

    return Task(
        f"trend filtering/{n}/{divided:g}", data, theta,
        lambda data, x: jnp.mean((x - data["clean"]) ** 2),
        reduced, gap, methods(build, n),
        lambda data, v: 4.0**-ORDER * transposed(jnp.diff(v, ORDER)), data["y"],
        f"D x and Dᵀ u, n = {n}",
    )  # fmt: skip


def methods(build: Callable[[Any, Any], Any], n: int) -> dict[str, Callable[[Task], Method]]:
    dual, step = Dual(), 4.0**-ORDER

    def read(u, data):
        return data["y"] - transposed(u)

    return (
        by_jaxns.methods(build, SOLVERS)
        | by_jaxopt.proximal(dual, step, read)
        | by_optimistix.fixed_point(dual, step, read)
        | by_cvxpylayers.trends(ORDER, n)
    )
