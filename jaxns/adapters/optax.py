"""optax: a set from one of its projections, and a solve by one of its optimisers."""

from collections.abc import Callable
from typing import Any

import optax
from jax import Array

from jaxns import tree
from jaxns.functions.sets import indicator
from jaxns.solvers.wrapper import Wrapper
from jaxns.struct import replace, settle, static, struct
from jaxns.tree import Tree


@struct
class Set:
    """The set onto which `project(x, *data)` projects, as a function: 0 on it, infinity off it.

    project: static, such as `optax.projections.projection_l1_ball`; convex for convex solvers.
    data: numbers, arrays or pytrees: leaves, which may be differentiated.
    """

    project: Callable[..., Tree] = static()
    data: tuple = ()

    def __init__(self, project: Callable[..., Tree], *data: Any) -> None:
        if not callable(project):
            raise TypeError(f"project must be a function of x, got {type(project).__name__}")
        settle(self, "project", project)
        settle(self, "data", data)

    def __call__(self, x: Tree) -> Array:
        off = tree.norm(tree.sub(self.prox(x, 1.0), x))
        return indicator(off <= 1e2 * tree.eps(x) * tree.norm(x), x)

    def prox(self, x: Tree, step: Any) -> Tree:
        return self.project(x, *self.data)


@struct
class Carried:
    """image: F at the point visited last.   state: the optimiser's."""

    image: Tree
    state: Any


@struct
class Optax(Wrapper):
    """An optimiser of optax, which takes z − F(z) of the map F of `solver` for a gradient.

        z ← z + u,   u from optimizer(z − F(z))

    For gradient descent with stepsize α that is α∇f, for forward-backward α times the proximal
    gradient. What stops the run is the residual of F, and what `Implicit` and `OneStep`
    differentiate is F: neither looks at the optimiser's moments, whose recursion need not contract.
    `Piggyback` does, and its derivative is right where that of the optimiser's iterates converges.
    With a constant rate Adam may stay on a cycle around the solution, and the status says so.

    optimizer: static, so make it once; one that looks at gradients only: `optax.lbfgs` with
        `linesearch=None`.
    solver: of this library; by default that of the problem.
    """

    optimizer: Any = static()
    solver: Any = None

    def __post_init__(self) -> None:
        if not hasattr(self.optimizer, "update"):
            raise TypeError(f"optimizer must be one of optax, got {self.optimizer!r}")
        if self.solver is not None:
            super().__post_init__()

    def prepare(self, problem: Any, x0: Tree) -> "Optax":
        if self.solver is None:
            return replace(self, solver=problem.default_solver()).prepare(problem, x0)
        return super().prepare(problem, x0)

    def control(self, problem: Any, z: Tree) -> Carried:
        return Carried(z, self.optimizer.init(z))

    def advance(self, problem: Any, z: Tree, control: Carried) -> tuple[Tree, Carried]:
        image = self.step(problem, z)
        update, state = self.optimizer.update(tree.sub(z, image), control.state, z)
        return optax.apply_updates(z, update), Carried(image, state)
