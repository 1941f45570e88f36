"""A composite problem on a few blocks of its coordinates: small, dense and quadratic."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import cho_solve

from jaxns import tree
from jaxns.solvers import momentum
from jaxns.struct import struct

PATIENCE = 2  # steps that leave the support as it is before a Newton step is tried
MOST_PATIENCE = 64  # … doubled up to this each time one was rejected
MOST_STEPS = 10_000
POWERS = 12  # of H, in the estimate of its largest eigenvalue
SLACK = 1.1  # … by which that is enlarged


@struct
class Gathered:
    """q(u) + Σⱼ gⱼ(uⱼ),  q(u) = ½ uᵀHu − cᵀu,  for an unknown u of blocks.

    H: (m, m) ⪰ 0.   c: like u.   u: (w,), or (w, b) with a block in each row, m = u.size.
    g: with a first axis of blocks.
    """

    H: Array
    c: Array
    g: Any

    def slope(self, u: Array) -> Array:
        """∇q(u)."""
        return (self.H @ u.ravel()).reshape(u.shape) - self.c

    def value(self, u: Array, slope: Array) -> Array:
        """The objective, given ∇q(u)."""
        return 0.5 * jnp.vdot(u, slope - self.c) + jnp.sum(jax.vmap(lambda g, v: g(v))(self.g, u))

    def prox(self, v: Array, step: Array) -> Array:
        return jax.vmap(lambda g, v: g.prox(v, step))(self.g, v)

    def support(self, u: Array) -> Array:
        return jax.vmap(lambda g, v: g.support(v))(self.g, u)

    def curvature(self, u: Array, v: Array) -> Array:
        return jax.vmap(lambda g, u, v: g.curvature(u, v))(self.g, u, v)


class Step(NamedTuple):
    """p = prox_{αg}(u − α∇q(u)), where it can move, and v = (u − p)/α − ∇q(u) ∈ ∂g(p).

    left: ‖u − p‖/α, in the largest entry.
    """

    p: Array
    support: Array
    v: Array
    slope: Array
    left: Array


class State(NamedTuple):
    """u: where the next step starts.   steady, patience: as for `Newton`."""

    u: Array
    momentum: momentum.Momentum
    support: Array
    steady: Array
    patience: Array
    left: Array
    steps: Array


def minimise(model: Gathered, u: Array, target: Array) -> tuple[Array, Array]:
    """The minimiser from u, to |u − prox_{αg}(u − α∇q(u))|/α ≤ target, and 1/α ≥ ‖H‖.

    Accelerated forward-backward steps find the coordinates S that can move and their signs. Where
    they leave S as it is, Newton's step on S is tried,

        (H_SS + C_SS) s = −(∇q(p) + v)_S,   v ∈ ∂g(p),   C the curvature of g at p:

    the end of the curve prox_{σg}(p + σv + t (I + σC) s), t ∈ [0, 1], which leaves p with velocity
    s and stays where g is smooth. It is taken if it halves the residual or lowers the objective.
    """
    bound = _largest_eigenvalue(model.H)
    alpha = 1 / bound

    def forward_backward(u):
        slope = model.slope(u)
        p = model.prox(u - alpha * slope, alpha)
        towards = bound * (u - p)
        return Step(p, model.support(p), towards - slope, slope, tree.largest(towards))

    def newton(step):
        p, on, v, *_ = step
        slope = model.slope(p)
        s = _on_support(model, p, on, -(slope + v))
        steep = tree.largest(v)
        sigma = jnp.where(steep > 0, tree.largest(p + s) / _positive(steep), alpha)
        curve = model.prox(p + sigma * v + s + sigma * model.curvature(p, s), sigma)
        after = forward_backward(curve)
        here, there = model.value(p, slope), model.value(curve, after.slope)
        lower = there < here - 1e2 * tree.eps(p) * jnp.abs(here)
        return curve, lower | (after.left <= 0.5 * step.left)

    def going(state):
        return (state.left > target) & (state.steps < MOST_STEPS)

    def body(state):
        step = forward_backward(state.u)
        steady = jnp.where(jnp.all(step.support == state.support), state.steady + 1, 0)
        due = (steady >= state.patience) & (step.left > target)
        curve, better = lax.cond(tree.any_lane(due), newton, lambda step: (step.p, due), step)
        better = better & due
        onward = momentum.extrapolate(state.u, step.p, state.momentum)
        u, moved = tree.where(better, (curve, momentum.start(curve)), onward)
        rejected = jnp.minimum(2 * state.patience, MOST_PATIENCE)
        patience = jnp.where(better, PATIENCE, jnp.where(due, rejected, state.patience))
        steady = jnp.where(better, PATIENCE - 1, jnp.where(due, 0, steady))
        return State(u, moved, step.support, steady, patience, step.left, state.steps + 1)

    rounding = 10 * tree.eps(u)
    target = jnp.maximum(target, rounding * (bound * tree.largest(u) + tree.largest(model.c)))
    zero = jnp.zeros((), jnp.int32)
    infinity = jnp.asarray(jnp.inf, u.dtype)
    start = State(u, momentum.start(u), model.support(u), zero, zero + PATIENCE, infinity, zero)
    return tree.while_loop(going, body, start).momentum.image, bound


def _on_support(model: Gathered, p: Array, on: Array, right: Array) -> Array:
    """s with (H_SS + C_SS) s_S = right_S and zeros off S; NaN where that is not definite."""
    flat, eye = on.ravel(), jnp.eye(p.size, dtype=p.dtype)
    w, b = len(p), p.size // len(p)

    def in_each_block(e):
        return model.curvature(p, jnp.broadcast_to(e, (w, b)).reshape(p.shape)).reshape(w, b)

    blocks = jax.vmap(in_each_block)(jnp.eye(b, dtype=p.dtype))  # (column, block, row)
    C = jnp.einsum("kwi,wv->wivk", blocks, jnp.eye(w, dtype=p.dtype)).reshape(p.size, p.size)
    on_S = jnp.where(flat[:, None] & flat, model.H + C, eye)
    root = lax.linalg.cholesky(on_S, symmetrize_input=False)
    return cho_solve((root, True), jnp.where(flat, right.ravel(), 0)).reshape(p.shape)


def _largest_eigenvalue(H: Array) -> Array:
    """Of H ⪰ 0, by powers of it, and a little more; 1 if it is zero."""

    def multiply(_, u):
        v = H @ u
        return v / _positive(tree.largest(v))

    start = jnp.sin(1 + jnp.arange(len(H), dtype=H.dtype))
    u = lax.fori_loop(0, POWERS, multiply, start)
    return _positive(SLACK * tree.largest(H @ u) / _positive(tree.largest(u)))


def _positive(a: Array) -> Array:
    return jnp.where(a > 0, a, 1)
