"""Entropic transport plans: P(C, ε), and the derivative of ⟨P, W⟩ in every cost."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cho_factor, cho_solve

import jaxns
from benchmarks.peers import by_jaxns
from benchmarks.peers.method import MAX_STEPS, Method, Reduced, Task, in_jax, on_host


def task(n: int, r: float) -> Task:
    """Squared distances of n and n uniform points, random weights, ε = r·mean(C); θ = C."""
    random = np.random.default_rng(0)
    x, y = random.random((n, 2)), random.random((n, 2))
    a, b = random.random(n), random.random(n)
    C = np.sum((x[:, None] - y) ** 2, axis=-1)
    a, b, W = a / a.sum(), b / b.sum(), random.normal(size=(n, n))
    epsilon = r * float(C.mean())
    data = jax.tree.map(jnp.asarray, {"a": a, "b": b, "W": W, "epsilon": epsilon})

    def build(data, C):
        return jaxns.Transport(C, data["a"], data["b"], data["epsilon"])

    def gap(P):
        return float(np.abs(P.sum(1) - a).sum() + np.abs(P.sum(0) - b).sum())

    costs = jnp.asarray(C / epsilon)
    return Task(
        f"transport/{n}/{r:g}",
        data,
        C,
        lambda data, P: jnp.sum(P * data["W"]),
        lambda _: semi_dual(C, a, b, epsilon),
        gap,
        by_jaxns.methods(build, (), lambda x: x.plan) | by_ott() | by_pot(C, a, b, W, epsilon),
        lambda data, f: 1e-9 * jnp.sum(jnp.exp(f[:, None] - costs), axis=0),
        jnp.zeros(n),
        f"{n} × {n} exponentials",
    )


def semi_dual(C: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float) -> Reduced:
    """min_f Σⱼ bⱼ ε log Σᵢ exp((fᵢ − Cᵢⱼ)/ε) − ⟨f, a⟩, the last fᵢ fixed at 0; x = P."""
    found = jaxns.solve(jaxns.Transport(C, a, b, epsilon)).x
    f = np.asarray(found.f) + epsilon * np.log(a)

    def whole(u):
        return jnp.append(u, 0.0)

    def objective(u, C):
        f = whole(u)
        log = jax.nn.logsumexp((f[:, None] - C) / epsilon, axis=0)
        return jnp.sum(b * epsilon * log) - jnp.vdot(f, a)

    def embed(u, C):
        return b * jax.nn.softmax((whole(u)[:, None] - C) / epsilon, axis=0)

    def hessian(u, C):
        P = embed(u, C)
        H = (jnp.diag(P.sum(1)) - (P / b) @ P.T) / epsilon
        return H[:-1, :-1]

    return Reduced((f - f[-1])[:-1], objective, embed, hessian)


def by_ott() -> dict[str, Callable[[Task], Method]]:
    """OTT-JAX: as it comes, and with its momentum, which is the sooner."""

    def method(momentum):
        def program(data, C, tol):
            from ott.geometry.geometry import Geometry
            from ott.problems.linear.linear_problem import LinearProblem
            from ott.solvers.linear import acceleration, sinkhorn

            solver = sinkhorn.Sinkhorn(
                threshold=tol,
                max_iterations=MAX_STEPS // 5,
                momentum=acceleration.Momentum(start=50) if momentum else None,
            )
            geometry = Geometry(cost_matrix=C, epsilon=data["epsilon"])
            found = solver(LinearProblem(geometry, data["a"], data["b"]))
            return found.matrix, found.n_iters

        return lambda task: in_jax(task, program)

    return {"OTT-JAX": method(False), "OTT-JAX momentum": method(True)}


def by_pot(
    C: np.ndarray, a: np.ndarray, b: np.ndarray, W: np.ndarray, epsilon: float
) -> dict[str, Callable[[Task], Method]]:
    """POT, which does not differentiate plans, with the Cholesky solve that a user would write."""

    def fit(tol):
        import ot

        return ot.sinkhorn(a, b, C, epsilon, stopThr=tol, numItermax=MAX_STEPS // 5)

    def gradient(P):
        """−(W∘P − P∘(u 1ᵀ + 1 vᵀ))/ε, with P's marginals orthogonal to what is left."""
        r, c, Z = P.sum(1), P.sum(0), W * P
        S = np.diag(r) - (P / c) @ P.T
        right = Z.sum(1) - P @ (Z.sum(0) / c)
        u = np.append(cho_solve(cho_factor(S[:-1, :-1]), right[:-1]), 0)
        v = (Z.sum(0) - P.T @ u) / c
        return -P * (W - u[:, None] - v) / epsilon

    return {"POT": lambda _: on_host(fit, gradient)}
