"""Tables, targets and figures of a family of comparisons."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.frame import Findings, Table, Target
from benchmarks.peers.compare import (
    ACCURACIES,
    Comparison,
    Curve,
    Rung,
    fastest,
    times_faster,
)

LIBRARIES = (
    "JAXopt", "Optimistix", "OTT-JAX", "POT", "celer", "skglm", "scikit-learn", "qpax", "MPAX",
    "proxsuite", "cvxpylayers",
)  # fmt: skip
COLORS = (
    "#D55E00", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#222222", "#8a8a8a", "#7a5195",
)  # fmt: skip
WHAT = {
    "both": "Milliseconds of solve and gradient until the gradient has this relative error",
    "solve": "Milliseconds of the solve until x has this relative error",
}


def findings(
    comparisons: Sequence[Comparison], targets: Sequence[Target | None], figure: str
) -> Findings:
    """targets: those that are None compare with nothing that was run."""
    tables = [certificates(comparisons), *(times(comparisons, what) for what in WHAT)]
    return Findings(
        tables,
        [target for target in targets if target is not None],
        {figure: lambda: draw(comparisons)},
        [numbers(comparison) for comparison in comparisons],
    )


def present(comparisons: Iterable[Comparison]) -> list[str]:
    found = list(comparisons)
    return [name for name in LIBRARIES if any(c.of(name) for c in found)]


def certificates(comparisons: Sequence[Comparison]) -> Table:
    """What the truth is, and what is paid once."""
    libraries = present(comparisons)
    table = Table(
        ("problem", "unknowns at the solution", "their condition", "optimality", "an iteration's "
         "products, µs", "compile, s: default", "best", *libraries),
        text="Certified solutions, what every iteration must do once, and seconds of compilation "
        "of solve and gradient (of a library's variants the least):",
    )  # fmt: skip
    for each in comparisons:
        best = fastest(each.ours(), ACCURACIES[1], "both")
        compiled = [min((c.compile for c in each.of(name)), default=None) for name in libraries]
        table.rows.append((
            each.name, f"{each.truth.size}", f"{each.truth.condition:.0e}",
            f"{each.truth.gap:.0e}", f"{1e6 * each.unit:.0f} ({each.what})",
            f"{each.ours()[0].compile:.1f}", f"{best[0].compile:.1f}" if best else "–",
            *("–" if spent is None else f"{spent:.1f}" for spent in compiled),
        ))  # fmt: skip
    return table


def times(comparisons: Sequence[Comparison], what: str) -> Table:
    """One row for each problem and accuracy; in brackets a peer's time over our best."""
    libraries = present(comparisons)
    table = Table(
        ("problem", "error", "jaxns default", "jaxns best", *libraries),
        text=f"{WHAT[what]}, in brackets over that of jaxns's best (–: not run, never: not "
        "reached):",
    )
    for each in comparisons:
        for accuracy in ACCURACIES:
            best = fastest(each.ours(), accuracy, what)
            default = each.ours()[0].first(accuracy, what)
            table.rows.append((
                each.name, f"{accuracy:.0e}",
                "never" if default is None else milliseconds(default, what),
                "never" if best is None
                else f"{milliseconds(best[1], what)}, {best[0].name.removeprefix('jaxns ')}",
                *(cell(each.of(name), best, accuracy, what) for name in libraries),
            ))  # fmt: skip
    return table


def milliseconds(rung: Rung, what: str) -> str:
    return f"{1e3 * rung.time(what):.3g}"


def cell(curves: list[Curve], best: tuple[Curve, Rung] | None, accuracy: float, what: str) -> str:
    if not curves:
        return "–"
    theirs = fastest(curves, accuracy, what)
    if theirs is None:
        return "never"
    if best is None:
        return milliseconds(theirs[1], what)
    over = times_faster(best[1], theirs[1], what)
    return f"{milliseconds(theirs[1], what)} ({over:.2g})"


