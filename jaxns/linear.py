"""Linear systems A x = b without a matrix, on flat vectors.

Every method returns its answer together with a `Report`: the residual it reached, what it cost
and whether it converged. None stagnates in silence: the best iterate is kept, a method that stops
making progress ends, and the residual reported is computed afresh from the answer. The right-hand
side is normalised first, so that a tiny cotangent is solved for as accurately as a large one.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree
from jaxns.tree import Tree

Matvec = Callable[[Array], Array]
Loop = Callable[[Callable, Callable, Tree], Tree]  # (going, body, start): as `lax.while_loop`
PATIENCE = 50  # iterations without progress before a Krylov method gives up


class Report(NamedTuple):
    """residual: ‖b − A x‖ / ‖b‖.   steps: applications of A.   converged: see `solve`."""

    residual: Array
    steps: Array
    converged: Array


def solve(
    method: str,
    matvec: Matvec,
    b: Array,
    tol: float | Array,
    max_steps: int | Array,
    *,
    start: Array | None = None,
    inverse: Matvec | None = None,
    precondition: Matvec | None = None,
    restart: int = 40,
    loop: Loop = tree.while_loop,
) -> tuple[Array, Report]:
    """x with A x ≈ b by the named method, and how far it got.

    It has converged when ‖b − A x‖ ≤ tol ‖b‖, or when the residual is at rounding level for a
    backward stable method, ‖b − A x‖ ≤ 10³ eps (‖b‖ + ‖x‖), below which no method can go.

    start: where to start, by default at zero.
    inverse: an answer from what is known of the structure of A, b ↦ x with A x ≈ b; it is checked
        like any other, improved by the residual that it leaves, and the method is used where that
        does not do ("bicgstab", for "auto"). The method "structured" is this alone.
    precondition: v ↦ M v with M ≈ A⁻¹, cheap. Symmetric positive definite for "cg".
    restart: vectors that "gmres" keeps.   loop: what iterates.
    """
    eps = float(jnp.finfo(b.dtype).eps)
    size = tree.norm(b)
    unit = jnp.where(size > 0, size, 1)
    rhs = b / unit
    tol = jnp.maximum(jnp.asarray(tol, b.dtype), 10 * eps)
    max_steps = jnp.asarray(max_steps, jnp.int32)
    x, steps = jnp.zeros_like(b), jnp.zeros((), jnp.int32)
    r = rhs
    if start is not None:
        x, steps = start / unit, steps + 1
        r = rhs - matvec(x)
    if inverse is not None:
        x, r, steps = _structured(matvec, inverse, rhs, tol, x, r, steps)
    if method == "auto" and inverse is not None:
        method = "bicgstab"
    if method != "structured":
        how = partial(_with(method, precondition, restart), loop=loop)
        if start is None and inverse is None:
            x, steps = how(matvec, rhs, tol, max_steps)
            r, steps = rhs - matvec(x), steps + 1
        else:
            x, r, steps = _improve(how, matvec, rhs, tol, max_steps, x, r, steps)
    x = jnp.where(jnp.isfinite(size), x, jnp.nan)  # what came in as NaN goes out as NaN
    residual = jnp.linalg.norm(r)
    return x * unit, Report(residual, steps, residual <= _attainable(x, tol))


def _attainable(x: Array, tol: Array) -> Array:
    """The residual that an answer like x to a right-hand side of norm 1 may leave."""
    return jnp.maximum(tol, 1e3 * jnp.finfo(x.dtype).eps * (1 + jnp.linalg.norm(x)))


def _structured(matvec, inverse, b, tol, x, r, steps):
    """x + inverse(r), and once more if that leaves too much."""

    def correct(carry):
        x, r, steps, tries = carry
        return *_nearer(matvec, b, x, r, inverse(r)), steps + 1, tries + 1

    def going(carry):
        _, r, _, tries = carry
        return tree.any_lane(jnp.linalg.norm(r) > tol) & (tries < 2)

    return tree.while_loop(going, correct, (x, r, steps, jnp.zeros((), jnp.int32)))[:3]


def _improve(how, matvec, b, tol, max_steps, x, r, steps):
    """The method on what x leaves, unless that is little enough."""

    def proper():
        d, more = how(matvec, r, tol, max_steps)
        return *_nearer(matvec, b, x, r, d), steps + more + 1

    enough = jnp.linalg.norm(r) <= _attainable(x, tol)
    return lax.cond(tree.any_lane(~enough), proper, lambda: (x, r, steps))


def _nearer(matvec: Matvec, b: Array, x: Array, r: Array, d: Array) -> tuple[Array, Array]:
    """x + d and the residual that it leaves, if that is smaller than r; else x and r."""
    left = b - matvec(x + d)
    return tree.where(jnp.linalg.norm(left) < jnp.linalg.norm(r), (x + d, left), (x, r))


def _with(method: str, precondition: Matvec | None, restart: int) -> Callable:
    """The named method, for A M y = b and x = M y where there is a preconditioner M."""
    how = METHODS[method]
    if method == "gmres":
        how = partial(gmres, restart=restart)
    if precondition is None:
        return how
    if method == "cg":
        return partial(cg, precondition=precondition)

    def preconditioned(matvec, b, tol, max_steps, loop):
        y, steps = how(lambda y: matvec(precondition(y)), b, tol, max_steps, loop=loop)
        return precondition(y), steps

    return preconditioned


class _Best(NamedTuple):
    """The best iterate seen, and when."""

    x: Array
    residual: Array
    step: Array

    def update(self, x: Array, residual: Array, step: Array) -> "_Best":
        better = residual < self.residual
        kept = _Best(x, residual, step)
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), kept, self)

    def hopeful(self, step: Array, tol: Array, max_steps: Array) -> Array:
        progressing = step <= 2 * self.step + PATIENCE
        return (self.residual > tol) & (step < max_steps) & progressing


def _start(b: Array) -> _Best:
    return _Best(jnp.zeros_like(b), jnp.linalg.norm(b), jnp.zeros((), jnp.int32))


def neumann(
    matvec: Matvec, b: Array, tol: Array, max_steps: Array, loop: Loop = tree.while_loop
) -> tuple[Array, Array]:
    """Adjoint fixed point: x ← x + (b − A x), the Neumann series of A = I − M. Needs ρ(M) < 1."""

    def body(carry):
        x, r, best, k = carry
        x = x + r
        r = b - matvec(x)
        return x, r, best.update(x, jnp.linalg.norm(r), k + 1), k + 1

    def going(carry):
        _, r, best, k = carry
        return best.hopeful(k, tol, max_steps) & jnp.all(jnp.isfinite(r))

    start = (jnp.zeros_like(b), b, _start(b), jnp.zeros((), jnp.int32))
    _, _, best, steps = loop(going, body, start)
    return best.x, steps


def anderson(
    matvec: Matvec, b: Array, tol: Array, max_steps: Array, loop: Loop = tree.while_loop
) -> tuple[Array, Array]:
    """The same fixed point accelerated by its last 10 steps (Anderson 1965, Walker and Ni 2011).

    x ← x + r − (ΔX + ΔR) γ with γ = argmin ‖r − ΔR γ‖, r = b − A x: also where ρ(M) ≥ 1.
    """
    memory = min(10, b.size)

    def body(carry):
        x, r, moves, changes, best, k = carry
        weights = jnp.linalg.lstsq(changes.T, r, rcond=1e3 * tree.eps(b))[0]
        next_x = x + r - weights @ (moves + changes)
        next_r = b - matvec(next_x)
        slot = k % memory
        moves, changes = moves.at[slot].set(next_x - x), changes.at[slot].set(next_r - r)
        best = best.update(next_x, jnp.linalg.norm(next_r), k + 1)
        return next_x, next_r, moves, changes, best, k + 1

    def going(carry):
        _, r, *_, best, k = carry
        return best.hopeful(k, tol, max_steps) & jnp.all(jnp.isfinite(r))

    none = tree.vary_like(jnp.zeros((memory, b.size), b.dtype), b)
    start = (jnp.zeros_like(b), b, none, none, _start(b), jnp.zeros((), jnp.int32))
    *_, best, steps = loop(going, body, start)
    return best.x, steps


def cg(
    matvec: Matvec,
    b: Array,
    tol: Array,
    max_steps: Array,
    loop: Loop = tree.while_loop,
    precondition: Matvec = lambda r: r,
) -> tuple[Array, Array]:
    """Conjugate gradient. Needs A symmetric positive (semi)definite."""

    def body(carry):
        x, r, p, rz, best, k = carry
        x, r, p, rz = cg_step(matvec, x, r, p, rz, precondition)
        return x, r, p, rz, best.update(x, jnp.linalg.norm(r), k + 1), k + 1

    def going(carry):
        *_, rz, best, k = carry
        return best.hopeful(k, tol, max_steps) & jnp.isfinite(rz) & (rz > 0)

    z = precondition(b)
    start = (jnp.zeros_like(b), b, z, b @ z, _start(b), jnp.zeros((), jnp.int32))
    *_, best, steps = loop(going, body, start)
    return best.x, steps


def cg_step(
    matvec: Matvec, x: Array, r: Array, p: Array, rz: Array, precondition: Matvec = lambda r: r
) -> tuple[Array, Array, Array, Array]:
    """From x, with the residual r, along p, rz = rᵀ z with z = M r: the next four."""
    ap = matvec(p)
    a = rz / _nonzero(p @ ap)
    x, r = x + a * p, r - a * ap
    z = precondition(r)
    rz_next = r @ z
    return x, r, z + (rz_next / _nonzero(rz)) * p, rz_next


def bicgstab(
    matvec: Matvec, b: Array, tol: Array, max_steps: Array, loop: Loop = tree.while_loop
) -> tuple[Array, Array]:
    """Stabilised biconjugate gradient (van der Vorst 1992), for nonsymmetric A."""

    def body(carry):
        x, r, p, rho, best, k = carry
        v = matvec(p)
        a = rho / _nonzero(b @ v)
        s = r - a * v
        t = matvec(s)
        w = (t @ s) / _nonzero(t @ t)
        x = x + a * p + w * s
        r = s - w * t
        rho_next = b @ r
        p = r + (rho_next / _nonzero(rho)) * (a / _nonzero(w)) * (p - w * v)
        return x, r, p, rho_next, best.update(x, jnp.linalg.norm(r), k + 2), k + 2

    def going(carry):
        _, r, _, rho, best, k = carry
        return best.hopeful(k, tol, max_steps) & jnp.all(jnp.isfinite(r)) & (rho != 0)

    start = (jnp.zeros_like(b), b, b, b @ b, _start(b), jnp.zeros((), jnp.int32))
    *_, best, steps = loop(going, body, start)
    return best.x, steps


def gmres(
    matvec: Matvec,
    b: Array,
    tol: Array,
    max_steps: Array,
    loop: Loop = tree.while_loop,
    restart: int = 40,
) -> tuple[Array, Array]:
    """Restarted GMRES (Saad and Schultz 1986), Arnoldi by twice-iterated Gram-Schmidt."""
    m = min(restart, b.size)

    def cycle(carry):
        x, best, k = carry
        r = b - matvec(x)
        beta = jnp.linalg.norm(r)
        basis = tree.vary_like(jnp.zeros((m + 1, b.size), b.dtype), b)
        basis = basis.at[0].set(r / _nonzero(beta))

        def arnoldi(j, carry):
            basis, hessenberg = carry
            v = matvec(basis[j])
            h = basis @ v
            v = v - h @ basis
            again = basis @ v
            v = v - again @ basis
            size = jnp.linalg.norm(v)
            keep = size > 10 * jnp.finfo(b.dtype).eps * jnp.linalg.norm(h)
            basis = basis.at[j + 1].set(jnp.where(keep, v / _nonzero(size), 0))
            column = (h + again).at[j + 1].set(jnp.where(keep, size, 0))
            return basis, hessenberg.at[:, j].set(column)

        hessenberg = tree.vary_like(jnp.zeros((m + 1, m), b.dtype), b)
        basis, hessenberg = lax.fori_loop(0, m, arnoldi, (basis, hessenberg))
        rhs = jnp.zeros(m + 1, b.dtype).at[0].set(beta)
        y = jnp.linalg.lstsq(hessenberg, rhs)[0]
        x = x + y @ basis[:m]
        return x, best.update(x, jnp.linalg.norm(b - matvec(x)), k + m), k + m

    def going(carry):
        x, best, k = carry
        return best.hopeful(k, tol, max_steps) & jnp.all(jnp.isfinite(x))

    start = (jnp.zeros_like(b), _start(b), jnp.zeros((), jnp.int32))
    _, best, steps = loop(going, cycle, start)
    return best.x, steps


def dense(
    matvec: Matvec, b: Array, tol: Array, max_steps: Array, loop: Loop = tree.while_loop
) -> tuple[Array, Array]:
    """LU of the assembled matrix; where it is singular, the least-squares answer of least norm."""
    del max_steps, loop
    matrix = jax.vmap(matvec, out_axes=1)(tree.vary_like(jnp.eye(b.size, dtype=b.dtype), b))
    factors = jax.scipy.linalg.lu_factor(matrix)
    x = jax.scipy.linalg.lu_solve(factors, b)
    x = x + jax.scipy.linalg.lu_solve(factors, b - matrix @ x)
    eps = jnp.finfo(b.dtype).eps
    sound = jnp.linalg.norm(b - matrix @ x) <= jnp.maximum(tol, 1e3 * eps)
    pivots = jnp.abs(jnp.diagonal(factors[0]))  # the answer is arbitrary along one that is rounding
    sound &= jnp.min(pivots, initial=jnp.inf) > 10 * b.size * eps * jnp.max(pivots, initial=0)

    def repair():
        return jnp.where(sound, x, jnp.linalg.lstsq(matrix, b)[0])

    # Decided for all lanes together: under vmap both branches would run, and at the same time.
    return lax.cond(tree.any_lane(~sound), repair, lambda: x), jnp.asarray(b.size, jnp.int32)


DENSE_SIZE = 256  # up to here a factorisation is cheaper and sounder than a Krylov method
NEARLY_IDENTITY = 3  # steps of the Neumann series worth trying before anything else


def auto(
    matvec: Matvec, b: Array, tol: Array, max_steps: Array, loop: Loop = tree.while_loop
) -> tuple[Array, Array]:
    """`neumann` if a few steps do; else `dense` when small, and `krylov` otherwise.

    The map of a superlinear solver (Newton) has A = I − ∂F ≈ I: it is solved for by then.
    """
    method = dense if b.size <= DENSE_SIZE else krylov
    most = jnp.minimum(max_steps, NEARLY_IDENTITY)

    def body(carry):
        x, r, k = carry
        return x + r, b - matvec(x + r), k + 1

    def going(carry):
        _, r, k = carry
        return (jnp.linalg.norm(r) > tol) & (k < most)

    x, r, steps = tree.while_loop(going, body, (jnp.zeros_like(b), b, jnp.zeros((), jnp.int32)))

    def proper():
        y, more = method(matvec, b, tol, max_steps, loop)
        return y, steps + more

    near = jnp.linalg.norm(r) <= tol
    return lax.cond(tree.any_lane(~near), proper, lambda: (x, steps))


def krylov(
    matvec: Matvec, b: Array, tol: Array, max_steps: Array, loop: Loop = tree.while_loop
) -> tuple[Array, Array]:
    """`bicgstab`, and `gmres` from scratch if that got stuck."""
    x, steps = bicgstab(matvec, b, tol, max_steps, loop)
    reached = jnp.linalg.norm(b - matvec(x))

    def again():
        y, more = gmres(matvec, b, tol, max_steps, loop)
        better = jnp.linalg.norm(b - matvec(y)) < reached
        return jnp.where(better, y, x), steps + more

    return lax.cond(tree.any_lane(~(reached <= tol)), again, lambda: (x, steps))


METHODS = {
    "auto": auto,
    "dense": dense,
    "krylov": krylov,
    "cg": cg,
    "bicgstab": bicgstab,
    "gmres": gmres,
    "neumann": neumann,
    "anderson": anderson,
}


def _nonzero(a: Array) -> Array:
    return jnp.where(a == 0, 1, a)
