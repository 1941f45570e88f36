"""What a gradient through a solve costs, by each mode: foreseen, and counted."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import tree
from jaxns.fixed_point import Iteration, Stop, move
from jaxns.modes import Implicit
from jaxns.modes.work import Work
from jaxns.nonsmooth.cost import count
from jaxns.solve import set_up, solve
from jaxns.struct import replace, seal, static, struct
from jaxns.tree import Tree
from jaxns.trust.certificate import MODES, gradient, names_of


class Units(NamedTuple):
    """Operations of what a backward pass is made of, as `jaxns.modes.work.Work` names it."""

    evaluation: float
    product: float
    gradient: float

    def of(self, work: Work) -> Any:
        made = zip(self, (work.evaluations, work.products, work.gradients), strict=True)
        return sum(cost * times for cost, times in made) + work.operations


@struct
class GradientCost:
    """Arithmetic operations of a solve, and of its gradient by each mode; prints as a table.

    steps: that the solve made.   step: operations of one step F.   solve: of the whole solve.
    evaluations: of F, or products with its Jacobian, that a mode foresees for its backward pass.
    backward: operations that it foresees for it: evaluations of F and its transposed products,
        each as many as the mode says, at what one is counted to cost.
    foreseen: with these, the cost of value and gradient over that of the solve,
        1 + backward / solve.
    measured: the same, counted in the equations of both programs, with loops as long as they ran.
    unknown: primitives that were met whose cost is not known, and counted as none.
    """

    steps: Array
    step: float
    solve: float
    evaluations: dict[str, Array]
    backward: dict[str, Array]
    operations: dict[str, float]
    unknown: tuple[str, ...] = static(default=())
    what: str = static(default="")

    @property
    def foreseen(self) -> dict[str, Array]:
        return {name: 1 + n / self.solve for name, n in self.backward.items()}

    @property
    def measured(self) -> dict[str, float]:
        return {name: n / self.solve for name, n in self.operations.items()}

    def __str__(self) -> str:
        lines = [
            f"{self.what}: {int(self.steps)} steps of {self.step:,.0f} operations, "
            f"{self.solve:,.0f} in all",
            "  mode          evaluations   foreseen   measured   (× the solve, value included)",
        ]
        for name, n in self.evaluations.items():
            foreseen, measured = float(self.foreseen[name]), self.measured[name]
            lines.append(f"  {name:<13} {float(n):>11.0f} {foreseen:>10.2f} {measured:>10.2f}")
        return "\n".join([*lines, *(f"  NOT KNOWN: {name}" for name in self.unknown)])


def gradient_cost(
    problem: Any,
    solver: Any = None,
    x0: Tree | None = None,
    *,
    modes: tuple = MODES,
    stop: Stop = Stop(),
) -> GradientCost:
    """Count what ∂⟨1, x⟩/∂problem costs by each mode, beside the solve (arXiv 2206.01730).

    With respect to every array of floating-point numbers in the problem. Backwards one step of the
    map costs at most 5 times as much as forwards; what matters is how often a mode takes it.

    problem, solver, x0, stop: as for `solve`.   modes: named by their classes in the results.

    The solve is run once, and once more for each mode; loops count as often as they then run.
    """
    solver, problem = seal((solver, problem))
    stop = replace(stop, on_failure="ignore")
    iteration, theta, z0, name = set_up(problem, solver, x0)

    def solution(problem: Any) -> Any:
        return solve(problem, solver, x0, mode=Implicit(), stop=stop)

    solved = solution(problem)
    ones = jax.tree.map(jnp.ones_like, solved.x)
    control = jax.jit(iteration.control)(theta, z0)
    step = count(lambda z: iteration.step(theta, z), z0, while_trips="measured")
    whole = count(lambda problem: solution(problem).x, problem, while_trips="measured")
    evaluations, backward, costs = [], [], []
    for mode in modes:

        def both(problem: Any, mode: Any = mode) -> Any:
            return gradient(problem, solver, x0, None, ones, mode, stop)

        _, report = both(problem)
        ran = solved.steps, report.steps, z0, control
        evaluations.append(getattr(mode, "cost", lambda *_: (jnp.nan, jnp.nan))(*ran)[0])
        units = _units(iteration, theta, z0, control, getattr(mode, "pointwise", False))
        backward.append(units.of(mode.work(*ran)) if hasattr(mode, "work") else jnp.nan)
        costs.append(count(both, problem, while_trips="measured"))
    names = names_of(modes)
    unknown = {primitive for each in (step, whole, *costs) for primitive in each.unknown}
    return GradientCost(
        steps=solved.steps,
        step=step.total,
        solve=whole.total,
        evaluations=dict(zip(names, evaluations, strict=True)),
        backward=dict(zip(names, backward, strict=True)),
        operations=dict(zip(names, (each.total for each in costs), strict=True)),
        unknown=tuple(sorted(unknown)),
        what=f"{name} on {type(problem).__name__}",
    )


def _units(iteration: Iteration, theta: Any, z: Tree, control: Any, pointwise: bool) -> Units:
    """Counted on the programs of F and of its transposed products, at z.

    A mode that is not pointwise goes back through the steps as they were made, and adds up θ̄.
    """
    leaves, structure = jax.tree.flatten(theta)
    floats = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]
    numbers = [leaf for leaf, f in zip(leaves, floats, strict=True) if f]

    def F(numbers: list, z: Tree) -> Tree:
        given = iter(numbers)
        mixed = [next(given) if f else leaf for leaf, f in zip(leaves, floats, strict=True)]
        at = jax.tree.unflatten(structure, mixed)
        return iteration.step(at, z) if pointwise else move(iteration, at, z, control)[0]

    def product(z: Tree, w: Tree) -> Any:
        value, pull = jax.vjp(lambda z: F(numbers, z), z)
        return value, pull(w)

    def back(numbers: list, z: Tree, w: Tree, total: list) -> Any:
        if pointwise:
            return jax.vjp(lambda numbers: F(numbers, z), numbers)[1](w)
        slope, w = jax.vjp(F, numbers, z)[1](w)
        return tree.add(total, slope), w

    def counted(f: Callable, *args: Any) -> float:
        return count(f, *args, while_trips="measured").total

    forward = counted(F, numbers, z)
    return Units(forward, counted(product, z, z) - forward, counted(back, numbers, z, z, numbers))
