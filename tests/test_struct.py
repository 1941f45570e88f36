"""Carriers as pytrees, and points as vectors."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxns import tree
from jaxns.struct import replace, settle, static, struct


@struct
class Ball:
    """A carrier with everything: a validated leaf, an optional one, a default, static fields."""

    radius: Any
    centre: Any = None
    norm: str = static("two")
    axis: int = static(0)

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError("radius must be positive")
        settle(self, "radius", 1.0 * self.radius)


@struct
class Pair:
    left: Any
    right: Any


NESTED = Pair(Ball(2, np.ones(3)), Pair(Ball(1.0), {"k": np.zeros(2)}))


def test_round_trip_through_leaves():
    leaves, structure = jax.tree.flatten(NESTED)
    assert jax.tree.unflatten(structure, leaves) == NESTED
    assert len(leaves) == 4  # two radii, one centre, one array; no static field, no None


def test_leaves_are_named_by_their_fields():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(NESTED)]
    assert paths == [".left.radius", ".left.centre", ".right.left.radius", ".right.right['k']"]


def test_static_fields_are_in_the_structure_and_leaves_are_not():
    structure = jax.tree.structure
    assert structure(Ball(1.0)) == structure(Ball(2.0))
    assert structure(Ball(1.0)) != structure(Ball(1.0, norm="one"))
    assert structure(Ball(1.0)) != structure(Ball(1.0, axis=1))
    assert structure(Ball(1.0)) != structure(Ball(1.0, np.ones(3)))


def test_changing_a_leaf_does_not_retrace_and_a_static_field_does():
    traces = []

    @jax.jit
    def area(ball):
        traces.append(ball.norm)
        return (4 if ball.norm == "max" else 3) * ball.radius**2

    assert [area(Ball(r)) for r in (1, 2.0, 3)] == [3, 12, 27]
    assert area(Ball(2.0, norm="max")) == 16
    assert traces == ["two", "max"]


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ball(1.0).radius = 2.0


def test_validation_runs_on_what_a_person_writes_only():
    """Transformations put placeholders into leaves: None, objects, booleans, tracers."""
    with pytest.raises(ValueError, match="radius"):
        Ball(-1.0)
    ball = Ball(1.0)
    for placeholder in (None, object(), -1.0, "text", False):
        assert jax.tree.map(lambda _: placeholder, ball).radius is placeholder  # noqa: B023
    assert replace(ball, radius=-1.0).radius == -1.0


def test_replace_keeps_the_rest_and_the_original():
    ball = Ball(1.0, np.ones(2), norm="one")
    new = replace(ball, radius=3.0)
    assert (new.radius, new.norm, ball.radius) == (3.0, "one", 1.0)
    assert new.centre is ball.centre
    with pytest.raises(TypeError, match=r"no field \['raduis'\]"):
        replace(ball, raduis=3.0)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (Ball(1), Ball(1.0), True),
        (Ball(1.0), Ball(2.0), False),
        (Ball(1.0), Ball(1.0, norm="one"), False),
        (Ball(1.0, np.ones(2)), Ball(1.0, jnp.ones(2)), True),
        (Ball(1.0, np.ones(2)), Ball(1.0, np.ones(3)), False),
        (Ball(1.0, np.ones(2)), Ball(1.0), False),
        (Ball(1.0), Pair(1.0, None), False),
        (Ball(1.0), 1.0, False),
        (NESTED, jax.tree.map(lambda leaf: leaf, NESTED), True),
        (NESTED, jax.tree.map(lambda leaf: leaf + 1, NESTED), False),
    ],
)
def test_equality_is_by_structure_and_numbers(one, other, equal):
    assert (one == other) is equal
    assert (one != other) is not equal
    if equal:
        assert hash(one) == hash(other)


def test_can_be_a_key():
    assert {Ball(1.0): "a", Ball(1.0): "b", Ball(2.0): "c"} == {Ball(1.0): "b", Ball(2.0): "c"}


def test_transformations_go_through_a_carrier():
    def volume(ball):
        return ball.radius**3 * jnp.sum(ball.centre)

    balls = jax.tree.map(lambda *r: np.stack(r), Ball(1.0, np.ones(2)), Ball(2.0, np.ones(2)))
    np.testing.assert_array_equal(jax.vmap(volume)(balls), [2, 16])
    slope = jax.jit(jax.grad(volume))(Ball(2.0, np.ones(2)))
    assert isinstance(slope, Ball)
    np.testing.assert_array_equal(slope.radius, 24)
    np.testing.assert_array_equal(slope.centre, [8, 8])
    doubled = jax.jit(lambda ball: replace(ball, radius=2 * ball.radius))(Ball(2.0))
    assert doubled == Ball(4.0)
    last, _ = jax.lax.scan(
        lambda b, _: (replace(b, radius=b.radius + 1), None), Ball(1.0), length=3
    )
    assert last == Ball(4.0)


# Points as vectors ------------------------------------------------------------------------------

X = {"a": np.array([1.0, -2.0]), "b": (np.array([[3.0]]),)}
Y = {"a": np.array([0.5, 1.0]), "b": (np.array([[-1.0]]),)}


def flat(x):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (tree.add(X, Y), flat(X) + flat(Y)),
        (tree.sub(X, Y), flat(X) - flat(Y)),
        (tree.scale(3.0, X), 3 * flat(X)),
        (tree.axpy(3.0, X, Y), 3 * flat(X) + flat(Y)),
        (tree.zeros_like(X), 0 * flat(X)),
        (tree.vdot(X, Y), flat(X) @ flat(Y)),
        (tree.norm(X), np.linalg.norm(flat(X))),
        (tree.where(True, X, Y), flat(X)),
        (tree.where(jnp.asarray(False), X, Y), flat(Y)),
    ],
)
def test_arithmetic_is_that_of_the_concatenated_vector(found, expected):
    np.testing.assert_allclose(flat(found), np.ravel(expected), rtol=1e-15)
    assert jax.tree.structure(found) in (jax.tree.structure(X), jax.tree.structure(0.0))


def test_structures_must_agree():
    with pytest.raises(ValueError):  # noqa: PT011 - JAX's own message
        tree.vdot(X, {"a": X["a"]})


def test_size_dtype_eps():
    assert tree.size(X) == 3
    assert tree.dtype(X) == jnp.float64
    assert tree.eps(X) == np.finfo(np.float64).eps
    mixed = {"a": np.float32([1]), "b": np.float64([1])}
    assert tree.dtype(mixed) == jnp.float64
    assert tree.eps(np.float32([1])) == np.finfo(np.float32).eps


@pytest.mark.parametrize(
    ("entry", "dtype"),
    [(1e300, np.float64), (1e-300, np.float64), (1e30, np.float32), (1e-30, np.float32)],
)
def test_norm_neither_overflows_nor_underflows(entry, dtype):
    """Squares of these are infinite, or zero. Rounding: a few spacings."""
    x = {"a": np.full(3, entry, dtype), "b": np.full((1, 1), -entry, dtype)}
    found = tree.norm(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, dtype(2 * entry), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros(3), 0.0),
        (np.zeros(0), 0.0),
        ({}, 0.0),
        ((np.zeros(0), np.array([3.0, 4.0])), 5.0),
        (np.array(-2.0), 2.0),
        (np.array([1.0, -np.inf]), np.inf),
        (np.array([1.0, np.nan]), np.nan),
        (np.array([np.inf, np.nan]), np.nan),
    ],
)
def test_norm_of_special_points(x, expected):
    np.testing.assert_array_equal(tree.norm(x), expected)


def test_norm_under_transformations():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [1e-200, 0.0]])
    np.testing.assert_array_equal(jax.jit(jax.vmap(tree.norm))(rows), [5.0, 0.0, 1e-200])
    np.testing.assert_allclose(jax.grad(tree.norm)(rows[0]), [0.6, 0.8], rtol=1e-15)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (1.0, {"a": 1.0, "b": (1.0,)}),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": (2.0,)}),
        ({"a": 1.0, "b": (2.0,)}, {"a": 1.0, "b": (2.0,)}),
    ],
)
def test_spread_repeats_a_prefix_to_the_leaves(prefix, expected):
    assert tree.spread(prefix, X) == expected


def test_spread_refuses_another_structure():
    with pytest.raises(ValueError, match=r"structure|key"):
        tree.spread({"a": 1.0, "c": 2.0}, X)
