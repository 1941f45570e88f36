"""Primal-dual interior point for quadratic programs."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.solvers import kkt
from jaxns.struct import replace, settle, struct

RUNNING, INFEASIBLE, UNBOUNDED = -1, 5, 6  # the codes of `Status`
CERTAIN = 1e8  # a feasible point farther away than this, in the problem's units, is none


class Optimum(NamedTuple):
    """x, and the multipliers y of Ax = b and z ≥ 0 of Gx ≤ h; s = h − Gx is the slack."""

    x: Array
    s: Array
    z: Array
    y: Array


@struct
class Scaled:
    """The same problem with objective and rows of order one, and rows without bound void.

    objective, equalities, inequalities: what these were multiplied by, without derivative.
    """

    problem: Any
    objective: Array
    equalities: Array
    inequalities: Array

    @classmethod
    def of(cls, problem: Any) -> "Scaled":
        Q, q, A, G = lax.stop_gradient((problem.Q, problem.q, problem.A, problem.G))
        size = jnp.maximum(jnp.max(jnp.abs(Q), initial=0), jnp.max(jnp.abs(q), initial=0))

        def inverse(length):
            return 1 / jnp.where(length > 0, length, 1)

        c, equalities, inequalities = map(
            inverse, (size, *(jnp.linalg.norm(M, axis=1) for M in (A, G)))
        )
        finite = jnp.isfinite(problem.h)
        scaled = replace(
            problem,
            Q=c * problem.Q,
            q=c * problem.q,
            A=equalities[:, None] * problem.A,
            b=equalities * problem.b,
            G=jnp.where(finite[:, None], inequalities[:, None] * problem.G, 0),
            h=jnp.where(finite, inequalities * jnp.where(finite, problem.h, 0), 1),
        )
        return cls(scaled, c, equalities, inequalities)

    def point(self, w: Optimum) -> Optimum:
        """w in the units of the scaled problem."""
        c, equalities, inequalities = self.objective, self.equalities, self.inequalities
        return Optimum(w.x, w.s * inequalities, w.z * c / inequalities, w.y * c / equalities)

    def unscaled(self, w: Optimum) -> Optimum:
        c, equalities, inequalities = self.objective, self.equalities, self.inequalities
        return Optimum(w.x, w.s / inequalities, w.z * inequalities / c, w.y * equalities / c)


@struct
class Interior:
    """inside: the iterate with s, z > 0, in the units of the scaled problem.

    finished: whether the image is a solution: that of the active set found inside or, where its
        multipliers are not unique, the point inside.
    """

    image: Optimum
    inside: Optimum
    finished: Array
    verdict: Array


@struct
class InteriorPoint:
    r"""Minimise ½ xᵀQx + qᵀx subject to Ax = b, Gx ≤ h.

    The iteration is Mehrotra's predictor-corrector (arXiv 2305.13768, experiment on quadratic
    programs): one factorisation per step of

        Q dx + Aᵀdy + Gᵀdz = −(Qx + q + Aᵀy + Gᵀz),   A dx = −(Ax − b),
        G dx + ds = −(Gx + s − h),                     z∘ds + s∘dz = −(s∘z − σμ1 + dsᵃ∘dzᵃ),

    a predictor with σ = 0 and no second-order term dsᵃ∘dzᵃ, then the corrector with
    σ = (μᵃ/μ)³; the step goes the fraction `fraction` of the way to the boundary s, z = 0.

    The map F whose fixed point it looks for, and which is differentiated, takes the constraints
    with z > s as equations and drops the others (the Newton step on min(s, z) = 0):

        Qx + q + Aᵀy + Gᵀz = 0,   Ax = b,   (Gx)ᵢ = hᵢ where zᵢ > sᵢ,   zᵢ = 0 elsewhere.

    It depends on the iterate through the active set only, so ∂F = 0: every mode gives the exact
    derivative, `OneStep` included, where a damped step of length α would be off by 1 − α. A
    constraint that is active with multiplier 0 counts as inactive.

    A problem without feasible point ends as INFEASIBLE, one without lower bound as UNBOUNDED, each
    on a certificate (Farkas' lemma). x0 is not used.

    fraction: in (0, 1).   scaled: a constant of a solve, filled in by `prepare`.
    """

    sequential: ClassVar[bool] = True

    fraction: float | Array = 0.995
    scaled: Scaled | None = None

    def __post_init__(self) -> None:
        fraction = validate.scalar("fraction", self.fraction)
        settle(self, "fraction", validate.positive("fraction", fraction))
        validate.between("fraction", fraction, 0, 1)

    def prepare(self, problem: Any, x0: Array) -> "InteriorPoint":
        if not all(hasattr(problem, name) for name in ("Q", "q", "A", "b", "G", "h")):
            raise TypeError(
                f"InteriorPoint solves a QuadraticProgram, got {type(problem).__name__}; "
                "use PrimalDual for Composite(f, g, K)"
            )
        return replace(self, scaled=Scaled.of(problem))

    def init(self, problem: Any, x0: Array) -> Optimum:
        scaled = self._scaled(problem)
        return scaled.unscaled(_start(scaled.problem))

    def step(self, problem: Any, w: Optimum) -> Optimum:
        scaled = self._scaled(problem)
        inside = scaled.point(w)
        return _solved_on(scaled, inside.z > inside.s)

    def solution(self, problem: Any, w: Optimum) -> Optimum:
        return w

    def margin(self, problem: Any, w: Optimum) -> Array:
        """To where a constraint is neither active nor inactive: z = s in scaled units."""
        scaled = self._scaled(problem)
        c, inequalities = scaled.objective, scaled.inequalities
        gap = jnp.abs(c / inequalities * w.z - inequalities * w.s) / jnp.hypot(
            c / inequalities, inequalities
        )
        return jnp.min(gap, initial=jnp.inf)

    def control(self, problem: Any, w: Optimum) -> Interior:
        inside = self._scaled(problem).point(w)
        return Interior(w, inside, jnp.zeros((), bool), jnp.asarray(RUNNING, jnp.int32))

    def advance(self, problem: Any, w: Optimum, control: Interior) -> tuple[Optimum, Interior]:
        scaled = self._scaled(problem)
        inside, alpha, d = self._mehrotra(scaled.problem, control.inside)
        inside = tree.where(control.finished, control.inside, inside)
        here = scaled.unscaled(inside)
        near = (_gap(inside) <= NEAR * (1 + jnp.abs(scaled.problem(inside.x)))) | (alpha < STUCK)

        def finish():
            last = scaled.point(w)
            active = jnp.where(control.finished, last.z > last.s, inside.z > inside.s)
            candidate = _solved_on(scaled, active)
            right = _is_optimal(problem, candidate)
            candidate = tree.where(right, candidate, tree.where(control.finished, w, here))
            return candidate, right | _is_optimal(problem, candidate)

        def go_on():
            return here, jnp.zeros((), bool)

        candidate, finished = lax.cond(tree.any_lane(near | control.finished), finish, go_on)
        image = tree.where(finished, candidate, here)
        verdict = jnp.where(finished, RUNNING, _verdict(scaled.problem, inside, d))
        return image, Interior(image, inside, finished, verdict.astype(jnp.int32))

    def _scaled(self, problem: Any) -> Scaled:
        return Scaled.of(problem) if self.scaled is None else self.scaled

    def _mehrotra(self, problem: Any, w: Optimum) -> tuple[Optimum, Array, Optimum]:
        """The next point inside, the length of the step, and its direction."""
        x, s, z, y = w
        Q, q, A, b, G, h = problem.Q, problem.q, problem.A, problem.b, problem.G, problem.h
        system = kkt.System(Q, A, G, s / z)
        factor = kkt.eliminated(system)
        dual = 0.5 * (Q @ x + x @ Q) + q + y @ A + z @ G
        primal = G @ x + s - h

        def direction(complementarity: Array) -> Optimum:
            right = kkt.Rows(-dual, b - A @ x, -primal + complementarity / z)
            dx, dy, dz = factor.solve(system, right)
            return Optimum(dx, -(complementarity + s * dz) / z, dz, dy)

        affine = direction(s * z)
        alpha = _to_boundary(w, affine)
        after = tree.axpy(alpha, affine, w)
        mu = _gap(w)
        sigma = jnp.where(mu > 0, _gap(after) / jnp.where(mu > 0, mu, 1), 0) ** 3
        d = direction(s * z + affine.s * affine.z - sigma * mu)
        alpha = jnp.minimum(1, self.fraction * _to_boundary(w, d))
        return tree.axpy(alpha, d, w), lax.stop_gradient(alpha), d


NEAR = 1e-6  # duality gap, relative, from which the active set is worth a try
STUCK = 1e-8  # a step this short goes nowhere: see whether the active set is known already


def _gap(w: Optimum) -> Array:
    """μ, the mean of s∘z."""
    return jnp.vdot(w.s, w.z) / max(w.s.size, 1)


def _to_boundary(w: Optimum, d: Optimum) -> Array:
    """The largest step in [0, 1] that keeps s and z nonnegative."""

    def longest(v, dv):
        shrinks = dv < 0
        return jnp.min(jnp.where(shrinks, -v / jnp.where(shrinks, dv, -1), 1), initial=1)

    return jnp.minimum(longest(w.s, d.s), longest(w.z, d.z))


def _start(problem: Any) -> Optimum:
    """The least-squares start of CVXGEN (Mattingley and Boyd 2012), shifted inside."""
    one = jnp.ones_like(problem.h)
    system = kkt.System(problem.Q, problem.A, problem.G, one)
    right = kkt.Rows(-problem.q, problem.b, problem.h)
    x, y, z = kkt.factorise(system).solve(system, right)

    def inside(v):
        return v + jnp.maximum(1 + jnp.max(-v, initial=-jnp.inf), 0)

    return Optimum(x, inside(-z), inside(z), y)


def _solved_on(scaled: Scaled, active: Array) -> Optimum:
    """The solution of the problem with the active inequalities as equations, the others dropped.

    In the units of the scaled problem: the factorisation is sound where all rows are of order one.
    """
    problem = scaled.problem
    Q, q, A, b, G, h = problem.Q, problem.q, problem.A, problem.b, problem.G, problem.h
    system = kkt.System(Q, A, jnp.where(active[:, None], G, 0), active.astype(Q.dtype) - 1)
    right = kkt.Rows(-q, b, jnp.where(active, h, 0))
    x, y, z = kkt.factorise(system).solve(system, right, strict=True)
    found = Optimum(x, jnp.where(active, 0, h - G @ x), jnp.where(active, z, 0), y)
    return scaled.unscaled(found)


def _is_optimal(problem: Any, w: Optimum) -> Array:
    """Whether w meets the optimality conditions, up to rounding."""
    small = tree.eps(w) ** 0.7
    Q, q, A, b, G, h = problem.Q, problem.q, problem.A, problem.b, problem.G, problem.h
    terms = (0.5 * (Q @ w.x + w.x @ Q), q, w.y @ A, w.z @ G)

    def largest(*vectors):
        return sum(jnp.max(jnp.abs(v), initial=0) for v in vectors)

    h = jnp.where(jnp.isfinite(h), h, 1)
    stationary = largest(terms[0] + terms[1] + terms[2] + terms[3]) <= small * largest(*terms)
    met = largest(A @ w.x - b) <= small * largest(A @ w.x, b)
    products = (w.x @ terms[0], q @ w.x, b @ w.y, jnp.where(w.z > 0, h, 0) @ w.z)
    met &= jnp.vdot(w.s, w.z) <= small * largest(*products)
    met &= jnp.min(h - G @ w.x, initial=0) >= -small * largest(G @ w.x, h)
    return stationary & met & (jnp.min(w.z, initial=0) >= -small * largest(w.z, q))


def _verdict(problem: Any, w: Optimum, d: Optimum) -> Array:
    """Whether w, or the step d from it, proves that there is no solution.

    z ≥ 0 with Gᵀz + Aᵀy ≈ 0, hᵀz + bᵀy < 0: no x has Gx ≤ h and Ax = b (Farkas), or only one of
    norm at least −(hᵀz + bᵀy) / ‖Gᵀz + Aᵀy‖. And for the dual, Qx ≈ 0, Ax ≈ 0, Gx ≤ 0, qᵀx < 0,
    which a step shows earlier than the point.
    """
    Q, q, A, b, G, h = problem.Q, problem.q, problem.A, problem.b, problem.G, problem.h
    norm = jnp.linalg.norm
    far = min(CERTAIN, 1e-2 / tree.eps(w))  # in a coarse type less is certain
    unit = 1 + jnp.max(jnp.abs(h), initial=0) + jnp.max(jnp.abs(b), initial=0)
    violated = -(jnp.vdot(h, w.z) + jnp.vdot(b, w.y))
    infeasible = (violated > 0) & (far * unit * norm(w.z @ G + w.y @ A) <= violated)
    steep = far * (1 + jnp.max(jnp.abs(q), initial=0))

    def falls_for_ever(x):
        rises = norm(Q @ x) + norm(A @ x) + norm(jnp.maximum(G @ x, 0))
        return (q @ x < 0) & (steep * rises <= -q @ x)

    unbounded = falls_for_ever(w.x) | falls_for_ever(d.x)
    return jnp.where(infeasible, INFEASIBLE, jnp.where(unbounded, UNBOUNDED, RUNNING))
