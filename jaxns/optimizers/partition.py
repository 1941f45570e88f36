"""Parameters in groups: the matrix I of arXiv 2312.03885."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import validate
from jaxns.tree import Tree

NAMED = {
    "tensors": lambda leaves: range(len(leaves)),
    "all": lambda leaves: [0] * len(leaves),
    "weights and biases": lambda leaves: ["w" if np.ndim(p) > 1 else "b" for p in leaves],
    "entries": lambda leaves: [
        end - np.arange(1, np.size(p) + 1).reshape(np.shape(p))
        for p, end in zip(leaves, np.cumsum([np.size(p) for p in leaves]), strict=True)
    ],
}


class Partition(NamedTuple):
    """labels: of the params' structure, the group of each tensor (an integer), or of each entry of
    it (integers in its shape).   S: the number of groups.
    """

    labels: Tree
    S: int

    def spread(self, eta: Array, params: Tree) -> Tree:
        """I η: every entry of a tree like `params` gets the number of its group."""

        def of_tensor(label, p):
            return jnp.broadcast_to(eta.astype(p.dtype)[label], jnp.shape(p))

        return jax.tree.map(of_tensor, self.labels, params)


def partition(params: Tree, groups: str | int | Tree = "tensors") -> Partition:
    """The groups T_1 … T_S of the entries of `params`, numbered as they appear.

    groups: "tensors", one group per tensor (the canonical partition, S ≪ P);
        "all", one group (S = 1);
        "weights and biases", the tensors with two axes or more, and the others;
        "entries", one group per number (S = P);
        an integer n: n blocks of consecutive tensors, as equal in number as can be;
        labels of one's own: a pytree like `params` with a string or an integer per tensor, or an
        array of integers in its shape.
    Raises ValueError where the groups do not fit the parameters.
    """
    leaves, structure = jax.tree.flatten(params)
    if not leaves:
        raise ValueError("params must hold at least one array")
    if isinstance(groups, str):
        labels = NAMED[validate.choice("groups", groups, NAMED)](leaves)
    elif isinstance(groups, int):
        n = len(leaves)
        if not 1 <= groups <= n:
            raise ValueError(f"groups must be from 1 to {n}, the number of tensors, got {groups}")
        labels = [i * groups // n for i in range(n)]
    else:
        labels = _given(leaves, structure, groups)
    seen = dict.fromkeys(name for label in labels for name in np.ravel(label).tolist())
    numbers = {name: s for s, name in enumerate(seen)}
    numbered = [np.vectorize(numbers.__getitem__, otypes=[int])(label) for label in labels]
    return Partition(jax.tree.unflatten(structure, numbered), len(numbers))


def _given(leaves: list[Any], structure: Any, groups: Tree) -> list[Any]:
    labels, like = jax.tree.flatten(groups)
    if like != structure:
        raise ValueError(f"groups must have the structure of params, {structure}, got {like}")
    for label, p in zip(labels, leaves, strict=True):
        if np.shape(label) not in ((), np.shape(p)):
            raise ValueError(
                f"groups must label a tensor of shape {np.shape(p)} by one label or by an array "
                f"of that shape, got shape {np.shape(label)}"
            )
    return labels
