"""Projected gradient descent: `ProximalGradient` with a projection for the prox."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxns.compat.jaxopt import base
from jaxns.compat.jaxopt.proximal_gradient import ProxGradState, ProximalGradient
from jaxns.tree import Tree


@dataclasses.dataclass(eq=False)
class ProjectedGradient(base.IterativeSolver):
    """Minimise fun(x, *args, **kwargs) over the set that `projection(x, hyperparams_proj)` maps to.

    The options are those of `ProximalGradient`.
    """

    fun: Callable
    projection: Callable
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
        options = dict(zip(self.attribute_names(), self.attribute_values(), strict=True))
        projection = options.pop("projection")

        def prox(x, hyperparams, scaling=1.0):
            return projection(x, hyperparams)

        self._pg = ProximalGradient(prox=prox, **options)

    def init_state(
        self, init_params: Tree, hyperparams_proj: Any = None, *args: Any, **kwargs: Any
    ) -> ProxGradState:
        return self._pg.init_state(init_params, hyperparams_proj, *args, **kwargs)

    def update(
        self,
        params: Tree,
        state: ProxGradState,
        hyperparams_proj: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> base.OptStep:
        return self._pg.update(params, state, hyperparams_proj, *args, **kwargs)

    def run(
        self, init_params: Tree, hyperparams_proj: Any = None, *args: Any, **kwargs: Any
    ) -> base.OptStep:
        return self._pg.run(init_params, hyperparams_proj, *args, **kwargs)

    def optimality_fun(
        self, sol: Tree, hyperparams_proj: Any = None, *args: Any, **kwargs: Any
    ) -> Tree:
        """projection(x − ∇fun(x), hyperparams_proj) − x."""
        return self._pg.optimality_fun(sol, hyperparams_proj, *args, **kwargs)
