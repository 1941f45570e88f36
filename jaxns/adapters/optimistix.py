# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Optimistix: its solvers in `jaxns.solve`, ours in its `fixed_point` and `minimise`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.tree_util import Partial

from jaxns import tree
from jaxns.functions import Smooth
from jaxns.problems import Composite
from jaxns.solvers import LBFGS, Anderson, Broyden
from jaxns.solvers.needs import need_no_penalty
from jaxns.solvers.wrapper import Wrapper
from jaxns.struct import replace, static, struct
from jaxns.tree import Tree

ROOTS = (optx.AbstractRootFinder, optx.AbstractLeastSquaresSolver)
SOLVERS = (optx.AbstractFixedPointSolver, optx.AbstractMinimiser, *ROOTS)


@struct
class Carried:
    """image: F at the point visited last.   arrays, rest: the state of their solver."""

    image: Tree
    arrays: Any
    rest: Any = static()


@struct
class Optimistix(Wrapper):
    """A solver of Optimistix, which says where the map F of `solver` is evaluated next.

    A fixed-point solver is given F; a root finder or a least-squares solver F(z) − z; a minimiser
    the objective, which must then be smooth. What stops the run is the residual of F, and what the
    modes differentiate is F: `Implicit` and `OneStep` do not look at their steps, `Piggyback` does.
    One evaluation of F a step, besides theirs.

    method: such as `optimistix.Newton(rtol, atol)`; static, and its tolerances are not used.
    solver: of this library; by default that of the problem, and `Broyden(1.0)` for equations, whose
        map is F(x) = x − fun(x).
    """

    method: Any = static()
    solver: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, SOLVERS):
            raise TypeError(f"method must be a solver of optimistix, got {self.method!r}")
        if self.solver is not None:
            super().__post_init__()

    def prepare(self, problem: Any, x0: Tree) -> "Optimistix":
        if isinstance(self.method, optx.AbstractMinimiser):
            need_no_penalty(self, problem)
        if self.solver is not None:
            return super().prepare(problem, x0)
        equations = hasattr(problem, "residual")
        inner = Broyden(stepsize=1.0) if equations else problem.default_solver()
        return replace(self, solver=inner).prepare(problem, x0)

    def control(self, problem: Any, z: Tree) -> Carried:
        fn, tags = self._function(problem), frozenset()
        out, aux = jax.eval_shape(fn, z, None)
        return _carry(z, self.method.init(fn, z, None, {}, out, aux, tags))

    def advance(self, problem: Any, z: Tree, control: Carried) -> tuple[Tree, Carried]:
        state = eqx.combine(control.arrays, control.rest)
        fn, tags = self._function(problem), frozenset()
        z_next, state, _ = self.method.step(fn, z, None, {}, state, tags)
        return z_next, _carry(self.step(problem, z), state)

    def _function(self, problem: Any) -> Callable:
        if isinstance(self.method, optx.AbstractMinimiser):
            return Partial(_objective, problem)
        of = _gap if isinstance(self.method, ROOTS) else _image
        return Partial(of, self.solver, problem)


def _carry(image: Tree, state: Any) -> Carried:
    return Carried(image, *eqx.partition(state, eqx.is_array))


def _objective(problem: Any, x: Tree, args: None) -> Any:
    return problem(x), None


def _image(solver: Any, problem: Any, z: Tree, args: None) -> Any:
    return solver.step(problem, z), None


def _gap(solver: Any, problem: Any, z: Tree, args: None) -> Any:
    return tree.sub(solver.step(problem, z), z), None


class State(eqx.Module):
    """solver: prepared.   z, control: where it is.   error: the residual over the tolerance."""

    solver: Any
    z: Tree
    control: Any
    error: Any


class _Ours(eqx.Module):
    """What the two below share: the steps of a solver of this library, on `problem(fn, y, args)`.

    It stops when the norm of (F(z) − z) / (atol + rtol |F(z)|) is less than 1.
    """

    solver: eqx.AbstractVar[Any]
    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]
    norm: eqx.AbstractVar[Callable]

    def problem(self, fn: Callable, y: Tree, args: Any) -> Any:
        raise NotImplementedError

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> State:
        problem, solver = self.problem(fn, y, args), self.solver
        if hasattr(solver, "prepare"):
            solver = solver.prepare(problem, y)
        z = solver.init(problem, y)
        control = solver.control(problem, z) if hasattr(solver, "control") else None
        return State(solver, z, control, jnp.asarray(jnp.inf, tree.dtype(y)))

    def step(self, fn, y, args, options, state, tags) -> tuple[Tree, State, Any]:
        problem, solver = self.problem(fn, y, args), state.solver
        z, control = state.z, state.control
        if control is None:
            z_next = image = solver.step(problem, z)
        else:
            z_next, control = solver.advance(problem, z, control)
            image = control.image
        error = self.norm(
            jax.tree.map(lambda a, b: (a - b) / (self.atol + self.rtol * abs(a)), image, z)
        )
        _, aux = fn(y, args)
        return solver.solution(problem, image), State(solver, z_next, control, error), aux

    def terminate(self, fn, y, args, options, state, tags) -> tuple[Any, optx.RESULTS]:
        return state.error < 1, optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result) -> tuple[Tree, Any, dict]:
        return y, aux, {}


class Minimiser(_Ours, optx.AbstractMinimiser):
    """A solver of this library for `optimistix.minimise`.

    solver: of smooth problems without a stepsize to be told, such as `LBFGS()`, `Newton()`.
    """

    rtol: float
    atol: float
    norm: Callable = optx.max_norm
    solver: Any = LBFGS()

    def problem(self, fn: Callable, y: Tree, args: Any) -> Composite:
        return Composite(Smooth(lambda y: fn(y, args)[0])).hoist(y)


class FixedPoint(_Ours, optx.AbstractFixedPointSolver):
    """The acceleration of a map by this library, for `optimistix.fixed_point`.

    solver: a wrapper of `Map()`, such as `Anderson(Map())`, `Nesterov(Map())`.
    """

    rtol: float
    atol: float
    norm: Callable = optx.max_norm
    solver: Any = dataclasses.field(default_factory=lambda: Anderson(Map()))

    def problem(self, fn: Callable, y: Tree, args: Any) -> Callable[[Tree], Tree]:
        return lambda z: fn(z, args)[0]


@struct
class Map:
    """F(z) = problem(z): the solver of a problem that is a map itself, for wrappers to take."""

    def init(self, problem: Callable, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Callable, z: Tree) -> Tree:
        return problem(z)

    def solution(self, problem: Callable, z: Tree) -> Tree:
        return z
