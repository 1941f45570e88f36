"""JAXopt: its proximal gradient method, by line search as it comes and with the fixed step 1/L.

Its tolerance for the linear system of the derivative, 1e-5 as it comes, follows that of the solve;
with the fixed step the system is solved by BiCGSTAB, which it does sooner than its own default.
"""

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.peers.method import Method, Task, in_jax


def proximal(
    model: Any, step: float, read: Callable[[Any, Any], Any] = lambda x, data: x
) -> dict[str, Callable[[Task], Method]]:
    """model: with `smooth(x, data)` and `prox(v, θ, step)`.   read: what is looked at of x."""

    def make(stepsize, system):
        def program(limit, data, theta, tol):
            import jaxopt
            from jaxopt import linear_solve

            solver = jaxopt.ProximalGradient(
                model.smooth,
                model.prox,
                stepsize=stepsize,
                maxiter=limit,
                tol=tol,
                implicit_diff_solve=functools.partial(
                    getattr(linear_solve, system), tol=1e-2 * tol, maxiter=5000
                ),
            )
            found = solver.run(data["start"], theta, data)
            return read(found.params, data), found.state.iter_num

        return program

    def method(stepsize, system):
        program = make(stepsize, system)
        return lambda task: in_jax(task, functools.partial(program, task.most_steps))

    return {
        "JAXopt line search": method(0.0, "solve_normal_cg"),
        "JAXopt 1/L": method(step, "solve_bicgstab"),
    }


def box(model: Any) -> dict[str, Callable[[Task], Method]]:
    """Its coordinate descent for quadratic programs in a box.   model: `Boxed`."""

    def program(limit, data, theta, tol):
        import jaxopt
        from jaxopt import linear_solve

        Q, q, low, high = model.terms(data, theta)
        system = functools.partial(linear_solve.solve_bicgstab, tol=1e-2 * tol, maxiter=5000)
        solver = jaxopt.BoxCDQP(tol=tol, maxiter=limit, implicit_diff_solve=system)
        found = solver.run(data["start"], params_obj=(Q, q), params_ineq=(low, high))
        return found.params, found.state.iter_num

    return {
        "JAXopt BoxCDQP": lambda task: in_jax(task, functools.partial(program, task.most_steps))
    }
