"""Reference numbers: lasso and elastic net on a small regression, values and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference
from sklearn.datasets import make_regression

import jaxns
from jaxns.functions import L1, ElasticNet, LeastSquares

X, y = map(jnp.asarray, make_regression(n_samples=10, n_features=3, random_state=0))
LASSO = np.array([62.16485194, 29.03583355, 88.27012188])
LASSO_DERIVATIVE = np.array([-0.6017178, -0.69149565, -0.6104686])
ELASTIC_NET = np.array([33.44181685, 16.61964542, 47.58057158])
BOTH = [jaxns.Implicit(direction="both"), jaxns.Piggyback(direction="both")]
REVERSE = [jaxns.Implicit(), jaxns.Piggyback()]
ids = lambda mode: f"{type(mode).__name__}-{mode.direction}"  # noqa: E731


def lasso(penalty, mode=jaxns.Implicit(), **options):
    problem = jaxns.Composite(LeastSquares(X, y, scale="mean"), L1(penalty))
    return jaxns.solve(problem, mode=mode, **options).x


def forward_backward(z, penalty):
    """The map written out by hand, for `fixed_point`."""
    step = len(y) / jnp.linalg.norm(X, 2) ** 2
    u = z - step * X.T @ (X @ z - y) / len(y)
    return jnp.sign(u) * jnp.maximum(jnp.abs(u) - step * penalty, 0)


def from_closure(penalty, mode):
    return jaxns.fixed_point(lambda z: forward_backward(z, penalty), jnp.zeros(3), mode=mode).x


def from_argument(penalty, mode):
    return jaxns.fixed_point(forward_backward, jnp.zeros(3), penalty, mode=mode).x


def test_lasso_value():
    np.testing.assert_allclose(lasso(10.0), LASSO, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "mode", [*REVERSE, *(pytest.param(mode, marks=pytest.mark.slow) for mode in BOTH)], ids=ids
)
@pytest.mark.parametrize(
    "solution",
    [lasso, *(pytest.param(s, marks=pytest.mark.slow) for s in (from_closure, from_argument))],
)
def test_lasso_derivative(solution, mode):
    """In every direction the mode has; eagerly, jitted, and over a batch of penalties."""
    transforms = [jax.jacrev] + ([jax.jacfwd] if mode.direction == "both" else [])
    for derivative in transforms:
        d = derivative(lambda p: solution(p, mode))
        batch = jax.jit(jax.vmap(d))(jnp.array([10.0, 20.0]))
        for found in (d(10.0), jax.jit(d)(10.0), batch[0]):
            np.testing.assert_allclose(found, LASSO_DERIVATIVE, rtol=0, atol=1e-7)
        np.testing.assert_allclose(batch[1], jax.jit(d)(20.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", REVERSE, ids=ids)
def test_elastic_net(mode):
    """penalty (|x|₁ + ratio/2 ‖x‖²) at penalty 2, ratio 0.8, and both its derivatives."""

    def solution(parameters):
        penalty, ratio = parameters
        problem = jaxns.Composite(
            LeastSquares(X, y, scale="mean"), ElasticNet(penalty, penalty * ratio)
        )
        return jaxns.solve(problem, mode=mode, stop=jaxns.Stop(tol=1e-14)).x

    at = jnp.array([2.0, 0.8])
    np.testing.assert_allclose(solution(at), ELASTIC_NET, rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        jax.jacrev(solution)(at), central_difference(solution, at, 1e-4), rtol=0, atol=1e-7
    )


DATA = {
    "X": lambda v: jaxns.problems.lasso(v, y, 10.0),
    "y": lambda v: jaxns.problems.lasso(X, v, 10.0),
    "sample_weight": lambda v: jaxns.problems.lasso(X, y, 10.0, sample_weight=v),
    "penalties": lambda v: jaxns.problems.lasso(X, y, v),
}
AT = {
    "X": X,
    "y": y,
    "sample_weight": jnp.linspace(0.5, 1.5, 10),
    "penalties": jnp.array([10.0, 5.0, 20.0]),
}


@pytest.mark.parametrize(
    "name", ["X", *(pytest.param(n, marks=pytest.mark.slow) for n in DATA if n != "X")]
)
def test_derivatives_in_the_data(name):
    """With respect to X, y, weights and per-coordinate penalties, forward and reverse."""

    def solution(value, mode=jaxns.Implicit()):
        return jaxns.solve(DATA[name](value), mode=mode, stop=jaxns.Stop(tol=1e-14)).x

    expected = central_difference(solution, AT[name], 1e-4)
    for mode in BOTH:
        for derivative in (jax.jacrev, jax.jacfwd):
            found = jax.jit(derivative(lambda v, m=mode: solution(v, m)))(AT[name])
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_data_scale_does_not_change_the_accuracy():
    """Stopping and linear solves are relative: units of X and y do not matter."""
    w = jnp.array([1.0, -2.0, 0.5])

    def relative_error(mode, a, b):
        """Of dw·x/dpenalty for X ← aX, y ← by, whose penalty scales with ab."""

        def value(penalty):
            problem = jaxns.problems.lasso(a * X, b * y, penalty)
            return w @ jaxns.solve(problem, mode=mode, stop=jaxns.Stop(tol=1e-10)).x

        found = jax.grad(value)(10.0 * a * b)
        S = X.T @ X / len(y)
        exact = -w @ jnp.linalg.solve(S, jnp.ones(3)) / a**2  # all coordinates are positive
        return float(abs(found / exact - 1))

    for mode in (jaxns.Implicit(), jaxns.Piggyback()):
        base = relative_error(mode, 1.0, 1.0)
        for a, b in [(100.0, 1.0), (0.01, 1.0), (1.0, 1e-3), (1.0, 1e3)]:
            assert relative_error(mode, a, b) <= 10 * base + 1e-14


@pytest.mark.parametrize("direction", ["reverse", pytest.param("both", marks=pytest.mark.slow)])
def test_float32(direction):
    """eps = 1.2e-7 and the Gram matrix has condition number 5: six digits of x, five of dx."""
    X32, y32 = X.astype(jnp.float32), y.astype(jnp.float32)
    for mode in (jaxns.Implicit(direction=direction), jaxns.Piggyback(direction=direction)):

        def solution(penalty, mode=mode):
            return jaxns.solve(jaxns.problems.lasso(X32, y32, penalty), mode=mode).x

        penalty = jnp.float32(10.0)
        assert solution(penalty).dtype == jnp.float32
        np.testing.assert_allclose(solution(penalty), LASSO, rtol=2e-6)
        np.testing.assert_allclose(jax.jacrev(solution)(penalty), LASSO_DERIVATIVE, rtol=1e-5)
