"""Gradient descent, by `jaxns.ForwardBackward` without a prox."""

import dataclasses
from typing import Any

from jaxns import tree
from jaxns.compat.jaxopt import base
from jaxns.compat.jaxopt.proximal_gradient import ProxGradState, ProximalGradient
from jaxns.tree import Tree


@dataclasses.dataclass(eq=False)
class GradientDescent(ProximalGradient):
    """Minimise fun(x, *args, **kwargs); everything as for `ProximalGradient`."""

    def init_state(self, init_params: Tree, *args: Any, **kwargs: Any) -> ProxGradState:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().init_state(init_params, None, *args, **kwargs)

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, params: Tree, state: ProxGradState, *args: Any, **kwargs: Any
    ) -> base.OptStep:
        return super().update(params, state, None, *args, **kwargs)

    def optimality_fun(self, params: Tree, *args: Any, **kwargs: Any) -> Tree:  # pyright: ignore[reportIncompatibleMethodOverride]
        """∇fun(x)."""
        return self._value_and_grad_with_aux(params, *args, **kwargs)[1]

    def _residual(self, params: Tree, state: Any, *args: Any, **kwargs: Any) -> Tree:
        return tree.scale(state.stepsize, self.optimality_fun(params, *args, **kwargs))
