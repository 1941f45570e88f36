"""Sparse inverse covariance: min_X tr(SX) − log det X + λ Σ_{i≠j} |X_ij|; θ = log λ."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxns
from benchmarks.peers import by_jaxns, by_jaxopt
from benchmarks.peers.method import MAX_STEPS, Method, Reduced, Task, on_host

SOLVERS = ("ADMM", "Newton", "ProximalNewton")  # beside the problem's own


class Likelihood:
    """What the peers need to know."""

    def smooth(self, X: Any, data: Any) -> Any:
        """Infinite where X is not positive definite."""
        half = jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(X))))
        return jnp.sum(data["S"] * X) + jnp.where(jnp.isnan(half), jnp.inf, -2 * half)

    def prox(self, V: Any, theta: Any, step: Any) -> Any:
        """Of the entries off the diagonal; of the symmetric part of V."""
        V = (V + V.T) / 2
        shrunk = jnp.sign(V) * jnp.maximum(jnp.abs(V) - step * jnp.exp(theta), 0)
        return jnp.where(jnp.eye(len(V), dtype=bool), V, shrunk)


def task(p: int, divided: float) -> Task:
    """3p samples of a Gaussian whose precision has five neighbours for each of p variables."""
    random = np.random.default_rng(0)
    edges = np.triu(random.random((p, p)) < 5 / p, 1) * random.uniform(-0.4, 0.4, (p, p))
    precision = edges + edges.T
    precision += (0.2 - min(np.linalg.eigvalsh(precision)[0], 0)) * np.eye(p)
    draws = random.multivariate_normal(np.zeros(p), np.linalg.inv(precision), 6 * p)
    S, held_out = (np.cov(half.T, bias=True) for half in np.split(draws, 2))
    scale = np.sqrt(np.diag(S))
    S, held_out = S / np.outer(scale, scale), held_out / np.outer(scale, scale)
    theta = np.log(np.abs(S - np.diag(np.diag(S))).max() / divided)
    data = {"S": jnp.asarray(S), "V": jnp.asarray(held_out), "start": jnp.eye(p)}
    model = Likelihood()

    def build(data, theta):
        penalty = jnp.exp(theta)
        return jaxns.problems.sparse_inverse_covariance(data["S"], penalty, diagonal=False)

    def reduced(X: np.ndarray) -> Reduced:
        """The entries of the upper triangle that are not 0."""
        i, j = np.nonzero(np.triu(np.abs(X) > 1e-9))
        off = jnp.asarray(np.where(i == j, 0, 2) * np.sign(X[i, j]))

        def embed(u, _):
            upper = jnp.zeros((p, p)).at[i, j].set(u)
            return upper + upper.T - jnp.diag(jnp.diag(upper))

        def objective(u, theta):
            return model.smooth(embed(u, theta), data) + jnp.exp(theta) * jnp.vdot(off, u)

        return Reduced(X[i, j], objective, embed)

    def gap(X: np.ndarray) -> float:
        """Of X⁻¹ − S = λ Z, Z = sign(X) off the diagonal, |Z| ≤ 1 where X = 0; over λ."""
        Z = (np.linalg.inv(X) - S) / np.exp(theta)
        wanted = np.where(np.abs(X) > 1e-9, np.sign(X), np.clip(Z, -1, 1))
        np.fill_diagonal(wanted, 0)
        return float(np.abs(Z - wanted).max())

    return Task(
        f"inverse covariance/{p}/{divided:g}", data, theta,
        lambda data, X: jnp.sum(data["V"] * X) - jnp.linalg.slogdet(X)[1],
        reduced, gap, methods(build, model, S, held_out, theta),
        lambda data, V: jnp.linalg.inv(V), jnp.asarray(S + np.eye(p)), f"an inverse, {p} × {p}",
    )  # fmt: skip


def methods(
    build: Callable[[Any, Any], Any],
    model: Likelihood,
    S: np.ndarray,
    held_out: np.ndarray,
    theta: float,
) -> dict[str, Callable[[Task], Method]]:
    jaxopt = by_jaxopt.proximal(model, 0.0)
    return by_jaxns.methods(build, SOLVERS) | {
        "JAXopt line search": jaxopt["JAXopt line search"],
        "scikit-learn": lambda _: on_host(_sklearn(S, theta), _gradient(held_out, theta)),
    }


def _sklearn(S: np.ndarray, theta: float) -> Callable[[float], np.ndarray]:
    from sklearn.covariance import graphical_lasso

    def fit(tol):
        return graphical_lasso(S, float(np.exp(theta)), tol=tol, enet_tol=tol, max_iter=MAX_STEPS)[
            1
        ]

    return fit


def _gradient(held_out: np.ndarray, theta: float) -> Callable[[np.ndarray], np.ndarray]:
    """H_EE w = ∇C_E, H = W ⊗ W, on the entries E that are not 0; dC/dθ = −λ Σ_{i≠j} sign w."""

    def gradient(X):
        W = np.linalg.inv(X)
        i, j = np.nonzero(np.abs(X) > 1e-12)
        H = W[np.ix_(i, i)] * W[np.ix_(j, j)]
        w = np.linalg.solve(H, (held_out - W)[i, j])
        return -np.exp(theta) * np.sum((np.sign(X[i, j]) * w)[i != j])

    return gradient
