"""Iterates and derivatives of forward-backward converge at the same linear rate.

Reproduces, on instances of this library and not of the paper, experiments A1 (ridge), A2 (lasso,
n > p) and A2b (lasso, n < p) on arXiv 2206.00457 (Bolte, Pauwels, Vaiter, NeurIPS 2022), figure 2.
"""

import dataclasses
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxns
from jaxns.experiments import closed_form, convergence_figure
from jaxns.experiments.config import DerivativeConvergence, Problem
from jaxns.experiments.data import Instances, random_regressions
from jaxns.experiments.rates import fitted_rate, identification
from jaxns.experiments.reporting import Check, Experiment, Posed, Table, Tidy, below, small
from jaxns.experiments.session import Session
from jaxns.functions import L1, LeastSquares, SquaredL2

SOLVER = jaxns.ForwardBackward(acceleration=False)  # stepsize 1/L


@dataclasses.dataclass(frozen=True)
class Convergence:
    """One problem; the first axis of every array is the repetition.

    x_errors, J_errors: ‖x_k − x*‖/‖x*‖ and ‖J_k − J*‖/‖J*‖, k = 0 … steps.
    identified: the iteration from which the support is final (0 for ridge).
    theory: the local rate, 1 − α λ_min of what acts on the support.
    off_support: the largest |J_k| off the support, once it is identified.
    """

    id: str
    penalty: str
    shape: tuple[int, int]
    x_errors: np.ndarray
    J_errors: np.ndarray
    identified: np.ndarray
    x_rates: np.ndarray
    J_rates: np.ndarray
    theory: np.ndarray
    off_support: float
    perturbed_errors: np.ndarray

    @property
    def final_J_error(self) -> float:
        return float(self.J_errors[:, -1].max())

    def deviations(self, rates: np.ndarray) -> np.ndarray:
        """How far each repetition's fitted rate is from its own theoretical one, relatively."""
        return np.abs(rates - self.theory) / self.theory


@dataclasses.dataclass(frozen=True)
class Result:
    problems: tuple[Convergence, ...]


def run(settings: DerivativeConvergence, session: Session) -> Result:
    units = {
        problem.id: partial(measure, problem, settings, session) for problem in settings.problems
    }
    return Result(tuple(session.each("problems", units)))


def measure(problem: Problem, settings: DerivativeConvergence, session: Session) -> Convergence:
    """Follow all repetitions at once, then the first one at perturbed parameters."""
    instances = random_regressions(problem, settings.repetitions)
    x, J = _follow(problem, instances, session)
    errors = [_errors(problem, *one) for one in zip(*_fields(instances), x, J, strict=True)]
    x_errors, J_errors, identified, theory, off_support = map(np.array, zip(*errors, strict=True))
    return Convergence(
        problem.id,
        problem.penalty,
        (problem.rows, problem.columns),
        x_errors,
        J_errors,
        identified,
        _rates(x_errors, identified),
        _rates(J_errors, identified),
        theory,
        float(off_support.max()),
        _perturbed(problem, instances, settings, session),
    )


def table(result: Result) -> Table:
    """Measured rates beside the theoretical ones (medians over repetitions)."""
    rows = tuple(
        (
            f"{c.id} {c.penalty}",
            f"{c.shape[0]} × {c.shape[1]}",
            f"{np.median(c.theory):.4f}",
            f"{np.median(c.x_rates):.4f}",
            f"{np.median(c.J_rates):.4f}",
            _spread(c.deviations(c.x_rates)),
            _spread(c.deviations(c.J_rates)),
            f"{np.median(c.identified):.0f}" if c.penalty == "lasso" else "–",
            small(c.final_J_error),
            small(c.perturbed_errors.max(initial=0)),
        )
        for c in result.problems
    )
    columns = (
        "problem",
        "size",
        "theory",
        "rate of x",
        "rate of J",
        "x from theory",
        "J from theory",
        "support at k",
        "final error of J",
        "at perturbed θ",
    )
    notes = (
        "rates per iteration, medians over repetitions; from theory: relative deviation of each "
        "repetition from its own theoretical rate, median and (worst)",
        "instances of this library, not those of arXiv 2206.00457 (whose sizes are not known)",
    )
    return Table("Convergence of iterates and derivatives, forward-backward", columns, rows, notes)


def tidy(result: Result) -> Tidy:
    """One row per problem, repetition and iteration."""
    columns: dict[str, list[np.ndarray]] = {}
    for c in result.problems:
        repetitions, length = c.x_errors.shape
        rows = {
            "problem": np.repeat(c.id, repetitions * length),
            "repetition": np.repeat(np.arange(repetitions), length),
            "iteration": np.tile(np.arange(length), repetitions),
            "x_error": c.x_errors.ravel(),
            "J_error": c.J_errors.ravel(),
        }
        for name, values in rows.items():
            columns.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in columns.items()}


