"""What ReLU'(0) does to training (arXiv 2106.12915, introduction and section 4).

Left: three copies of one network, trained on the same minibatches with ReLU'(0) = 1, 0 and 0. At 16
and 32 bits the first two part at the first preactivation that is exactly 0; at 64 bits they do not.

Right: test accuracy against s = ReLU'(0), where zeros are common. By the chain rule the cotangent
at a zero is s times the one that arrives. The code that the paper's curves come from (deel-ai/
relu-prime, relu.py) sets it to s itself, far more than arrives: `set_at_zero` does that too.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from pydantic import Field
from sklearn.datasets import load_digits

from jaxns import nonsmooth
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Check, Table, below, between, number
from jaxns.experiments.rounded_networks import (
    Arithmetic,
    count_zeros,
    cross_entropy,
    digits,
    initial,
    network,
    normalised,
)
from jaxns.experiments.session import Session

ELEMENTS = (0.0, 0.1, 0.2, 0.5, 1.0)
ROUNDED = Arithmetic("float16", fused=False)


class Settings(Base):
    """hidden, steps, batch: of the copies; their learning rate is 0.01 (1 + U/5), U uniform.

    depth, width, runs, descents, rate: of the networks trained for accuracy, in batches of 64.
    """

    hidden: tuple[Count, ...] = (256, 256, 256)
    steps: Count = 4000
    batch: Count = 128
    depth: Count = 5
    width: Count = 64
    runs: Count = 8
    descents: Count = 1000
    rate: Positive = 0.05
    seed: Annotated[int, Field(ge=0)] = 0


@jax.custom_vjp
def set_at_zero(x: Array, s: Array) -> Array:
    """max(x, 0), whose cotangent where x = 0 is s, whatever arrives there."""
    return jnp.maximum(x, 0)


def _backward(stored: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, s = stored
    kept = jnp.where(x < 0, 0, jnp.where(x == 0, s, cotangent)).astype(x.dtype)
    return kept, jnp.zeros_like(s)


set_at_zero.defvjp(lambda x, s: (set_at_zero(x, s), (x, s)), _backward)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to train: rule(x, s) is the activation."""

    label: str
    rule: Callable[[Array, Array], Array]
    adam: bool = False
    norm: bool = False

    def optimizer(self, rate: float) -> optax.GradientTransformation:
        """The paper's: SGD with momentum 0.9 and weight decay, or Adam."""
        if self.adam:
            return optax.adam(1e-3)
        return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9))


CHAIN = Arm("SGD, chain rule", nonsmooth.relu)
SET = Arm("SGD, cotangent set to s", set_at_zero)
NORM = Arm("SGD, layer norm, cotangent set to s", set_at_zero, norm=True)
ADAM = Arm("Adam, cotangent set to s", set_at_zero, adam=True)
ARMS = (CHAIN, SET, NORM, ADAM)


@dataclasses.dataclass(frozen=True)
class Copies:
    """After each step: the exact zeros that the copy with s = 0 met in it, and the L1 distances of
    the weights to it, from the copy with s = 1 and from the other one with s = 0."""

    zeros: np.ndarray
    apart: np.ndarray
    control: np.ndarray


def copies(settings: Settings, arithmetic: Arithmetic) -> Copies:
    images, labels = digits(80 * settings.batch, settings.seed)
    images, labels = arithmetic.cast(images), jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(settings.seed), 3)
    exact = jnp.promote_types(arithmetic.dtype, jnp.float32)  # of the weights; cast in each step
    params = Arithmetic(exact.name).cast(initial(keys[0], (784, *settings.hidden, 10)))
    rate = jnp.asarray(0.01 * (1 + jax.random.uniform(keys[1]) / 5), exact)

    def loss(params, s, x, y):
        relu = partial(nonsmooth.relu, at_zero=s)
        logits, z = network(arithmetic, arithmetic.cast(params), x, relu)
        return cross_entropy(logits, y), count_zeros(z)

    def distance(three, i, j):
        return sum(jnp.sum(jnp.abs(leaf[i] - leaf[j])) for leaf in jax.tree.leaves(three))

    @jax.jit
    def train(params, images, labels):
        def step(three, key):
            rows = jax.random.randint(key, (settings.batch,), 0, len(labels))

            def update(copy):
                s, params = copy
                slope, zeros = jax.grad(loss, has_aux=True)(params, s, images[rows], labels[rows])
                return jax.tree.map(lambda p, g: p - rate * g, params, slope), zeros

            three, zeros = lax.map(update, (jnp.asarray([1.0, 0.0, 0.0]), three))
            return three, (zeros[1], distance(three, 0, 1), distance(three, 2, 1))

        three = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
        return lax.scan(step, three, jax.random.split(keys[2], settings.steps))[1]

    return Copies(*map(np.asarray, train(params, images, labels)))


