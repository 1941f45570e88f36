"""What the wrappers share: everything that is asked of the solver inside."""

from typing import Any

from jax import Array

from jaxns.struct import replace
from jaxns.tree import Tree


class Wrapper:
    """A solver around another: same governing variable, same solution, same map unless it says."""

    solver: Any

    def __post_init__(self) -> None:
        methods = ("init", "step", "solution")
        if isinstance(self.solver, type) or not all(hasattr(self.solver, m) for m in methods):
            raise TypeError(
                f"{type(self).__name__} wraps a solver, such as ForwardBackward(); "
                f"got {self.solver!r}"
            )

    def prepare(self, problem: Any, x0: Tree) -> Any:
        inner = self.solver
        if hasattr(inner, "prepare"):
            inner = inner.prepare(problem, x0)
        if getattr(inner, "stepsize", 0) is None:
            raise ValueError(
                f"{type(self).__name__} needs a solver with a stepsize: "
                f"{type(problem.f).__name__} knows no Lipschitz constant; "
                f"pass {type(inner).__name__}(stepsize=…)"
            )
        return replace(self, solver=inner)

    def init(self, problem: Any, x0: Tree) -> Tree:
        return self.solver.init(problem, x0)

    def step(self, problem: Any, z: Tree) -> Tree:
        return self.solver.step(problem, z)

    def solution(self, problem: Any, z: Tree) -> Tree:
        return self.solver.solution(problem, z)

    def margin(self, problem: Any, z: Tree) -> Array | None:
        return self.solver.margin(problem, z) if hasattr(self.solver, "margin") else None

    def scale(self, problem: Any, z: Tree) -> Any:
        return self.solver.scale(problem, z) if hasattr(self.solver, "scale") else 0.0
