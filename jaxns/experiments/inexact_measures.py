"""The model problems of `inexact_subgradient`, and what their iterates do."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

import jaxns
from jaxns.optimizers import inexact, subgradient

DECREASING = jaxns.Decreasing(0.5, 10, 0.6)


@dataclasses.dataclass(frozen=True)
class Source:
    """Errors that nobody chose.   eps: the largest, measured.   distance: from x*."""

    name: str
    eps: float
    distance: float


def power(q, x: Array) -> Array:
    """The gradient of |x|^q."""
    return q * jnp.sign(x) * jnp.abs(x) ** (q - 1)


cusp = jax.grad(lambda z: (z[0] ** 2 - z[1] ** 3) ** 2 + jnp.abs(z[0]))


def away(x: Array, v: Array) -> Array:
    """From the critical point, which is 0, as an error that is subtracted."""
    size = jnp.linalg.norm(x)
    return -jnp.where(size > 0, x / jnp.where(size > 0, size, 1), 1)


def chain(rate, eps) -> optax.GradientTransformation:
    return optax.chain(inexact.perturbed(eps, away), subgradient(rate))


def farthest(gradient: Callable, x0: Array, rate, eps, steps: int) -> tuple[Array, Array]:
    """The largest ‖x_k‖ over the last tenth of the steps, and the largest ‖v_k‖."""
    x = inexact.run(gradient, x0, chain(rate, eps), steps, steps // 10).x
    v = jax.vmap(gradient)(x)
    return jnp.max(jnp.linalg.norm(x, axis=-1)), jnp.max(jnp.linalg.norm(v, axis=-1))


def vanishing(
    powers: Sequence[float], eps: Sequence[float], starts: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances for each q and ε; for each start in the plane and ε."""

    def line(q, eps):
        return farthest(partial(power, q), jnp.ones(1), DECREASING, eps, steps)[0]

    def plane(z0, eps):
        return farthest(cusp, z0, DECREASING, eps, steps)[0]

    return over(line, powers, eps), over(plane, starts, eps)


def constant(
    eps: Sequence[float], alphas: Sequence[float], steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distances for each ε and step, and α (L + ε), for q = 3/2 and in the plane."""

    def floor(gradient, x0, eps, alpha):
        distance, slope = farthest(gradient, x0, alpha, eps, steps)
        return distance, alpha * (slope + eps)

    line = over(partial(floor, partial(power, 1.5), jnp.ones(1)), eps, alphas)
    plane = over(partial(floor, cusp, jnp.full(2, 0.5)), eps, alphas)
    return *line, *plane


def sharp(eps: Sequence[float], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Iterations k, a few to a decade, and the largest |x| from one to the next, for each ε."""

    def path(eps):
        optimizer = chain(DECREASING, eps)
        return inexact.run(partial(power, 1.0), jnp.ones(1), optimizer, steps).x[:, 0]

    x = np.abs(over(path, eps))
    ends = np.geomspace(8, steps, 40).astype(int)
    return ends[1:], np.stack([x[:, i:j].max(axis=1) for i, j in pairwise(ends)], axis=1)


def averages(powers: Sequence[float], eps: Sequence[float]) -> np.ndarray:
    """f(x̄_K) over its bound, for each q, ε and K = 1, 2, …, a thousand."""

    def ratios(q, eps):
        x = inexact.run(partial(power, q), jnp.ones(1), chain(DECREASING, eps), 1000).x[:, 0]
        x = jnp.concatenate([jnp.ones(1), x[:-1]])
        alpha, L = DECREASING(jnp.arange(len(x))), jnp.max(jnp.abs(power(q, x)))
        total, squares = jnp.cumsum(alpha), jnp.cumsum(alpha**2)
        bound = (1 + (L + eps) ** 2 * squares) / (2 * total) + eps * lax.cummax(jnp.abs(x))
        return jnp.abs(jnp.cumsum(alpha * x) / total) ** q / bound

    return over(ratios, powers, eps)


def sources(differences: Sequence[float], steps: int, seed: int) -> tuple[list[Source], float]:
    """Measured errors and distances, and σ_min(A)."""
    random = np.random.default_rng(seed)
    A, x_star = random.normal(size=(20, 3)) / 20**0.5, random.normal(size=3)
    b = A @ x_star

    def gradient(x, dtype=jnp.float64):
        M, t, x = (jnp.asarray(a, dtype) for a in (A, b, x))
        return jnp.asarray(M.T @ power(1.5, M @ x - t), jnp.float64)

    def difference(h, x):
        def f(x):
            return jnp.sum(jnp.abs(A @ x - b) ** 1.5)

        return (jax.vmap(f)(x + h * jnp.eye(3)) - f(x)) / h

    def measure(found: Callable) -> tuple[Array, Array]:
        start, keep = jnp.asarray(x_star + 1), steps // 10
        x = inexact.run(found, start, subgradient(DECREASING), steps, keep).x
        errors = jax.vmap(lambda x: jnp.linalg.norm(found(x) - gradient(x)))(x)
        return jnp.max(errors), jnp.max(jnp.linalg.norm(x - x_star, axis=-1))

    eps, distances = over(lambda h: measure(partial(difference, h)), differences)
    names = [f"differences, h = {h:g}" for h in differences]
    found = [Source(*row) for row in zip(names, eps.tolist(), distances.tolist(), strict=True)]
    for dtype in (jnp.bfloat16, jnp.float16):
        e, distance = jax.jit(partial(measure, partial(gradient, dtype=dtype)))()
        found.append(Source(jnp.dtype(dtype).name, float(e), float(distance)))
    return found, float(np.linalg.svd(A, compute_uv=False).min())


def over(f: Callable, *grids) -> Any:
    """f at every point of a grid, whose first axis is that of the first argument."""
    for axis in reversed(range(len(grids))):
        f = jax.vmap(f, [0 if i == axis else None for i in range(len(grids))])
    return jax.tree.map(np.asarray, jax.jit(f)(*map(jnp.asarray, grids)))
