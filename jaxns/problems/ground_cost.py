"""Ground costs: what it takes to move one unit of mass from x_i to y_j, in three representations.

Each knows its `shape` (n, m), its transpose `T`, the scaled matrix `exponents(ε)` = −C/ε, whether
such a matrix `fits` in memory, and

    log_sum(f, w, ε)_j = log Σᵢ wᵢ exp((fᵢ − Cᵢⱼ)/ε),

the only thing that Sinkhorn's iteration does with a cost. An infinite cost forbids the pair: its
exponent is −∞, and no derivative goes through it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxns import validate
from jaxns.struct import settle, static, struct

BLOCK = {"cpu": 2**15}  # entries of a cost looked at together: on a CPU, what its cache holds
OTHERWISE = 2**20  # … on any other device
SMALL = 2**20  # entries up to which a cost computed on the fly may exist as a whole
ROOM = 60.0  # exp(ROOM) overflows in no type; above it only points without mass can come


@struct
class CostMatrix:
    """C as an (n, m) matrix; +∞ forbids a pair."""

    matrix: Array
    fits = True

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape  # pyright: ignore[reportReturnType]

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype

    @property
    def T(self) -> "CostMatrix":
        return CostMatrix(self.matrix.T)

    def exponents(self, epsilon: Any) -> Array:
        return _exponents(self.matrix, epsilon)

    def log_sum(self, f: Array, weights: Array, epsilon: Any) -> Array:
        h, rate = f / epsilon, _rate(epsilon, f)
        return _map(lambda c: _log_sum(h, weights, c, rate), self.matrix.T, f.size)

    def highest(self, p: Array, weights: Array) -> Array:
        """maxᵢ pᵢ over the rows with mass that may send to column j; −∞ if there are none."""
        return jax.vmap(lambda c: _highest(p, weights, c))(self.matrix.T)

    def spread(self) -> Array:
        """The size of the finite costs."""
        return jnp.max(jnp.where(jnp.isfinite(self.matrix), jnp.abs(self.matrix), 0), initial=0)


@struct
class PointCloud:
    """C_ij = cost(x_i, y_j), computed in blocks whenever it is needed: O(n + m) memory.

    x: (n, d).   y: (m, d).
    cost: a function of two points, static (define it at module level); by default ‖x − y‖².
    """

    x: Array
    y: Array
    cost: Callable[[Array, Array], Array] | None = static(default=None)

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            settle(self, name, validate.array(name, getattr(self, name), 2))
        if self.x.shape[1] != self.y.shape[1]:
            raise ValueError(
                "y must have points of the dimension of x: "
                f"expected {self.x.shape[1]}, got shape {self.y.shape}"
            )
        if self.cost is not None and not callable(self.cost):
            raise TypeError(f"cost must be a function of two points, got {self.cost!r}")

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.y.shape[0]

    @property
    def fits(self) -> bool:
        return math.prod(self.shape) <= SMALL

    @property
    def dtype(self) -> Any:
        return jnp.result_type(self.x, self.y)

    @property
    def T(self) -> "PointCloud":
        return PointCloud(self.y, self.x, None if self.cost is None else _swap(self.cost))

    @property
    def within(self) -> tuple["PointCloud", "PointCloud"]:
        """The costs inside each of the two clouds."""
        return PointCloud(self.x, self.x, self.cost), PointCloud(self.y, self.y, self.cost)

    def exponents(self, epsilon: Any) -> Array:
        return _exponents(jax.vmap(self._column, out_axes=1)(self.y), epsilon)

    def log_sum(self, f: Array, weights: Array, epsilon: Any) -> Array:
        h, rate = f / epsilon, _rate(epsilon, f)
        return self._map(lambda c: _log_sum(h, weights, c, rate))

    def highest(self, p: Array, weights: Array) -> Array:
        return self._map(lambda c: _highest(p, weights, c))

    def spread(self) -> Array:
        return jnp.max(
            self._map(lambda c: jnp.max(jnp.where(jnp.isfinite(c), jnp.abs(c), 0), initial=0)),
            initial=0,
        )

    def _column(self, y: Array) -> Array:
        cost = _squared_distance if self.cost is None else self.cost
        return jax.vmap(lambda x: cost(x, y))(self.x)

    def _map(self, reduce: Callable[[Array], Array]) -> Array:
        """`reduce` of every column of C, which is computed again for the derivative."""
        column = jax.checkpoint(lambda y: reduce(self._column(y)))
        return _map(column, self.y, self.shape[0])


@struct
class PositiveFeatures:
    """C = −ε log(Φ Ψᵀ): a kernel exp(−C/ε) = Φ Ψᵀ of rank r, applied in O((n + m) r).

    phi: (n, r) ≥ 0.   psi: (m, r) ≥ 0, such that every entry of Φ Ψᵀ is positive.
    See `gaussian_features` (Scetbon and Cuturi, arXiv 2006.07057).
    """

    phi: Array
    psi: Array

    def __post_init__(self) -> None:
        for name in ("phi", "psi"):
            value = validate.array(name, getattr(self, name), 2)
            settle(self, name, validate.nonnegative(name, value))
            if validate.is_known(value) and not np.all(np.any(np.asarray(value) != 0, axis=1)):
                raise ValueError(f"{name} must have a positive feature in every row")
        if self.phi.shape[1] != self.psi.shape[1]:
            raise ValueError(
                f"psi must have as many features as phi: expected {self.phi.shape[1]}, "
                f"got shape {self.psi.shape}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.phi.shape[0], self.psi.shape[0]

    @property
    def fits(self) -> bool:
        return math.prod(self.shape) <= SMALL

    @property
    def dtype(self) -> Any:
        return jnp.result_type(self.phi, self.psi)

    @property
    def T(self) -> "PositiveFeatures":
        return _unchecked(self.psi, self.phi)

    @property
    def within(self) -> tuple["PositiveFeatures", "PositiveFeatures"]:
        return _unchecked(self.phi, self.phi), _unchecked(self.psi, self.psi)

    def exponents(self, epsilon: Any) -> Array:
        return jnp.log(self.phi @ self.psi.T)

    def log_sum(self, f: Array, weights: Array, epsilon: Any) -> Array:
        h = f / epsilon
        peak = lax.stop_gradient(jnp.max(jnp.where(weights > 0, h, -jnp.inf), initial=-jnp.inf))
        peak = jnp.where(jnp.isfinite(peak), peak, 0)
        mass = weights * jnp.exp(jnp.minimum(h - peak, ROOM))
        return _log_total(self.psi @ (mass @ self.phi), peak)

    def highest(self, p: Array, weights: Array) -> Array:
        top = jnp.max(jnp.where(weights > 0, p, -jnp.inf), initial=-jnp.inf)
        return jnp.full(self.shape[1], top)

    def spread(self) -> Array:
        """Zero: with the kernel given, a larger ε is no easier problem."""
        return jnp.zeros((), self.dtype)


def gaussian_features(
    x: Any, y: Any, epsilon: Any, count: int, key: Array, radius: Any = None
) -> PositiveFeatures:
    r"""Random features with E[ΦΨᵀ] = exp(−‖x − y‖²/ε), relative error ∝ count^(−1/2).

        φ_k(x) = r^(−1/2) (2q)^(d/4) exp(−2‖x − u_k‖²/ε + ‖u_k‖²/(εq)),   u_k ~ N(0, qε/4 I),
        q = ½ exp(W₀(R²/(εd)))

    (arXiv 2006.07057, lemma 1). x: (n, d), y: (m, d), best centred at 0.   radius: R, by default
    the largest norm of a point.   Use the same ε in the problem.
    """
    x, y = validate.array("x", x, 2), validate.array("y", y, 2)
    epsilon = validate.positive("epsilon", validate.scalar("epsilon", epsilon))
    d, dtype = x.shape[1], jnp.result_type(x, y)
    if radius is None:
        norms = jnp.linalg.norm(jnp.concatenate([x, y]), axis=1)
        radius = lax.stop_gradient(jnp.max(norms))
    q = 0.5 * jnp.exp(_lambert(radius**2 / (epsilon * d)))
    u = jnp.sqrt(q * epsilon / 4) * jax.random.normal(key, (count, d), dtype)

    def features(points):
        squares = jnp.sum((points[:, None] - u) ** 2, axis=-1)
        exponent = -2 * squares / epsilon + jnp.sum(u**2, axis=-1) / (epsilon * q)
        return (2 * q) ** (d / 4) / count**0.5 * jnp.exp(exponent)

    return _unchecked(features(x), features(y))


def _lambert(z: Array) -> Array:
    """W₀(z), z ≥ 0: w eʷ = z, by Halley's iteration."""
    w = jnp.log1p(z)
    for _ in range(6):
        gap = w - z * jnp.exp(-w)
        w = w - gap / (w + 1 - (w + 2) * gap / (2 * w + 2))
    return w


