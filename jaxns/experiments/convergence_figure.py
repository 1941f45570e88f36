"""The figure of derivative convergence: errors of iterates and derivatives, with fitted rates."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxns.experiments import style

if TYPE_CHECKING:
    from jaxns.experiments.derivative_convergence import Convergence, Result


def draw(result: "Result") -> Figure:
    figure, axes = style.panels(
        "Derivatives of forward-backward converge as fast as its iterates", [["x", "J"]]
    )
    for i, problem in enumerate(result.problems):
        _panel(axes["x"], problem, problem.x_errors, problem.x_rates, i)
        _panel(axes["J"], problem, problem.J_errors, problem.J_rates, i)
    axes["x"].set(title="Iterates", ylabel=r"$\|x_k - x^*\| \,/\, \|x^*\|$")
    axes["J"].set(title="Derivatives", ylabel=r"$\|J_k - J^*\| \,/\, \|J^*\|$")
    for panel in axes.values():
        panel.set(xlabel="iteration k (dotted: support identified)", yscale="log", ylim=(1e-17, 30))
        panel.set_xlim(left=0)
        style.legend_below(panel, 1)
    return figure


def _panel(
    axes: Axes, problem: "Convergence", errors: np.ndarray, rates: np.ndarray, i: int
) -> None:
    """Median and deciles over repetitions, and when the support is identified."""
    floored = np.maximum(errors, 1e-17)
    low, middle, high = np.quantile(floored, (0.1, 0.5, 0.9), axis=0)
    k = np.arange(errors.shape[1])
    deviations = problem.deviations(rates)
    n, p = problem.shape
    label = (
        f"{problem.id}: {problem.penalty} {n} × {p}, "
        f"rate {np.median(rates):.4f} ({100 * np.median(deviations):.2g} % from theory)"
    )
    axes.fill_between(k, low, high, color=style.COLORS[i], alpha=0.2, linewidth=0)
    axes.plot(k, middle, color=style.COLORS[i], linestyle=style.DASHES[i], label=label)
    if problem.penalty == "lasso":
        identified = float(np.median(problem.identified))
        axes.axvline(identified, color=style.COLORS[i], linewidth=1, linestyle=":")
