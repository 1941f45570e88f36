"""Where the gradient depends on the element chosen at a kink: scans and volumes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxns import nonsmooth
from jaxns.nonsmooth import bifurcation


def loss(w, batch, s):
    """Σ relu(w · x), a gradient s · x wherever w · x = 0."""
    return nonsmooth.relu(batch @ w, s).sum()


def zeros(w, batch):
    return jnp.sum(batch @ w == 0)


BATCHES = np.array([  # of two samples each; w = (1, −1) is orthogonal to the last three
    [[1.0, 0.0], [3.0, 1.0]],
    [[2.0, 1.0], [2.0, 2.0]],
    [[1.0, 1.0], [5.0, 5.0]],
])  # fmt: skip
W = np.array([1.0, -1.0])
ORTHOGONAL = np.array([[2.0, 2.0], [1.0, 1.0], [5.0, 5.0]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("counting", [None, zeros])
def test_the_first_batch_that_differs(counting, dtype):
    w, batches = jnp.asarray(W, dtype), jnp.asarray(BATCHES, dtype)
    scan = jax.jit(partial(bifurcation.scan, loss, zeros=counting))
    found = scan(w, batches, 0.0, 1.0)
    assert found.first == 1
    np.testing.assert_allclose(found.difference, np.linalg.norm([2, 2]) / np.linalg.norm([2, 1]),
                               rtol=1e-6)  # fmt: skip
    assert found.zeros is None if counting is None else found.zeros == len(ORTHOGONAL)

    for s0, s1 in [(0.0, 0.0), (1.0, 1.0)]:
        same = scan(w, batches, s0, s1)
        assert same.first == -1
        assert same.difference == 0


def test_many_parameters_at_once():
    w = jnp.asarray([W, [1.0, 2.0], [0.0, 1.0], [0.0, 0.0], [np.nan, 1.0]])
    for counting in (None, zeros):
        found = jax.vmap(lambda w, c=counting: bifurcation.scan(loss, w, BATCHES, zeros=c))(w)
        np.testing.assert_array_equal(found.first, [1, -1, 0, 0, -1])
    np.testing.assert_array_equal(found.zeros, [3, 0, 1, 6, 0])


def test_parameters_and_batches_are_pytrees():
    def whole(params, batch, s):
        return loss(params["w"], batch["x"], s) + params["b"] * batch["t"]

    params = {"w": W, "b": np.array(2.0)}
    batches = {"x": BATCHES, "t": np.arange(3.0)}
    assert bifurcation.scan(whole, params, batches).first == 1
    with pytest.raises(ValueError, match="batches"):
        bifurcation.scan(whole, params, {})


def test_the_volume_of_a_zone_that_is_known():
    """θ uniform in {0, 1, 2, 3}: the preactivation θ x is 0 for one in four."""

    def init(key):
        return jax.random.randint(key, (1,), 0, 4).astype(float)

    batches = np.ones((2, 3, 1))
    found = bifurcation.volume(loss, init, batches, jax.random.key(0), 400, zeros=zeros)
    low, high = found.interval
    assert low < 0.25 < high
    assert low < found.fraction < high
    np.testing.assert_array_equal(np.asarray(found.scans.zeros) > 0, found.scans.first == 0)
    assert found.fraction == np.mean(np.asarray(found.scans.first) >= 0)
    none = bifurcation.volume(loss, init, batches, jax.random.key(0), 50, s0=1.0)
    assert none.fraction == none.interval[0] == 0
    with pytest.raises(ValueError, match="count"):
        bifurcation.volume(loss, init, batches, jax.random.key(0), 0)


def test_rounding_makes_zeros():
    """In float16, with the bias inside: where the sum is at most 2⁻²⁵, a tie that goes to 0."""
    random = np.random.RandomState(0)
    x, w = random.randn(4, 500, 8).astype(np.float16), random.randn(8).astype(np.float16)
    x[1, 7], x[3, 2] = 0, 0
    b = np.float32(2.0**-25)

    def affine(w, batch):
        return (jnp.dot(batch, w, preferred_element_type=jnp.float32) + b).astype(jnp.float16)

    def of_float16(w, batch, s):
        return nonsmooth.relu(affine(w, batch), s).astype(jnp.float32).sum()

    def zeros_of_float16(w, batch):
        return jnp.sum(affine(w, batch) == 0)

    found = bifurcation.scan(of_float16, w, x, zeros=zeros_of_float16)
    assert found.zeros == np.sum(np.abs(x.astype(float) @ w.astype(float) + b) <= 2.0**-25) == 2
    assert found.first == -1  # s · x, and x is 0


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (463, 1000)])
def test_the_interval_of_a_fraction(successes, trials):
    for confidence in (0.95, 0.5):
        found = bifurcation.binomial_interval(successes, trials, confidence)
        twin = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
        np.testing.assert_allclose(found, (twin.low, twin.high), atol=1e-9)
    with pytest.raises(ValueError, match="successes"):
        bifurcation.binomial_interval(trials + 1, trials)
    with pytest.raises(ValueError, match="confidence"):
        bifurcation.binomial_interval(successes, trials, 1.5)
