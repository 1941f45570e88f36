"""Solve a problem, find the fixed point of a map, follow an iteration and its derivative."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from jaxns import validate
from jaxns.closure import hoist
from jaxns.fixed_point import Iteration, Solution, Status, Stop, begin, conform, move, trust
from jaxns.modes import Implicit, Mode
from jaxns.struct import seal
from jaxns.tree import Tree


@runtime_checkable
class Solver(Protocol):
    """What `solve` asks of a solver; nothing to inherit.

    init(problem, x0) -> z0: the governing variable to start from.
    step(problem, z) -> F(z): pure, of the shape and type of z.
    solution(problem, z) -> x: what the user asked for.

    Optional:

    prepare(problem, x0) -> solver: with what is computed once a solve (a stepsize) filled in.
    control(problem, z0), advance(problem, z, control), settle(control): a faster way to iterate
        the same map; see `jaxns.fixed_point.Iteration`.
    scale(problem, z0): the size of the numbers that a step adds up, where it may exceed ‖z‖.
    stationary(problem): a solver whose map has the same fixed points z, and a derivative that costs
        less there: what `Implicit` differentiates in place of `step`.
    linearisation(problem, z): the two functions b ↦ (I − A)⁻¹ b and b ↦ (I − A)⁻ᵀ b, A = ∂F(z), on
        pytrees like z, or None: a solution of the linearised fixed-point equation that uses what is
        known of it (symmetric; restricted to a support). `Implicit` checks what it returns.
    correct(problem, z, gap, max_steps): d with (I − ∂F(z)) d ≈ gap = F(z) − z, or None: what a
        solve to many digits ends with; see `jaxns.fixed_point.iterate`.
    margin(problem, z): a lower bound of the distance from z to the nearest kink of `step`; None, or
        no such method, where it is not known. See `jaxns.solvers.kinks`.
    estimate(problem, z, control): the same two functions, approximately, from what the run that
        ended with `control` has learned: a quasi-Newton matrix. `Shine` takes it as it is.
    sequential: True where a step has factorisations or loops of its own, which on a CPU are done
        sooner for one problem after another than side by side; see `jaxns.batch.solve`.
    noisy: True where `advance` draws at random, so that no residual tells when it has converged.
    """

    def init(self, problem: Any, x0: Tree) -> Tree: ...

    def step(self, problem: Any, z: Tree) -> Tree: ...

    def solution(self, problem: Any, z: Tree) -> Tree: ...


def solve(
    problem: Any,
    solver: Any = None,
    x0: Tree | Solution | None = None,
    *,
    mode: Mode = Implicit(),
    stop: Stop = Stop(),
) -> Solution:
    """Solve `problem`; the solution can be differentiated with respect to everything numeric.

    problem: what is solved, for example `jaxns.Composite(f, g)`. One with a method `answer(x)` says
        what the solution's `x` shall be, given the solver's (an SVM: weights from the dual); this
        is differentiated like any other program.
    solver: how; by default the one that the problem names.
    x0: where to start: a pytree of floating-point arrays, or the `Solution` of a similar problem
        by the same solver, to go on from its `z`; by default zero, where the problem knows its
        shape.
    mode: how the solution is differentiated: `Implicit()`, `Piggyback()`, `OneStep()`, `Shine()`.
    stop: when to stop, and what to do about a solve that did not converge.

    Nothing is traced again when only numbers change: data, penalties, stepsizes, tolerances.

    Raises `ValueError` or `TypeError` for arguments that cannot be right, `ConvergenceError` (see
    `Stop.on_failure`) for a solve that failed.
    """
    check(solver, mode, stop)
    return complete(set_up(problem, solver, x0), mode, stop)


def check(solver: Any, mode: Any, stop: Any) -> None:
    """That these can be arguments of `solve`."""
    _check_mode(mode)
    _check_stop(stop)
    if getattr(solver, "noisy", False) and stop.tol is not None:
        raise ValueError(
            f"{type(solver).__name__} draws at random, so that no residual tells when it has "
            "converged: ask for a number of steps, stop=Stop(tol=None, max_steps=…)"
        )


class SetUp(NamedTuple):
    """What `solve` iterates: z ← F(θ, z) from z0, θ = (solver, problem), and the solver's name."""

    iteration: Iteration
    theta: Any
    z0: Tree
    name: str


