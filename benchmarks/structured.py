"""Trend filtering and sparse inverse covariance against other libraries.

`trend filtering/n/k`: piecewise linear, n points, the penalty a k-th of the smallest that gives a
straight line; the derivative of the distance from the clean signal in the logarithm of the penalty.
JAXopt and Optimistix solve the dual, a quadratic program in a box; cvxpylayers the primal, by
Clarabel, with a dense system for the derivative. `inverse covariance/p/k`: p variables, 3 p
samples; the derivative of a held-out
likelihood. scikit-learn's `graphical_lasso` is given the dense solve on the entries that are not 0
that a user would write; JAXopt needs its line search to stay positive definite.
"""

from collections.abc import Sequence

from benchmarks.frame import Findings, Options
from benchmarks.peers import covariances, report, trends
from benchmarks.peers.compare import Comparison, compare

REPEATS = 3
CASES = {
    "trend filtering/100/100": lambda: trends.task(100, 100),
    "trend filtering/500/100": lambda: trends.task(500, 100),
    "inverse covariance/20/4": lambda: covariances.task(20, 4),
    "inverse covariance/50/4": lambda: covariances.task(50, 4),
}
REDUCED = {
    "trend filtering/30/10": lambda: trends.task(30, 10),
    "inverse covariance/8/4": lambda: covariances.task(8, 4),
}


def run(options: Options) -> Findings:
    cases = REDUCED if options.reduced else CASES
    comparisons = [compare(cases[name](), options) for name in options.chosen(cases)]
    return judged(comparisons)


def judged(comparisons: Sequence[Comparison]) -> Findings:
    over = "trend filtering and inverse covariances"
    targets = [
        report.at_least(5, "JAXopt", comparisons, over=over),
        report.at_least(1, "scikit-learn", comparisons, over="inverse covariances"),
        report.at_least(1, "cvxpylayers", comparisons, over="trend filtering"),
        report.compiles_no_slower("JAXopt", comparisons),
    ]
    return report.findings(comparisons, targets, "structured.png")
