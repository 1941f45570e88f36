"""Experiments whose outcome is curves: one way to hold, tabulate and draw them.

A curve has one row of values per repetition; its median is drawn, with the first and the last
decile as a band, and beside it a guide line where theory has a rate.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from jaxns.experiments import style
from jaxns.experiments.reporting import Check, Experiment, Posed, Table, Tidy

COLORS = (*style.COLORS, style.INK)


@dataclasses.dataclass(frozen=True)
class Curve:
    """values: (repetitions, points) or (points,).   at: (points,), by default 0, 1, 2, …

    guide: the values that theory has at each point, up to a constant factor.
    event: a point at which something happened, to be marked by a vertical line.
    band: (2, points), drawn in place of the deciles.
    """

    label: str
    values: np.ndarray
    at: np.ndarray | None = None
    guide: np.ndarray | None = None
    event: float | None = None
    band: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        return np.atleast_2d(self.values)

    @property
    def points(self) -> np.ndarray:
        return np.arange(self.rows.shape[1]) if self.at is None else np.asarray(self.at)


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    xlabel: str
    ylabel: str
    curves: tuple[Curve, ...]
    xscale: str = "linear"
    yscale: str = "log"
    ylim: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Findings:
    """What such an experiment computes: a table, panels of curves, and what was to be shown.

    columns: how many panels stand beside each other; by default all.
    """

    title: str
    table: Table
    panels: tuple[Panel, ...]
    checks: tuple[Check, ...]
    columns: int | None = None


def experiment(
    settings: type,
    run: Callable[[Any, Any], Findings],
    problems: Callable[[Any], Mapping[str, Posed]] | None = None,
) -> Experiment:
    table, checks = attrgetter("table"), attrgetter("checks")
    return Experiment(settings, run, table, tidy, draw, checks, problems)


def tidy(findings: Findings) -> Tidy:
    """One row per panel, curve, repetition and point."""
    columns: dict[str, Any] = {name: [] for name in ("panel", "curve", "repetition", "at", "value")}
    for panel in findings.panels:
        for curve in panel.curves:
            repetitions, points = curve.rows.shape
            columns["panel"] += [panel.title] * (repetitions * points)
            columns["curve"] += [curve.label] * (repetitions * points)
            columns["repetition"] += np.repeat(np.arange(repetitions), points).tolist()
            columns["at"] += np.tile(curve.points, repetitions).tolist()
            columns["value"] += curve.rows.ravel().tolist()
    return columns


def draw(findings: Findings) -> Figure:
    panels = findings.panels
    columns = findings.columns or len(panels)
    rows = [[f"{i + j}" for j in range(columns)] for i in range(0, len(panels), columns)]
    height = 5.6 if len(rows) == 1 else 4.4 * len(rows)
    figure, axes = style.panels(findings.title, rows, height)
    for name, panel in zip(itertools.chain(*rows), panels, strict=True):
        _panel(axes[name], panel)
    return figure


def _panel(axes: Axes, panel: Panel) -> None:
    axes.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel)
    axes.set(xscale=panel.xscale, yscale=panel.yscale)
    if panel.xscale == "log":
        axes.xaxis.set_minor_formatter(NullFormatter())
    for i, curve in enumerate(panel.curves):
        color, dashes = COLORS[i % len(COLORS)], style.DASHES[i % 6]
        rows = curve.rows if panel.yscale != "log" else np.maximum(curve.rows, 1e-300)
        low, middle, high = np.quantile(rows, (0.1, 0.5, 0.9), axis=0)
        few = len(curve.points) <= 12
        marker = style.MARKERS[i % 6] if few else ""
        axes.plot(curve.points, middle, color=color, ls=dashes, marker=marker, label=curve.label)
        if curve.band is not None:
            low, high = curve.band
        if len(rows) > 1 or curve.band is not None:
            alpha = 0.2 if len(panel.curves) <= 4 else 0.06
            axes.fill_between(curve.points, low, high, color=color, alpha=alpha, linewidth=0)
        if curve.guide is not None:
            axes.plot(curve.points, curve.guide, color=color, linewidth=0.9, alpha=0.6, ls=":")
        if curve.event is not None:
            axes.axvline(curve.event, color=color, linewidth=1, ls="--", alpha=0.6)
    if panel.ylim is not None:
        axes.set_ylim(*panel.ylim)
    axes.margins(x=0.02)
    style.legend_below(axes, 1)
