"""INNAprop against AdamW (arXiv 2410.05871), in miniature: fast fitting or good generalisation.

A small network learns handwritten digits, a fifth of whose training labels are drawn at random. The
pair (α, β) decides how fast the training loss falls, and so how much of the wrong labels is learnt:
the paper's orderings on CIFAR10. They show once α Σγ is about 0.3: after hundreds of epochs.
"""

import dataclasses
from functools import partial
from itertools import pairwise
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from pydantic import Field
from sklearn.datasets import load_digits

from jaxns import optimizers
from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Fraction, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Check, Table
from jaxns.experiments.session import Session

ADAMW, FAST, ONE, SLOW = "AdamW", "(0.1, 0.9)", "(1, 1)", "(2, 2)"
PAIRS = {FAST: (0.1, 0.9), ONE: (1.0, 1.0), SLOW: (2.0, 2.0)}


class Settings(Base):
    """train: images to train on, the others are to test on.   noise: share of labels redrawn.

    hidden: widths of the hidden layers.   batch, epochs, rate, weight_decay: the same for all; the
    rate falls to 0 by half a cosine.   seeds: how many, of split, labels, weights and batches.
    """

    train: Count = 1400
    noise: Fraction = 0.2
    hidden: tuple[Count, ...] = (64, 32)
    batch: Count = 64
    epochs: Annotated[int, Field(ge=4)] = 400
    rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    seeds: Count = 9


@dataclasses.dataclass(frozen=True)
class Training:
    """losses: on the training set, wrong labels included; accuracies: on the clean test set.

    Both are (seeds, epochs).
    """

    losses: np.ndarray
    accuracies: np.ndarray


def run(settings: Settings, session: Session) -> Findings:
    steps = settings.epochs * (settings.train // settings.batch)
    rate, decay = optax.cosine_decay_schedule(settings.rate, steps), settings.weight_decay
    methods = {ADAMW: optax.adamw(rate, weight_decay=decay)} | {
        name: optimizers.innaprop(rate, alpha, beta, weight_decay=decay)
        for name, (alpha, beta) in PAIRS.items()
    }
    units = {name: partial(train, settings, method) for name, method in methods.items()}
    found = dict(zip(units, session.each("methods", units), strict=True))

    half = settings.epochs // 2 - 1
    loss = {name: float(np.median(t.losses[:, half])) for name, t in found.items()}
    last = {name: float(np.median(t.accuracies[:, -1])) for name, t in found.items()}
    middle = sorted((loss[ADAMW], loss[ONE]))
    gaps = middle[0] - loss[FAST], loss[SLOW] - middle[1]
    checks = (
        order("training loss at half of the epochs: (0.1, 0.9) < AdamW", loss[FAST], loss[ADAMW]),
        order("… AdamW < (2, 2)", loss[ADAMW], loss[SLOW]),
        order("… AdamW ≈ (1, 1): their gap < those to the others", middle[1] - middle[0],
              min(gaps)),
        order("test accuracy at the end: AdamW ≤ (2, 2)", last[ADAMW], last[SLOW], equal=True),
        order("… (0.1, 0.9) < AdamW", last[FAST], last[ADAMW]),
    )  # fmt: skip
    rows = tuple(
        (name, *(f"{np.median(a[:, k]):.3f}" for k in (half, -1) for a in (t.losses, t.accuracies)),
         f"{np.median(t.accuracies.max(axis=1)):.3f}")
        for name, t in found.items()
    )  # fmt: skip
    table = Table(
        f"Digits with {settings.noise:.0%} random labels, {settings.epochs} epochs, medians over "
        f"{settings.seeds} seed(s)",
        ("method", "loss at half", "accuracy at half", "last loss", "last accuracy",
         "best accuracy"),
        rows,
        ("loss: training, with wrong labels; accuracy: clean test; best: stopped in hindsight",),
    )  # fmt: skip
    epochs = np.arange(1, settings.epochs + 1)

    def panel(title: str, ylabel: str, which: str, ylim=None) -> Panel:
        lines = tuple(Curve(name, getattr(t, which), epochs) for name, t in found.items())
        return Panel(title, "epoch", ylabel, lines, yscale="linear", ylim=ylim)

    panels = (
        panel("Fitting, wrong labels included", "training loss (nats)", "losses"),
        panel(
            "Generalisation", "share of clean test images that are right", "accuracies", (0.7, 1)
        ),
    )
    title = "INNAprop: (0.1, 0.9) fits fast, wrong labels too; (2, 2) fits slowly and tests better"
    return Findings(title, table, panels, checks)


def order(claim: str, less: float, more: float, equal: bool = False) -> Check:
    sign, met = ("≤", less <= more) if equal else ("<", less < more)
    return Check(claim, f"{less:.3f} {sign} {more:.3f}", bool(met))


def train(settings: Settings, optimizer: optax.GradientTransformation) -> Training:
    jitted = jax.jit(partial(follow, settings, optimizer))
    both = [jitted(*data(settings, seed), seed) for seed in range(settings.seeds)]
    losses, accuracies = (np.asarray(a, float) for a in zip(*both, strict=True))
    return Training(losses, accuracies)


def data(settings: Settings, seed: int) -> tuple[Array, Array, Array, Array]:
    """Images and labels to train on, some of these drawn at random, then those to test on."""
    X, y = load_digits(return_X_y=True)
    random, n = np.random.default_rng(seed), settings.train
    shuffled = random.permutation(len(X))
    X, y = X[shuffled] / 16, y[shuffled]
    labels = np.where(random.random(n) < settings.noise, random.integers(0, 10, n), y[:n])
    return jnp.asarray(X[:n]), jnp.asarray(labels), jnp.asarray(X[n:]), jnp.asarray(y[n:])


def follow(settings: Settings, optimizer, X, labels, X_test, y_test, seed) -> tuple[Array, Array]:
    """Loss and accuracy after each epoch; an epoch leaves out what fills no batch."""
    n, size = settings.train, settings.batch
    widths = (X.shape[1], *settings.hidden, 10)
    shapes = tuple(pairwise(widths))
    start, shuffles = jax.random.split(jax.random.key(seed))
    shuffles = jax.random.split(shuffles, settings.epochs)
    params = [
        (jax.random.normal(key, shape, X.dtype) * (2 / shape[0]) ** 0.5,
         jnp.zeros(shape[1], X.dtype))
        for key, shape in zip(jax.random.split(start, len(shapes)), shapes, strict=True)
    ]  # fmt: skip

    def step(carry, batch):
        params, state = carry
        updates, state = optimizer.update(
            jax.grad(loss)(params, X[batch], labels[batch]), state, params
        )
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, key):
        batches = jax.random.permutation(key, n)[: n // size * size].reshape(-1, size)
        params, state = lax.scan(step, carry, batches)[0]
        right = jnp.argmax(logits(params, X_test), axis=1) == y_test
        return (params, state), (loss(params, X, labels), jnp.mean(right))

    return lax.scan(epoch, (params, optimizer.init(params)), shuffles)[1]


def logits(params, X) -> Array:
    *hidden, (W, b) = params
    for V, c in hidden:
        X = jax.nn.relu(X @ V + c)
    return X @ W + b


def loss(params, X, labels) -> Array:
    entropy = optax.softmax_cross_entropy_with_integer_labels
    return jnp.mean(entropy(logits(params, X), labels))


EXPERIMENT = curves.experiment(Settings, run)
