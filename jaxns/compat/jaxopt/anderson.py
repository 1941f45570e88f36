"""Anderson acceleration of a map, or of the updates of a solver, by `jaxns.Anderson`."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.compat.jaxopt import base
from jaxns.compat.jaxopt.fixed_point_iteration import OfMap
from jaxns.fixed_point import Status
from jaxns.solvers import Anderson
from jaxns.solvers.anderson import Memory
from jaxns.struct import struct
from jaxns.tree import Tree


class AndersonState(NamedTuple):
    """error: ‖T(z) − z‖ at the point visited last.   point: the next.   memory: of the last few."""

    iter_num: Array
    error: Array
    point: Any
    memory: Memory
    aux: Any
    num_fun_eval: Array
    status: Status


@dataclasses.dataclass(eq=False)
class AndersonAcceleration(OfMap):
    """Extrapolate from the last `history_size` values of fixed_point_fun, safeguarded.

    ridge: relative to the largest residual ρ remembered: (ridge ρ)² ‖α‖² is added to ‖Σ αᵢ rᵢ‖².
    beta: the map is z + beta (T(z) − z).
    mixing_frequency: extrapolate after so many plain steps. The other options are JAXopt's.
    """

    fixed_point_fun: Callable
    history_size: int = 5
    mixing_frequency: int = 1
    beta: float = 1.0
    maxiter: int = 100
    tol: float = 1e-5
    ridge: float = 1e-5
    has_aux: bool = False
    verbose: bool | int = False
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    jit: bool = True
    unroll: base.AutoOrBoolean = "auto"
    on_failure: str = "warn"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_history(self.history_size)

    def init_state(self, init_params: Tree, *args: Any, **kwargs: Any) -> AndersonState:
        error = jnp.asarray(jnp.inf, tree.dtype(init_params))
        return AndersonState(
            iter_num=jnp.asarray(0),
            error=error,
            point=init_params,
            memory=remember(init_params, self),
            aux=self._image(init_params, *args, **kwargs)[1],
            num_fun_eval=jnp.asarray(1, base.NUM_EVAL_DTYPE),
            status=self._status(error),
        )

    def update(self, params: Tree, state: AndersonState, *args: Any, **kwargs: Any) -> base.OptStep:
        image, aux = self._image(state.point, *args, **kwargs)
        error = base.distance(image, state.point)
        point, memory, _ = extrapolate(state.point, image, state, self)
        state = AndersonState(
            iter_num=state.iter_num + 1,
            error=error,
            point=point,
            memory=memory,
            aux=aux,
            num_fun_eval=state.num_fun_eval + 1,
            status=self._status(error),
        )
        if self.verbose:
            self.log_info(state, "Residual norm")
        return base.OptStep(image, state)


@struct
class _Evaluated:
    """A solver one step of which has been made."""

    image: Tree

    def init(self, problem: Any, x0: Tree) -> Tree:
        return x0

    def step(self, problem: Any, z: Tree) -> Tree:
        return self.image

    def solution(self, problem: Any, z: Tree) -> Tree:
        return z


def check_history(history_size: int) -> None:
    if history_size < 2:
        raise ValueError(f"history_size must be 2 or more, got {history_size}")


def remember(z: Tree, options: Any) -> Memory:
    return _anderson(z, options).control(None, z)


def extrapolate(z: Tree, image: Tree, state: Any, options: Any) -> tuple[Tree, Memory, Array]:
    """The point after z, whose image is known; the memory; and whether it is not that image."""
    relaxed = tree.axpy(options.beta, tree.sub(image, z), z)
    far, memory = _anderson(relaxed, options).advance(None, z, state.memory)
    now = (state.iter_num + 1) % options.mixing_frequency == 0
    return tree.where(now, far, image), memory, now


def _anderson(image: Tree, options: Any) -> Anderson:
    return Anderson(_Evaluated(image), options.history_size, options.ridge**2)
