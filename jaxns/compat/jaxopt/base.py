"""What JAXopt's solvers have in common: `run`, and what it is made of.

`run` iterates `update` in the library's own loop until `state.error <= tol`. Its derivative is that
of `optimality_fun(params, …) = 0` there (`implicit_diff=True`), or of the steps that were made.
"""

import abc
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.closure import hoist
from jaxns.compat.jaxopt import implicit_diff, loop
from jaxns.compat.jaxopt.composite_linear import CompositeLinearFunction, LinearOperator
from jaxns.compat.jaxopt.flagged import ConvergenceWarning, Worth, flagged
from jaxns.fixed_point import Iteration, Status, Stop, iterate
from jaxns.modes import Piggyback
from jaxns.struct import struct
from jaxns.tree import Tree

__all__ = [
    "AutoOrBoolean",
    "CompositeLinearFunction",
    "ConvergenceWarning",
    "IterativeSolver",
    "KKTSolution",
    "LinearOperator",
    "OptStep",
    "Solver",
    "StochasticSolver",
]

AutoOrBoolean = str | bool
ArrayPair = tuple[Array, Array]
NUM_EVAL_DTYPE = "int32"


class OptStep(NamedTuple):
    """What `run` and `update` return."""

    params: Any
    state: Any


class KKTSolution(NamedTuple):
    """Primal and dual variables of a program with constraints."""

    primal: Any
    dual_eq: Any = None
    dual_ineq: Any = None


class Solver(abc.ABC):
    """Something with `run(init_params, …) -> OptStep` and `optimality_fun(params, …)`."""

    optimality_fun: Callable

    @abc.abstractmethod
    def run(self, init_params: Any, *args: Any, **kwargs: Any) -> OptStep: ...

    def l2_optimality_error(self, params: Any, *args: Any, **kwargs: Any) -> Array:
        """‖optimality_fun(params, …)‖₂."""
        return tree.norm(self.optimality_fun(params, *args, **kwargs))

    def attribute_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(self))  # pyright: ignore[reportArgumentType]

    def attribute_values(self) -> tuple:
        return tuple(getattr(self, name) for name in self.attribute_names())


