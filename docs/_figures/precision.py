"""Errors of a solution and of its derivative against the condition of the problem, by precision.

python docs/_figures/precision.py draws docs/images/precision.png.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxns
from jaxns.experiments import style

PENALTY = 1e-9


def data(condition: float) -> tuple[np.ndarray, np.ndarray]:
    """X with XᵀX/n of this condition, and y."""
    rng = np.random.default_rng(0)
    n, p = 60, 10
    U, V = (np.linalg.qr(rng.normal(size=(m, p)))[0] for m in (n, p))
    X = U * (n**0.5 * np.geomspace(1, condition**-0.5, p)) @ V.T
    return X, X @ rng.normal(size=p) + 0.01 * rng.normal(size=n)


def exact(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ridge solution x and dx/dy · y, which is x itself; by the normal equations' factors."""
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    x = Vt.T @ (s / (s**2 + len(y) * PENALTY) * (U.T @ y))
    return x, x


def found(X: np.ndarray, y: np.ndarray, dtype: type, solver) -> tuple[jax.Array, jax.Array]:
    """The same by `jaxns.solve` in this type, as far as it goes."""
    mode = jaxns.Implicit(direction="both", on_failure="ignore")
    stop = jaxns.Stop(on_failure="ignore")

    def solution(y):
        ridge = jaxns.problems.ridge(jnp.asarray(X, dtype), y, PENALTY)
        return jaxns.solve(ridge, solver, mode=mode, stop=stop).x

    y = jnp.asarray(y, dtype)
    return jax.jvp(solution, (y,), (y,))


def draw(conditions: np.ndarray, path: Path) -> None:
    plt.rcParams.update(style.RC)
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    colors = {jnp.float32: style.VERMILION, jnp.float64: style.BLUE}
    solvers = {
        "forward-backward": (jaxns.ForwardBackward(), "-o"),
        "Newton": (jaxns.Newton(), "--s"),
    }
    errors = {}
    for condition in conditions:
        X, y = data(condition)
        wanted = exact(X, y)
        for dtype in colors:
            for name, (solver, _) in solvers.items():
                errors[dtype, name, condition] = [
                    np.linalg.norm(np.asarray(a, float) - b) / np.linalg.norm(b)
                    for a, b in zip(found(X, y, dtype, solver), wanted, strict=True)
                ]
    for panel, axis in enumerate(panels):
        for dtype, color in colors.items():
            eps = float(jnp.finfo(dtype).eps)
            axis.plot(conditions, eps * conditions, ":", color=color, lw=1)
            for name, (_, line) in solvers.items():
                values = [errors[dtype, name, condition][panel] for condition in conditions]
                axis.plot(conditions, values, line, color=color, label=f"{name}, {dtype.__name__}")
        axis.set(xscale="log", yscale="log", ylim=(1e-17, 10), xlabel="condition κ of the Hessian")
    panels[0].set(title="Solution", ylabel="relative error (dotted: κ eps)")
    panels[1].set(title="Derivative along y, by Implicit")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    draw(10.0 ** np.arange(1, 9), Path(__file__).parent.parent / "images" / "precision.png")
