"""Derivatives of a root: F(x, θ) = 0 defines x(θ), with

    dx = −(∂ₓF)⁻¹ ∂_θF dθ,        θ̄ = −(∂_θF)ᵀ (∂ₓF)⁻ᵀ x̄.

The rule is a linear map in dθ that can be transposed, so that forward and reverse mode, further
derivatives, and arrays in the closure of F all come from it (arXiv 2105.15183, section 2.1).
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import linear, tree
from jaxns.closure import hoist
from jaxns.fixed_point import refuse
from jaxns.tree import Tree

Solve = Callable[..., Tree]  # (matvec, b) -> x with matvec(x) ≈ b


def solve_linear(matvec: Callable[[Tree], Tree], b: Tree) -> Tree:
    """x with matvec(x) = b, by `jaxns.linear`: the least-norm answer of a singular system.

    Solved to rounding level; NaN where that was not reached.
    """
    flat, unravel = ravel_pytree(b)

    def flat_matvec(u: Array) -> Array:
        return ravel_pytree(matvec(unravel(u)))[0]

    x, report = linear.solve("auto", flat_matvec, flat, tol=1e-12, max_steps=10_000)
    return unravel(refuse(report.converged, x, "nan", str))


def root_jvp(
    optimality_fun: Callable,
    sol: Tree,
    args: tuple,
    tangents: tuple,
    solve: Solve | None = None,
) -> Tree:
    """−(∂ₓF)⁻¹ ∂_θF θ̇ at x = sol, θ = args.

    optimality_fun: F(x, *args), a pytree with as many numbers as x.
    tangents: one for each of `args`, of its structure.
    solve: of the form solve(matvec, b); by default to rounding level, without squaring the system.
    """
    if len(args) != len(tangents):
        raise ValueError(f"tangents must be as many as args, {len(args)}, got {len(tangents)}")
    args = jax.tree.map(jnp.asarray, args)
    tangents = jax.tree.map(_tangent_like, tangents, args)
    _, change = jax.jvp(lambda *args: optimality_fun(sol, *args), args, tangents)
    return _solve(lambda x: optimality_fun(x, *args), sol, tree.scale(-1, change), solve)


def root_vjp(
    optimality_fun: Callable,
    sol: Tree,
    args: tuple,
    cotangent: Tree,
    solve: Solve | None = None,
) -> tuple:
    """−(∂_θF)ᵀ (∂ₓF)⁻ᵀ x̄, one entry for each of `args`; the rest as for `root_jvp`."""
    _, pull = jax.vjp(lambda *args: optimality_fun(sol, *args), *args)
    _, pull_sol = jax.vjp(lambda x: optimality_fun(x, *args), sol)
    b = tree.scale(-1, cotangent)
    return pull((solve or solve_linear)(lambda u: pull_sol(u)[0], b))


def _solve(F: Callable[[Tree], Tree], x: Tree, b: Tree, solve: Solve | None) -> Tree:
    """(∂F(x))⁻¹ b, linear in b: as flat vectors, for the tangents that are zero."""
    flat, unravel = ravel_pytree(x)
    solve = solve or solve_linear

    def on_vectors(matvec, b):
        on_trees = solve(lambda u: unravel(matvec(ravel_pytree(u)[0])), unravel(b))
        return ravel_pytree(on_trees)[0]

    def F_flat(u):
        return ravel_pytree(F(unravel(u)))[0]

    def matvec(u):
        return jax.jvp(F_flat, (flat,), (u,))[1]

    b = ravel_pytree(b)[0].astype(flat.dtype)
    return unravel(lax.custom_linear_solve(matvec, b, on_vectors, on_vectors))


def _tangent_like(tangent: Any, x: Array) -> Any:
    if getattr(tangent, "dtype", None) == jax.dtypes.float0:
        return tangent
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros(x.shape, jax.dtypes.float0)
    return jnp.asarray(tangent, x.dtype)


def differentiable(
    optimality_fun: Callable,
    sol: Tree,
    args: Any,
    solve: Solve | None = None,
) -> Tree:
    """`sol`, with the derivative of a root of optimality_fun(x, args) in `args`.

    Arrays in the closure of `optimality_fun` count like `args`.
    """
    sol = lax.stop_gradient(sol)
    explicit, hidden = hoist(optimality_fun, sol, args)
    return _root(explicit, solve, (hidden, args), sol)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _root(explicit: Callable, solve: Solve | None, theta: Any, sol: Tree) -> Tree:
    return sol


@_root.defjvp
def _(explicit, solve, primals, tangents):
    theta, sol = primals
    sol = _root(explicit, solve, theta, sol)  # to be differentiated again

    def F(x, theta):
        hidden, args = theta
        return explicit(hidden, x, args)

    return sol, root_jvp(F, sol, (theta,), (tangents[0],), solve)


def custom_root(
    optimality_fun: Callable,
    has_aux: bool = False,
    solve: Solve | None = None,
    reference_signature: Any = None,
) -> Callable[[Callable], Callable]:
    """Decorate a solver(init_params, *args, **kwargs) that finds a root of `optimality_fun`.

    has_aux: whether it returns (root, more); no derivative flows through what is more.
    solve: as for `root_jvp`.
    reference_signature: a function whose signature tells how arguments given to the solver by name
        are passed to `optimality_fun`; by default that of `optimality_fun`.
    """
    signature = _signature(optimality_fun if reference_signature is None else reference_signature)

    def decorate(solver_fun: Callable) -> Callable:
        own = inspect.signature(solver_fun)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            given = own.bind(*args, **kwargs)
            given.apply_defaults()
            result = solver_fun(*_still(given.args), **_still(given.kwargs))
            sol, more = (result[0], result[1:]) if has_aux else (result, ())
            asked = signature.bind(*given.args, **given.kwargs)

            def F(x, arguments):
                args, kwargs = arguments
                return optimality_fun(x, *args, **kwargs)

            arrays, rest = _arrays_of((asked.args[1:], asked.kwargs))
            sol = differentiable(lambda x, arrays: F(x, rest(arrays)), sol, arrays, solve)
            if not has_aux:
                return sol
            parts = (sol, *_still(more))
            return type(result)._make(parts) if hasattr(result, "_make") else type(result)(parts)  # pyright: ignore

        return wrapped

    return decorate


def custom_fixed_point(
    fixed_point_fun: Callable,
    has_aux: bool = False,
    solve: Solve | None = None,
    reference_signature: Any = None,
) -> Callable[[Callable], Callable]:
    """The same for a solver that finds a fixed point x = T(x, …); see `custom_root`."""

    def optimality_fun(x, *args, **kwargs):
        return tree.sub(x, fixed_point_fun(x, *args, **kwargs))

    reference = fixed_point_fun if reference_signature is None else reference_signature
    return custom_root(optimality_fun, has_aux, solve, reference)


def _signature(reference: Any) -> inspect.Signature:
    if isinstance(reference, inspect.Signature):
        return reference
    return inspect.signature(getattr(reference, "subfun", reference))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, float) or hasattr(leaf, "dtype")


def _arrays_of(values: Any) -> tuple[list, Callable[[list], Any]]:
    """The arrays in a pytree, and what puts others in their place; the rest is left alone."""
    leaves, structure = jax.tree.flatten(values)

    def restore(arrays):
        arrays = iter(arrays)
        return structure.unflatten([next(arrays) if _is_array(a) else a for a in leaves])

    return [leaf for leaf in leaves if _is_array(leaf)], restore


def _still(values: Any) -> Any:
    """The values, with no derivative flowing through them."""
    return jax.tree.map(lambda a: lax.stop_gradient(a) if _is_array(a) else a, values)