class IterativeSolver(Solver):
    """A solver made of `init_state` and `update`; subclasses in other packages work too.

    maxiter, tol, implicit_diff, implicit_diff_solve, jit, unroll, verbose: as in JAXopt, except
        that `unroll="auto"` and `False` reverse the steps that ran, by `Piggyback`, where
        `unroll=True` scans over `maxiter` steps (which has second derivatives too).
    on_failure: about a run that did not reach `tol`. It always returns its last iterate, with
        `state.status` (where the state has that field) saying how it ended. "warn" (the default):
        a `ConvergenceWarning`, also inside `jit` where a derivative is asked for; "nan": every
        derivative of the result is NaN too; "ignore": nothing is said.
    """

    maxiter: Any
    tol: Any
    jit: bool
    unroll: AutoOrBoolean = "auto"
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    on_failure: str = "warn"

    @abc.abstractmethod
    def init_state(self, init_params: Any, *args: Any, **kwargs: Any) -> Any: ...

    @abc.abstractmethod
    def update(self, params: Any, state: Any, *args: Any, **kwargs: Any) -> OptStep: ...

    def __post_init__(self) -> None:
        validate.choice("on_failure", self.on_failure, ("warn", "nan", "ignore"))
        if self.jit:
            self.update = jax.jit(self.update)

    def run(self, init_params: Any, *args: Any, **kwargs: Any) -> OptStep:
        """Iterate from `init_params` until `state.error <= tol`, `maxiter` times at most."""
        if not self.jit and self.unroll is False:
            raise ValueError("unroll=False and jit=False cannot be used together")
        implicit = self.implicit_diff
        given = args, kwargs
        start = jax.tree.map(jnp.asarray, init_params)
        still = lax.stop_gradient if implicit else lambda values: values
        step, hidden = self._iterated(*still((start, given)))
        params, state = step
        status, worth = self._judged(*lax.stop_gradient(step))
        if implicit and _is_traced((given, hidden)):
            params, state = lax.stop_gradient(step)

            def residual(params, given):
                args, kwargs = given
                return self._residual(params, state, *args, **kwargs)

            solve = self.implicit_diff_solve
            params = implicit_diff.differentiable(residual, params, given, solve)
        params = flagged(params, worth)
        if hasattr(state, "status"):
            state = state._replace(status=status)
        return OptStep(params, state)

    def log_info(
        self, state: Any, error_name: str = "Error", additional_info: dict | None = None
    ) -> None:
        """Print a line on the iteration that was made: for `update` to call if `verbose`."""
        more = additional_info or {}
        words = f"{type(self).__name__}: Iter: {{}} {error_name} (stopping criterion): {{}} "
        words += " ".join(f"{name}: {{}}" for name in more)
        jax.debug.print(words, state.iter_num, state.error, *more.values())

    def _residual(self, params: Tree, state: Any, *args: Any, **kwargs: Any) -> Tree:
        """What is zero at the solution, and is differentiated; `state` is that of the run."""
        return self.optimality_fun(params, *args, **kwargs)

    def _iterated(self, params: Tree, given: tuple) -> tuple[OptStep, Any]:
        """The end of the run, and the arrays that it took from closures."""
        args, kwargs = given
        step = OptStep(params, self.init_state(params, *args, **kwargs))
        if not self.jit:
            return self._iterated_in_python(step, given)
        step = _settled(lambda step: self.update(*step, *args, **kwargs), step)
        explicit, hidden = hoist(partial(self._update, []), *step, given)
        if self.unroll is True and not self.implicit_diff:
            return self._scanned(step, given), hidden
        traced = _is_traced(hidden)
        update = explicit if traced else self._update  # which is compiled once
        iteration = Iteration(_no_map, _stage, _Advance(update, self.implicit_diff))
        arrays = lax.stop_gradient(hidden) if self.implicit_diff else hidden
        theta = _Given(arrays if traced else [], given, step.state, jnp.asarray(self.tol))
        stop = Stop(tol=None, max_steps=self.maxiter, on_failure="ignore")
        run = iterate if self.implicit_diff else Piggyback("both").run
        end = run(iteration, theta, step.params, stop).control
        return OptStep(end.image, end.state), hidden

    def _update(self, hidden: list, params: Tree, state: Any, given: tuple) -> OptStep:
        args, kwargs = given
        return self.update(params, state, *args, **kwargs)

    def _iterated_in_python(self, step: OptStep, given: tuple) -> tuple[OptStep, Any]:
        args, kwargs = given
        seen = step = OptStep(*step)
        for k in range(self.maxiter):
            if k and not step.state.error > self.tol:
                break
            seen = OptStep(*self.update(*step, *args, **kwargs))
            step = lax.stop_gradient(seen) if self.implicit_diff else seen
        return step, seen

    def _scanned(self, step: OptStep, given: tuple) -> OptStep:
        args, kwargs = given
        return loop.while_loop(
            lambda step: step.state.error > self.tol,
            lambda step: self.update(*step, *args, **kwargs),
            step,
            self.maxiter,
            unroll=True,
            jit=True,
        )

    def _status(self, error: Any) -> Status:
        """For the state after an update."""
        done = jnp.asarray(error) <= self.tol
        return Status(jnp.where(done, Status.CONVERGED.code, Status.RUNNING.code).astype(jnp.int32))

    def _judged(self, params: Tree, state: Any) -> tuple[Status, Worth]:
        """How the run ended, and what its derivative is worth."""
        unsound = jnp.isnan(state.error) | ~jnp.isfinite(tree.norm(params))
        tests = [unsound, state.error <= self.tol]
        codes = [Status.DIVERGED.code, Status.CONVERGED.code]
        status = Status(jnp.select(tests, codes, Status.MAX_STEPS.code).astype(jnp.int32))
        message = (
            f"{type(self).__name__} did not reach tol = {self.tol}: derivatives of its result may "
            "be far off; raise maxiter, loosen tol, or choose on_failure='nan' or 'ignore'"
        )
        if validate.is_known(status.code):
            if not bool(status.ok) and self.on_failure != "ignore":
                warnings.warn(f"{message} ({status})", ConvergenceWarning, stacklevel=3)
            message = ""
        message = "" if self.on_failure == "ignore" else message
        factor = jnp.where(status.ok, 1, jnp.nan) if self.on_failure == "nan" else 1.0
        return status, Worth(status.ok, factor, message)


