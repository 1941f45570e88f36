"""Learning rates per group by Newton's method on a summary of the loss (arXiv 2312.03885)."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.optimizers.cubic import cubic_step
from jaxns.optimizers.partition import partition
from jaxns.optimizers.summaries import Summary, summaries
from jaxns.tree import Tree


class Mean(NamedTuple):
    """Of n summaries, uniformly."""

    value: Summary
    n: Array

    def add(self, sample: Summary) -> "Mean":
        n = self.n + 1
        step = jax.tree.map(lambda m, x: m + (x - m) / n, self.value, sample)
        return Mean(step, n)


class Rates(NamedTuple):
    """What is learned from summaries.

    eta: η, averaged and without negatives.   r: ‖Dη‖ of the last step.   solved: whether the last
    model had a step.   use, up: the mean that is used, and the one that will be.
    taken: summaries so far.   known: those of them with a step.
    """

    eta: Array
    r: Array
    solved: Array
    use: Mean
    up: Mean
    taken: Array
    known: Array


class SummaryState(NamedTuple):
    """steps: so far.   updater: its state.   rates: what is learned."""

    steps: Array
    updater: Any
    rates: Rates


def newton_summary(
    updater: Any = None,
    groups: str | int | Tree = "tensors",
    damping: float | Array = 0.1,
    lam: float | Array = 1.0,
    period: int = 10,
    average: int = 1,
    warmup: int = 0,
    momentum: float | Array = 0.0,
    clip_negative: bool = True,
    on_failure: str = "keep",
    batch: int | None = None,
) -> Any:
    r"""A transformation of optax: what `updater` proposes, times a learned rate per group.

        θ ← θ − λ₁ Diag(u) I η,   η = (H̄ + λ/2 ‖Dη‖ D²)⁻¹ ḡ,

    where −u is the updater's proposal and H̄, ḡ, D are the `summaries` of the loss along u. So
    neither u nor the loss needs a scale: the rates are Newton's, and do not change when a tensor is
    expressed in other units (with u the gradient, or averages of it).

    Its `update` needs `params` and, as that of `optax.lbfgs`, `value_fn`: the loss of params, on a
    batch of its own, which may change at every step and is looked at at every `period`-th.

    updater: of optax, on unscaled gradients; by default `optax.sgd(1.0, momentum=0.9)`.
    groups: as of `partition`.   damping: λ₁, in (0, 1].   lam: λ of `cubic_step`.
    period: steps from one summary to the next; η is used again in between, along the new u.
    average: the model is a mean of the last summaries, between `average` and twice as many: at
        every `average`-th the mean in use is replaced by the one begun at the replacement before.
        Of the third order, absolute values are averaged.
    warmup: summaries that are made before anything moves.
    momentum: m in η ← m η_old + (1 − m) η; the first η is taken whole.
    clip_negative: whether negative rates become 0, before they are averaged.
    on_failure: what is done until the next summary where a model has no step: "keep" the last η,
        or "skip", not to move.
    batch: as of `summaries`.
    Rates that plateau are left to `optax.contrib.reduce_on_plateau`.
    """
    import optax

    for name, value, least in (
        ("period", period, 1),
        ("average", average, 1),
        ("warmup", warmup, 0),
    ):
        if validate.integer(name, value) < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    validate.positive("damping", validate.within("damping", damping, 0, 1))
    validate.between("momentum", momentum, 0, 1)
    validate.nonnegative("lam", lam)
    validate.choice("on_failure", on_failure, ("keep", "skip"))
    updater = optax.sgd(1.0, momentum=0.9) if updater is None else updater
    updater = optax.with_extra_args_support(updater)

    def init(params: Tree) -> SummaryState:
        S, kind = partition(params, groups).S, jnp.result_type(float)
        eta, none = jnp.zeros(S, kind), jnp.zeros((), int)
        mean = Mean(Summary(jnp.zeros((S, S), kind), eta, eta), none)
        rates = Rates(eta, jnp.zeros((), kind), jnp.asarray(False), mean, mean, none, none)
        return SummaryState(none, updater.init(params), rates)

    def learn(rates: Rates, sample: Summary) -> Rates:
        sample = Summary(sample.H, sample.g, jnp.abs(sample.d3))
        use, up = rates.use.add(sample), rates.up.add(sample)
        taken = rates.taken + 1
        swap = taken % average == 0
        use = tree.where(swap, up, use)
        up = tree.where(swap, tree.zeros_like(up), up)
        eta, r, solved = cubic_step(use.value.H, use.value.g, use.value.d3, lam)
        eta = jnp.maximum(eta, 0) if clip_negative else eta
        m = jnp.where(rates.known > 0, momentum, 0)
        eta = jnp.where(solved, m * rates.eta + (1 - m) * eta, rates.eta)
        return Rates(eta, r, solved, use, up, taken, rates.known + solved)

    def update(
        updates: Tree,
        state: SummaryState,
        params: Tree | None = None,
        *,
        value_fn: Callable[[Tree], Array] | None = None,
        **others: Any,
    ) -> tuple[Tree, SummaryState]:
        if params is None or value_fn is None:
            raise ValueError(
                "newton_summary: update needs params and value_fn=, the loss of params"
            )
        proposal, memory = updater.update(
            updates, state.updater, params, value_fn=value_fn, **others
        )
        I = partition(params, groups)

        def at_point(rates: Rates) -> Rates:
            sample = summaries(value_fn, params, tree.scale(-1, proposal), I, batch)
            return learn(
                rates, jax.tree.map(lambda s, e: s.astype(e.dtype), sample, rates.use.value)
            )

        rates = lax.cond(state.steps % period == 0, at_point, lambda rates: rates, state.rates)
        moving = (rates.taken > warmup) & (rates.solved | (on_failure == "keep"))
        scale = I.spread(jnp.where(moving, damping * rates.eta, 0), params)
        step = jax.tree.map(jnp.multiply, scale, proposal)
        return step, SummaryState(state.steps + 1, memory, rates)

    return optax.GradientTransformationExtraArgs(init, cast(Any, update))
