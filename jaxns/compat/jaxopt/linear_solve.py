"""`jaxopt.linear_solve`: solve(matvec, b) by `jaxns.linear`, for pytrees and differentiable.

No answer is returned that does not solve the system to the tolerance asked for: that raises
`ConvergenceError` where it can be seen, and is NaN inside `jit` and `vmap`; pass
on_failure="nan" for NaN in both cases, "ignore" for the best that was found.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxns import linear, tree, validate
from jaxns.compat.jaxopt.prox import floats
from jaxns.fixed_point import FAILURE_POLICIES, refuse
from jaxns.tree import Tree

TOL = 1e-12  # of ‖b‖, and never below rounding level; JAXopt's is 1e-5
Matvec = Callable[[Tree], Tree]


def solve_lu(
    matvec: Matvec, b: Tree, ridge: Any = None, *, tol: Any = TOL, on_failure: str = "raise"
) -> Tree:
    """A x = b, or (A + ridge I) x = b, by an LU factorisation of A.

    Of a singular system that has solutions, the one of least norm.
    """
    return _solve("dense", matvec, b, ridge, tol=tol, on_failure=on_failure)


def solve_qr(
    matvec: Matvec, b: Tree, ridge: Any = None, *, tol: Any = TOL, on_failure: str = "raise"
) -> Tree:
    """The same as `solve_lu`."""
    return solve_lu(matvec, b, ridge, tol=tol, on_failure=on_failure)


def solve_inv(
    matvec: Matvec, b: Tree, ridge: Any = None, *, tol: Any = TOL, on_failure: str = "raise"
) -> Tree:
    """The same as `solve_lu`."""
    return solve_lu(matvec, b, ridge, tol=tol, on_failure=on_failure)


def solve_cholesky(
    matvec: Matvec, b: Tree, ridge: Any = None, *, tol: Any = TOL, on_failure: str = "raise"
) -> Tree:
    """The same as `solve_lu`; A need not be positive definite."""
    return solve_lu(matvec, b, ridge, tol=tol, on_failure=on_failure)


def solve_cg(
    matvec: Matvec, b: Tree, ridge: Any = None, init: Tree | None = None, **options: Any
) -> Tree:
    """A x = b by conjugate gradient, for A symmetric positive (semi)definite.

    options: tol (relative), atol, maxiter, M (a function like A⁻¹), on_failure.
    """
    return _solve("cg", matvec, b, ridge, init, symmetric=True, **options)


def solve_normal_cg(
    matvec: Matvec, b: Tree, ridge: Any = None, init: Tree | None = None, **options: Any
) -> Tree:
    """AᵀA x = Aᵀb, or (AᵀA + ridge I) x = Aᵀb, by conjugate gradient; A of any shape.

    init: a pytree like x, needed where x is not like b. The others: as for `solve_cg`.
    """
    like = floats(b if init is None else init)
    try:
        rhs = _make_rmatvec(matvec, like)(floats(b))
    except TypeError as error:
        raise TypeError(
            "init, a pytree like the solution, is needed: matvec is not square"
        ) from error
    return solve_cg(partial(_normal_matvec, matvec), rhs, ridge, init, **options)


def solve_gmres(
    matvec: Matvec, b: Tree, ridge: Any = None, init: Tree | None = None, **options: Any
) -> Tree:
    """A x = b by restarted GMRES.   options: as for `solve_cg`, and restart."""
    return _solve("gmres", matvec, b, ridge, init, **options)


def solve_bicgstab(
    matvec: Matvec, b: Tree, ridge: Any = None, init: Tree | None = None, **options: Any
) -> Tree:
    """A x = b by BiCGSTAB, and by GMRES where that gets stuck.   options: as for `solve_cg`."""
    return _solve("krylov", matvec, b, ridge, init, **options)


def solve_iterative_refinement(
    matvec: Matvec,
    b: Tree,
    init: Tree | None = None,
    maxiter: int = 10,
    tol: Any = 1e-7,
    solve: Callable = partial(solve_gmres, on_failure="ignore"),
    on_failure: str = "raise",
) -> Tree:
    """A x = b by x ← x + solve(A, b − A x) until ‖b − A x‖ ≤ tol, at most `maxiter` times.

    It has failed if what is left in the end is neither that little nor rounding.
    """
    b = floats(b)

    def refined(matvec: Matvec, b: Tree) -> tuple[Tree, Array]:
        def residual(x):
            return tree.sub(b, matvec(x))

        def going(carry):
            _, r, k = carry
            return (tree.norm(r) > tol) & (k < maxiter)

        def refine(carry):
            x, r, k = carry
            x = tree.add(x, solve(matvec, r))
            return x, residual(x), k + 1

        x = tree.zeros_like(b) if init is None else floats(init)
        start = (x, residual(x), jnp.zeros((), jnp.int32))
        x, r, _ = tree.while_loop(going, refine, start)
        rounding = 1e3 * tree.eps(b) * (tree.norm(b) + tree.norm(x))
        return _checked(x, tree.norm(r) <= jnp.maximum(tol, rounding), on_failure)

    x, ok = lax.custom_linear_solve(matvec, b, refined, refined, has_aux=True)
    return refuse(ok, x, on_failure, _message("iterative refinement"))


def _solve(
    method: str,
    matvec: Matvec,
    b: Tree,
    ridge: Any,
    init: Tree | None = None,
    *,
    tol: Any = TOL,
    atol: Any = 0.0,
    maxiter: Any = None,
    M: Callable | None = None,
    restart: int = 40,
    symmetric: bool = False,
    on_failure: str = "raise",
    solve_method: str | None = None,
) -> Tree:
    """x with A x = b by a method of `jaxns.linear`. `solve_method` is not used."""
    flat, unravel = ravel_pytree(floats(b))
    start = None if init is None else ravel_pytree(floats(init))[0]

    def on_vectors(function: Callable) -> Callable[[Array], Array]:
        return lambda u: ravel_pytree(function(unravel(u)))[0].astype(flat.dtype)

    def ridged(u: Array) -> Array:
        return on_vectors(matvec)(u) if ridge is None else on_vectors(matvec)(u) + ridge * u

    def solve(matvec: Callable, b: Array, start: Array | None = None) -> tuple[Array, Array]:
        size = jnp.linalg.norm(b)
        x, report = linear.solve(
            method,
            matvec,
            b,
            jnp.maximum(tol, atol / jnp.where(size > 0, size, 1)),
            10 * flat.size if maxiter is None else maxiter,
            start=start,
            precondition=None if M is None else on_vectors(M),
            restart=restart,
        )
        return _checked(x, report.converged, on_failure)

    x, ok = lax.custom_linear_solve(
        ridged, flat, partial(solve, start=start), solve, symmetric=symmetric, has_aux=True
    )
    return unravel(refuse(ok, x, on_failure, _message(repr(method))))


def _checked(x: Tree, ok: Array, on_failure: str) -> tuple[Tree, Array]:
    """x, NaN unless `ok`: derivatives do not hear of it otherwise."""
    validate.choice("on_failure", on_failure, FAILURE_POLICIES)
    kept = ok | (on_failure == "ignore")
    return jax.tree.map(lambda xi: jnp.where(kept, xi, jnp.nan), x), ok


def _message(method: str) -> Callable[[], str]:
    return lambda: (
        f"{method} did not solve the linear system to its tolerance: raise maxiter, loosen tol, or "
        "pass on_failure='nan' or 'ignore'"
    )


def _make_rmatvec(matvec: Matvec, x: Tree) -> Matvec:
    """Aᵀ, for A that takes trees like x."""
    transpose = jax.linear_transpose(matvec, x)
    return lambda y: transpose(y)[0]


def _normal_matvec(matvec: Matvec, x: Tree) -> Tree:
    """AᵀA x."""
    return _make_rmatvec(matvec, x)(matvec(x))


def _materialize_array(matvec: Callable, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """A, for A that takes arrays of this shape."""
    return jax.jacfwd(matvec)(jnp.zeros(shape, dtype))
