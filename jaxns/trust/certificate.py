"""How far a solution, and its derivative by each mode, is from the truth."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxns import tree
from jaxns.fixed_point import NOWHERE, Solution, Status, Stop
from jaxns.modes import Implicit, OneStep, Piggyback, Probe
from jaxns.solve import STEPPING, read, set_up, solve
from jaxns.struct import replace, seal, static, struct
from jaxns.tree import Tree
from jaxns.trust.nearest import Found, find

MODES = (Implicit(), OneStep(), Piggyback())
ROUNDINGS = 3  # of the cotangent, to see what they do
HOPELESS = 0.5  # relative error of a derivative that is no longer recommended


@struct
class Certificate:
    """What `certify` has measured; prints as a table.

    status, steps, residual: of the solution looked at.
    distance: bound on ‖z − z*‖.
    rho, norm: spectral radius and norm ‖A‖₂ of A = ∂F at the solution.   inverse: ‖(I − A)⁺‖₂.
    kernel: dimension of the kernel of I − A: 0 where the solution is isolated, −1 if not known.
    margin: a lower bound of the distance from z* to the nearest kink of F; NaN if not known.
    kink: whether there is a kink within `distance` of the solution, found by its margin or by
        sampling: then the derivative is one element of a conservative Jacobian, and others exist.
    adjoint_residual: ‖v − (I − Aᵀ) w‖ / ‖v‖ of the reference derivative.
    gradient: the reference, ∂⟨cotangent, x⟩ / ∂problem at z*.
    bounds: for each mode, a pytree like the problem with a bound on the norm of the error of the
        derivative with respect to each array in it.
    errors: for each mode, the same as one relative number, each array weighted by its own norm.
    evaluations, memory: for each mode, evaluations of F (or products with its Jacobian) and bytes
        that its backward pass takes; NaN for a mode that does not tell (`Auto`).
    """

    status: Status
    steps: Array
    residual: Array
    distance: Array
    rho: Array
    norm: Array
    inverse: Array
    kernel: Array
    margin: Array
    kink: Array
    adjoint_residual: Array
    gradient: Any
    bounds: dict[str, Any]
    errors: dict[str, Array]
    evaluations: dict[str, Array]
    memory: dict[str, Array]
    accuracy: float | Array
    what: str = static(default="")

    @property
    def unique(self) -> Any:
        """Whether the derivative is: the solution is isolated and no kink is near.

        Of a kernel that is not known, not being able to solve with I − A tells.
        """
        return (self.kernel <= 0) & ~self.kink & jnp.isfinite(self.distance)

    @property
    def recommended(self) -> str | None:
        """The cheapest mode that is accurate enough, or else the most accurate; None if none is."""
        error = {name: float(value) for name, value in self.errors.items()}
        good = [name for name, value in error.items() if value <= float(self.accuracy)]
        if good:
            return min(good, key=lambda name: np.nan_to_num(self.evaluations[name], nan=np.inf))
        best = min(error, key=error.__getitem__)
        return best if error[best] < HOPELESS else None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why that mode, and what to beware of, in words."""
        told = []
        name = self.recommended
        if name is None and not np.isfinite(self.distance):
            told.append("no fixed point was found from here: no derivative can be vouched for")
        elif name is None:
            told.append("no derivative at this iterate is of use: solve to a smaller tol")
        elif float(self.errors[name]) <= float(self.accuracy):
            told.append(f"{name} is the cheapest with an error below {float(self.accuracy):.0e}")
        else:
            told.append(f"no mode has an error below {float(self.accuracy):.0e} at this iterate; "
                        f"{name} has the smallest: solve to a smaller tol")  # fmt: skip
        if int(self.kernel) > 0:
            told.append(
                f"I − ∂F has a kernel of dimension {int(self.kernel)}: the solution is not "
                "isolated, and derivatives are those of a solution of least norm"
            )
        if bool(self.kink):
            told.append("there is a kink at the solution: the derivative is one of many elements, "
                        "see jaxns.one_sided")  # fmt: skip
        if float(self.rho) >= 1 and int(self.kernel) == 0:
            told.append("F does not contract here: Piggyback need not converge")
        return tuple(told)

    def __str__(self) -> str:
        margin = "not known" if np.isnan(self.margin) else f"{float(self.margin):.2e}"
        kernel = {0: "none", -1: "not known"}.get(int(self.kernel), str(int(self.kernel)))
        lines = [
            f"{self.what} {self.status} after {int(self.steps)} steps",
            f"  residual                 {float(self.residual):.2e}",
            f"  distance to the solution ≤ {float(self.distance):.2e}",
            f"  contraction ρ(∂F)        {float(self.rho):.6g}   (‖∂F‖ {float(self.norm):.4g})",
            f"  ‖(I − ∂F)⁺‖              {float(self.inverse):.4g}   (kernel: {kernel})",
            f"  nearest kink             {margin}{'   AT THE SOLUTION' if bool(self.kink) else ''}",
            f"  adjoint residual         {float(self.adjoint_residual):.2e}",
            "  mode          error ≤    evaluations      bytes",
        ]
        for name, error in self.errors.items():
            evaluations, memory = float(self.evaluations[name]), float(self.memory[name])
            lines.append(f"  {name:<13} {float(error):<10.1e} {evaluations:>11.0f} {memory:>10.0f}")
        lines.append(f"  recommended: {self.recommended}")
        return "\n".join([*lines, *("  - " + reason for reason in self.reasons)])