def set_up(problem: Any, solver: Any = None, x0: Tree | Solution | None = None) -> SetUp:
    """The iteration of `solve`, for those who look at it without making it; errors as there."""
    if solver is None:
        if not hasattr(problem, "default_solver"):
            raise TypeError(
                f"problem must be a problem such as Composite(f, g), got {_describe(problem)}; "
                "for another kind of problem pass the solver that understands it"
            )
        solver = problem.default_solver()
    if isinstance(solver, type) or not isinstance(solver, Solver):
        raise TypeError(
            f"solver must have the methods init, step and solution; {_describe(solver)} does not"
        )
    start = _start(problem, x0)
    problem = problem.hoist(start) if hasattr(problem, "hoist") else problem
    theta, z0 = _prepare(*seal((solver, problem)), start)
    if isinstance(x0, Solution):
        z0 = _go_on(x0.z, z0)
    iteration = ADVANCING if hasattr(solver, "advance") else STEPPING
    return SetUp(iteration, theta, z0, type(solver).__name__)


def complete(start: SetUp, mode: Mode, stop: Stop) -> Solution:
    """The solve that was set up."""
    iteration, theta, z0, name = start
    z, control, info = _run(iteration, theta, z0, mode, stop, name)
    return Solution(read(iteration, theta, z, control), z, *info)


def fixed_point(
    F: Callable[..., Tree],
    z0: Tree,
    theta: Any = None,
    *,
    mode: Mode = Implicit(),
    stop: Stop = Stop(),
) -> Solution:
    """The fixed point z = F(z), or z = F(z, θ), of a plain function, differentiable in θ.

    F: called as `F(z)` when theta is None, else as `F(z, theta)`. Arrays that it closes over count
        as part of θ, tracers included: closures differentiate under `jit`, `vmap` and `grad`.
        The same function is traced once; a new lambda is traced anew.
    z0: where to start: a pytree of floating-point arrays.
    mode, stop: as for `solve`.
    """
    if not callable(F):
        raise TypeError(f"F must be a function of z, got {_describe(F)}")
    _check_mode(mode)
    _check_stop(stop)
    z0 = jax.tree.map(partial(validate.array, "z0"), z0)
    arguments = () if theta is None else (theta,)
    explicit, hidden = hoist(F, z0, *arguments)
    iteration = Iteration(_Map(explicit))
    theta = (hidden, arguments)
    z0 = _conform(iteration, theta, z0)
    z, _, info = _run(iteration, theta, z0, mode, stop, "fixed_point")
    return Solution(z, z, *info)


class Path(NamedTuple):
    """The iterates of a solve and their derivatives: `x, jacobian = derivative_path(…)`.

    x: x_k for k = 0 … steps, along a new first axis.
    jacobian: ∂x_k/∂θ in the same way (the structure of x, and inside each leaf that of θ), or the
        derivative along `tangent` if one was given.
    """

    x: Tree
    jacobian: Tree


def derivative_path(
    build: Callable[[Any], Any],
    theta: Any,
    steps: int,
    *,
    solver: Any = None,
    x0: Tree | None = None,
    tangent: Any = None,
) -> Path:
    """The iterates x_k(θ) and their derivatives J_k, k = 0 … steps, of `solve(build(θ), solver)`.

    This is the piggyback recursion J_{k+1} = A_k J_k + B_k (arXiv 2206.00457), kept at every step:
    what plots of the convergence of derivatives are made of.

    build: θ -> problem.   theta: a pytree of floating-point arrays or numbers.
    solver: by default the problem's own, with its acceleration; pass
        `ForwardBackward(acceleration=False)` for the plain iteration of the papers.
    x0: where to start, independent of θ; by default zero.
    tangent: a direction in θ; the derivatives are then J_k·tangent, at the cost of one column.
    """
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps must be a nonnegative integer, got {steps!r}")
    theta = jax.tree.map(
        lambda leaf: validate.array("theta", float(leaf) if isinstance(leaf, int) else leaf), theta
    )

    def iterates(theta):
        problem = build(theta)
        how = problem.default_solver() if solver is None else solver
        full, z0 = _prepare(*seal((how, problem)), _start(problem, x0))
        iteration = ADVANCING if hasattr(how, "advance") else STEPPING
        run = begin(iteration, full, z0, Stop(tol=None, max_steps=steps))

        def body(carry, _):
            z, control = carry
            image = z if control is None else control.image
            return move(iteration, full, z, control), read(iteration, full, image, control)

        return lax.scan(body, (run.z, run.control), length=steps + 1)[1]

    @jax.jit
    def path(theta, tangent):
        if tangent is not None:
            return Path(*jax.jvp(iterates, (theta,), (tangent,)))
        return Path(iterates(theta), jax.jacfwd(iterates)(theta))

    return path(theta, tangent)


