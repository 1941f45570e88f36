"""Block coordinate descent for functions of a linear predictor."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns.compat.jaxopt import base
from jaxns.fixed_point import Status
from jaxns.solvers import stepsize


class BlockCDState(NamedTuple):
    """error: ‖x⁺ − x‖ of the last epoch.   predictions: A x.   subfun_g: ∇subfun there."""

    iter_num: Array
    error: Array
    predictions: Any
    subfun_g: Any
    num_fun_eval: Array
    num_prox_eval: Array
    num_grad_eval: Array
    status: Status


@dataclasses.dataclass(eq=False)
class BlockCoordinateDescent(base.IterativeSolver):
    """Minimise fun(x, *args, **kwargs) + Σⱼ g(xⱼ, hyperparams_prox), one xⱼ = x[j] after the other.

        x_j ← block_prox(x_j − α_j ∂_j fun(x), hyperparams_prox, α_j),   α_j = 1/L_j

    fun: a `CompositeLinearFunction`, whose `columnwise_lipschitz_const` are the L_j.
    The derivative is that of all these steps made at once from the solution, whose fixed points
    are the same. The other options are JAXopt's.
    """

    fun: Any
    block_prox: Callable
    maxiter: int = 500
    tol: float = 1e-4
    verbose: bool | int = False
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    jit: bool = True
    unroll: base.AutoOrBoolean = "auto"
    on_failure: str = "warn"

    def __post_init__(self) -> None:
        needed = ("subfun", "make_linop", "columnwise_lipschitz_const")
        if not all(hasattr(self.fun, name) for name in needed):
            raise AttributeError("fun must be a CompositeLinearFunction")
        super().__post_init__()

    def init_state(
        self, init_params: Array, hyperparams_prox: Any = None, *args: Any, **kwargs: Any
    ) -> BlockCDState:
        predictions = self.fun.make_linop(*args, **kwargs).matvec(init_params)
        none = jnp.asarray(0, base.NUM_EVAL_DTYPE)
        error = jnp.asarray(jnp.inf, init_params.dtype)
        return BlockCDState(
            iter_num=jnp.asarray(0),
            error=error,
            predictions=predictions,
            subfun_g=jax.grad(self.fun.subfun)(predictions, *args, **kwargs),
            num_fun_eval=none + 1,
            num_prox_eval=none,
            num_grad_eval=none + 1,
            status=self._status(error),
        )

    def update(
        self,
        params: Array,
        state: BlockCDState,
        hyperparams_prox: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> base.OptStep:
        """One epoch."""
        A = self.fun.make_linop(*args, **kwargs)
        b = self.fun.b(*args, **kwargs)
        alpha = self._stepsizes(args, kwargs)
        p = len(params)

        def visit(j, carry):
            x, predictions, slope = carry
            partial = A.rmatvec_element(slope, j) + (0 if b is None else b[j])
            x_j = self.block_prox(x[j] - alpha[j] * partial, hyperparams_prox, alpha[j])
            predictions = A.update_matvec(predictions, x_j - x[j], j)
            slope = jax.grad(self.fun.subfun)(predictions, *args, **kwargs)
            return x.at[j].set(x_j), predictions, slope

        start = (params, state.predictions, state.subfun_g)
        x, predictions, slope = lax.fori_loop(0, p, visit, start)
        error = base.distance(x, params)
        state = BlockCDState(
            iter_num=state.iter_num + 1,
            error=error,
            predictions=predictions,
            subfun_g=slope,
            num_fun_eval=state.num_fun_eval + p,
            num_prox_eval=state.num_prox_eval + p,
            num_grad_eval=state.num_grad_eval + p,
            status=self._status(error),
        )
        if self.verbose:
            self.log_info(state, "Distance of iterates")
        return base.OptStep(x, state)

    def optimality_fun(
        self, params: Array, hyperparams_prox: Any = None, *args: Any, **kwargs: Any
    ) -> Array:
        """block_prox(x_j − ∂_j fun(x), hyperparams_prox, 1) − x_j for every j."""
        ones = jnp.ones(len(params), params.dtype)
        return self._change(params, ones, hyperparams_prox, args, kwargs)

    def _residual(
        self, params: Any, state: Any, hyperparams_prox: Any = None, *args: Any, **kwargs: Any
    ) -> Array:
        alpha = self._stepsizes(args, kwargs)
        return -self._change(params, alpha, hyperparams_prox, args, kwargs)

    def _change(self, x: Array, alpha: Array, hyperparams: Any, args: Any, kwargs: Any) -> Array:
        step = jax.vmap(jnp.multiply)(alpha, jax.grad(self.fun)(x, *args, **kwargs))
        return jax.vmap(self.block_prox, in_axes=(0, None, 0))(x - step, hyperparams, alpha) - x

    def _stepsizes(self, args: tuple, kwargs: dict) -> Array:
        return stepsize.from_lipschitz(self.fun.columnwise_lipschitz_const(*args, **kwargs))