def certify(
    problem: Any,
    solver: Any = None,
    solution: Solution | None = None,
    *,
    x0: Tree | None = None,
    stop: Stop = Stop(),
    cotangent: Tree | None = None,
    modes: tuple = MODES,
    accuracy: float | Array = 1e-6,
    seed: int = 0,
) -> Certificate:
    r"""Measure how far `solution` is from a fixed point, and what that does to its derivative.

    The fixed point z* is found anew from `solution.z`: by Newton's correction,

        z* ≈ z + (I − ∂F(z))⁻¹ (F(z) − z),

    repeated as long as that halves the residual (the Kantorovich condition, measured), and by
    iterating the solver on where it does not get there. There the derivative is computed,
    and again one correction further, from cotangents with their last digits changed: the largest
    difference bounds its own error. The bound of a mode at
    the iterate given is its distance to this reference plus that error. It bounds the errors of
    arXiv 2305.13768 (section 2: floor ρᴷ‖J*‖ and a term linear in the distance for K steps, linear
    in the distance for implicit differentiation) and of piggyback differentiation (arXiv
    2206.00457) by measuring them, with no constant to be known; and is infinite where no fixed
    point was found. It holds for the piece of F on which z* lies: see `Certificate.kink`.

    problem, solver, x0: as for `solve`; x0 is where the solve began, which `Piggyback` depends on.
    solution: what is certified; by default a solve with `stop`, whatever its status.
    cotangent: a pytree like `solution.x`: the derivative looked at is that of ⟨cotangent, x⟩, with
        respect to every array of floating-point numbers in the problem. By default random.
    modes: the modes that are measured, any, each run again for as many steps as `solution` made;
        in the results by the names of their classes, a second one of a class as "OneStep 2".
    accuracy: the relative error that the mode recommended shall have.

    It costs a few adjoint systems and a solve for each mode. Many problems under one `jit`: by
    `jax.lax.map` rather than `vmap`, whose batched factorisations may wait for each other on a CPU.
    """
    solver, problem = seal((solver, problem))
    iteration, theta, z0, name = set_up(problem, solver, x0)
    if solution is None:
        ignoring = replace(stop, on_failure="ignore")
        solution = solve(problem, solver, x0, mode=modes[0], stop=ignoring)
    if cotangent is None:
        cotangent = _random_like(solution.x, seed)
    expected, got = (jax.tree.map(jnp.shape, x) for x in (solution.x, cotangent))
    if expected != got:
        raise ValueError(f"cotangent must have the shapes of x, {expected}, got {got}")

    found = find(iteration, theta, solution.z, jax.random.key(seed))
    found, margin, kink = _judge(found, theta, solution.status)
    exact = Implicit(tol=0.0)
    reference, adjoint = gradient(problem, solver, x0, found.z, cotangent, exact)
    roundings = [_rounded(cotangent, seed + k) for k in range(1, ROUNDINGS + 1)]
    corrected = [
        gradient(problem, solver, x0, found.nearer, rounded, exact)[0] for rounded in roundings
    ]
    again = Stop(tol=None, max_steps=solution.steps, on_failure="ignore")
    control = jax.jit(iteration.control)(theta, z0)
    adaptive = control is not None and iteration.settle(theta, control)[0] is not theta[0]
    values, costs = [], []
    for mode in modes:
        if getattr(mode, "pointwise", False) and not adaptive:  # the last point is all it needs
            value, report = gradient(problem, solver, x0, solution.z, cotangent, mode)
        else:
            value, report = gradient(problem, solver, x0, None, cotangent, mode, again)
        cost = getattr(mode, "cost", lambda *_: (jnp.nan, jnp.nan))
        values.append(value)
        costs.append(cost(solution.steps, report.steps, z0, control))
    bounds, errors = _compare(problem, found.ok, reference, corrected, values)

    def by_name(each: Iterable[Any]) -> dict[str, Any]:
        return dict(zip(names_of(modes), each, strict=True))

    return Certificate(
        **found.spectrum._asdict(),
        status=solution.status,
        steps=solution.steps,
        residual=found.residual,
        distance=found.distance,
        margin=margin,
        kink=kink,
        adjoint_residual=jnp.asarray(adjoint.residual),
        gradient=reference,
        bounds=by_name(bounds),
        errors=by_name(errors),
        evaluations=by_name(evaluations for evaluations, _ in costs),
        memory=by_name(memory for _, memory in costs),
        accuracy=accuracy,
        what=f"{name} on {type(problem).__name__}",
    )