class _Map:
    """(hidden arrays, arguments), z -> F(z, *arguments), equal when F is."""

    def __init__(self, explicit: Callable) -> None:
        self.explicit = explicit

    def __call__(self, theta: Any, z: Tree) -> Tree:
        hidden, arguments = theta
        return self.explicit(hidden, z, *arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Map) and self.explicit == other.explicit

    def __hash__(self) -> int:
        return hash(self.explicit)


def _step(theta, z):
    solver, problem = theta
    return solver.step(problem, z)


def _control(theta, z):
    solver, problem = theta
    return solver.control(problem, z)


def _advance(theta, z, control):
    solver, problem = theta
    return solver.advance(problem, z, control)


def _settle(theta, control):
    solver, problem = theta
    return (solver.settle(control), problem) if hasattr(solver, "settle") else theta


def _stationary(theta):
    solver, problem = theta
    return (solver.stationary(problem), problem) if hasattr(solver, "stationary") else theta


def _scale(theta, z):
    solver, problem = theta
    return solver.scale(problem, z) if hasattr(solver, "scale") else 0.0


def _linearisation(theta, z):
    solver, problem = theta
    return solver.linearisation(problem, z) if hasattr(solver, "linearisation") else None


def _correct(theta, z, gap, max_steps):
    solver, problem = theta
    if not hasattr(solver, "correct"):
        return None
    return solver.correct(problem, z, gap, max_steps)


def _estimate(theta, z, control):
    solver, problem = theta
    return solver.estimate(problem, z, control) if hasattr(solver, "estimate") else None


_KNOWN = {
    "stationary": _stationary,
    "scale": _scale,
    "linearisation": _linearisation,
    "estimate": _estimate,
    "correct": _correct,
}
STEPPING = Iteration(_step, **_KNOWN)
ADVANCING = Iteration(_step, _control, _advance, _settle, **_KNOWN)


@jax.jit
def _prepare(solver, problem, x0):
    if hasattr(solver, "prepare"):
        solver = solver.prepare(problem, x0)
    theta = (solver, problem)
    return theta, conform(STEPPING, theta, solver.init(problem, x0), "x0")


@partial(jax.jit, static_argnums=0)
def _conform(iteration, theta, z0):
    return conform(iteration, theta, z0)


@partial(jax.jit, static_argnums=0)
def read(iteration: Iteration, theta: Any, z: Tree, control: Any) -> Tree:
    """What the user asked for, out of z and the state that the run ended with."""
    if control is not None:
        theta = iteration.settle(theta, lax.stop_gradient(control))
    solver, problem = theta
    x = solver.solution(problem, z)
    return problem.answer(x) if hasattr(problem, "answer") else x


def _run(iteration, theta, z0, mode, stop, name):
    try:
        run = mode.run(iteration, theta, z0, stop)
    except NotImplementedError as error:
        if "shard_map" in str(error):
            name = type(mode).__name__
            message = f"wrap the shard_map in jax.jit, or pass {name}(direction='both')"
            raise NotImplementedError(message) from error
        raise
    steps, residual, *_, code = lax.stop_gradient(run.progress)
    status = Status(code)
    return trust(run.image, status, stop, name), run.control, (steps, residual, status)


def _start(problem: Any, x0: Tree | Solution | None) -> Tree:
    """x0, or the problem's own start; checked against what the problem knows of the unknown."""
    known = problem.start() if hasattr(problem, "start") else None
    if isinstance(x0, Solution):
        x0 = x0.x if known is None else None
    if x0 is None:
        if known is None:
            name = type(getattr(problem, "f", problem)).__name__
            raise ValueError(f"x0 is needed: {name} does not know the shape of the unknown")
        return known
    x0 = jax.tree.map(partial(validate.array, "x0"), x0)
    if known is not None:
        expected, got = jax.tree.map(jnp.shape, known), jax.tree.map(jnp.shape, x0)
        if expected != got:
            raise ValueError(f"x0 must have shape {expected}, got {got}")
    return x0


def _go_on(z: Tree, z0: Tree) -> Tree:
    """z, in the types of the z0 that the solver would have started from."""
    got, expected = (jax.tree.map(jnp.shape, point) for point in (z, z0))
    if got != expected:
        raise ValueError(
            f"x0 must be a Solution by the same solver, with z of shape {expected}, got {got}"
        )
    return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), z, z0)


def _check_mode(mode: Any) -> None:
    if isinstance(mode, type) or not hasattr(mode, "run"):
        raise TypeError(
            "mode must be a differentiation mode such as Implicit(), Piggyback() or OneStep(), "
            f"got {_describe(mode)}"
        )


def _check_stop(stop: Any) -> None:
    if not isinstance(stop, Stop):
        raise TypeError(f"stop must be a Stop(tol=…, max_steps=…), got {_describe(stop)}")


def _describe(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
