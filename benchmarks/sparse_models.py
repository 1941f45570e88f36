"""Other sparse models, and ridge, against other libraries.

Elastic net (θ the logarithms of both penalties), weighted lasso (a penalty for each feature),
sparse logistic regression, group lasso (groups of five features), ridge: as for the lasso above.
`bcancer`, `digits` (even against odd): scikit-learn's data. JAXopt's coordinate descent, whose
stepsizes miss a factor n, is left out.
"""

from collections.abc import Sequence

from benchmarks.frame import Findings, Options
from benchmarks.peers import linear, report
from benchmarks.peers.compare import Comparison

REPEATS = 3
CASES = (
    ("sparse logistic", "bcancer", 10),
    ("sparse logistic", "bcancer", 100),
    ("sparse logistic", "digits", 100),
    ("elastic net", "diab3", 10),
    ("elastic net", "corr500x5000", 10),
    ("weighted lasso", "corr500x5000", 10),
    ("group lasso", "corr500x5000", 10),
    ("ridge", "diab2", 10),
)


def run(options: Options) -> Findings:
    comparisons = linear.compared(CASES[:1] if options.reduced else CASES, options)
    return judged(comparisons)


def judged(comparisons: Sequence[Comparison]) -> Findings:
    sparse = [c for c in comparisons if not c.name.startswith("ridge")]
    targets = [
        report.at_least(5, "JAXopt", comparisons, over="every sparse model and ridge"),
        report.at_least(5, "Optimistix", comparisons, over="every sparse model and ridge"),
        report.at_least(1, "celer", sparse, over="every sparse model that it has"),
        report.backward_share(0.05, sparse),
        report.compiles_no_slower("JAXopt", comparisons),
    ]
    return report.findings(comparisons, targets, "sparse_models.png")