def _unchecked(phi: Array, psi: Array) -> PositiveFeatures:
    """Features computed by us, which tracing or rounding may have brought to zero."""
    features = object.__new__(PositiveFeatures)
    settle(features, "phi", phi)
    settle(features, "psi", psi)
    return features


def _squared_distance(x: Array, y: Array) -> Array:
    return jnp.sum((x - y) ** 2)


@dataclasses.dataclass(frozen=True)
class _Swapped:
    cost: Callable

    def __call__(self, x: Array, y: Array) -> Array:
        return self.cost(y, x)


def _swap(cost: Callable) -> Callable:
    return cost.cost if isinstance(cost, _Swapped) else _Swapped(cost)


def _map(column: Callable[[Array], Array], xs: Array, length: int) -> Array:
    """`column` of each of xs, as many at a time as make a block when each has this length."""
    block = BLOCK.get(jax.default_backend(), OTHERWISE)
    together = max(1, block // max(1, length))
    if together >= xs.shape[0]:
        return jax.vmap(column)(xs)
    return lax.map(column, xs, batch_size=together)


def _rate(epsilon: Any, like: Array) -> Array:
    return 1 / jnp.asarray(epsilon, like.dtype)


def _exponents(cost: Array, epsilon: Any) -> Array:
    allowed = cost != jnp.inf  # and not <, so that NaN stays NaN
    return jnp.where(allowed, -jnp.where(allowed, cost, 0) / epsilon, -jnp.inf)


@jax.custom_jvp
def _log_sum(h: Array, weights: Array, cost: Array, rate: Array) -> Array:
    """log Σᵢ wᵢ exp(hᵢ − rate·costᵢ) of vectors; −∞ if nothing is summed."""
    score = h + jnp.log(weights) - rate * cost
    peak = jnp.max(score, initial=-jnp.inf)
    peak = jnp.where(jnp.isfinite(peak), peak, 0)
    return _log_total(jnp.sum(jnp.exp(score - peak)), peak)


@_log_sum.defjvp
def _(primals, tangents):
    """By hand because the derivative exists where that of the program does not: in a weight that is
    zero, and in ε where a cost is infinite (there it is 0).
    """
    (h, weights, cost, rate), (dh, dweights, dcost, drate) = primals, tangents
    out = _log_sum(*primals)
    empty, allowed = out == -jnp.inf, cost != jnp.inf
    cost = jnp.where(allowed, cost, 0)
    density = jnp.exp(jnp.minimum(h - rate * cost - jnp.where(empty, 0, out), ROOM))
    slope = weights * (dh - rate * dcost - cost * drate) + dweights
    return out, jnp.where(empty, 0, jnp.sum(jnp.where(allowed, density, 0) * slope))


def _log_total(total: Array, peak: Array) -> Array:
    empty = total == 0
    return jnp.where(empty, -jnp.inf, peak + jnp.log(jnp.where(empty, 1, total)))


def _highest(p: Array, weights: Array, cost: Array) -> Array:
    return jnp.max(jnp.where((weights > 0) & (cost != jnp.inf), p, -jnp.inf), axis=-1)