def checks(result: Result) -> tuple[Check, ...]:
    """The 'must show' lines of A1, A2, A2b, and of convergence for almost every θ."""
    found: list[Check] = []
    for c in result.problems:
        name = f"{c.id} {c.penalty}"
        near = 0.02 if c.penalty == "ridge" else 0.01
        off = np.median(np.abs(c.J_rates / c.theory - 1))
        apart = np.median(np.abs(c.J_rates / c.x_rates - 1))
        found += [
            below(f"{name}: rate of J from theory, relatively (median)", off, near),
            below(f"{name}: rate of J from that of x, relatively (median)", apart, near),
            below(f"{name}: rate of J over √ρ", c.J_rates / np.sqrt(c.theory), 1.0),
            below(f"{name}: final error of J", c.J_errors[:, -1], 1e-12),
        ]
        if c.perturbed_errors.size:
            found.append(below(f"{name}: error of J at perturbed θ", c.perturbed_errors, 1e-12))
        if c.penalty == "lasso":
            found.append(below(f"{name}: |J| off the support", c.off_support, 0.0))
    return tuple(found)


def _follow(
    problem: Problem, instances: Instances, session: Session
) -> tuple[np.ndarray, np.ndarray]:
    """x_k and J_k = ∂x_k/∂θ of each instance: (r, steps + 1, p) both."""

    def one(A, b, theta):
        build = partial(_composite, problem, A, b)
        return jaxns.derivative_path(build, theta, problem.steps, solver=SOLVER)

    path = session.vmap(one)(*map(jnp.asarray, _fields(instances)))
    return np.asarray(path.x), np.asarray(path.jacobian)


def _composite(problem: Problem, A: Any, b: Any, theta: Any) -> jaxns.Composite:
    penalty = {"ridge": SquaredL2, "lasso": L1}[problem.penalty]
    return jaxns.Composite(LeastSquares(A, b), penalty(theta))


def _errors(
    problem: Problem, A: np.ndarray, b: np.ndarray, theta: float, x: np.ndarray, J: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int, float, float]:
    """Of one repetition: errors of x and J, identification, theoretical rate, J off the support."""
    lasso = problem.penalty == "lasso"
    H, (l1, l2) = A.T @ A, (theta, 0.0) if lasso else (0.0, theta)
    exact = closed_form.reference(H, A.T @ b, l1, l2, x[-1])
    J_exact = exact.d_l1 if lasso else exact.d_l2
    k = identification(x != 0) if lasso else 0
    off_support = np.abs(np.delete(J[k:], exact.support, axis=1)).max(initial=0)
    return (
        np.linalg.norm(x - exact.x, axis=1) / np.linalg.norm(exact.x),
        np.linalg.norm(J - J_exact, axis=1) / np.linalg.norm(J_exact),
        k,
        local_rate(H, exact.support, l2),
        float(off_support),
    )


def local_rate(H: np.ndarray, support: np.ndarray, l2: float) -> float:
    """max |1 − α λ| / (1 + α l2) over the eigenvalues λ of H on the support, with α = 1/L."""
    alpha = 1 / np.linalg.eigvalsh(H)[-1]
    eigenvalues = np.linalg.eigvalsh(H[np.ix_(support, support)])
    return float(np.abs(1 - alpha * eigenvalues).max() / (1 + alpha * l2))


def _rates(errors: np.ndarray, identified: np.ndarray) -> np.ndarray:
    return np.array([fitted_rate(e, int(k)) for e, k in zip(errors, identified, strict=True)])


def _perturbed(
    problem: Problem,
    instances: Instances,
    settings: DerivativeConvergence,
    session: Session,
) -> np.ndarray:
    """Final errors of J at parameters near the first instance's.

    The theorem holds for almost every θ: a random one near any given one will do.
    """
    count = settings.perturbations
    if not count:
        return np.zeros(0)
    random = np.random.default_rng((problem.seed, 1))
    theta = instances.theta[0] * (1 + settings.perturbation_size * random.normal(size=count))
    A, b = (np.broadcast_to(a[0], (count, *a.shape[1:])) for a in (instances.A, instances.b))
    x, J = _follow(problem, Instances(A, b, theta), session)
    errors = [_errors(problem, *one)[1] for one in zip(A, b, theta, x, J, strict=True)]
    return np.array([e[-1] for e in errors])


def _fields(instances: Instances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return instances.A, instances.b, instances.theta


def _spread(deviations: np.ndarray) -> str:
    return f"{100 * np.median(deviations):.2f} ({100 * deviations.max():.2f}) %"


def problems(settings: DerivativeConvergence) -> dict[str, Posed]:
    """The first repetition of each."""
    posed = {}
    for problem in settings.problems:
        A, b, theta = (jnp.asarray(field[0]) for field in _fields(random_regressions(problem, 1)))
        posed[f"{problem.id} {problem.penalty}"] = Posed(_composite(problem, A, b, theta), SOLVER)
    return posed


EXPERIMENT = Experiment(
    DerivativeConvergence, run, table, tidy, convergence_figure.draw, checks, problems
)
