"""Iterating a map to its fixed point."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.compat.jaxopt import base
from jaxns.fixed_point import Status
from jaxns.tree import Tree


class FixedPointState(NamedTuple):
    """error: ‖T(x) − x‖ of the last step.   aux: what T returned beside."""

    iter_num: Array
    error: Array
    aux: Any
    num_fun_eval: Array
    status: Status


class OfMap(base.IterativeSolver):
    """What solvers of T(x) = x share.   fixed_point_fun: T, or (T, aux) if `has_aux`."""

    fixed_point_fun: Callable
    has_aux: bool

    def optimality_fun(self, params: Tree, *args: Any, **kwargs: Any) -> Tree:
        """T(x) − x."""
        return tree.sub(self._image(params, *args, **kwargs)[0], params)

    def _residual(self, params: Tree, state: Any, *args: Any, **kwargs: Any) -> Tree:
        return tree.scale(-1, self.optimality_fun(params, *args, **kwargs))

    def _image(self, params: Tree, *args: Any, **kwargs: Any) -> Any:
        image = self.fixed_point_fun(params, *args, **kwargs)
        return image if self.has_aux else (image, None)


@dataclasses.dataclass(eq=False)
class FixedPointIteration(OfMap):
    """x ← fixed_point_fun(x, *args, **kwargs); the options are JAXopt's."""

    fixed_point_fun: Callable
    maxiter: int = 100
    tol: float = 1e-5
    has_aux: bool = False
    verbose: bool | int = False
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    jit: bool = True
    unroll: base.AutoOrBoolean = "auto"
    on_failure: str = "warn"

    def init_state(self, init_params: Tree, *args: Any, **kwargs: Any) -> FixedPointState:
        nothing = jnp.asarray(0, base.NUM_EVAL_DTYPE)
        error = jnp.asarray(jnp.inf, tree.dtype(init_params))
        return FixedPointState(jnp.asarray(0), error, None, nothing, self._status(error))

    def update(
        self, params: Tree, state: FixedPointState, *args: Any, **kwargs: Any
    ) -> base.OptStep:
        image, aux = self._image(params, *args, **kwargs)
        error = base.distance(image, params)
        state = FixedPointState(
            state.iter_num + 1, error, aux, state.num_fun_eval + 1, self._status(error)
        )
        if self.verbose:
            self.log_info(state, "Residual norm")
        return base.OptStep(image, state)