@jax.jit
def _judge(found: Found, theta: Any, status: Status) -> tuple[Found, Array, Array]:
    """With an infinite distance where it says nothing; the margin; whether a kink is near."""
    solver, problem = theta
    margin = solver.margin(problem, found.z) if hasattr(solver, "margin") else None
    margin = jnp.asarray(jnp.nan if margin is None else margin, tree.dtype(found.z))
    close = jnp.maximum(found.distance, 10 * tree.eps(found.z) * tree.norm(found.z))
    ok = found.ok & ~(status.code >= Status.INFEASIBLE.code)
    distance = jnp.where(ok, found.distance, jnp.inf)
    return found._replace(ok=ok, distance=distance), margin, found.jumps | (margin <= close)


@jax.jit
def gradient(
    problem: Any,
    solver: Any,
    x0: Tree | None,
    z: Tree | None,
    cotangent: Tree,
    mode: Any,
    stop: Stop = NOWHERE,
) -> tuple[Any, Probe]:
    """∂⟨cotangent, x⟩/∂problem by the mode's rule: at z, or where `stop` ends from the start."""
    watched = hasattr(mode, "probe")
    if hasattr(mode, "on_failure"):
        mode = replace(mode, on_failure="ignore")
    leaves, structure = jax.tree.flatten(problem)
    floating = [_is_floating(leaf) for leaf in leaves]

    def x(numbers, probe):
        given = iter(numbers)
        mixed = [next(given) if f else leaf for leaf, f in zip(leaves, floating, strict=True)]
        rebuilt = jax.tree.unflatten(structure, mixed)
        how = replace(mode, probe=probe) if watched else mode
        if z is None:
            return solve(rebuilt, solver, x0, mode=how, stop=stop).x
        _, theta, _, _ = set_up(rebuilt, solver, x0)
        run = how.run(STEPPING, theta, z, stop)
        return read(STEPPING, theta, run.image, None)

    numbers = [leaf for leaf, f in zip(leaves, floating, strict=True) if f]
    _, pull = jax.vjp(x, numbers, Probe())
    grads, report = pull(cotangent)
    given = iter(grads)
    return jax.tree.unflatten(structure, [next(given) if f else None for f in floating]), report


def names_of(modes: tuple) -> list[str]:
    """Numbered where one occurs again."""
    names = [type(mode).__name__ for mode in modes]
    seen = [names[:i].count(name) for i, name in enumerate(names)]
    return [name + (f" {k + 1}" if k else "") for name, k in zip(names, seen, strict=True)]


@jax.jit
def _compare(
    problem: Any, ok: Array, reference: Any, corrected: list, values: list
) -> tuple[list, list]:
    """For each value of the derivative, the bounds on its error; and the relative ones."""
    doubt = jax.tree.map(partial(_doubt, ok), reference, *corrected)
    bounds = [jax.tree.map(_bound, value, reference, doubt) for value in values]
    errors = [_relative(of_value, reference, problem) for of_value in bounds]
    return bounds, [jnp.where(ok, error, jnp.inf) for error in errors]


def _doubt(ok: Array, value: Array, *corrected: Array) -> Array:
    """How far the reference may be off: as much as one more correction moves it, twice over."""
    moved = jnp.max(jnp.stack([tree.norm(value - other) for other in corrected]))
    return jnp.where(ok, 2 * moved, jnp.inf)


def _bound(value: Array, reference: Array, doubt: Array) -> Array:
    rounding = 1e2 * tree.eps(value) * (tree.norm(value) + tree.norm(reference))
    off = tree.norm(value - reference) + doubt + rounding
    return jnp.where(jnp.isnan(off), jnp.inf, off)


def _relative(bounds: Any, reference: Any, problem: Any) -> Array:
    """√Σ (‖θᵢ‖ bᵢ)² / √Σ (‖θᵢ‖ ‖hᵢ‖)² over the arrays θᵢ: the same in any units."""
    theta = filter(_is_floating, jax.tree.leaves(problem))
    sizes = [tree.norm(jnp.asarray(leaf)) for leaf in theta]

    def total(parts: Any) -> Array:
        pairs = zip(sizes, jax.tree.leaves(parts), strict=True)
        return tree.norm([jnp.where(size > 0, size, 1) * tree.norm(a) for size, a in pairs])

    off, whole = total(bounds), total(reference)
    return jnp.where(off == 0, 0, off / jnp.where(whole > 0, whole, 1))


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


@jax.jit
def _rounded(x: Tree, seed: int) -> Tree:
    """x with its last digits changed at random: what rounding may do, amplified as errors are."""
    flat, unravel = ravel_pytree(x)
    signs = jax.random.rademacher(jax.random.key(seed), flat.shape, flat.dtype)
    return unravel(flat * (1 + 50 * tree.eps(flat) * signs))


@jax.jit
def _random_like(x: Tree, seed: int) -> Tree:
    flat, unravel = ravel_pytree(x)
    return unravel(jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype))
