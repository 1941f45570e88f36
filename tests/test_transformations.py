"""Every mode, in every direction, under every transformation: right, or refused with a remedy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformation_table import (
    DIRECTIONS,
    MODES,
    TRANSFORMATIONS,
    T,
    exact,
    reference,
    refusal,
    solver,
    truncated,
)

# By default a quarter of them: of each transformation two modes, one in each direction.
CELLS = [
    pytest.param(mode, direction, name, marks=pytest.mark.slow if (row + i + 2 * j) % 6 else ())
    for row, name in enumerate(TRANSFORMATIONS)
    for i, mode in enumerate(MODES)
    for j, direction in enumerate(DIRECTIONS)
]


@functools.cache
def expected(of, transformation):
    return jax.jit(TRANSFORMATIONS[transformation](of))(jnp.asarray(T))


@pytest.mark.parametrize(("mode", "direction", "transformation"), CELLS)
def test_cell(mode, direction, transformation):
    derivative = TRANSFORMATIONS[transformation](solver(mode, direction))
    remedy = refusal(mode, direction, transformation)
    if remedy is not None:
        with pytest.raises(TypeError, match=remedy):
            derivative(jnp.asarray(T))
        return
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11),
        derivative(jnp.asarray(T)),
        expected(reference(mode), transformation),
    )


def test_the_references_differ():
    """Three terms of the series are not the derivative, so that one is not taken for the other."""
    assert not np.allclose(expected(truncated, "grad"), expected(exact, "grad"), rtol=1e-4)
