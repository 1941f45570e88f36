"""The Sinkhorn divergence: entropic transport without its bias."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns.fixed_point import Stop
from jaxns.modes import Implicit, Mode
from jaxns.problems import Transport
from jaxns.solve import solve


def sinkhorn_divergence(
    cost: Any,
    a: Any,
    b: Any,
    epsilon: Any,
    rho: Any = None,
    *,
    solver: Any = None,
    mode: Mode = Implicit(),
    stop: Stop = Stop(),
) -> Array:
    r"""S(a, b) = T(a, b) − ½ T(a, a) − ½ T(b, b) + ε/2 (Σa − Σb)²,   T = the value of `Transport`.

    Zero for a = b on the same points, and positive otherwise for a cost whose kernel exp(−C/ε) is
    positive definite (Feydy et al. 2019, arXiv 1810.08278; with unequal masses Séjourné et al.
    2019, arXiv 1910.12958).

    cost: `PointCloud(x, y)` or `PositiveFeatures(phi, psi)`, which give the costs inside each of
        the two measures too. The other arguments are those of `Transport` and of `solve`.
    """
    if not hasattr(cost, "within"):
        raise TypeError(
            "cost must say what transport inside each measure costs: "
            f"PointCloud(x, y) or PositiveFeatures(phi, psi), got {type(cost).__name__}"
        )
    inside_a, inside_b = cost.within

    def value(cost: Any, a: Any, b: Any) -> Array:
        problem = Transport(cost, a, b, epsilon, rho)
        return solve(problem, solver, mode=mode, stop=stop).x.value

    bias = 0.5 * (value(inside_a, a, a) + value(inside_b, b, b))
    excess = jnp.sum(jnp.asarray(a)) - jnp.sum(jnp.asarray(b))
    return value(cost, a, b) - bias + 0.5 * epsilon * excess**2