def distance(x: Tree, y: Tree) -> Array:
    """‖x − y‖₂, of which no derivative is taken: it has none where the iteration has arrived."""
    return tree.norm(lax.stop_gradient(tree.sub(x, y)))


class StochasticSolver(IterativeSolver):
    """A solver whose `update` takes a batch of data, by the name `data`."""

    def run_iterator(
        self, init_params: Any, iterator: Iterator, *args: Any, **kwargs: Any
    ) -> OptStep:
        """`maxiter` updates, one for each batch; the first batch only sets up the state."""
        state = self.init_state(init_params, *args, **kwargs, data=next(iterator))
        step = OptStep(init_params, state)
        for data in itertools.islice(iterator, self.maxiter):
            step = OptStep(*self.update(*step, *args, **kwargs, data=data))
        return step


@struct
class _Given:
    """θ of the iteration: arrays of closures, (args, kwargs), the first state, the tolerance."""

    hidden: list
    given: Any
    state: Any
    tol: Array


@struct
class _Stage:
    """image: the parameters.   verdict: the code of a `Status`."""

    image: Tree
    state: Any
    verdict: Array


def _stage(theta: _Given, params: Tree) -> _Stage:
    return _Stage(params, theta.state, jnp.asarray(Status.RUNNING.code, jnp.int32))


@dataclasses.dataclass(frozen=True)
class _Advance:
    """One update. still: whether it is to be differentiated by another rule, and not here."""

    update: Callable
    still: bool

    def __call__(self, theta: _Given, params: Tree, stage: _Stage) -> tuple[Tree, _Stage]:
        params, state = self.update(theta.hidden, params, stage.state, theta.given)
        if self.still:
            params, state = lax.stop_gradient((params, state))
        converged = lax.stop_gradient(state.error) <= theta.tol
        verdict = jnp.where(converged, Status.CONVERGED.code, Status.RUNNING.code)
        return params, _Stage(params, state, verdict.astype(jnp.int32))


def _no_map(theta: _Given, params: Tree) -> Tree:
    raise NotImplementedError("the derivative is that of the updates, or of optimality_fun")


def _is_traced(values: Any) -> bool:
    return not all(map(validate.is_known, jax.tree.leaves(values)))


def _settled(update: Callable[[OptStep], OptStep], step: OptStep) -> OptStep:
    """The start in the types that `update` keeps; zeros for what only it can fill in."""
    after = jax.eval_shape(update, step)
    return OptStep(*(like(b, a) for b, a in zip(step, after, strict=True)))


def like(before: Any, after: Any) -> Any:
    """`before` in the structure, types and shapes of `after`; zeros for what it lacks."""
    if isinstance(after, tuple) and hasattr(after, "_fields") and isinstance(before, type(after)):
        return type(after)(*map(like, before, after))
    if jax.tree.structure(before) != jax.tree.structure(after):
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), after)
    return jax.tree.map(
        lambda b, a: jnp.broadcast_to(jnp.asarray(b, a.dtype), a.shape), before, after
    )


def _make_funs_with_aux(
    fun: Callable, value_and_grad: bool | Callable, has_aux: bool
) -> tuple[Callable, Callable, Callable]:
    """(value, aux), (gradient, aux) and ((value, aux), gradient) as functions.

    fun: the value, or, if `value_and_grad` is True, value and gradient.
    has_aux: whether it gives (value, aux) for the value; otherwise aux is None.
    """

    def with_aux(*args, **kwargs):
        value = fun(*args, **kwargs)
        return value if has_aux else (value, None)

    def given_both(*args, **kwargs):
        both: Any = fun if value_and_grad is True else value_and_grad
        value, gradient = both(*args, **kwargs)
        return value if has_aux else (value, None), gradient

    value_and_gradient = (
        given_both if value_and_grad else jax.value_and_grad(with_aux, has_aux=True)
    )

    def value(*args, **kwargs):
        return (
            given_both(*args, **kwargs)[0] if value_and_grad is True else with_aux(*args, **kwargs)
        )

    def gradient(*args, **kwargs):
        (_, aux), gradient = value_and_gradient(*args, **kwargs)
        return gradient, aux

    return value, gradient, value_and_gradient
