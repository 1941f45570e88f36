"""The lasso against other libraries.

Minimise, and differentiate a held-out error in the logarithm of the penalty. Problems are named
lasso/data/k, the penalty a k-th of the smallest that gives zero. `diab2`, `diab3`: diabetes with
products of features; `corr`: autoregressive designs; `words`: a sparse design like tf-idf. Two
thirds of the rows to fit.

Equal accuracy: every library is asked for the tolerances 1e-2, 1e-3, …, 1e-12 of its own kind, and
what counts is the error of what it returns against a certified solution and derivative, which are
computed in the same run by Newton's method on the support and proved by the optimality conditions
of the whole problem. A library's tolerances end where a call takes more than 5 seconds. celer,
skglm and scikit-learn do not differentiate; they are given the support solve (Cholesky) that a user
would write. JAXopt's tolerance for the derivative's system follows that of the solve; Optimistix,
which has no proximal method, iterates the proximal gradient map.
"""

from collections.abc import Sequence

from benchmarks.frame import Findings, Options
from benchmarks.peers import linear, report
from benchmarks.peers.compare import Comparison

REPEATS = 3
CASES = (
    ("lasso", "corr20x5", 10),
    ("lasso", "diab2", 10),
    ("lasso", "diab3", 10),
    ("lasso", "corr500x5000", 10),
    ("lasso", "words2000x20000", 10),
    ("lasso", "corr500x5000", 100),
    ("lasso", "diab2", 100),
    ("lasso", "diab3", 100),
    ("lasso", "corr2000x20000", 10),
)


def run(options: Options) -> Findings:
    comparisons = linear.compared(CASES[:1] if options.reduced else CASES, options)
    return judged(comparisons)


def judged(comparisons: Sequence[Comparison]) -> Findings:
    targets = [
        report.at_least(5, "JAXopt", comparisons, over="every lasso"),
        report.at_least(5, "Optimistix", comparisons, over="every lasso"),
        report.at_least(1, "celer", comparisons, over="every lasso"),
        report.backward_share(0.05, comparisons),
        report.compiles_no_slower("JAXopt", comparisons),
    ]
    if of_5000 := [c for c in comparisons if c.name == "lasso/corr500x5000/10"]:
        over = "the correlated 500 × 5000 lasso"
        targets.insert(1, report.at_least(100, "JAXopt", of_5000, over=over))
    return report.findings(comparisons, targets, "lasso.png")
