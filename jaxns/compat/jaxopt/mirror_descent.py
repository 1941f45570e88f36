"""Mirror descent."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.compat.jaxopt import base
from jaxns.fixed_point import Status
from jaxns.tree import Tree


class MirrorDescentState(NamedTuple):
    """error: ‖x⁺ − x‖/stepsize.   aux: that of `fun`."""

    iter_num: Array
    error: Array
    aux: Any
    num_fun_eval: Array
    num_grad_eval: Array
    num_proj_eval: Array
    status: Status


@dataclasses.dataclass(eq=False)
class MirrorDescent(base.IterativeSolver):
    """x ← projection_grad(x, ∇fun(x), stepsize, hyperparams_proj).

    stepsize: a positive number, or a function of the number of the iteration. The derivative is
    that of this map with the last stepsize. The options are JAXopt's.
    """

    fun: Callable
    projection_grad: Callable
    stepsize: float | Callable
    maxiter: int = 500
    tol: float = 1e-2
    verbose: bool | int = False
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    has_aux: bool = False
    jit: bool = True
    unroll: base.AutoOrBoolean = "auto"
    on_failure: str = "warn"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._value_with_aux, self._grad_with_aux, _ = base._make_funs_with_aux(
            self.fun, False, self.has_aux
        )

    @staticmethod
    def make_projection_grad(projection: Callable, mapping_fun: Callable) -> Callable:
        """projection(∇φ(x) − stepsize g, hyperparams_proj), ∇φ = mapping_fun."""

        def projection_grad(x, x_fun_grad, stepsize, hyperparams_proj):
            return projection(tree.axpy(-stepsize, x_fun_grad, mapping_fun(x)), hyperparams_proj)

        return projection_grad

    def init_state(
        self, init_params: Tree, hyperparams_proj: Any = None, *args: Any, **kwargs: Any
    ) -> MirrorDescentState:
        aux = self._value_with_aux(init_params, *args, **kwargs)[1] if self.has_aux else None
        none = jnp.asarray(0, base.NUM_EVAL_DTYPE)
        evaluations = (none + int(self.has_aux), none, none)
        error = jnp.asarray(jnp.inf, tree.dtype(init_params))
        return MirrorDescentState(jnp.asarray(0), error, aux, *evaluations, self._status(error))

    def update(
        self,
        params: Tree,
        state: MirrorDescentState,
        hyperparams_proj: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> base.OptStep:
        stepsize = self._stepsize(state.iter_num)
        gradient, aux = self._grad_with_aux(params, *args, **kwargs)
        image = self.projection_grad(params, gradient, stepsize, hyperparams_proj)
        error = (base.distance(image, params) / stepsize).astype(state.error.dtype)
        state = MirrorDescentState(
            state.iter_num + 1,
            error,
            aux,
            state.num_fun_eval + 1,
            state.num_grad_eval + 1,
            state.num_proj_eval + 1,
            self._status(error),
        )
        if self.verbose:
            self.log_info(state, "Distance of iterates over stepsize")
        return base.OptStep(image, state)

    def run(
        self, init_params: Tree, hyperparams_proj: Any = None, *args: Any, **kwargs: Any
    ) -> base.OptStep:
        return super().run(init_params, hyperparams_proj, *args, **kwargs)

    def optimality_fun(
        self, sol: Tree, hyperparams_proj: Any = None, *args: Any, **kwargs: Any
    ) -> Tree:
        """projection_grad(x, ∇fun(x), 1, hyperparams_proj) − x."""
        return self._change(sol, 1.0, hyperparams_proj, args, kwargs)

    def _residual(
        self, params: Tree, state: Any, hyperparams_proj: Any = None, *args: Any, **kwargs: Any
    ) -> Tree:
        stepsize = self._stepsize(jnp.maximum(state.iter_num - 1, 0))
        return tree.scale(-1, self._change(params, stepsize, hyperparams_proj, args, kwargs))

    def _change(
        self, x: Tree, stepsize: Any, hyperparams_proj: Any, args: Any, kwargs: Any
    ) -> Tree:
        gradient, _ = self._grad_with_aux(x, *args, **kwargs)
        return tree.sub(self.projection_grad(x, gradient, stepsize, hyperparams_proj), x)

    def _stepsize(self, iter_num: Array) -> Any:
        return self.stepsize(iter_num) if callable(self.stepsize) else self.stepsize
