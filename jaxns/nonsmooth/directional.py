"""One-sided directional derivatives."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxns import tree, validate
from jaxns.nonsmooth import along, germs, programs
from jaxns.tree import Tree


def directional_derivative(
    f: Callable[[Tree], Tree],
    x: Tree,
    direction: Tree,
    step: float | Array | None = None,
    *,
    method: Literal["exact", "nearby"] = "exact",
) -> Tree:
    """f′(x; d) = lim_{t→0⁺} (f(x + t d) − f(x))/t for a piecewise smooth program f.

    Unlike ∂f(x) d, it does not depend on how f is written and needs no element to be chosen; it is
    not linear in d where x is a kink, so p directions cost p times one (arXiv 2206.01730, on
    directional derivatives): take many by `jax.vmap(partial(directional_derivative, f, x))(U)`.

    method="exact" runs the program of f with one-sided rules: relu′(0; v) = max(v, 0), |·|′(0; v) =
    |v|, of several that tie the one that is largest at x + t d, of two branches of a `where` or
    `cond` that which x + t d takes. Loops, calls and custom rules are looked into (a custom rule
    holds one element, so a program with kinks is taken in its place), and `stop_gradient` is looked
    through: it is the function that is differentiated. It is right where f is continuous and ties
    are broken by the first two derivatives along d. Numbers tie if they are equal as computed:
    `kink_report` shows a tie that rounding has broken as a tiny margin. A loop that stops at a
    tolerance is differentiated as far as it ran. Where f jumps, it is the derivative behind the
    jump; NaN where f is or the program meets 0/0 or 0·∞. A primitive without a rule, and a custom
    rule in place of such a loop (a solve), raise NotImplementedError with their names.

    method="nearby" needs only forward-mode derivatives of f, of a solve with `direction="both"`
    say. Shortly after x, on the way along d, f is smooth, and its derivative there tends to the
    limit:

        f′(x; d) ≈ 2 ∂f(x + t/2 d) d − ∂f(x + t d) d,

    which is exact where f is affine on the piece that d enters, and otherwise up to O(t²). Other
    kinks must be farther away than t d.

    f: from a pytree of floating-point arrays to another.
    x, direction: pytrees of one structure.   Returns what f does, in structure and shapes.
    step: t of "nearby". By default t ‖d‖∞ = √ε ‖x‖∞ (√ε where x = 0), ε the relative spacing of
        numbers. Giving it asks for "nearby".
    """
    validate.choice("method", method, ("exact", "nearby"))
    x = as_floats(x)
    given, expected = (jax.tree.map(jnp.shape, point) for point in (direction, x))
    if given != expected:
        raise ValueError(f"direction must have the shape of x, {expected}, got {given}")
    d = jax.tree.map(lambda di, xi: jnp.asarray(di, xi.dtype), direction, x)
    if method == "nearby" or step is not None:
        return _nearby(f, x, d, step)
    program, values, structure = programs.trace(f, x)
    rates = jax.tree.leaves(d)
    inputs = [(xi, di, jnp.zeros_like(xi)) for xi, di in zip(values, rates, strict=True)]
    results, _ = along.run(program, inputs, watch=False)
    return jax.tree.unflatten(structure, [_slope(germ) for germ in results])


def _slope(germ: germs.Germ) -> Any:
    if jnp.issubdtype(jnp.result_type(germ[0]), jnp.floating):
        return jnp.where(jnp.isnan(germ[0]), jnp.nan, germs.moving(germ)[1])
    return np.zeros(jnp.shape(germ[0]), jax.dtypes.float0)


def _nearby(f: Callable[[Tree], Tree], x: Tree, d: Tree, step: float | Array | None) -> Tree:
    if step is None:
        length = tree.largest(d)
        t = nearby(x) / jnp.where(length > 0, length, 1)
    else:
        t = validate.positive("step", validate.scalar("step", step))

    def after(t: Any) -> Tree:
        ahead = jax.tree.map(lambda xi, di: xi + (t * di).astype(xi.dtype), x, d)
        return jax.jvp(f, (ahead,), (d,))[1]

    return tree.sub(tree.scale(2, after(t / 2)), after(t))


def nearby(x: Tree) -> Array:
    """A distance from x that is small, but not to rounding."""
    size = lax.stop_gradient(tree.largest(x))
    return tree.eps(x) ** 0.5 * jnp.where(size > 0, size, 1)


def as_floats(x: Tree) -> Tree:
    return jax.tree.map(lambda xi: jnp.asarray(xi, jnp.result_type(xi, float)), x)
