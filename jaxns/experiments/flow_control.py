"""A control that pays for ∫ |u| dt, by descent along a conservative gradient (arXiv 2201.03819)."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from pydantic import Field

import jaxns
from jaxns import flows, nonsmooth
from jaxns.experiments.config import Count, Positive, Section
from jaxns.functions import L1, Smooth

T = 2.0
PLACE = 0.5  # where the mass is wanted; it starts at −1, at rest


class Control(Section):
    """A mass against a one-sided spring: X″ = u − spring · relu(X), u constant on each of `steps`.

    L(u) = ∫ (X − ½)²/2 + ridge u²/2 + price |u| dt + |(X, X′)(T) − (½, 0)|²/2.
    iterations: k = 1, 2, … of the descent, by γ_k = rate/(1 + k/100)^power.
    """

    steps: Count = 40
    spring: Positive = 4.0
    price: Positive = 0.2
    ridge: Positive = 0.1
    iterations: Count = 5000
    rate: Positive = 0.3
    power: Annotated[float, Field(gt=0, le=1)] = 0.9

    def gamma(self, k):
        return self.rate / (1 + k / 100) ** self.power


class Descent(NamedTuple):
    """costs: L(u_k).   residuals: ‖u_k − prox(u_k − ∇S(u_k))‖ in L², S being L without |u|.

    least: L of what the proximal gradient makes of the last u_k, which is `u`.
    """

    costs: np.ndarray
    residuals: np.ndarray
    least: float
    u: np.ndarray


def descend(settings: Control) -> Descent:
    h = T / settings.steps
    ts = h * jnp.arange(settings.steps + 1.0)
    start, wanted = jnp.array([-1.0, 0.0]), jnp.array([PLACE, 0.0])

    def field(x: Array, u: Array, t: Array) -> Array:
        return jnp.stack([x[1], now(u, t) - settings.spring * nonsmooth.relu(x[0])])

    def now(u: Array, t: Array) -> Array:
        return u[jnp.rint(t / h).astype(int)]

    def final(x: Array) -> Array:
        return jnp.sum((x - wanted) ** 2) / 2

    def L(u: Array, price: float = settings.price) -> Array:
        def running(x: Array, u: Array, t: Array) -> Array:
            pay = price * nonsmooth.absolute(now(u, t))
            return (x[0] - PLACE) ** 2 / 2 + settings.ridge * now(u, t) ** 2 / 2 + pay

        return flows.cost(field, running, final, start, u, ts, "euler")

    def S(u: Array) -> Array:
        return L(u, price=0.0)

    def residual(u: Array) -> Array:
        moved = nonsmooth.soft_threshold(u - jax.grad(S)(u) / h, settings.price)
        return jnp.sqrt(h) * jnp.linalg.norm(u - moved)

    def step(u: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
        value, v = jax.value_and_grad(L)(u)
        return u - settings.gamma(k) * v / h, (value, residual(u))

    @jax.jit
    def whole():
        k = jnp.arange(1.0, settings.iterations + 1)
        u, (costs, residuals) = lax.scan(step, jnp.ones(settings.steps), k)
        problem = jaxns.Composite(Smooth(S), L1(h * settings.price))
        u = jaxns.solve(problem, jaxns.ForwardBackward(), u).x
        return costs, residuals, L(u), u

    costs, residuals, least, u = map(np.asarray, whole())
    return Descent(costs, residuals, float(least), u)
