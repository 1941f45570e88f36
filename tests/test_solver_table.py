"""Whatever the README's table says solves a problem does: all of them, to the same solution."""

import jax
import numpy as np
import pytest
from solver_table import BUILDERS, serves, solvers

import jaxns

# Several solutions, or a random one.
APART = {"nonnegative_matrix_factorisation", "StochasticGradient"}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in APART])
def test_every_solver_of_a_problem_finds_its_solution(name):
    problem = BUILDERS[name]()
    if not hasattr(problem, "start"):
        return
    expected = flat(jaxns.solve(problem).x)
    for other, solver in solvers():
        if other in APART or not serves(solver, problem):
            continue
        found = jaxns.solve(problem, solver, stop=jaxns.Stop(on_failure="ignore"))
        assert found.status.ok, (other, str(found.status), int(found.steps))
        np.testing.assert_allclose(flat(found.x), expected, atol=1e-7, err_msg=other)
