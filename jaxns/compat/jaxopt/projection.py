"""`jaxopt.projection`: projections on the sets of `jaxns.functions`, and on spheres.

Where JAXopt has them for vectors only, arrays of any shape and pytrees are taken as one vector. An
empty set gives NaN where it cannot raise.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import validate
from jaxns.compat.jaxopt.prox import floats, matched
from jaxns.functions import (
    AffineSet,
    Box,
    BoxSection,
    HalfSpace,
    Hyperplane,
    L1Ball,
    L2Ball,
    LinfBall,
    NonNegative,
    Polyhedron,
    Simplex,
)
from jaxns.functions.balls import polar
from jaxns.functions.birkhoff import onto_plans
from jaxns.problems import Transport
from jaxns.solve import solve
from jaxns.tree import Tree


def projection_non_negative(x: Tree, hyperparams: Any = None) -> Tree:
    """Onto {y ≥ 0}."""
    return NonNegative().prox(floats(x), 1.0)


def projection_box(x: Tree, hyperparams: Any) -> Tree:
    """Onto {lower ≤ y ≤ upper}.   hyperparams: (lower, upper), each a number, array or pytree."""
    x = floats(x)
    lower, upper = (matched(bound, x) for bound in hyperparams)
    return Box(lower, upper).prox(x, 1.0)


def projection_hypercube(x: Tree, unit: Any = 1.0) -> Tree:
    """Onto {0 ≤ y ≤ unit}."""
    return projection_box(x, (0.0, unit))


def projection_simplex(x: Tree, value: Any = 1.0) -> Tree:
    """Onto {y ≥ 0, Σ y = value}."""
    flat, unravel = ravel_pytree(floats(x))
    return unravel(_onto_simplex(flat, value))


def projection_sparse_simplex(
    x: Array, max_nz: int, use_approx_max_nz: bool = False, value: Any = 1.0
) -> Array:
    """Onto {y ≥ 0, Σ y = value, at most max_nz entries not 0}: that of the largest entries.

    use_approx_max_nz: find them by `jax.lax.approx_max_k`.   arXiv 1206.1529
    """
    x = floats(x)
    largest = lax.approx_max_k if use_approx_max_nz else lax.top_k
    top, index = largest(x, max_nz)
    return jnp.zeros_like(x).at[index].set(_onto_simplex(top, value))


def projection_l1_sphere(x: Tree, value: Any = 1.0) -> Tree:
    """Onto {‖y‖₁ = value}; an entry that is 0 counts as positive."""
    flat, unravel = ravel_pytree(floats(x))
    signs = jnp.where(flat < 0, -1, 1).astype(flat.dtype)
    return unravel(signs * _onto_simplex(jnp.abs(flat), value))


def projection_l1_ball(x: Tree, max_value: Any = 1.0) -> Tree:
    """Onto {‖y‖₁ ≤ max_value}, with the derivative from inside on the sphere."""
    flat, unravel = ravel_pytree(floats(x))
    inside = jnp.sum(jnp.abs(flat)) <= max_value
    return unravel(jnp.where(inside, flat, L1Ball(max_value).prox(flat, 1.0)))


def projection_l2_sphere(x: Tree, value: Any = 1.0) -> Tree:
    """Onto {‖y‖₂ = value}; 0, which is as far from all of it, goes along (1, …, 1)."""
    flat, unravel = ravel_pytree(floats(x))
    norm, direction = polar(flat)
    return unravel(value * jnp.where(norm == 0, flat.size**-0.5, direction))


def projection_l2_ball(x: Tree, max_value: Any = 1.0) -> Tree:
    """Onto {‖y‖₂ ≤ max_value}, with the derivative from inside on the sphere."""
    flat, unravel = ravel_pytree(floats(x))
    inside = polar(flat)[0] <= max_value
    return unravel(jnp.where(inside, flat, L2Ball(max_value).prox(flat, 1.0)))


def projection_linf_ball(x: Tree, max_value: Any = 1.0) -> Tree:
    """Onto {‖y‖∞ ≤ max_value}."""
    x = floats(x)
    return LinfBall(matched(max_value, x)).prox(x, 1.0)


def projection_hyperplane(x: Tree, hyperparams: Any) -> Tree:
    """Onto {⟨a, y⟩ = b}.   hyperparams: (a, b), a like x and b a number."""
    return _by_normal(Hyperplane, x, hyperparams)


def projection_halfspace(x: Tree, hyperparams: Any) -> Tree:
    """Onto {⟨a, y⟩ ≤ b}.   hyperparams: (a, b), a like x and b a number."""
    return _by_normal(HalfSpace, x, hyperparams)


def projection_affine_set(x: Array, hyperparams: Any) -> Array:
    """Onto {A y = b}.   hyperparams: (A, b), A of any rank."""
    return AffineSet(*floats(hyperparams)).prox(floats(x), 1.0)


def projection_polyhedron(x: Array, hyperparams: Any, check_feasible: bool = True) -> Array:
    """Onto {A y = b, G y ≤ h}, by a finite method.   hyperparams: (A, b, G, h); A, b may be None.

    check_feasible: raise `ValueError` if the set is empty and that can be seen, that is, outside
        transformations; else, and there, the projection on it is NaN.
    """
    A, b, G, h = floats(hyperparams)
    projected = Polyhedron(G, h, A, b).prox(floats(x), 1.0)
    if check_feasible and validate.is_known(projected) and np.isnan(projected).any():
        raise ValueError("the polyhedron is empty")
    return projected


def projection_box_section(x: Array, hyperparams: Any, check_feasible: bool = False) -> Array:
    """Onto {alpha ≤ y ≤ beta, ⟨w, y⟩ = c}.   hyperparams: (alpha, beta, w, c).

    check_feasible: raise `ValueError` if the set is empty; else the projection on it is NaN.
    """
    alpha, beta, w, c = floats(hyperparams)
    projected = BoxSection(alpha, beta, w, c).prox(floats(x), 1.0)
    if check_feasible and np.isnan(projected).any():
        raise ValueError("no y has alpha <= y <= beta and dot(w, y) = c")
    return projected


def projection_transport(
    sim_matrix: Array,
    marginals: Any,
    make_solver: Callable | None = None,
    use_semi_dual: bool = True,
) -> Array:
    """Onto {P ≥ 0, P 1 = a, Pᵀ1 = b}.   marginals: (a, b), of the same sum; else NaN.

    By a semismooth Newton method of its own: `make_solver` and `use_semi_dual` are not used.
    """
    S, a, b = _transport(sim_matrix, marginals)
    return onto_plans(S, a, b)


def kl_projection_transport(
    sim_matrix: Array,
    marginals: Any,
    make_solver: Callable | None = None,
    use_semi_dual: bool = True,
) -> Array:
    """The P minimising KL(P, exp(S)) on {P ≥ 0, P 1 = a, Pᵀ1 = b}, by Sinkhorn's iteration.

    marginals: (a, b), of the same sum.   `make_solver` and `use_semi_dual` are not used.
    """
    S, a, b = _transport(sim_matrix, marginals)
    return solve(Transport(-S, a, b, 1.0)).x.plan


def projection_birkhoff(
    sim_matrix: Array, make_solver: Callable | None = None, use_semi_dual: bool = True
) -> Array:
    """Onto the doubly stochastic matrices."""
    return projection_transport(sim_matrix, _ones(sim_matrix))


def kl_projection_birkhoff(
    sim_matrix: Array, make_solver: Callable | None = None, use_semi_dual: bool = True
) -> Array:
    """The P minimising KL(P, exp(S)) among the doubly stochastic matrices."""
    return kl_projection_transport(sim_matrix, _ones(sim_matrix))


def _onto_simplex(x: Array, value: Any) -> Array:
    return Simplex(1.0 if value is None else value).prox(x, 1.0)


def _by_normal(of: Callable, x: Tree, hyperparams: Any) -> Tree:
    a, b = hyperparams
    flat, unravel = ravel_pytree(floats(x))
    return unravel(of(ravel_pytree(floats(a))[0], floats(b)).prox(flat, 1.0))


def _transport(sim_matrix: Array, marginals: Any) -> tuple[Array, Array, Array]:
    S, a, b = floats((sim_matrix, *marginals))
    if S.shape != (*a.shape, *b.shape):
        raise ValueError(
            f"marginals must be vectors of the lengths of the rows and columns of sim_matrix, of "
            f"shape {S.shape}; got shapes {a.shape} and {b.shape}"
        )
    return S, a, b


def _ones(sim_matrix: Array) -> tuple[Array, Array]:
    rows, columns = jnp.shape(sim_matrix)
    dtype = jax.eval_shape(floats, sim_matrix).dtype
    return jnp.ones(rows, dtype), jnp.ones(columns, dtype)
