"""The figure of penalty selection: where the modes went, and how right their derivatives are."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxns.experiments import style

if TYPE_CHECKING:
    from jaxns.experiments.penalty_selection import Result


def draw(result: "Result") -> Figure:
    title = (
        f"{result.model.replace('_', ' ').capitalize()} on {result.data}: "
        f"{'penalties' if len(result.penalties) > 1 else 'penalty'} chosen by gradient"
    )
    if len(result.penalties) == 1:
        figure, axes = style.panels(
            title, [["curve", "errors"], ["steps", "errors"]], height_ratios=(5, 4)
        )
        _curve(axes["curve"], result)
        _steps(axes["steps"], axes["curve"], result)
        style.legend_below(axes["steps"], 2, axes["curve"])
    else:
        figure, axes = style.panels(title, [["map", "errors"]])
        _map(figure, axes["map"], result)
        style.legend_below(axes["map"], 2)
    _derivative_errors(axes["errors"], result)
    style.legend_below(axes["errors"], 2)
    return figure


def _curve(axes: Axes, result: "Result") -> None:
    """The valley of the validation curve, with the paths of the modes on it."""
    penalties, errors = np.exp(result.curve.axis), result.curve.errors
    axes.plot(penalties, errors, color=style.GREY, linewidth=1.2, label="validation error")
    for i, path in enumerate(result.modes):
        _path(axes, i, np.exp(path.log_penalties[:, 0]), path.errors, path.label)
    where, best = result.grid.best
    axes.plot(np.exp(where), best, **_GRID_BEST)
    start = np.exp(result.modes[0].log_penalties[0, 0]), result.modes[0].errors[0]
    _mark_start(axes, start, (8, 16))

    bottom, top = errors.min(), max(path.errors.max() for path in result.modes)
    room = 0.15 * (top - bottom)
    shown = penalties[errors <= top + 2 * room]
    axes.set(xlim=(shown[0] / 1.1, shown[-1] * 1.1), ylim=(bottom - room, top + 2 * room))
    axes.set(xscale="log", ylabel="validation error", title="Paths of the outer loop")
    style.log_ticks(axes.xaxis)
    axes.tick_params(labelbottom=False, which="both")


def _steps(axes: Axes, above: Axes, result: "Result") -> None:
    """The same paths unrolled: the penalty at each outer step."""
    for i, path in enumerate(result.modes):
        penalties = np.exp(path.log_penalties[:, 0])
        _path(axes, i, penalties, np.arange(len(penalties)), path.label)
    axes.axvline(np.exp(result.grid.best[0][0]), color=style.ORANGE, linewidth=1, zorder=1)
    axes.set(xlabel="penalty", ylabel="outer step", xscale="log", xlim=above.get_xlim())
    axes.invert_yaxis()
    style.log_ticks(axes.xaxis)


def _map(figure: Figure, axes: Axes, result: "Result") -> None:
    """Level lines of the validation error over both penalties, with the paths on them."""
    axis, errors = np.exp(result.curve.axis), result.curve.errors
    low, high = errors.min(), np.quantile(errors, 0.8)
    levels = low + (high - low) * np.linspace(0, 1, 13) ** 2
    filled = axes.contourf(axis, axis, errors.T, levels=levels, cmap=style.LEVELS, extend="max")
    figure.colorbar(filled, ax=axes, label="validation error", format="%.3f", pad=0.02)
    for i, path in enumerate(result.modes):
        l1, l2 = np.exp(path.log_penalties).T
        _path(axes, i, l1, l2, path.label)
    axes.plot(*np.exp(result.grid.best[0])[:, None], **_GRID_BEST)
    _mark_start(axes, np.exp(result.modes[0].log_penalties[0]), (16, 12))
    axes.grid(False)
    axes.set(xscale="log", yscale="log", title="Paths of the outer loop")
    axes.set(xlabel=result.penalties[0], ylabel=result.penalties[1])


def _derivative_errors(axes: Axes, result: "Result") -> None:
    measured = result.derivative_errors
    index = {path.label: i for i, path in enumerate(result.modes)}
    for curve in measured.curves:
        mode, _, variant = curve.label.partition(", ")
        i = index.get(curve.label, index.get(mode, 0))
        axes.plot(
            curve.iterations,
            curve.errors,
            color=style.COLORS[i],
            linestyle=style.DASHES[2] if variant == "plain" else "-",
            label=curve.label,
        )
    if measured.identified is not None:
        axes.axvline(
            measured.identified,
            color=style.GREY,
            linewidth=1,
            linestyle=":",
            label="support identified (accelerated)",
        )
    where = " and ".join(f"{p:.3g}" for p in measured.penalties)
    axes.set(xscale="log", yscale="log", xlabel="inner iterations")
    axes.set_ylabel("relative error of the derivative")
    name = "penalty" if len(measured.penalties) == 1 else "penalties"
    axes.set_title(f"Derivative of the solution at {name} {where}")


_GRID_BEST: dict[str, Any] = {
    "marker": "*",
    "markersize": 24,
    "color": style.ORANGE,
    "markeredgecolor": "white",
    "linestyle": "none",
    "label": "best of grid search",
    "zorder": 2.5,
    "clip_on": False,
}


def _path(axes: Axes, i: int, x: np.ndarray, y: np.ndarray, label: str) -> None:
    """A path with hollow markers, smaller ones for later modes so that equal paths show, and a
    filled one where it ends."""
    color, marker, size = style.COLORS[i], style.MARKERS[i], max(6.5 - 1.5 * i, 2.5)
    hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 0.9}
    axes.plot(
        x,
        y,
        color=color,
        marker=marker,
        markersize=size,
        linewidth=0.8,
        label=label,
        zorder=3,
        **hollow,
    )
    axes.plot(
        x[-1],
        y[-1],
        color=color,
        marker=marker,
        markersize=1.7 * size,
        markeredgecolor="white",
        zorder=4,
    )


def _mark_start(axes: Axes, point: Any, offset: tuple[int, int]) -> None:
    axes.annotate(
        "start",
        point,
        xytext=offset,
        textcoords="offset points",
        color=style.INK,
        arrowprops={"arrowstyle": "-", "color": style.INK, "linewidth": 0.7},
    )
