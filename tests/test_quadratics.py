"""Quadratic functions with their prox factored once: the same numbers, derivatives and shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxns.functions import LeastSquares, Quadratic

random = np.random.RandomState(0)
TALL, WIDE = random.randn(7, 4), random.randn(3, 6)
WEIGHTS = np.array([0.0, 0.5, 1.0, 2.0, 1.5, 0.25, 3.0])


def squares(A, b, w):
    return LeastSquares(A, b, "mean", w)


def solved(A, b, w, x, step):
    """(I + step AᵀWA)⁻¹ (x + step AᵀWb), W = diag(w)/n."""
    weighted = w[:, None] * A / A.shape[0]
    return jnp.linalg.solve(jnp.eye(A.shape[1]) + step * A.T @ weighted, x + step * weighted.T @ b)


CASES = {
    "tall": (TALL, random.randn(7), WEIGHTS, random.randn(4)),
    "wide": (WIDE, random.randn(3), WEIGHTS[1:4], random.randn(6)),
    "tall-targets": (TALL, random.randn(7, 2), WEIGHTS, random.randn(4, 2)),
    "wide-targets": (WIDE, random.randn(3, 2), WEIGHTS[1:4], random.randn(6, 2)),
}


QUICK = {("wide-targets", 0.7)}
PAIRS = [
    pytest.param(name, at, marks=() if (name, at) in QUICK else pytest.mark.slow)
    for name in CASES
    for at in (0.7, 1.3, None)
]


@pytest.mark.parametrize("name", CASES)
def test_factored_prox_is_the_prox(name):
    """At the step that was factored, and at another."""
    *data, x = CASES[name]
    prox = jax.jit(lambda f, x, step: (f.prox(x, step), f.factor(0.7).prox(x, step)))
    for step in (0.7, 1.3):
        expected = solved(*data, x, step)
        for found in prox(squares(*data), x, step):
            np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize(("name", "at"), PAIRS)
def test_factored_prox_has_all_derivatives(name, at):
    """In data and step, forward and reverse, and a second time; at = None: not factored."""
    *data, x = CASES[name]
    step, others = jnp.array(0.7), tuple(range(5))

    def prox(A, b, w, x, step):
        f = squares(A, b, w)
        return (f if at is None else f.factor(at)).prox(x, step)

    def derivatives(prox):
        second = jax.hessian(lambda s: jnp.sum(prox(*data, x, s)))(step)
        return jax.jacrev(prox, others)(*data, x, step), second

    expected = jax.jit(lambda: derivatives(solved))()
    found = jax.jit(lambda: derivatives(prox))()
    forward = jax.jit(jax.jacfwd(prox, others))(*data, x, step)
    for a, b in zip(jax.tree.leaves((found, forward)), jax.tree.leaves((expected, expected[0])),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_factor_keeps_everything_else():
    f = squares(*CASES["tall"][:3])
    factored, x = f.factor(0.5), CASES["tall"][3]
    assert factored(x) == f(x)
    assert factored.lipschitz() == f.lipschitz()
    np.testing.assert_array_equal(factored.gradient(x), f.gradient(x))
    np.testing.assert_array_equal(factored.hessian(x), f.hessian(x))
    np.testing.assert_array_equal(factored.start(), f.start())
    np.testing.assert_array_equal(factored.factor(2.0).root, f.factor(2.0).root)


def test_batches_of_steps():
    """Some of which are the factored one."""
    steps, x = np.array([0.5, 2.0]), CASES["wide"][3]
    f = squares(*CASES["wide"][:3])
    found = jax.vmap(f.factor(0.5).prox, (None, 0))(x, steps)
    np.testing.assert_allclose(found, [f.prox(x, s) for s in steps], atol=1e-14)
    found = jax.vmap(lambda s: f.factor(s).prox(x, s))(steps)
    np.testing.assert_allclose(found, [f.prox(x, s) for s in steps], atol=1e-14)


def test_a_factor_is_not_used_at_another_step():
    """Nor on numbers that it was not made of: a poisoned factor shows where it is used."""
    f = Quadratic(np.diag([1.0, 3.0]), np.array([1.0, -1.0]))
    factored = jax.tree.unflatten(
        jax.tree.structure(f.factor(0.5)),
        [*jax.tree.leaves(f.factor(0.5))[:-1], np.full((2, 2), np.nan)],
    )
    x = np.array([2.0, 4.0])
    assert np.isnan(factored.prox(x, 0.5)).all()
    np.testing.assert_allclose(factored.prox(x, 1.0), [0.5, 1.25], atol=1e-15)


@pytest.mark.parametrize("name", ["tall", "wide"])
def test_factored_in_float32(name):
    *data, x = [jnp.asarray(leaf, jnp.float32) for leaf in CASES[name]]
    for step in (0.5, jnp.float32(0.5)):
        u = squares(*data).factor(0.5).prox(x, step)
        assert u.dtype == jnp.float32
        np.testing.assert_allclose(u, solved(*CASES[name], 0.5), atol=1e-6)


def test_nan_in_the_data_is_not_hidden():
    A, b, w, x = CASES["wide"]
    for data in ((A * np.nan, b, w), (A, b * np.nan, w), (A, b, w + np.nan)):
        assert np.isnan(squares(*data).factor(0.5).prox(x, 0.5)).any()
