# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""NeMoS: its generalised linear models fitted by our forward-backward splitting."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import nemos
from jax import Array
from nemos.solvers import AbstractSolver, OptimizationInfo

from jaxns import tree
from jaxns.fixed_point import Stop
from jaxns.functions import Smooth
from jaxns.problems import Composite
from jaxns.solve import solve
from jaxns.solvers import ForwardBackward
from jaxns.struct import static, struct
from jaxns.tree import Tree


@struct
class Penalty:
    """A regularizer of NeMoS as a function.   value: params ↦ g.   operator: its prox."""

    value: Callable = static()
    operator: Callable = static()

    def __call__(self, params: Tree) -> Array:
        return self.value(params)

    def prox(self, params: Tree, step: Any) -> Tree:
        return self.operator(params, None, step)


@struct
class State:
    """z: where F is evaluated next.   steps: made so far.   residual: relative, of the last."""

    z: Tree
    control: Any
    steps: Any
    residual: Any


class ProximalGradient(AbstractSolver):
    """`jaxns.ForwardBackward` as a solver of NeMoS, with any of its regularizers.

    tol: relative residual of a step, as on `jaxns.Stop`.   maxiter: steps at most.
    stepsize, acceleration: as on `ForwardBackward`.
    """

    def __init__(
        self,
        unregularized_loss: Callable,
        regularizer: Any,
        regularizer_strength: Any,
        has_aux: bool,
        init_params: Tree = None,
        tol: float = 1e-8,
        maxiter: int = 100_000,
        stepsize: float | None = None,
        acceleration: bool = True,
    ) -> None:
        self.fun, self.has_aux = unregularized_loss, has_aux
        self.penalty = Penalty(
            regularizer.penalized_loss(lambda params: 0.0, init_params, regularizer_strength),
            regularizer.get_proximal_operator(init_params, regularizer_strength),
        )
        self.tol, self.maxiter = tol, maxiter
        self.solver = ForwardBackward(stepsize, acceleration)

    def init_state(self, init_params: Tree, *args: Any) -> State:
        control = self.solver.control(self._problem(args), init_params)
        return State(init_params, control, jnp.asarray(0), jnp.asarray(jnp.inf))

    def update(self, params: Tree, state: State, *args: Any) -> tuple[Tree, State, Any]:
        """One step, from where the last one said and not from `params`."""
        problem = self._problem(args)
        if state.control is None:
            z = image = self.solver.step(problem, state.z)
            control = None
        else:
            z, control = self.solver.advance(problem, state.z, state.control)
            image = control.image
        residual = tree.norm(tree.sub(image, state.z)) / tree.norm(image)
        return image, State(z, control, state.steps + 1, residual), self._aux(image, args)

    def run(self, init_params: Tree, *args: Any) -> tuple[Tree, State, Any]:
        stop = Stop(self.tol, self.maxiter, on_failure="ignore")
        found = solve(self._problem(args), self.solver, init_params, stop=stop)
        control = self.init_state(found.x, *args).control
        state = State(found.z, control, found.steps, found.residual)
        return found.x, state, self._aux(found.x, args)

    @classmethod
    def get_accepted_arguments(cls) -> set[str]:
        return {"tol", "maxiter", "stepsize", "acceleration"}

    def get_optim_info(self, state: State) -> OptimizationInfo:
        steps = int(state.steps)
        converged = bool(state.residual <= self.tol)
        return OptimizationInfo(None, steps, converged, steps >= self.maxiter)

    def _problem(self, args: tuple) -> Composite:
        return Composite(Smooth(self._loss, *args), self.penalty)

    def _loss(self, params: Tree, *args: Any) -> Array:
        value = self.fun(params, *args)
        return value[0] if self.has_aux else value

    def _aux(self, params: Tree, args: tuple) -> Any:
        return self.fun(params, *args)[1] if self.has_aux else None


def register() -> None:
    """Make it known to NeMoS as `solver_name="ProximalGradient[jaxns]"`."""
    nemos.solvers.register("ProximalGradient", ProximalGradient, backend="jaxns", replace=True)
