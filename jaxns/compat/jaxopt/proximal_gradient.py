"""Proximal gradient descent, by `jaxns.ForwardBackward`."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import tree, validate
from jaxns.compat.jaxopt import base
from jaxns.fixed_point import Status
from jaxns.solvers import ForwardBackward
from jaxns.solvers.momentum import Momentum
from jaxns.struct import replace
from jaxns.tree import Tree


class ProxGradState(NamedTuple):
    """error: ‖F(y) − y‖/stepsize, F the step that was made from the extrapolated point y.

    stepsize: the one that was used.   aux: that of `fun` at y.   velocity: the next y.
    """

    iter_num: Array
    stepsize: Array
    error: Array
    aux: Any
    velocity: Any
    t: Array
    status: Status


class _Problem(NamedTuple):
    f: Any
    g: Any


class _Smooth(NamedTuple):
    gradient: Callable[[Tree], Tree]


class _Proximable(NamedTuple):
    prox: Callable[[Tree, Any], Tree]


def _prox_none(x: Tree, hyperparams: Any = None, scaling: Any = 1.0) -> Tree:
    return x


def _with_stepsize(alpha: Any, acceleration: bool = False) -> ForwardBackward:
    return replace(ForwardBackward(acceleration=acceleration), stepsize=alpha)


@dataclasses.dataclass(eq=False)
class ProximalGradient(base.IterativeSolver):
    """Minimise fun(x, *args, **kwargs) + g(x, hyperparams_prox), with momentum and restarts.

        x⁺ = prox(y − α ∇fun(y), hyperparams_prox, α)

    fun, prox, value_and_grad, has_aux, stepsize, maxiter, tol, acceleration, …: as in JAXopt.
    maxls, decrease_factor: taken for compatibility; the search of `ForwardBackward`, which compares
        gradients and halves α until it fits, needs neither.
    The derivative is that of the map above with the α of the last step.
    """

    fun: Callable
    prox: Callable = _prox_none
    value_and_grad: bool | Callable = False
    has_aux: bool = False
    stepsize: float | Callable = 0.0
    maxiter: int = 500
    maxls: int = 15
    tol: float = 1e-3
    acceleration: bool = True
    decrease_factor: float = 0.5
    verbose: bool | int = False
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    jit: bool = True
    unroll: base.AutoOrBoolean = "auto"
    on_failure: str = "warn"

    def __post_init__(self) -> None:
        super().__post_init__()
        fixed = callable(self.stepsize) or not validate.is_known(self.stepsize)
        self._searches = not fixed and bool(np.asarray(self.stepsize) <= 0)
        self._value_with_aux, _, self._value_and_grad_with_aux = base._make_funs_with_aux(
            self.fun, self.value_and_grad, self.has_aux
        )

    def init_state(
        self, init_params: Tree, hyperparams_prox: Any = None, *args: Any, **kwargs: Any
    ) -> ProxGradState:
        aux = self._value_with_aux(init_params, *args, **kwargs)[1] if self.has_aux else None
        real = tree.dtype(init_params)
        return ProxGradState(
            iter_num=jnp.asarray(0),
            stepsize=jnp.asarray(1.0, real),
            error=jnp.asarray(jnp.inf, real),
            aux=aux,
            velocity=init_params if self.acceleration else None,
            t=jnp.asarray(1.0, real),
            status=self._status(jnp.inf),
        )

    def update(
        self,
        params: Tree,
        state: ProxGradState,
        hyperparams_prox: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> base.OptStep:
        problem = self._problem(hyperparams_prox, args, kwargs)
        alpha = self.stepsize(state.iter_num) if callable(self.stepsize) else self.stepsize
        searches = self._searches
        solver = _with_stepsize(None if searches else alpha, self.acceleration)
        y = state.velocity if self.acceleration else params
        before = Momentum(params, state.t, state.stepsize if searches else None)
        y_next, after = solver.advance(problem, y, before)
        real = state.error.dtype
        alpha = jnp.asarray(after.stepsize if searches else alpha, real)
        error = (base.distance(after.image, y) / alpha).astype(real)
        state = ProxGradState(
            iter_num=state.iter_num + 1,
            stepsize=alpha,
            error=error,
            aux=self._value_with_aux(y, *args, **kwargs)[1] if self.has_aux else None,
            velocity=y_next if self.acceleration else None,
            t=after.t,
            status=self._status(error),
        )
        if self.verbose:
            self.log_info(state, "Gradient mapping norm", {"Stepsize": alpha})
        return base.OptStep(after.image, state)

    def optimality_fun(
        self, sol: Tree, hyperparams_prox: Any = None, *args: Any, **kwargs: Any
    ) -> Tree:
        """prox(x − ∇fun(x), hyperparams_prox, 1) − x."""
        step = ForwardBackward(1.0).step(self._problem(hyperparams_prox, args, kwargs), sol)
        return tree.sub(step, sol)

    def _residual(self, params: Tree, state: Any, *args: Any, **kwargs: Any) -> Tree:
        problem = self._located(*args, **kwargs)
        return tree.sub(params, _with_stepsize(state.stepsize).step(problem, params))

    def _located(self, hyperparams_prox: Any = None, *args: Any, **kwargs: Any) -> _Problem:
        return self._problem(hyperparams_prox, args, kwargs)

    def _problem(self, hyperparams_prox: Any, args: tuple, kwargs: dict) -> _Problem:
        def gradient(x):
            return self._value_and_grad_with_aux(x, *args, **kwargs)[1]

        def prox(x, stepsize):
            return self.prox(x, hyperparams_prox, stepsize)

        return _Problem(_Smooth(gradient), _Proximable(prox))
