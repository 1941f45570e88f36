"""What JAXopt's quadratic programs have in common: matrices of functions, and one exact solve.

All are solved by `jaxns.InteriorPoint`, to rounding level, and differentiated on the active set.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import block_diag

from jaxns import tree, validate
from jaxns.compat.jaxopt.linear_solve import _materialize_array
from jaxns.compat.jaxopt.prox import floats
from jaxns.compat.jaxopt.tree_util import tree_dot
from jaxns.fixed_point import Solution, Status, Stop
from jaxns.modes import Implicit
from jaxns.problems import QuadraticProgram
from jaxns.solve import solve
from jaxns.solvers import InteriorPoint
from jaxns.tree import Tree

UNSOLVED, SOLVED, DUAL_INFEASIBLE, PRIMAL_INFEASIBLE = 0, 1, 2, 3  # JAXopt's codes


class QPState(NamedTuple):
    """iter_num: steps.   error: the relative residual.   status: one of the codes above."""

    iter_num: Array
    error: Array
    status: Array


class Rows(NamedTuple):
    """A map of trees like x as a matrix, and its values as trees."""

    matrix: Array  # (m, n)
    unravel: Callable[[Array], Tree]
    like: Tree

    def values(self, bound: Tree) -> Array:
        """A bound on the values, which may be one number for a leaf, as a vector.

        One that is known stays known inside `jit`.
        """
        known = all(map(validate.is_known, jax.tree.leaves(bound)))
        with jax.ensure_compile_time_eval() if known else nullcontext():
            spread = jax.tree.map(
                lambda b, z: jnp.broadcast_to(b, z.shape), floats(bound), self.like
            )
            return ravel_pytree(spread)[0]


def rows(matvec: Callable | None, params: Any, x: Tree) -> Rows:
    """Of v ↦ matvec(params, v), by default the product of each leaf of params with one of v."""
    if matvec is None and hasattr(params, "ndim") and hasattr(x, "ndim") and x.ndim == 1:
        matrix = floats(params)
        return Rows(matrix, lambda z: z, jnp.zeros(len(matrix), matrix.dtype))
    flat, unravel = ravel_pytree(x)
    product = partial(tree_dot if matvec is None else matvec, floats(params))
    like = jax.tree.map(jnp.zeros_like, floats(product(x)))
    of_vectors = _materialize_array(
        lambda u: ravel_pytree(floats(product(unravel(u))))[0], flat.shape, flat.dtype
    )
    return Rows(of_vectors, ravel_pytree(like)[1], like)


class Objective(NamedTuple):
    """½ xᵀQx + cᵀx on vectors; x: a tree like the unknown."""

    Q: Array
    c: Array
    unravel: Callable[[Array], Tree]
    x: Tree


def objective(
    matvec_Q: Callable | None, fun: Callable | None, params_obj: Any, x: Tree | None
) -> Objective:
    """Of params_obj = (Q, c), (params_Q, c), or what else `fun` takes."""
    if fun is None and params_obj is None:
        raise ValueError("params_obj must be a pair (Q, c)")
    if fun is not None and x is None:
        raise ValueError("init_params must be given with fun: it says what the unknown is like")
    params_Q, c = extract_Qc_from_obj(x, params_obj, fun)
    x = floats(c if fun is None else x)
    if fun is None:
        Q = rows(matvec_Q, params_Q, x).matrix
    else:  # the gradient is Qx up to a constant, which the derivative does not see
        gradient = jax.grad(fun)
        Q = rows(lambda _, v: gradient(v, params_obj), None, x).matrix
    flat, unravel = ravel_pytree(x)
    return Objective(Q, ravel_pytree(floats(c))[0].astype(flat.dtype), unravel, x)


def extract_Qc_from_obj(x: Tree | None, params_obj: Any, fun: Callable | None) -> tuple[Any, Tree]:
    """(params_Q, c) of the objective: params_obj, or of fun(x, params_obj), with its value at 0."""
    if fun is None:
        params_Q, c = params_obj
        return params_Q, c
    constant, c = jax.value_and_grad(fun)(tree.zeros_like(floats(x)), params_obj)
    return (params_obj, c, constant), c


def check_functions(matvec_Q: Any, fun: Any) -> None:
    if matvec_Q is not None and fun is not None:
        raise ValueError("matvec_Q and fun exclude each other: both say what the objective is")


class Options(Protocol):
    """maxiter: steps at most.   jit: False to raise `ValueError` for a program without solution.

    verbose: print how it ended.
    """

    maxiter: int
    jit: bool
    verbose: bool | int


def solve_program(
    of: Objective, A: Any, b: Any, G: Any, h: Any, options: Options
) -> tuple[Solution, QPState]:
    """min ½ xᵀQx + cᵀx subject to Ax = b, Gx ≤ h; NaN where that was not solved."""
    dtype = jnp.result_type(*(part for part in (of.Q, of.c, A, b, G, h) if part is not None))
    Q, c, A, b, G, h = (
        None if part is None else part.astype(dtype) for part in (of.Q, of.c, A, b, G, h)
    )
    solution = solve(
        QuadraticProgram(Q, c, A, b, G, h),
        InteriorPoint(),
        mode=Implicit(direction="both"),
        stop=Stop(max_steps=options.maxiter, on_failure="nan"),
    )
    status = _code(solution.status)
    state = QPState(solution.steps, solution.residual, status)
    if options.verbose:
        jax.debug.print("InteriorPoint: Iter: {} Error (relative residual): {} Status: {}", *state)
    if not options.jit and validate.is_known(status) and int(status) >= DUAL_INFEASIBLE:
        raise ValueError(f"the quadratic program has no solution: InteriorPoint {solution.status}")
    return solution, state


def solve_box(
    of: Objective, A: Array, l: Array, u: Array, options: Options
) -> tuple[Array, Array, Array, QPState]:
    """min ½ xᵀQx + cᵀx subject to l ≤ Ax ≤ u: x, and the multipliers of Ax ≤ u and of Ax ≥ l."""
    if validate.is_known(l) and validate.is_known(u):
        lower, upper = np.asarray(l), np.asarray(u)
        equal = lower == upper
        above, below = np.isfinite(upper) & ~equal, np.isfinite(lower) & ~equal
        G, h = jnp.concatenate([A[above], -A[below]]), jnp.concatenate([u[above], -l[below]])
        solution, state = solve_program(of, A[equal], l[equal], G, h, options)
        x, _, z, y = solution.x
        of_upper, of_lower = jnp.split(z, [above.sum()])
        none = jnp.zeros_like(l)
        mu = none.at[above].set(of_upper).at[equal].set(jnp.where(y > 0, y, 0))
        phi = none.at[below].set(of_lower).at[equal].set(jnp.where(y > 0, 0, -y))
        return x, mu, phi, state

    # Which rows are equations is not known: each may be one, and is the equation tᵢ = 0 for an
    # unknown of its own otherwise; those that are one are void among the inequalities.
    equal = lax.stop_gradient(l == u)
    n, m = len(of.c), len(l)
    unit = lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(of.Q)), jnp.max(jnp.abs(of.c))))
    Q = block_diag(of.Q, unit * jnp.eye(m, dtype=of.Q.dtype))
    padded = of._replace(Q=Q, c=jnp.concatenate([of.c, jnp.zeros(m, of.c.dtype)]))
    own = jnp.diag((~equal).astype(A.dtype))
    equations = jnp.concatenate([jnp.where(equal[:, None], A, 0), own], axis=1)
    right = jnp.where(equal, (l + u) / 2, 0)
    G = jnp.pad(jnp.where(equal[:, None], 0, A), ((0, 0), (0, m)))
    h = jnp.where(jnp.tile(equal, 2), jnp.inf, jnp.concatenate([u, -l]))
    G = jnp.concatenate([G, -G])
    solution, state = solve_program(padded, equations, right, G, h, options)
    x, _, z, y = solution.x
    of_upper, of_lower = jnp.split(z, 2)
    mu = jnp.where(equal, jnp.where(y > 0, y, 0), of_upper)
    phi = jnp.where(equal, jnp.where(y > 0, 0, -y), of_lower)
    return x[:n], mu, phi, state


def _code(status: Status) -> Array:
    found = [status.ok, status == Status.UNBOUNDED, status == Status.INFEASIBLE]
    return jnp.select(found, [SOLVED, DUAL_INFEASIBLE, PRIMAL_INFEASIBLE], UNSOLVED)
