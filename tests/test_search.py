"""Grid and random search against a closed form, and their record beside that of the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns import bilevel
from jaxns.functions import L1, SquaredDistance

TARGET = jnp.array([1.0, 0.25, 3.0])
POINTS = jnp.array([2.0, 1.5, 1.0, 0.5, 0.1])
SOLVER = jaxns.ForwardBackward(acceleration=False)


def outer(x, theta):
    return jnp.sum((x - 1.2) ** 2)


def inner(theta):
    """Its solution is TARGET, soft-thresholded."""
    return jaxns.Composite(SquaredDistance(TARGET), L1(theta))


def exact(theta):
    x = np.maximum(np.asarray(TARGET) - theta, 0)
    return np.sum((x - 1.2) ** 2)


VALUES = np.array([exact(theta) for theta in POINTS])


@pytest.mark.parametrize("batch", [1, 2])
def test_grid_search_evaluates_every_point(batch):
    found = bilevel.grid_search(outer, inner, POINTS, solver=SOLVER, batch=batch)
    np.testing.assert_allclose(found.history.value, VALUES, rtol=1e-9)
    np.testing.assert_array_equal(found.history.theta, POINTS)
    assert found.theta == POINTS[VALUES.argmin()]
    assert float(found.value) == pytest.approx(VALUES.min())
    np.testing.assert_allclose(found.x, jnp.maximum(TARGET - found.theta, 0), rtol=1e-9)
    assert np.all(np.diff(found.history.seconds) >= 0)
    assert np.all(found.history.inner_steps > 0)


def test_the_record_is_that_of_minimize():
    found = bilevel.grid_search(outer, inner, POINTS, solver=SOLVER)
    descent = bilevel.minimize(outer, inner, 1.5, solver=SOLVER, steps=8)
    assert type(found) is type(descent)
    for name, column in found.history._asdict().items():
        assert len(column) == len(POINTS), name
        assert np.shape(column)[1:] == np.shape(getattr(descent.history, name))[1:], name
    assert descent.value < found.value


def test_closures_and_parts():
    """Two inner problems, with arrays that the functions close over."""
    targets, goal = jnp.stack([TARGET, 2 * TARGET]), jnp.array(1.2)

    def both(theta, target):
        return jaxns.Composite(SquaredDistance(target * jnp.ones_like(goal)), L1(theta))

    def mean(x, theta):
        return jnp.sum((x - goal) ** 2) / 2

    bilevel_problem = bilevel.Bilevel(mean, both, targets)
    found = bilevel_problem.grid_search(POINTS[:3], solver=SOLVER, batch=3)
    x = np.maximum(np.asarray(targets) - np.asarray(POINTS[:3])[:, None, None], 0)
    np.testing.assert_allclose(found.history.value, np.sum((x - 1.2) ** 2, (1, 2)) / 2, rtol=1e-9)


def test_random_search_draws_from_the_space():
    theta0 = {"a": jnp.array(0.5), "b": jnp.ones(2)}
    space = {"a": bilevel.Box(1e-4, 1.0, log=True), "b": bilevel.Box(2.0, 3.0)}

    def both(theta):
        penalty = jnp.append(theta["b"], theta["a"])
        return jaxns.Composite(SquaredDistance(TARGET), L1(penalty))

    search = bilevel.Bilevel(outer, both)
    options = {"space": space, "points": 40, "solver": SOLVER, "batch": 20}
    found = search.random_search(theta0, key=jax.random.key(0), **options)
    drawn = found.history.theta
    assert drawn["a"][0] == 0.5
    assert np.all(drawn["b"][0] == 1)
    a, b = np.log10(drawn["a"][1:]), drawn["b"][1:]
    assert drawn["b"].shape == (40, 2)
    assert -4 <= a.min() < -3 < -1 < a.max() <= 0
    assert 2 <= b.min() < 2.2 < 2.8 < b.max() <= 3
    with pytest.raises(TypeError, match="space must be a Box"):
        search.random_search(theta0, key=jax.random.key(0), space=bilevel.Positive())


def test_product_holds_every_combination():
    grid = bilevel.product({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0, 5.0])})
    pairs = list(zip(grid["a"].tolist(), grid["b"].tolist(), strict=True))
    assert pairs == [(a, b) for a in (1.0, 2.0) for b in (3.0, 4.0, 5.0)]


def test_failures():
    """One that does not converge counts as bad, and is no place to start from."""
    stop = jaxns.Stop(max_steps=1)
    with pytest.raises(jaxns.ConvergenceError, match="at none of the points"):
        bilevel.grid_search(outer, inner, POINTS, solver=jaxns.ForwardBackward(0.1), stop=stop)
    with pytest.raises(ValueError, match="thetas must hold points"):
        bilevel.grid_search(outer, inner, 1.0)
    with pytest.raises(ValueError, match="batch must be positive"):
        bilevel.grid_search(outer, inner, POINTS, batch=0)
