"""A loop with a bounded number of iterations, in JAXopt's four kinds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def while_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    maxiter: Any,
    unroll: bool = False,
    jit: bool = False,
) -> Any:
    """`body_fun` while `cond_fun` holds, `maxiter` times at most.

    jit without unroll: `lax.while_loop`, which has no reverse mode.
    jit and unroll: a scan over `maxiter` steps, of which those past the end do nothing.
    unroll without jit: a loop in Python.
    """
    if jit:
        kind = _scan if unroll else _while
        return kind(cond_fun, body_fun, init_val, maxiter)
    if not unroll:
        raise ValueError("unroll=False and jit=False cannot be used together")
    value = init_val
    for _ in range(maxiter):
        if not cond_fun(value):
            break
        value = body_fun(value)
    return value


def _while(cond_fun, body_fun, init_val, maxiter):
    def going(carry):
        k, value = carry
        return (k < maxiter) & cond_fun(value)

    def body(carry):
        k, value = carry
        return k + 1, body_fun(value)

    return lax.while_loop(going, body, (0, init_val))[1]


@partial(jax.jit, static_argnums=(0, 1, 3))
def _scan(cond_fun, body_fun, init_val, maxiter):
    def step(value, _):
        going = jnp.asarray(cond_fun(value))
        return lax.cond(going, body_fun, lambda value: value, value), None

    return lax.scan(step, init_val, length=maxiter)[0]