def at_least(
    factor: float,
    library: str,
    comparisons: Iterable[Comparison],
    what: str = "both",
    over: str = "every common problem",
) -> Target | None:
    """That our best is so many times faster than the library's, at each accuracy.

    It is where we reach an accuracy and the library, which was run, does not.
    """
    ratios, misses = {}, []
    for each in comparisons:
        for accuracy in ACCURACIES:
            chosen = "solve" if what == "solve" else "both"
            ours, theirs = (
                fastest(curves, accuracy, chosen) for curves in (each.ours(), each.of(library))
            )
            if not each.of(library) or (ours is None and theirs is None):
                continue
            if ours is None or theirs is None:
                ratio = 0.0 if ours is None else np.inf
            else:
                ratio = times_faster(ours[1], theirs[1], what)
            ratios[f"{each.name} to {accuracy:.0e}"] = ratio
            if ratio < factor:
                misses.append(profile(each, accuracy, what, ours, theirs, ratio))
    name = {"both": "solve and gradient", "solve": "solve", "backward": "gradient"}[what]
    as_fast = f"{factor:g} × as fast" if factor > 1 else "as fast"
    claim = f"{name} at least {as_fast} as {library} on {over}"
    if not ratios:
        return None
    least = min(ratios, key=ratios.__getitem__)
    met = sum(ratio >= factor for ratio in ratios.values())
    never = sum(np.isinf(ratio) for ratio in ratios.values())
    measured = f"{met} of {len(ratios)} ({never} that it never reaches); least "
    measured += f"{ratios[least]:.2g} × ({least})"
    return Target(claim, measured, met == len(ratios), listed(misses))


def listed(misses: Sequence[str]) -> str:
    return "\n".join(f"- {miss}" for miss in misses)


def profile(
    each: Comparison,
    accuracy: float,
    what: str,
    ours: tuple[Curve, Rung] | None,
    theirs: tuple[Curve, Rung],
    ratio: float,
) -> str:
    """Why: iterations, times the cost of each over its products, of both; and the gradients'."""
    parts = [f"{each.name} to {accuracy:.0e}, {ratio:.2g} ×"]
    for found in (ours, theirs):
        if found is None:
            parts.append("not reached by any of our solvers")
            continue
        curve, rung = found
        solve, both = rung.time("solve"), rung.time("both")
        gradient = f"gradient {1e3 * max(both - solve, 0):.3g} ms"
        if rung.steps:
            cost = solve / rung.steps / each.unit
            parts.append(
                f"{curve.name}: {rung.steps} steps of {cost:.3g} × their products, "
                f"solve {1e3 * solve:.3g} ms, {gradient}"
            )
        else:
            parts.append(f"{curve.name}: solve {1e3 * solve:.3g} ms, {gradient}")
    return "; ".join(parts)


def compiles_no_slower(library: str, comparisons: Iterable[Comparison]) -> Target | None:
    """That the default's solve and gradient compile as soon as the library's first variant."""
    pairs = {
        each.name: (each.ours()[0].compile, each.of(library)[0].compile)
        for each in comparisons
        if each.of(library)
    }
    if not pairs:
        return None
    worst = max(pairs, key=lambda name: pairs[name][0] / pairs[name][1])
    met = sum(a <= b for a, b in pairs.values())
    a, b = pairs[worst]
    return Target(
        f"compilation of solve and gradient no slower than {library}'s",
        f"{met} of {len(pairs)}; most {a / b:.1f} × ({worst}: {a:.1f} s for {b:.1f} s)",
        met == len(pairs),
    )


