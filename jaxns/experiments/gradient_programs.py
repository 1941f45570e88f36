"""Programs whose gradients are measured: those of a reference table, and random ones.

The ratios beside the programs were measured on JAX 0.10.2 on a CPU, in notes on arXiv 2206.01730:
value and gradient over value, in equations, XLA's flops and its bytes, None where there is none.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def pairs(x):
    return jnp.sum(jax.nn.relu(x[:-1] * x[1:]) + x[:-1] * x[1:])


def product(x):
    return lax.scan(lambda c, a: (c * a, None), jnp.ones((), x.dtype), x)[0]


def network(params, x):
    for W, b in params[:-1]:
        x = jax.nn.relu(x @ W + b)
    W, b = params[-1]
    return -jnp.mean(jax.nn.log_softmax(x @ W + b)[:, 0])


def dense(*sizes):
    return [(jnp.ones((a, b)), jnp.ones(b)) for a, b in itertools.pairwise(sizes)]


M = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


def norm(x):
    return jnp.abs(M @ x).sum()


def layers(x):
    return jax.nn.relu(M @ jax.nn.relu(M @ x)).sum()


WIDE, DEEP = (784, 256, 256, 256, 10), (8,) * 21
REFERENCES: dict[str, tuple[Callable, Any, dict[str, Any], tuple[float | None, ...]]] = {
    "network 784-256³-10, parameters": (network, (WIDE, 128), {}, (2.40, 2.40, 2.6)),
    "… parameters and input": (network, (WIDE, 128), {"argnums": (0, 1)}, (3.00, None, None)),
    "… input": (network, (WIDE, 128), {"argnums": 1}, (2.00, None, None)),
    "network of 20 layers of 8, parameters": (network, (DEEP, 32), {}, (2.93, 2.95, 2.96)),
    "‖Mx‖₁, 64 × 64": (norm, 64, {}, (2.02, 2.02, 1.98)),
    "Σ relu(xᵢxᵢ₊₁) + xᵢxᵢ₊₁, n = 2": (pairs, 2, {}, (4.00, 4.67, 3.7)),
    "… n = 8": (pairs, 8, {}, (2.94, 3.19, None)),
    "… n = 32": (pairs, 32, {}, (2.83, 3.04, None)),
    "… n = 128": (pairs, 128, {}, (2.81, 3.01, None)),
    "… n = 512": (pairs, 512, {}, (2.80, 3.00, 1.74)),
    "Πxᵢ by jnp.prod, n = 512": (jnp.prod, 512, {}, (5.00, 15.96, 20.9)),
    "Πxᵢ by a scan, n = 512": (product, 512, {}, (3.00, 3.00, 59)),
    "relu(M relu(Mx)), backwards": (layers, 64, {}, (2.00, None, None)),
}


def arguments(shape: Any) -> tuple[Any, ...]:
    if isinstance(shape, int):
        return (jnp.ones(shape),)
    sizes, batch = shape
    return dense(*sizes), jnp.ones((batch, sizes[0]))


# Random programs of scalar operations

NODES: tuple[Callable, ...] = (
    lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: 2.0 * a + 1.0,
    lambda a, b: jax.nn.relu(a), lambda a, b: jnp.abs(a), lambda a, b: jnp.exp(a),
    lambda a, b: jnp.log(a), lambda a, b: jnp.tanh(a), lambda a, b: lax.sqrt(a),
)  # fmt: skip


def scalars(random: np.random.Generator, n: int) -> Callable:
    """2n nodes on n variables, each of earlier ones; the sum of those that no other uses."""
    plan = [(random.integers(len(NODES)), *random.integers(0, n + k, 2)) for k in range(2 * n)]

    def program(x):
        nodes, used = list(x), set()
        for which, i, j in plan:
            nodes.append(NODES[which](nodes[i], nodes[j]))
            used |= {i, j}
        ends = [node for i, node in enumerate(nodes) if i not in used]
        return sum(ends[1:], start=ends[0])

    return program
