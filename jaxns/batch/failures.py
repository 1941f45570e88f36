"""What is said about the problems of a batch that failed."""

from typing import Any

import jax.numpy as jnp

from jaxns.fixed_point import ConvergenceError, Status


def raise_for(numbers: Any, codes: Any, count: int, remedy: str) -> None:
    """`ConvergenceError` if any failed.   numbers, codes: of those; `count` were solved."""
    if not len(numbers):
        return
    some = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
    how = Status(jnp.asarray(codes))
    raise ConvergenceError(
        f"{len(numbers)} of {count} problems failed (numbers {some}): {how}; "
        f"raise max_steps, loosen tol, or {remedy}"
    )
