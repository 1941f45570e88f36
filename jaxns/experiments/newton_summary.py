"""Learning rates per tensor from a summary of the loss (arXiv 2312.03885), on small nets.

A deep tanh network on scikit-learn's digits, which take the place of the paper's MNIST, trained by
momentum gradients with the rates of `jaxns.optimizers.newton_summary`, and by Adam with each of a
few rates. On the way, the step of the whole model and that of its diagonal are compared by what
they take from the loss along the same gradient.
"""

import dataclasses
import itertools
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from pydantic import Field
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from jaxns.experiments import curves
from jaxns.experiments.config import Base, Count, Fraction, Positive
from jaxns.experiments.curves import Curve, Findings, Panel
from jaxns.experiments.reporting import Table, below, between, number
from jaxns.experiments.session import Session
from jaxns.optimizers import cubic_step, newton_summary, partition, summaries
from jaxns.tree import Tree

CLASSES = 10


class Settings(Base):
    """hidden: widths of the tanh layers.   batch: samples per step; summary_batch: per summary.

    damping, lam, period, average, warmup: as of `newton_summary`.
    rates: Adam's.   seeds: repetitions, each its weights and its order of the samples.
    compared: points of a run, equally spaced, at which the two steps are compared.
    """

    hidden: Annotated[tuple[Count, ...], Field(min_length=2, max_length=5)] = (32, 32, 32, 32, 32)
    train_fraction: Fraction = 0.8
    epochs: Count = 60
    batch: Count = 100
    summary_batch: Count = 500
    damping: Fraction = 0.1
    lam: Positive = 1.0
    period: Count = 10
    average: Count = 5
    warmup: Annotated[int, Field(ge=0)] = 3
    rates: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=5)] = (1e-4, 1e-3, 1e-2)
    seeds: Count = 3
    compared: Count = 20


@dataclasses.dataclass(frozen=True)
class Run:
    """losses: (optimisers, epochs + 1), on all training samples.   accuracy: held out, at the end.

    eta: (epochs, S).   solved: the share of the epochs that end with a model that has a step.
    decreases: (compared, 2): of the loss, relative, by the step of the whole H̄ and of its diagonal.
    coupling: (S, S), |H̄_rs| / √(H̄_rr H̄_ss), the median over the points compared.
    """

    losses: np.ndarray
    accuracy: np.ndarray
    eta: np.ndarray
    solved: float
    decreases: np.ndarray
    coupling: np.ndarray


def forward(layers: Tree, X: Array) -> Array:
    *hidden, last = layers
    for layer in hidden:
        X = jnp.tanh(X @ layer["w"] + layer["b"])
    return X @ last["w"] + last["b"]


def loss(layers: Tree, X: Array, y: Array) -> Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(forward(layers, X), y))


