"""Mode × direction × transformation: `python tests/transformation_table.py` prints which are had.

`test_transformations.py` holds every cell: the number is right, or the refusal names the remedy.
docs/transformations.md shows this table between its `transformations` markers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

import jaxns
from jaxns.functions import L1

# A lasso, min ½ zᵀHz − cᵀz + eᵗ ‖z‖₁, of which the proximal gradient map contracts by 0.19.
H = jnp.eye(3) + 0.1 * jnp.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
c, STEP, T = jnp.array([3.0, 0.5, -4.0]), 0.9, 0.3
SUPPORT = jnp.array([0, 2])
LAST, TERMS = 17, 3


def F(z, t):
    return L1(jnp.exp(t)).prox(z - STEP * (H @ z - c), STEP)


def exact(t):
    """The solution, from its support and signs."""
    block = H[jnp.ix_(SUPPORT, SUPPORT)]
    right = c[SUPPORT] - jnp.exp(t) * jnp.sign(c[SUPPORT])
    return jnp.zeros(3).at[SUPPORT].set(jnp.linalg.solve(block, right))


@jax.custom_jvp
def truncated(t):
    """The solution, with derivative Σ_{i<TERMS} Aⁱ B; the second derivative is that of this."""
    return exact(t)


@truncated.defjvp
def _(primals, tangents):
    z = truncated(*primals)
    A, B = jax.jacfwd(F)(z, *primals), jax.jacfwd(F, 1)(z, *primals)
    dz = sum((jnp.linalg.matrix_power(A, i) @ B for i in range(1, TERMS)), start=B)
    return z, dz * tangents[0]


MODES: dict[str, Callable[[str], Any]] = {
    "Implicit()": jaxns.Implicit,
    f"OneStep({TERMS})": lambda direction: jaxns.OneStep(TERMS, direction),
    "Piggyback()": jaxns.Piggyback,
    f"Piggyback(last={LAST})": lambda direction: jaxns.Piggyback(direction, last=LAST),
}
DIRECTIONS = ("reverse", "both")


def solver(mode: str, direction: str) -> Callable[[jax.Array], jax.Array]:
    how, stop = MODES[mode](direction), jaxns.Stop(tol=1e-15)
    return lambda t: jaxns.fixed_point(F, jnp.zeros(3), t, mode=how, stop=stop).x


def reference(mode: str) -> Callable[[jax.Array], jax.Array]:
    return truncated if mode.startswith("OneStep") else exact


def _cubes(x):
    return lambda t: jnp.sum(x(t) ** 3)


def _pair(t):
    return jnp.stack([t, t + 0.1])


def _jvp(f):
    return lambda t: jax.jvp(f, (t,), (2.0,))[1]


def _linearized(f):
    return lambda t: jax.linearize(f, t)[1](2.0)


def _scanned(f):
    return lambda t: jax.lax.scan(lambda s, _: (s + f(t + 1e-3 * s), None), 0 * t, length=2)[0]


def _spread(f):
    mesh, along = Mesh(jax.devices()[:1], "i"), PartitionSpec("i")
    return jax.jit(jax.shard_map(jax.vmap(f), mesh=mesh, in_specs=along, out_specs=along))


# What is done to x, a function of t that solves; the same is done to the closed form.
FIRST = {
    "grad": lambda x: jax.grad(_cubes(x)),
    "jit(value_and_grad)": lambda x: jax.jit(jax.value_and_grad(_cubes(x))),
    "grad(jit)": lambda x: jax.grad(jax.jit(_cubes(x))),
    "vmap(grad)": lambda x: lambda t: jax.vmap(jax.grad(_cubes(x)))(_pair(t)),
    "grad(vmap)": lambda x: lambda t: jax.grad(lambda u: jax.vmap(_cubes(x))(u).sum())(_pair(t)),
    "jacrev": jax.jacrev,
    "grad(checkpoint)": lambda x: jax.grad(jax.checkpoint(_cubes(x))),
    "grad(scan)": lambda x: jax.grad(_scanned(_cubes(x))),
    "grad(shard_map)": lambda x: (
        lambda t: jax.grad(lambda u: _spread(_cubes(x))(u).sum())(_pair(t))
    ),
    "shard_map(grad)": lambda x: lambda t: _spread(jax.grad(_cubes(x)))(_pair(t)),
}
FORWARD = {
    "jvp": lambda x: _jvp(_cubes(x)),
    "jacfwd": jax.jacfwd,
    "jacfwd(jit)": lambda x: jax.jacfwd(jax.jit(x)),
    "vmap(jvp)": lambda x: lambda t: jax.vmap(_jvp(_cubes(x)))(_pair(t)),
    "linearize": lambda x: _linearized(x),
    "jacfwd(checkpoint)": lambda x: jax.jacfwd(jax.checkpoint(_cubes(x))),
    "jacfwd(scan)": lambda x: jax.jacfwd(_scanned(_cubes(x))),
    "jvp(shard_map)": lambda x: (
        lambda t: jax.jvp(_spread(_cubes(x)), (_pair(t),), (jnp.ones(2),))[1]
    ),
}
FORWARD_OVER_REVERSE = {
    "hessian": lambda x: jax.hessian(_cubes(x)),
    "jacfwd(grad)": lambda x: jax.jacfwd(jax.grad(_cubes(x))),
    "vmap(hessian)": lambda x: lambda t: jax.vmap(jax.hessian(_cubes(x)))(_pair(t)),
    "shard_map(hessian)": lambda x: lambda t: _spread(jax.hessian(_cubes(x)))(_pair(t)),
}
REVERSE_OVER_REVERSE = {
    "grad(grad)": lambda x: jax.grad(jax.grad(_cubes(x))),
    "jacrev(jacrev)": lambda x: jax.jacrev(jax.jacrev(x)),
    "jit(grad(grad))": lambda x: jax.jit(jax.grad(jax.grad(_cubes(x)))),
}
OVER_FORWARD = {
    "jacfwd(jacfwd)": lambda x: jax.jacfwd(jax.jacfwd(x)),
    "jacrev(jacfwd)": lambda x: jax.jacrev(jax.jacfwd(x)),
}
SECOND = FORWARD_OVER_REVERSE | REVERSE_OVER_REVERSE | OVER_FORWARD
TRANSFORMATIONS = FIRST | FORWARD | SECOND


def refusal(mode: str, direction: str, transformation: str) -> str | None:
    """What the error message advises, where the combination cannot be had."""
    piggyback = mode.startswith("Piggyback")
    if direction == "reverse" and transformation in FORWARD | OVER_FORWARD:
        return "direction='both'"
    if piggyback and direction == "both" and transformation in SECOND:
        return "direction='reverse'"
    if piggyback and transformation in REVERSE_OVER_REVERSE:
        return "jax.hessian"
    return None


def table() -> str:
    columns = [(mode, direction) for mode in MODES for direction in DIRECTIONS]
    lines = [
        "| | " + " | ".join(f"`{mode}`<br>{direction}" for mode, direction in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in TRANSFORMATIONS:
        refusals = (refusal(*column, name) for column in columns)
        cells = ("✓" if remedy is None else f"`{remedy}`" for remedy in refusals)
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
