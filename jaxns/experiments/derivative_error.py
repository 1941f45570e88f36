"""How fast the derivative of each mode becomes right: its error against inner iterations.

Piggyback is followed along the plain and the accelerated iteration (arXiv 2206.00457); implicit and
one-step derivatives are those at iterate k of the accelerated one, where their errors are
proportional to ‖x_k − x*‖, plus A^K J* for one-step (arXiv 2305.13768).
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

import jaxns
from jaxns.experiments import config
from jaxns.experiments.holdout import HoldOut, Jacobian, relative_error
from jaxns.experiments.rates import identification
from jaxns.experiments.session import Report

SAMPLES = 60  # iterates at which the modes without a recursion are evaluated


@dataclasses.dataclass(frozen=True)
class Curve:
    """Relative errors of the derivative after `iterations` inner iterations."""

    label: str
    iterations: np.ndarray
    errors: np.ndarray


@dataclasses.dataclass(frozen=True)
class DerivativeErrors:
    """At given penalties; `identified`: the iteration from which the accelerated iterates have the
    solution's support (None when no piggyback mode was followed)."""

    penalties: np.ndarray
    support: int
    identified: int | None
    curves: tuple[Curve, ...]


def measure(
    holdout: HoldOut,
    t: np.ndarray,
    modes: Mapping[config.Mode, Jacobian],
    steps: int,
    report: Report,
) -> DerivativeErrors:
    """Errors of ∂x_k/∂t, k = 1 … steps, at the log penalties t."""
    x, exact = holdout.reference(t)
    followed = [mode for mode in modes if mode.name == "piggyback"]
    at_iterates = [mode for mode in modes if mode.name != "piggyback"]
    total = 2 * len(followed) + len(at_iterates)
    curves: list[Curve] = []
    identified = None
    for acceleration in (False, True) if followed else ():
        curve, identified = _along_the_path(holdout, t, exact, steps, acceleration)
        curves.append(curve)
        report("derivative errors", len(curves), total, curve.label)
    for mode in at_iterates:
        curves.append(_at_iterates(modes[mode], t, exact, steps, mode.label))
        report("derivative errors", len(curves), total, mode.label)
    return DerivativeErrors(np.exp(t), int(np.count_nonzero(x)), identified, tuple(curves))


def _along_the_path(
    holdout: HoldOut, t: np.ndarray, exact: np.ndarray, steps: int, acceleration: bool
) -> tuple[Curve, int]:
    X, y = holdout.arrays[:2]
    path = jaxns.derivative_path(
        lambda t: holdout.problem(t, X, y),
        jnp.asarray(t),
        steps,
        solver=jaxns.ForwardBackward(acceleration=acceleration),
    )
    errors = np.array([relative_error(J, exact) for J in np.asarray(path.jacobian)])
    label = f"piggyback, {'accelerated' if acceleration else 'plain'}"
    curve = Curve(label, np.arange(1, steps + 1), errors[1:])
    return curve, identification(np.asarray(path.x) != 0)


def _at_iterates(
    jacobian: Jacobian, t: np.ndarray, exact: np.ndarray, steps: int, label: str
) -> Curve:
    iterations = np.unique(np.geomspace(1, steps, SAMPLES).astype(int))
    errors = [relative_error(jacobian(t, 0.0, int(k)), exact) for k in iterations]
    return Curve(label, iterations, np.array(errors))
