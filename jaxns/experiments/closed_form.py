"""Solutions and derivatives in closed form, once the support is known (arXiv 2206.00457, A1, A2).

For min ½ xᵀHx − cᵀx + l1 ‖x‖₁ + l2/2 ‖x‖² with solution x, support S and signs s on it,

    x_S = (H_S + l2 I)⁻¹ (c_S − l1 s),
    ∂x_S/∂l1 = −(H_S + l2 I)⁻¹ s,    ∂x_S/∂l2 = −(H_S + l2 I)⁻¹ x_S,    and 0 off S.
"""

from typing import NamedTuple

import numpy as np


class Reference(NamedTuple):
    """The solution and its derivatives; `violation` of the optimality conditions, relative."""

    x: np.ndarray
    d_l1: np.ndarray
    d_l2: np.ndarray
    support: np.ndarray
    violation: float


def reference(H: np.ndarray, c: np.ndarray, l1: float, l2: float, guess: np.ndarray) -> Reference:
    """Closed forms on the support and signs of `guess`, an accurate solution (all of it if l1 = 0).

    A wrong support shows as a large `violation`: of |c − Hx − l2 x| ≤ l1 off it, or of a sign.
    """
    support = np.flatnonzero(guess) if l1 > 0 else np.arange(len(c))
    sign = np.sign(guess[support]) if l1 > 0 else np.zeros(len(c))
    system = H[np.ix_(support, support)] + l2 * np.eye(len(support))
    x = _spread(np.linalg.solve(system, c[support] - l1 * sign), support, len(c))
    d_l1 = _spread(-np.linalg.solve(system, sign), support, len(c))
    d_l2 = _spread(-np.linalg.solve(system, x[support]), support, len(c))

    pull = c - H @ x - l2 * x
    off_support = np.abs(np.delete(pull, support)).max(initial=l1) - l1
    flipped = np.maximum(-sign * x[support], 0).max(initial=0)
    violation = max(off_support / np.abs(c).max(), flipped / max(np.abs(x).max(), 1e-300))
    return Reference(x, d_l1, d_l2, support, float(violation))


def _spread(values: np.ndarray, support: np.ndarray, size: int) -> np.ndarray:
    full = np.zeros(size)
    full[support] = values
    return full
