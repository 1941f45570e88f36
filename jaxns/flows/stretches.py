"""A scan whose reverse pass keeps few states and computes the others again."""

import math
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns.tree import Tree


def scan(
    step: Callable[[Tree, Any], tuple[Tree, Any]], x: Tree, times: Array, checkpoints: int | None
) -> tuple[Tree, Any]:
    """`lax.scan(step, x, (times[:-1], times[1:]))`, by stretches of stretches of … of steps.

    checkpoints: the most stretches, or steps, in a stretch. Of a stretch only its first state is
        kept until its reverse pass, which runs it again. With √n for n steps there are two levels;
        with any c there are d = ⌈log n / log c⌉, about c d states at a time, and d evaluations of
        every step.

    What the lengths leave over is filled with steps of length zero at the end, which are the
    identity and have its derivative.
    """
    n = len(times) - 1
    depth = 1 if checkpoints is None else next(d for d in count(1) if checkpoints**d >= n)
    length = next(m for m in count(1) if m**depth >= n)
    shape = (math.ceil(n / length ** (depth - 1)), *[length] * (depth - 1))
    times = jnp.concatenate([times, jnp.full(math.prod(shape) - n, times[-1])])
    spans = times[:-1].reshape(shape), times[1:].reshape(shape)
    run = partial(lax.scan, step)
    for _ in shape[1:]:
        run = partial(lax.scan, jax.checkpoint(run, prevent_cse=False))  # pyright: ignore
    x, kept = run(x, spans)
    return x, jax.tree.map(lambda k: k.reshape(-1, *k.shape[depth:])[:n], kept)
