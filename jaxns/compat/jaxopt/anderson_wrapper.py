"""Anderson acceleration around another solver of this package, or of the same interface."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.compat.jaxopt import anderson, base
from jaxns.fixed_point import Status
from jaxns.solvers.anderson import Memory
from jaxns.tree import Tree


class AndersonWrapperState(NamedTuple):
    """error, solver_state: those of the solver inside.   point: where it goes on.

    moved: whether the point is not where the solver left off.   memory: of the last few.
    """

    iter_num: Array
    solver_state: Any
    error: Array
    point: Any
    moved: Array
    memory: Memory
    status: Status


@dataclasses.dataclass(eq=False)
class AndersonWrapper(base.IterativeSolver):
    """Extrapolate the updates of `solver` after every `mixing_frequency` of them.

    Its state is set up anew at an extrapolated point. The options are those of
    `AndersonAcceleration`; maxiter and tol are the solver's.
    """

    solver: base.IterativeSolver
    history_size: int = 5
    mixing_frequency: int | None = None
    beta: float = 1.0
    ridge: float = 1e-5
    verbose: bool | int = False
    implicit_diff: bool = True
    implicit_diff_solve: Callable | None = None
    jit: bool = True
    unroll: base.AutoOrBoolean = "auto"
    on_failure: str = "warn"

    def __post_init__(self) -> None:
        super().__post_init__()
        anderson.check_history(self.history_size)
        self.maxiter, self.tol = self.solver.maxiter, self.solver.tol
        if self.mixing_frequency is None:
            self.mixing_frequency = self.history_size

    def init_state(self, init_params: Tree, *args: Any, **kwargs: Any) -> AndersonWrapperState:
        inner = self.solver.init_state(init_params, *args, **kwargs)
        return AndersonWrapperState(
            iter_num=jnp.asarray(0),
            solver_state=inner,
            error=jnp.asarray(inner.error),
            point=init_params,
            moved=jnp.asarray(False),
            memory=anderson.remember(init_params, self),
            status=self._status(inner.error),
        )

    def update(
        self, params: Tree, state: AndersonWrapperState, *args: Any, **kwargs: Any
    ) -> base.OptStep:
        z, inner = state.point, state.solver_state
        fresh = base.like(self.solver.init_state(z, *args, **kwargs), inner)
        inner = tree.where(state.moved, fresh._replace(iter_num=inner.iter_num), inner)
        image, inner = self.solver.update(z, inner, *args, **kwargs)
        point, memory, moved = anderson.extrapolate(z, image, state, self)
        state = AndersonWrapperState(
            iter_num=state.iter_num + 1,
            solver_state=inner,
            error=jnp.asarray(inner.error),
            point=point,
            moved=moved,
            memory=memory,
            status=self._status(inner.error),
        )
        if self.verbose:
            self.log_info(state, "Error of the solver inside")
        return base.OptStep(image, state)

    def optimality_fun(self, params: Tree, *args: Any, **kwargs: Any) -> Tree:
        """That of the solver inside."""
        return self.solver.optimality_fun(params, *args, **kwargs)

    def _residual(self, params: Tree, state: Any, *args: Any, **kwargs: Any) -> Tree:
        return self.solver._residual(params, state.solver_state, *args, **kwargs)
