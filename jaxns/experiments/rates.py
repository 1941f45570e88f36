"""Linear rates of convergence, fitted."""

import numpy as np

WINDOW = (1e-10, 1e-2)  # relative errors that the fit looks at


def fitted_rate(errors: np.ndarray, start: int = 0, window: tuple[float, float] = WINDOW) -> float:
    """ρ of errors ≈ C ρᵏ: exp(slope) of the least-squares line through log(errors).

    errors: relative, one per iteration.   start: the first iteration to look at (when the support
    has been identified).   NaN when fewer than three errors lie in the window.
    """
    k = np.arange(len(errors))
    inside = (k >= start) & (errors > window[0]) & (errors < window[1])
    if inside.sum() < 3:
        return float("nan")
    slope, _ = np.polyfit(k[inside], np.log(errors[inside]), 1)
    return float(np.exp(slope))


def identification(supports: np.ndarray) -> int:
    """The iteration from which the support (k, p: booleans) is the final one."""
    differs = np.flatnonzero(np.any(supports != supports[-1], axis=1))
    return int(differs[-1]) + 1 if differs.size else 0
