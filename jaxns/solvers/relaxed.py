"""Relaxation (Krasnosel'skii-Mann averaging) around any solver."""

from typing import Any

from jax import Array

from jaxns import tree, validate
from jaxns.solvers.wrapper import Wrapper
from jaxns.struct import settle, struct
from jaxns.tree import Tree


@struct
class Relaxed(Wrapper):
    r"""Go a fraction of the way, or past, to the image of the map F of `solver`.

        z ← z + λ (F(z) − z)

    relaxation: λ; in (0, 1] for any nonexpansive F (Krasnosel'skii 1955, Mann 1953), up to 2 for a
        firmly nonexpansive one.
    """

    solver: Any
    relaxation: float | Array = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        relaxation = validate.scalar("relaxation", self.relaxation)
        settle(self, "relaxation", validate.positive("relaxation", relaxation))

    def step(self, problem: Any, z: Tree) -> Tree:
        return tree.axpy(self.relaxation, tree.sub(self.solver.step(problem, z), z), z)
