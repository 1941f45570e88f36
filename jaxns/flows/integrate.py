"""The flow of an ordinary differential equation on a grid of times, and costs along it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxns import validate
from jaxns.flows import by_diffrax, stretches
from jaxns.flows.schemes import SCHEMES, Field
from jaxns.tree import Tree


def integrate(
    f: Field,
    x0: Tree,
    theta: Tree,
    ts: Array,
    method: str | Any = "rk4",
    checkpoints: int | None = None,
) -> Tree:
    r"""X at the times `ts`, for X′ = f(X, θ, t) and X(ts[0]) = x0: one step from each to the next.

    Differentiated as it is, forwards or backwards, in x0, θ, ts and what f closes over:

        Euler: S_{k+1} = S_k + h (J_x S_k + J_θ),   λ_k = λ_{k+1} + h J_xᵀ λ_{k+1},

    with the same element [J_x, J_θ] of the conservative Jacobian of f at (X_k, θ, t_k) in both. So
    what results is an element of a conservative Jacobian of the discrete flow, and tends to one of
    the flow's as the steps tend to zero (arXiv 2201.03819); no state is solved for backwards, where
    it might fall on the other side of a kink.

    f: (x, θ, t) ↦ x′, a pytree like x.   x0: a pytree of floating-point arrays.
    ts: (n + 1,), the times, in order.
    method: "euler", "rk4", or a solver of diffrax such as `diffrax.Tsit5()`.
    checkpoints: c, for a reverse pass in little memory: about c ⌈log n / log c⌉ states (and what f
        computes in c steps) instead of what f computes in n, against ⌈log n / log c⌉ evaluations
        of every step; ⌈√n⌉ gives two. The derivative is the same. By default all is kept.
        With a solver of diffrax, the number that its `RecursiveCheckpointAdjoint` has, which has
        no forward derivative.
    Returns a pytree like x0, each array with a new first axis of length n + 1.
    """
    x0, ts = _prepare(x0, ts, checkpoints)
    xs = _run(f, x0, theta, ts, method, checkpoints, every=True)[1]
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), x0, xs)


def cost(
    f: Field,
    running: Callable[[Tree, Tree, Array], Array] | None,
    final: Callable[[Tree], Array] | None,
    x0: Tree,
    theta: Tree,
    ts: Array,
    method: str | Any = "rk4",
    checkpoints: int | None = None,
) -> Array:
    r"""L(θ) = ∫ ℓ(X, θ, t) dt + g(X(T)), the integral by the same scheme, as one more state.

    Its gradient is the discrete form of

        v = ∫ (J_θᵀλ + ℓ_θ) dt + S(0)ᵀλ(0),   −λ′ = J_xᵀλ + ℓ_x,   λ(T) ∈ ∂g(X(T)),

    a conservative gradient of the cost of the discrete flow (arXiv 2201.03819).

    running: ℓ, a scalar; None for 0.   final: g, of X(T); None for 0.   The rest as of `integrate`;
    with `checkpoints` no state but those is kept.
    """
    if running is None and final is None:
        raise ValueError("cost needs running or final")
    x0, ts = _prepare(x0, ts, checkpoints)

    def with_cost(state: tuple[Tree, Array], theta: Tree, t: Array) -> tuple[Tree, Array]:
        x, paid = state
        return f(x, theta, t), jnp.zeros_like(paid) if running is None else running(x, theta, t)

    state = x0, jnp.zeros((), jnp.result_type(*jax.tree.leaves(x0)))
    x, paid = _run(with_cost, state, theta, ts, method, checkpoints, every=False)[0]
    return paid if final is None else paid + final(x)


def _run(
    f: Field,
    x0: Tree,
    theta: Tree,
    ts: Array,
    method: str | Any,
    checkpoints: int | None,
    every: bool,
) -> tuple[Tree, Tree]:
    """The last state, and all after the first if `every`."""
    if not isinstance(method, str):
        return by_diffrax.run(f, x0, theta, ts, method, checkpoints, every)
    scheme = SCHEMES[validate.choice("method", method, SCHEMES)]

    def step(x: Tree, span: tuple[Array, Array]) -> tuple[Tree, Tree]:
        t, until = span
        x = scheme(f, x, theta, t, until - t)
        return x, x if every else None

    return stretches.scan(step, x0, ts, checkpoints)


def _prepare(x0: Tree, ts: Array, checkpoints: int | None) -> tuple[Tree, Array]:
    x0 = jax.tree.map(lambda x: validate.array("x0", x), x0)
    ts = validate.array("ts", ts, 1)
    if ts.size < 2:
        raise ValueError(f"ts must hold two times at least, got {ts.size}")
    if checkpoints is not None and validate.integer("checkpoints", checkpoints) < 2:
        raise ValueError(f"checkpoints must be at least 2, got {checkpoints}")
    return x0, ts
