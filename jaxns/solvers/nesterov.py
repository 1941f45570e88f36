"""Nesterov acceleration around any solver."""

from typing import Any

from jaxns.solvers import momentum
from jaxns.solvers.wrapper import Wrapper
from jaxns.struct import struct
from jaxns.tree import Tree


@struct
class Nesterov(Wrapper):
    r"""Evaluate the map F of `solver` at extrapolated points, with adaptive restart.

        z_k = F(y_{k−1}),   y_k = z_k + (t_k − 1)/t_{k+1} (z_k − z_{k−1})

    (Nesterov 1983; restart of O'Donoghue and Candès 2015). The fixed point, and the map that is
    differentiated, are those of `solver`, whose own acceleration is not used.
    """

    solver: Any

    def control(self, problem: Any, z: Tree) -> momentum.Momentum:
        return momentum.start(z)

    def advance(self, problem: Any, y: Tree, control: momentum.Momentum) -> tuple[Tree, Any]:
        return momentum.extrapolate(y, self.step(problem, y), control)
