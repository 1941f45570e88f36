"""Quadratic programs in a box against other libraries.

`box QP/n`: a random Q of condition 1000, about half of the bounds active; the derivative of a
squared distance in q. `SVM dual/data/C`: the dual of a linear support vector machine without an
intercept; the derivative of a held-out squared hinge loss in log C. What is certified is the
solution on the coordinates at no bound. MPAX and proxsuite are given the dense solve on these
coordinates; cvxpylayers (Clarabel, dense derivative) is run up to n = 100.
"""

from collections.abc import Sequence

from benchmarks.frame import Findings, Options
from benchmarks.peers import boxes, report
from benchmarks.peers.compare import Comparison, compare
from benchmarks.peers.data import breast_cancer

REPEATS = 5
CASES = {
    "box QP/20": lambda: boxes.box(20),
    "box QP/100": lambda: boxes.box(100),
    "box QP/500": lambda: boxes.box(500),
    "SVM dual/bcancer/0.01": lambda: boxes.svm("bcancer", breast_cancer(), 0.01),
    "SVM dual/bcancer/1": lambda: boxes.svm("bcancer", breast_cancer(), 1.0),
}
REDUCED = ("box QP/20",)


def run(options: Options) -> Findings:
    names = options.chosen(REDUCED if options.reduced else CASES)
    comparisons = [compare(CASES[name](), options) for name in names]
    return judged(comparisons)


def judged(comparisons: Sequence[Comparison]) -> Findings:
    targets = [
        report.at_least(5, "JAXopt", comparisons, over="every program in a box"),
        report.at_least(5, "Optimistix", comparisons, over="every program in a box"),
        report.at_least(1, "qpax", comparisons, over="every program in a box"),
        report.at_least(1, "proxsuite", comparisons, over="every program in a box"),
        report.compiles_no_slower("JAXopt", comparisons),
    ]
    return report.findings(comparisons, targets, "quadratic.png")