def accuracies(settings: Settings, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """(runs, s): test accuracy at the end, and exact zeros met on the way."""
    bunch: Any = load_digits()
    order = np.random.default_rng(settings.seed).permutation(len(bunch.target))
    X, labels = ROUNDED.cast(bunch.data[order] / 16), jnp.asarray(bunch.target[order])
    held_out = len(labels) // 5
    widths = (64, *(settings.width,) * settings.depth, 10)
    optimizer = arm.optimizer(settings.rate)

    def forward(params, s, x):
        norm = normalised if arm.norm else None
        return network(ROUNDED, ROUNDED.cast(params), x, lambda z: arm.rule(z, s), norm)

    @jax.jit
    def train(key, s, X, labels):
        start, minibatches = jax.random.split(key)

        def loss(params, rows):
            logits, z = forward(params, s, X[rows])
            return cross_entropy(logits, labels[rows]), count_zeros(z)

        def step(state, key):
            params, memory, zeros = state
            rows = jax.random.randint(key, (64,), held_out, len(labels))
            slope, met = jax.grad(loss, has_aux=True)(params, rows)
            update, memory = optimizer.update(slope, memory, params)
            return (optax.apply_updates(params, update), memory, zeros + met), None

        params = initial(start, widths)
        state = (params, optimizer.init(params), jnp.zeros((), int))
        steps = jax.random.split(minibatches, settings.descents)
        (params, _, zeros), _ = lax.scan(step, state, steps)
        found = jnp.argmax(forward(params, s, X[:held_out])[0], 1)
        return jnp.mean(found == labels[:held_out]), zeros

    keys = jax.random.split(jax.random.key(settings.seed), settings.runs)
    s = jnp.asarray(ELEMENTS, jnp.float32)
    found = [[train(key, element, X, labels) for element in s] for key in keys]
    accuracy, zeros = np.moveaxis(np.asarray(found, float), 2, 0)
    return accuracy, zeros


def run(settings: Settings, session: Session) -> Findings:
    bits = [Arithmetic(f"float{bits}") for bits in (16, 32, 64)]
    half, single, double = session.each(
        "copies", {each.label: partial(copies, settings, each) for each in bits}
    )
    trained = dict(zip(ARMS, session.each(
        "training", {arm.label: partial(accuracies, settings, arm) for arm in ARMS}
    ), strict=True))  # fmt: skip
    middle = {arm: np.median(accuracy, axis=0) for arm, (accuracy, _) in trained.items()}
    parting = [(first(each.zeros), first(each.apart)) for each in (half, single)]
    loss = {arm: middle[arm][0] - middle[arm] for arm in ARMS}
    checks = (
        below("s = 0 against s = 0: L1 distance",
              [each.control for each in (half, single, double)], 0),
        Check("16 and 32 bits: weights with s = 1 and 0 part at the first exact zero",
              ", ".join(f"zero at step {zero}, apart at step {apart}" for zero, apart in parting),
              bool(half.zeros.any()) and all(zero == apart for zero, apart in parting)),
        below("64 bits, as many steps: L1 distance, s = 1 against 0", double.apart, 0),
        below("SGD, cotangent set to s: rise of the median accuracy from one s to the next",
              np.diff(middle[SET]), 0.01),
        below("… median accuracy for s = 1 over that for s = 0",
              middle[SET][-1] / middle[SET][0], 0.5),
        below("layer norm: lost accuracy, s against 0", loss[NORM], 0.03),
        below("Adam: lost accuracy, s against 0, as a share of that of SGD",
              loss[ADAM].max() / loss[SET].max(), 0.25),
        between("chain rule: zeros met in a run", trained[CHAIN][1].mean(), 100, np.inf),
        below("chain rule: lost accuracy, s against 0", loss[CHAIN], 0.03),
    )  # fmt: skip
    rows = tuple(
        (arm.label, f"{zeros.mean():.0f}", *(f"{a:.3f}" for a in middle[arm]))
        for arm, (_, zeros) in trained.items()
    )
    table = Table(
        f"Test accuracy, median of {settings.runs} runs in {ROUNDED.label}",
        ("trained by", "zeros", *(f"s = {s:g}" for s in ELEMENTS)),
        rows,
        (f"32 bits, {settings.steps} steps: {int(single.zeros.sum())} exact zeros; "
         f"at the end the copies are {number(single.apart[-1], 3)} apart",),
    )  # fmt: skip
    after = np.arange(1, settings.steps + 1)
    panels = (
        Panel("Copies with ReLU'(0) = 1 and 0", "step", "L1 distance of their weights",
              (Curve("float32", single.apart, after), Curve("float64", double.apart, after),
               Curve("float32, 0 and 0", single.control, after)), yscale="linear"),
        Panel("Test accuracy in float16", "s = ReLU'(0)", "test accuracy",
              tuple(Curve(arm.label, trained[arm][0], np.array(ELEMENTS)) for arm in ARMS),
              yscale="linear", ylim=(0, 1.02)),
    )  # fmt: skip
    title = "ReLU'(0) changes what is trained, and spoils it where it replaces the cotangent"
    return Findings(title, table, panels, checks)


def first(measured: np.ndarray) -> int | None:
    """The step, counted from 1, at which something is not 0."""
    steps = np.flatnonzero(measured)
    return int(steps[0]) + 1 if len(steps) else None


EXPERIMENT = curves.experiment(Settings, run)
