"""INNA: an inertial method with Newtonian damping, without a Hessian (arXiv 1905.12278)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxns import tree, validate
from jaxns.optimizers.buffers import Rate, at, cast, check_rate, present, widen
from jaxns.tree import Tree


class InnaState(NamedTuple):
    """count: k.   psi: ψ_k, the auxiliary variable of the phase form."""

    count: Any
    psi: Tree


def inna(
    learning_rate: Rate = 0.1,
    alpha: float | Array = 0.5,
    beta: float | Array = 0.1,
    speed: float | Array | None = None,
) -> optax.GradientTransformation:
    r"""INNA (arXiv 1905.12278, JMLR 2021): the explicit Euler steps of

        θ' = (1/β − α) θ − ψ/β − β v,   ψ' = (1/β − α) θ − ψ/β,   v ∈ ∂L(θ),

    the phase form of θ'' + α θ' + β ∇²L(θ) θ' + ∇L(θ) = 0 (DIN), in which no Hessian is left, so
    that v may be an element of any conservative gradient, of a minibatch too:

        p_k = (1/β − α) θ_k − ψ_k/β,   ψ_{k+1} = ψ_k + γ_k p_k,   θ_{k+1} = θ_k + γ_k (p_k − β v_k).

    Near a minimum with curvature h the modes e^{st}, t = Σγ, solve s² + α s + (β s + 1) h = 0.

    learning_rate: γ, a number or a schedule. The paper's is γ_0/√(k + 1), k the epoch:
        `jaxns.Decreasing(gamma, 1, 1 / 2)` of that; ¼ and ⅛ are other good powers.
    alpha: α ≥ 0, viscous damping.   beta: β > 0, Newtonian damping.
    speed: the first velocity is −speed · v_0. By default β, which is ψ_0 = (1 − αβ) θ_0: no
        momentum at the start. Another one is added to ψ_0 at the first step, as (β speed − β²) v_0.

    The state is one buffer of the parameters' size and a counter.

    Raises ValueError for a negative α, rate or speed, for β ≤ 0, and if `update` lacks `params`.
    """
    gamma = check_rate("learning_rate", learning_rate)
    alpha, beta = check_damping(alpha, beta)
    first = beta if speed is None else speed
    first = validate.nonnegative("speed", validate.scalar("speed", first))

    def init(params: Tree) -> Any:
        return InnaState(jnp.zeros((), jnp.int32), at_rest(params, alpha, beta))

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        theta, v = widen(present(params, "inna")), widen(updates)
        kick = jnp.where(state.count == 0, beta * first - beta**2, 0)
        psi = tree.axpy(kick, v, state.psi)
        move, psi = phase_step(theta, psi, v, at(gamma, state.count), alpha, beta)
        after = InnaState(optax.safe_increment(state.count), cast(psi, state.psi))
        return cast(move, updates), after

    return optax.GradientTransformation(init, update)


def check_damping(alpha: Any, beta: Any) -> tuple[Any, Any]:
    return (
        validate.nonnegative("alpha", validate.scalar("alpha", alpha)),
        validate.positive("beta", validate.scalar("beta", beta)),
    )


def at_rest(theta: Tree, alpha: Any, beta: Any) -> Tree:
    """The ψ with p = 0."""
    theta = widen(theta)
    return cast(tree.scale(1 - alpha * beta, theta), theta)


def phase_step(
    theta: Tree, psi: Tree, v: Tree, gamma: Any, alpha: Any, beta: Any
) -> tuple[Tree, Tree]:
    """One Euler step of the phase form: (θ⁺ − θ, ψ⁺). Any γ will do, γ ≥ β too."""
    p = jax.tree.map(lambda th, ps: (1 / beta - alpha) * th - ps / beta, theta, psi)
    move = tree.scale(gamma, tree.axpy(-beta, v, p))
    return move, tree.axpy(gamma, p, psi)
