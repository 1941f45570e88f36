# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""OTT-JAX: its problems and geometries as `Transport`, its costs with our proximal gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from ott.geometry import costs, geometry, regularizers
from ott.problems.linear.linear_problem import LinearProblem

from jaxns.fixed_point import Stop
from jaxns.functions import Smooth
from jaxns.modes import Implicit
from jaxns.problems import Composite, Transport
from jaxns.problems.ground_cost import PointCloud
from jaxns.solve import solve
from jaxns.solvers import ForwardBackward


def transport(
    problem: "LinearProblem | geometry.Geometry", a: Array | None = None, b: Array | None = None
) -> Transport:
    """The same transport problem, for `jaxns.solve`.

    problem: a `LinearProblem`, with `tau_a == tau_b`; or a geometry, with marginals a and b (by
        default uniform) for a balanced one. Of squared distances computed on the fly (`batch_size`)
        it stays so; any other geometry gives its cost matrix.

    The plan is OTT's. In a balanced problem `value` is its `reg_ot_cost`, and its potentials, with
    P = exp((f + g − C)/ε), are ours plus ε log a and ε log b, up to a constant. In an unbalanced
    one OTT's entropy is that of P itself, and not relative to abᵀ: the costs are C plus
    ε log abᵀ, which makes the potentials the same.
    """
    if isinstance(problem, geometry.Geometry):
        problem = LinearProblem(problem, a, b)
    elif a is not None or b is not None:
        raise TypeError("a and b must not be given beside a LinearProblem, which has its own")
    if problem.tau_a != problem.tau_b:
        raise ValueError(
            f"tau_a and tau_b must be equal, got {problem.tau_a} and {problem.tau_b}: "
            "Transport has one rho for both marginals"
        )
    cloud, epsilon, tau = problem.geom, problem.epsilon, problem.tau_a
    marginals: tuple[Array, Array] = problem.a, problem.b
    if not problem.is_balanced:
        shift = epsilon * jnp.add.outer(*map(_log, marginals))
        rho = epsilon * tau / (1 - tau)
        return Transport(cloud.cost_matrix + shift, *marginals, epsilon, rho)
    if cloud.is_online and cloud.is_squared_euclidean:
        root = jnp.sqrt(cloud.inv_scale_cost)
        return Transport(PointCloud(root * cloud.x, root * cloud.y), *marginals, epsilon)
    return Transport(cloud.cost_matrix, *marginals, epsilon)


def _log(mass: Array) -> Array:
    """Its logarithm; 0 where there is none, and no cost counts."""
    return jnp.log(jnp.where(mass > 0, mass, 1))


class RegTICost(costs.RegTICost):
    """`ott.geometry.costs.RegTICost` whose h-transform is solved by `ForwardBackward`.

    OTT's stops with JAXopt's tolerance of 1e-3 and holds the solution constant, so that its values
    have a gradient and its transport maps a wrong Jacobian. Here both are differentiated.
    """

    def h_transform(self, f: Callable[[Array], Any]) -> Callable[..., Array]:
        """x ↦ min_z h(z) − f(x − z), for f concave and smooth."""
        h = regularizers.Regularization(self.regularizer, rho=self.rho)

        def value(
            x: Array,
            x_init: Array | None = None,
            *,
            solver: Any = ForwardBackward(),
            mode: Any = Implicit(direction="both"),
            stop: Stop = Stop(),
        ) -> Array:
            problem = Composite(Smooth(lambda z: -f(x - z)), h)
            start = x if x_init is None else x_init
            z = solve(problem, solver, start, mode=mode, stop=stop).x
            return self.h(z) - f(x - z)

        return value


jax.tree_util.register_pytree_node(
    RegTICost,
    lambda cost: cost.tree_flatten(),
    lambda structure, leaves: RegTICost.tree_unflatten(structure, leaves),
)