def backward_share(
    share: float, comparisons: Iterable[Comparison], accuracy: float = ACCURACIES[1]
) -> Target | None:
    """That a gradient costs at most this part of its solve, by our best solver and the default."""
    shares, misses = {}, []
    for each in comparisons:
        for curve, rung in reached(each, accuracy):
            solve, both = rung.time("solve"), rung.time("both")
            found = float(np.median(np.divide(rung.both, rung.solve))) - 1
            name = f"{each.name}, {curve.name}"
            shares[name] = found
            if found > share:
                misses.append(
                    f"{name}: {1e3 * (both - solve):.3g} ms for a solve of {1e3 * solve:.3g} ms, "
                    f"{100 * found:.0f} %; in products {(both - solve) / each.unit:.3g} beside "
                    f"{solve / each.unit:.3g}"
                )
    if not shares:
        return None
    worst = max(shares, key=shares.__getitem__)
    met = sum(found <= share for found in shares.values())
    return Target(
        f"backward pass of `Implicit` at most {100 * share:.0f} % of the solve to {accuracy:.0e}",
        f"{met} of {len(shares)}; most {100 * shares[worst]:.0f} % ({worst})",
        met == len(shares),
        listed(misses),
    )


def reached(each: Comparison, accuracy: float) -> list[tuple[Curve, Rung]]:
    """The default and the best, where they are two, on the first rung that is accurate enough."""
    best = fastest(each.ours(), accuracy, "both")
    default = each.ours()[0].first(accuracy)
    found = [] if default is None else [(each.ours()[0], default)]
    return found if best is None or best[0] is each.ours()[0] else [*found, best]


def numbers(each: Comparison) -> dict[str, Any]:
    return {
        "problem": each.name,
        "unknowns": each.truth.size,
        "gap": each.truth.gap,
        "product": each.unit,
        "curves": [
            {
                "method": curve.name,
                "compile": curve.compile,
                "tol": [r.tol for r in curve.rungs],
                "steps": [r.steps for r in curve.rungs],
                "x error": [r.x_error for r in curve.rungs],
                "gradient error": [r.gradient_error for r in curve.rungs],
                "solve": [r.solve for r in curve.rungs],
                "both": [r.both for r in curve.rungs],
            }
            for curve in each.curves
        ],
    }


def draw(comparisons: Sequence[Comparison]) -> Any:
    """Error of the gradient against seconds of solve and gradient, a panel for each problem."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    wide = min(4, len(comparisons))
    high = -(-len(comparisons) // wide)
    figure = Figure(figsize=(3.6 * wide + 1.8, 2.9 * high + 0.6), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False)
    names = list(dict.fromkeys(curve.name for each in comparisons for curve in each.curves))
    styles = {name: style(name, names) for name in names}
    for ax, each in zip(axes.flat, comparisons, strict=False):
        for curve in each.curves:
            error = [max(rung.gradient_error, 1e-15) for rung in curve.rungs]
            ax.plot([r.time("both") for r in curve.rungs], error, **styles[curve.name])
        ax.set(xscale="log", yscale="log", title=each.name, ylim=(3e-16, 30))
        ax.title.set_fontsize(9)
        ax.grid(color="#e6e6e6", linewidth=0.6)
        ax.xaxis.set_minor_formatter(NullFormatter())
    for ax in axes.flat[max(len(comparisons) - wide, 0) : len(comparisons)]:  # the lowest of each
        ax.set_xlabel("CPU seconds, solve and gradient")
    for ax in axes[:, 0]:
        ax.set_ylabel("relative error of the gradient")
    for ax in axes.flat[len(comparisons) :]:
        ax.set_axis_off()
    handles = [axes.flat[0].plot([], [], label=name, **styles[name])[0] for name in names]
    figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)
    return figure


def style(name: str, names: Sequence[str]) -> dict[str, Any]:
    """This library in blue, its solvers by markers; each peer in a colour of its own."""
    ours = [n for n in names if n.startswith("jaxns")]
    if name in ours:
        marker = "osD^vP"[ours.index(name) % 6]
        return {"color": "#0072B2", "marker": marker, "markersize": 4, "linewidth": 1.6}
    theirs = [n for n in names if n not in ours]
    color = COLORS[theirs.index(name) % len(COLORS)]
    return {"color": color, "marker": ".", "linewidth": 1.1, "linestyle": "--"}
