"""INNAprop: INNA on gradients rescaled as by RMSprop (arXiv 2410.05871)."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxns import tree, validate
from jaxns.optimizers.buffers import Rate, at, cast, check_rate, present, widen
from jaxns.optimizers.inna import at_rest, check_damping, phase_step
from jaxns.tree import Tree


class InnapropState(NamedTuple):
    """count: t.   v: the mean of g².   psi: ψ_t, the auxiliary variable of INNA."""

    count: Any
    v: Tree
    psi: Tree


def innaprop(
    learning_rate: Rate = 1e-3,
    alpha: float | Array = 0.1,
    beta: float | Array = 0.9,
    sigma: float | Array = 0.999,
    eps: float | Array = 1e-8,
    weight_decay: float | Array = 0.01,
    decay: Literal["paper", "decoupled"] = "paper",
) -> optax.GradientTransformation:
    r"""INNAprop (arXiv 2410.05871), in the form without a division by β − γ:

        θ ← (1 − γλ) θ
        v ← σ v + (1 − σ) g²,   g̃ = g / (√(v / (1 − σᵗ)) + ε)
        p = (1/β − α) θ − ψ/β,   ψ ← ψ + γ p,   θ ← θ + γ (p − β g̃)

    from v = 0 and ψ = (1 − αβ) θ, so that p = 0. With αβ = 1 momentum stays 0: this is RMSprop with
    bias correction, AdamW with β₁ = 0 and learning rate γβ. With αβ < 1 steps grow from γβ to γ/α
    in about 1/(αγ) steps, with αβ > 1 they shrink to it.

    learning_rate: γ, a number or a schedule.
    alpha: α ≥ 0, viscous damping.   beta: β > 0, Newtonian damping. The paper takes (0.1, 0.9) for
        short runs and (2, 2) for long ones.
    sigma: σ in [0, 1).   eps: ε > 0, outside the root.
    weight_decay: λ ≥ 0. Small λ acts as λ/(αβ), and for (λ + α)² < 4 λ/β parameters oscillate
        under it, since p sees the decay ("paper"): s² + (λ + α) s + λ/β = 0 for the modes e^{st},
        t = Σγ. Choose it anew for every (α, β).
    decay: "decoupled" lets ψ follow, so that p does not see the decay, whose modes are e^{−λt} and
        e^{−αt}: another method than the paper's.

    The state is two buffers of the parameters' size and a counter, as AdamW's.

    Raises ValueError for what is out of range above, and if `update` lacks `params`.
    """
    rate = check_rate("learning_rate", learning_rate)
    alpha, beta = check_damping(alpha, beta)
    sigma = validate.between("sigma", validate.scalar("sigma", sigma), 0, 1)
    eps = validate.positive("eps", validate.scalar("eps", eps))
    lam = validate.nonnegative("weight_decay", validate.scalar("weight_decay", weight_decay))
    follows = validate.choice("decay", decay, ("paper", "decoupled")) == "decoupled"

    def init(params: Tree) -> Any:
        v = tree.zeros_like(widen(params))
        return InnapropState(jnp.zeros((), jnp.int32), v, at_rest(params, alpha, beta))

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        theta, g = widen(present(params, "innaprop")), widen(updates)
        gamma, t = at(rate, state.count), optax.safe_increment(state.count)
        decayed = tree.scale(-gamma * lam, theta)
        psi = tree.axpy(1 - alpha * beta, decayed, state.psi) if follows else state.psi
        v = jax.tree.map(lambda v, g: sigma * v + (1 - sigma) * g**2, state.v, g)
        g = jax.tree.map(lambda v, g: g / (jnp.sqrt(v / (1 - sigma**t)) + eps), v, g)
        move, psi = phase_step(tree.add(theta, decayed), psi, g, gamma, alpha, beta)
        after = InnapropState(t, cast(v, state.v), cast(psi, state.psi))
        return cast(tree.add(decayed, move), updates), after

    return optax.GradientTransformation(init, update)
