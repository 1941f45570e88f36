"""Samples as the solver sees them: centred, scaled, and of one of few sizes."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

FEW_ROWS, MANY_ROWS = 32, 256
FEW_COLUMNS, MANY_COLUMNS = 8, 16


class Design(NamedTuple):
    """Z with columns (x − centre)/scale, and a last one of ones, or of zeros without intercept.

    It is filled up with rows and columns of zeros, without weight in any loss, so that fits of
    similar sizes share one compiled program.

    Z: (N, P).   n, p: samples and features without the filling.   centre, scale: (p,).
    intercept: whether there is one.
    """

    Z: np.ndarray
    n: int
    p: int
    centre: np.ndarray
    scale: np.ndarray
    intercept: bool

    def pad(self, rows: np.ndarray) -> np.ndarray:
        """(…, n) filled up to (…, N)."""
        filling = len(self.Z) - self.n
        return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, filling)])

    def spread(self, features: np.ndarray, intercept: Any = 0, filling: Any = 1) -> np.ndarray:
        """A number for each feature, in the places of the columns of Z."""
        spread = np.full(self.Z.shape[1], filling, np.result_type(features))
        spread[: self.p] = features
        spread[-1] = intercept if self.intercept else filling
        return spread

    def slopes(self, targets: np.ndarray) -> np.ndarray:
        """|Zᵀt|/n for each target, (T, n) -> (T, p)."""
        return np.abs(targets @ self.Z[: self.n, : self.p]) / self.n

    def coefficients(self, x: Any) -> tuple[np.ndarray, Any]:
        """Those of the features, (…, p), and the intercepts, from those of the columns of Z."""
        x = np.asarray(x, np.float64)
        coef = x[..., : self.p] / self.scale
        return coef, x[..., -1] * self.intercept - coef @ self.centre


def standardised(X: np.ndarray, intercept: bool, scale: np.ndarray | None = None) -> Design:
    """The design of X, its columns centred if there is an intercept, and divided by `scale`.

    scale: (p,), by default the root mean squares of the centred columns.
    """
    n, p = X.shape
    centre = X.mean(0) if intercept else np.zeros(p)
    centred = X - centre
    scale = spreads(centred) if scale is None else scale
    Z = np.zeros((size(n, FEW_ROWS, MANY_ROWS), size(p + 1, FEW_COLUMNS, MANY_COLUMNS)))
    Z[:n, :p] = centred / scale
    Z[:n, -1] = intercept
    return Design(Z.astype(jnp.result_type(float)), n, p, centre, scale, intercept)


def spreads(X: np.ndarray) -> np.ndarray:
    """The root mean square of each column; 1 where it is zero, or only rounding."""
    largest = np.abs(X).max(0)
    unit = np.where(largest > 0, largest, 1)
    return np.where(largest > 0, unit * np.sqrt(np.mean((X / unit) ** 2, axis=0)), 1)


def size(count: int, few: int, many: int) -> int:
    """At least `count`: powers of 2 from `few` to `many`, beyond in steps of a quarter octave."""
    octave = max(few, 1 << (count - 1).bit_length())
    quarter = max(octave // 8, 1)
    return octave if octave <= many else -(-count // quarter) * quarter
