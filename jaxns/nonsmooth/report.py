"""Where a program has its kinks, and how near they are."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import validate
from jaxns.nonsmooth import along, programs
from jaxns.nonsmooth.directional import as_floats
from jaxns.struct import static, struct
from jaxns.tree import Tree


@struct
class KinkReport:
    """The equations of a program that may have a kink; prints as a table, the nearest first.

    margins: (equations,): for each, how far the numbers in it are from where it changes its piece:
        |a − b| for max(a, b) or a > b, |a| for abs(a), the gap to the second largest for a maximum;
        the smallest over its entries, and over the steps of a loop. Infinite in a branch not taken.
        NaN where the primitive is not known, so that nothing can be said.
    primitives, where: their names, and the lines of the program that they come from.
    tol: what counts as on the kink.
    """

    margins: Array
    tol: float | Array
    primitives: tuple[str, ...] = static()
    where: tuple[str, ...] = static()

    @property
    def is_kink(self) -> Array:
        """Whether a margin is at most tol."""
        return jnp.any(self.margins <= self.tol)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The primitives of which it is not known whether there is a kink."""
        return tuple(
            name for name, m in zip(self.primitives, self.margins, strict=True) if np.isnan(m)
        )

    def __str__(self) -> str:
        order = np.argsort(np.asarray(self.margins), stable=True)
        lines = [f"{'margin':<12}{'primitive':<16}where"]
        for i in order:
            margin = float(self.margins[i])
            told = "not known" if np.isnan(margin) else f"{margin:.3g}"
            here = "  AT A KINK" if margin <= float(self.tol) else ""
            lines.append(f"{told:<12}{self.primitives[i]:<16}{self.where[i]}{here}")
        return "\n".join(lines if len(order) else ["no primitive with a kink"])


def kink_report(f: Callable[[Tree], Tree], x: Tree, tol: float | Array = 0.0) -> KinkReport:
    """Which primitives of the program f have a kink, on which line, and how close x is to it.

    f: from a pytree of floating-point arrays to another.   x: where to look.
    tol: margins up to it count as on the kink.

    Looked at are the equations whose inputs depend on x. A kink of the program need not be one of
    the function: relu(x) − relu(−x) − x has two at 0 and is 0. And margins are those of the
    intermediate numbers, not distances in x. The values are those that f computes, step by step of
    its loops, as in `directional_derivative` with method="exact"; a custom rule's program is looked
    at, not its rule. Works under `jit`.
    """
    tol = validate.nonnegative("tol", validate.scalar("tol", tol))
    program, values, _ = programs.trace(f, as_floats(x))
    inputs = [(xi, jnp.zeros_like(xi), jnp.zeros_like(xi)) for xi in values]
    _, seen = along.run(program, inputs, watch=True)
    names, places = (tuple(part) for part in zip(*(s for s, _ in seen), strict=True)) if seen else (
        (), ()
    )  # fmt: skip
    margins = [m.astype(jnp.result_type(float)) for _, m in seen]
    return KinkReport(jnp.stack(margins) if seen else jnp.zeros(0), tol, names, places)


def is_kink(f: Callable[[Tree], Tree], x: Tree, tol: float | Array = 0.0) -> Array:
    """Whether some primitive of the program f is at a kink at x, up to tol: see `kink_report`.

    Raises NotImplementedError where a primitive on the way is not known.
    """
    report = kink_report(f, x, tol)
    unknown = [
        f"{name!r} ({place})"
        for name, place in zip(report.primitives, report.where, strict=True)
        if not along.is_known(name)
    ]
    if unknown:
        raise along.UnknownRuleError(
            f"it is not known where the primitives {', '.join(unknown)} have their kinks: "
            "kink_report tells of the others"
        )
    return report.is_kink
