"""How every figure looks: one place for sizes, fonts and colours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow.
BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
)
INK, GREY = "#222222", "#8a8a8a"
LEVELS = LinearSegmentedColormap.from_list("levels", ["#ffffff", "#a6a6a6"])  # a backdrop
COLORS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)), (0, (2, 2)))

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "lines.linewidth": 1.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "mathtext.fontset": "dejavusans",
    "savefig.dpi": 200,
}


def panels(
    title: str, mosaic: Any, height: float = 5.6, **options: Any
) -> tuple[Figure, dict[Any, Axes]]:
    """A figure with axes laid out, and named, as in `mosaic`."""
    figure = Figure(figsize=(11.5, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure, figure.subplot_mosaic(mosaic, **options)


def legend_below(axes: Axes, columns: int, source: Axes | None = None) -> None:
    """The legend of `source` (by default the axes' own) below the axes, off the data."""
    handles, labels = (source or axes).get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=4.2,
        ncols=columns,
        markerscale=0.8,
    )


def log_ticks(axis: Axis) -> None:
    """1, 2, 5 in every decade, in plain numbers: for ranges of about a decade."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def save(draw: Callable[[Any], Figure], result: Any, path: Path) -> tuple[Path, ...]:
    """The figure as PNG to look at and as SVG to print."""
    with mpl.rc_context(RC):
        figure = draw(result)
        written = tuple(path.with_suffix(suffix) for suffix in (".png", ".svg"))
        for file in written:
            figure.savefig(file)
    return written
