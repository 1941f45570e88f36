"""Problems whose two functions are smooth: f + g as one function."""

from typing import Any

from jax import Array

from jaxns import tree
from jaxns.solvers import kinks
from jaxns.tree import Tree


def gradient(problem: Any, x: Tree) -> Tree:
    """∇f(x) + ∇g(x)."""
    return tree.add(problem.f.gradient(x), problem.g.gradient(x))


def margin(problem: Any, x: Tree) -> Array | None:
    """From x to the nearest kink of that gradient; see `jaxns.solvers.kinks`."""
    return kinks.least(*(kinks.of_gradient(part, x) for part in (problem.f, problem.g)))