class Instance:
    def __init__(self, settings: Settings, seed: int) -> None:
        X, y = load_digits(return_X_y=True)
        X, X_out, y, y_out = train_test_split(
            X, y, train_size=settings.train_fraction, random_state=seed, stratify=y
        )
        scaler = StandardScaler().fit(X)
        self.X, self.X_out = (jnp.asarray(scaler.transform(a)) for a in (X, X_out))
        self.y, self.y_out = jnp.asarray(y), jnp.asarray(y_out)
        self.settings = settings
        self.random = np.random.default_rng(seed)
        sizes = (self.X.shape[1], *settings.hidden, CLASSES)
        self.start = [self.layer(m, n) for m, n in itertools.pairwise(sizes)]
        steps = len(y) // settings.batch
        self.order, self.apart = (
            jnp.asarray([self.draw(steps, size) for _ in range(settings.epochs)])
            for size in (settings.batch, settings.summary_batch)
        )

    def layer(self, m: int, n: int) -> dict[str, Array]:
        return {"w": jnp.asarray(self.random.normal(size=(m, n)) / m**0.5), "b": jnp.zeros(n)}

    def draw(self, steps: int, size: int) -> np.ndarray:
        """Indices of so many batches: an epoch of them, or as many as are needed."""
        count, n = steps * size, len(self.y)
        indices = [self.random.permutation(n) for _ in range(-(-count // n))]
        return np.concatenate(indices)[:count].reshape(steps, size)

    def train(self, optimizer, start: Tree) -> tuple[Tree, Tree, Array]:
        """The layers and the optimiser's state after each epoch; the accuracy at the end."""

        def step(carry, indices):
            layers, state = carry
            i, j = indices
            on_another_batch = partial(loss, X=self.X[j], y=self.y[j])
            gradient = jax.grad(loss)(layers, self.X[i], self.y[i])
            updates, state = optimizer.update(gradient, state, layers, value_fn=on_another_batch)
            return (optax.apply_updates(layers, updates), state), None

        def epoch(carry, indices):
            carry, _ = lax.scan(step, carry, indices)
            return carry, carry

        begin = start, optimizer.init(start)
        (layers, _), every = lax.scan(epoch, begin, (self.order, self.apart))
        right = jnp.argmax(forward(layers, self.X_out), axis=1) == self.y_out
        return *every, jnp.mean(right)

    def losses(self, start: Tree, every: Tree) -> Array:
        of = partial(loss, X=self.X, y=self.y)
        return jnp.concatenate([of(start)[None], lax.map(of, every)])

    def compare(self, layers: Tree) -> tuple[Array, Array]:
        """Undamped, along the gradient, everything on all training samples."""
        of, I = partial(loss, X=self.X, y=self.y), partition(layers)
        before, u = jax.value_and_grad(of)(layers)
        H, g, d3 = summaries(of, layers, u, I)
        steps = [cubic_step(M, g, d3, self.settings.lam).eta for M in (H, jnp.diag(jnp.diag(H)))]
        after = [
            of(jax.tree.map(lambda p, eta, ui: p - eta * ui, layers, I.spread(eta, layers), u))
            for eta in steps
        ]
        scale = jnp.sqrt(jnp.abs(jnp.diag(H)))
        return 1 - jnp.stack(after) / before, jnp.abs(H) / jnp.outer(scale, scale)


def measure(settings: Settings, seed: int) -> Run:
    it = Instance(settings, seed)
    summary = newton_summary(
        optax.sgd(1.0, momentum=0.9),
        damping=settings.damping,
        lam=settings.lam,
        period=settings.period,
        average=settings.average,
        warmup=settings.warmup,
    )

    @jax.jit
    def ours(start):
        every, states, accuracy = it.train(summary, start)
        points = np.linspace(0, settings.epochs - 1, settings.compared).astype(int)
        compared = lax.map(it.compare, jax.tree.map(lambda p: p[points], every))
        return it.losses(start, every), accuracy, states.rates, *compared

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def adam(start, rate):
        every, _, accuracy = it.train(optax.with_extra_args_support(optax.adam(rate)), start)
        return it.losses(start, every), accuracy

    losses, accuracy, rates, decreases, coupling = ours(it.start)
    others, accuracies = adam(it.start, jnp.asarray(settings.rates))
    return Run(
        np.stack([losses, *others]),
        np.array([accuracy, *accuracies]),
        np.asarray(rates.eta),
        float(np.mean(rates.solved)),
        np.asarray(decreases),
        np.median(coupling, axis=0),
    )


def run(settings: Settings, session: Session) -> Findings:
    units = {f"seed {s}": partial(measure, settings, s) for s in range(settings.seeds)}
    runs = session.each("runs", units)
    losses, accuracy, decreases = (
        np.stack([getattr(r, name) for r in runs]) for name in ("losses", "accuracy", "decreases")
    )
    labels = ["newton_summary", *(f"Adam, rate {rate:g}" for rate in settings.rates)]
    eta = np.stack([r.eta for r in runs])  # (seeds, epochs, tensors)
    typical = np.median(eta[:, settings.epochs // 2 :], axis=1)  # (seeds, tensors)
    typical = np.where(typical > 0, typical, np.nan)
    spread = np.nanmax(typical, axis=1) / np.nanmin(typical, axis=1)
    full, diagonal = decreases[..., 0], decreases[..., 1]
    coupling = np.median([r.coupling for r in runs], axis=0)
    outside = coupling[~np.eye(len(coupling), dtype=bool)]
    checks = (
        below("loss at the end over that at the start, no rate tuned", losses[:, 0, -1]
              / losses[:, 0, 0], 1),
        between("learned rates, second half: largest over smallest of the tensors", spread, 100,
                np.inf),
        between("share of the loss that a step takes: full H̄ minus its diagonal, median",
                np.median(full - diagonal), 0, np.inf),
        between("points where the full H̄ takes more", np.mean(full > diagonal), 0.5, 1),
    )  # fmt: skip
    rows = tuple(
        (label, number(float(np.median(losses[:, i, -1]))), f"{np.median(accuracy[:, i]):.3f}")
        for i, label in enumerate(labels)
    )
    table = Table(
        f"Digits, {len(settings.hidden)} hidden tanh layers, {settings.epochs} epochs, medians of "
        f"{settings.seeds} runs",
        ("optimiser", "training loss", "held-out accuracy"),
        rows,
        (
            f"rates: {number(np.nanmin(typical), 2)} to {number(np.nanmax(typical), 2)}, medians "
            "per tensor over the second half, without those that are 0",
            f"|H̄_rs|/√(H̄_rr H̄_ss) off the diagonal: median {number(np.median(outside), 2)}, "
            f"largest {number(outside.max(), 2)}",
            f"models with a step: {100 * np.mean([r.solved for r in runs]):.0f} %",
        ),
    )
    title = "Newton's rates per tensor train a deep tanh network without being tuned"
    return Findings(title, table, panels(settings, labels, losses, eta, decreases), checks, 2)


def panels(
    settings: Settings, labels: list[str], losses: np.ndarray, eta: np.ndarray, decreases
) -> tuple[Panel, ...]:
    epochs = np.arange(1, settings.epochs + 1)
    layers = range(1, len(settings.hidden) + 2)

    def learned(name: str, one: np.ndarray) -> Panel:
        lines = tuple(
            Curve(f"layer {layer}", np.where(one[:, i] > 0, one[:, i], np.nan), epochs)
            for i, layer in enumerate(layers)
        )
        return Panel(f"Learned rates of the {name}, one run", "epoch", "η (gaps: 0)", lines)

    training = tuple(Curve(label, losses[:, i]) for i, label in enumerate(labels))
    at = np.linspace(1, settings.epochs, settings.compared).astype(int)
    taken = tuple(
        Curve(label, decreases[..., i], at) for i, label in enumerate(("full H̄", "its diagonal"))
    )
    return (
        Panel("Training", "epoch", "loss on all training samples", training),
        Panel("One undamped step along the gradient", "epoch", "share of the loss that it takes",
              taken, yscale="linear"),
        learned("weights", eta[0, :, 1::2]),
        learned("biases", eta[0, :, 0::2]),
    )  # fmt: skip


EXPERIMENT = curves.experiment(Settings, run)
