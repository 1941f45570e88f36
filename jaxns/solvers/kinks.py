"""How far a governing variable is from the nearest kink of the map F = `step`.

`solver.margin(problem, z)` is a lower bound of the Euclidean distance from z to the nearest point
where F is not differentiable, over the whole pytree: the least of the margins of the functions that
F is made of, each divided by a Lipschitz constant of what it is applied to, for convex functions
and stepsizes within their bounds. Infinity where there is no kink, None where it is not known.
"""

from functools import reduce
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.tree import Tree


def of_prox(g: Any, x: Tree, step: Any) -> Array | None:
    return g.prox_margin(x, step) if hasattr(g, "prox_margin") else None


def of_gradient(f: Any, x: Tree) -> Array | None:
    return f.gradient_margin(x) if hasattr(f, "gradient_margin") else None


def no_kink(z: Tree) -> Array:
    return jnp.asarray(jnp.inf, tree.dtype(z))


def over(margin: Array | None, lipschitz: Any) -> Array | None:
    """In the argument of a map with that constant."""
    return None if margin is None else margin / lipschitz


def least(*margins: Array | None) -> Array | None:
    known = [margin for margin in margins if margin is not None]
    return reduce(jnp.minimum, known) if len(known) == len(margins) else None
