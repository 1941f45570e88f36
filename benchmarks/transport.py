"""Entropic transport against other libraries.

Plans between n and n uniform points of the unit square, random weights, squared distances, ε =
r·mean(C), and the derivative of ⟨P, W⟩ in every cost, W normal. Problems are named transport/n/r.
The certified plan is that of Newton's method on the semi-dual in one potential; its optimality is
the error of both marginals. OTT-JAX runs as it comes and with its adaptive momentum, the better
counts; it stops by the error of a marginal. POT does not differentiate a plan; it is given the
dense solve (Cholesky) that a user would write.
"""

from collections.abc import Sequence

from benchmarks.frame import Findings, Options
from benchmarks.peers import plans, report
from benchmarks.peers.compare import Comparison, compare

REPEATS = 5
CASES = ((64, 0.1), (64, 0.01), (64, 0.001), (256, 0.1), (256, 0.01), (256, 0.001), (1000, 0.01))
REDUCED = ((20, 0.1),)


def run(options: Options) -> Findings:
    cases = {f"{n}/{r:g}": (n, r) for n, r in (REDUCED if options.reduced else CASES)}
    comparisons = [compare(plans.task(*cases[name]), options) for name in options.chosen(cases)]
    return judged(comparisons)


def judged(comparisons: Sequence[Comparison]) -> Findings:
    targets = [
        report.at_least(1, "OTT-JAX", comparisons, "solve", over="every transport problem"),
        report.at_least(3, "OTT-JAX", comparisons, "backward", over="every transport problem"),
        report.compiles_no_slower("OTT-JAX", comparisons),
    ]
    return report.findings(comparisons, targets, "transport.png")
