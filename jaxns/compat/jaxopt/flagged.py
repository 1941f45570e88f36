"""What a derivative is worth, said where it is computed."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns.struct import static, struct
from jaxns.tree import Tree


class ConvergenceWarning(UserWarning):
    """A run ended without reaching `tol`."""


@struct
class Worth:
    """What a derivative is worth: it is multiplied by `factor`, and `message` is said unless `ok`.

    An empty message is not said.
    """

    ok: Array
    factor: Any
    message: str = static(default="")


@jax.custom_jvp
def flagged(x: Tree, worth: Worth) -> Tree:
    """`x`; its derivative is worth what is told."""
    return x


@flagged.defjvp
def _(primals, tangents):
    x, worth = primals
    if worth.message:
        jax.debug.callback(partial(_say, worth.message), worth.ok)
    change = jax.tree.map(lambda t: t * jnp.asarray(worth.factor, t.dtype), tangents[0])
    return flagged(x, worth), change


def _say(message: str, ok: Any) -> None:
    if not np.all(ok):
        warnings.warn(message, ConvergenceWarning, stacklevel=2)
