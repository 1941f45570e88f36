"""Stochastic bilevel methods: exact directions, and the rates their papers state.

On a quadratic problem ∇h is known in closed form; on the two problems of the benchmark suite it is
that of `jaxns.solve` with `Implicit`. e_k is the mean over seeds of ‖∇h(θ_k)‖².
"""

import importlib
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

import jaxns
from jaxns.bilevel import stochastic
from jaxns.bilevel.stochastic import SABA, SOBA, AmIGO, PiggybackSGD, Power, StocBiO, Task
from jaxns.bilevel.stochastic.directions import directions, inner_terms, outer_terms
from jaxns.bilevel.stochastic.finite_sum import Bilevel, FiniteSum, minibatches
from jaxns.bilevel.stochastic.piggyback_sgd import AtTheta
from jaxns.functions import Smooth

N, P, Q = 512, 5, 3
_rng = np.random.default_rng(0)
A, A_VAL = (jnp.asarray(_rng.choice([-1.0, 1.0], size=(N, P))) for _ in range(2))
B, B_VAL = (jnp.asarray(_rng.normal(size=N)) for _ in range(2))
C = 0.5 * (jnp.asarray(_rng.normal(size=(N, Q))) + A @ _rng.normal(size=(P, Q)))
HESSIAN = A.T @ A / N + jnp.eye(P) / 2


def inner(x, theta, index):
    residual = A[index] @ x - B[index] - C[index] @ theta
    return jnp.mean(residual**2) / 2 + jnp.sum(x**2) / 4


def outer(x, theta, index):
    return jnp.mean((A_VAL[index] @ x - B_VAL[index]) ** 2) / 2 + jnp.sum(theta**2) / 20


def gradient(theta):
    """∇h(θ) in closed form: x*(θ) = H⁻¹ Aᵀ(b + Cθ)/n is affine."""
    jacobian = jnp.linalg.solve(HESSIAN, A.T @ C / N)
    x = jnp.linalg.solve(HESSIAN, A.T @ B / N) + jacobian @ theta
    return jacobian.T @ (A_VAL.T @ (A_VAL @ x - B_VAL)) / N + theta / 10


def square(theta, x):
    return jnp.sum(gradient(theta) ** 2)


QUADRATIC = Task(outer, inner, jnp.ones(Q), jnp.zeros(P), (N, N))


def errors(method, steps, every, batch=(16, 16), seeds=32):
    """k and e_k on the quadratic problem."""

    def run(key):
        return stochastic.minimize(
            *QUADRATIC,
            method=method,
            steps=steps,
            key=key,
            batch=batch,
            record_every=every,
            evaluate=square,
        )

    result = jax.vmap(run)(jnp.arange(seeds))
    return np.asarray(result.steps[0]), np.asarray(result.record).mean(axis=0)


def slope(k, e):
    """Of log e over log k, at about 40 points evenly spaced in log k."""
    at = np.unique(np.searchsorted(k, np.geomspace(k[0], k[-1], 40)))
    return np.polyfit(np.log(k[at]), np.log(e[at]), 1)[0]


def slope_of_mean(k, e, start):
    """Of (1/K) Σ_{k<K} e_k over K in log-log, from K = start on."""
    mean = np.cumsum(e[:-1]) / np.arange(1, len(e))
    late = k[1:] >= start
    return slope(k[1:][late], mean[late])


@cache
def selection():
    """Breast cancer, 128 + 128 samples, a tenth of the labels flipped; 5 whitened components.

    The flips keep the classes apart from being separable, and so G strongly convex.
    """
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:256], 2 * y[:256] - 1
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    X = np.linalg.svd(X, full_matrices=False)[0][:, :5] * np.sqrt(len(X))
    y = np.where(np.random.default_rng(0).random(256) < 0.1, -y, y)
    return stochastic.regularisation_selection(X[:128], y[:128], X[128:], y[128:])


@cache
def digits():
    """Digits 0 to 3 in 4 × 4 pixels, 96 + 96 images; half of the training labels at random.

    With them, which of the labels are wrong.
    """
    X, y = load_digits(n_class=4, return_X_y=True)
    X = X[:192].reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    X, y = (X - X.mean(axis=0)) / (X.std(axis=0) + 1e-3), y[:192]
    random = np.random.default_rng(0)
    noisy = np.where(random.random(96) < 0.5, random.integers(0, 4, 96), y[:96])
    return stochastic.data_cleaning(X[:96], noisy, X[96:], y[96:]), noisy != y[:96]


def cleaning():
    return digits()[0]


@cache
def implicit(problem):
    """(θ, x) -> h(θ), ∇h(θ), by a solve that starts at x."""
    task = problem()

    def full(x, theta):
        return task.inner(x, theta, jnp.arange(task.samples[0]))

    def h(theta, x):
        composite = jaxns.Composite(Smooth(full, theta))
        x = jaxns.solve(composite, jaxns.LBFGS(), x, stop=jaxns.Stop(tol=1e-10)).x
        return task.outer(x, theta, jnp.arange(task.samples[1]))

    return jax.jit(jax.value_and_grad(h))


# A step in θ of length one, once x and v have settled: the first step where they do so in loops.
SETTLED = 100


def after_settling(k):
    return jnp.where(k == SETTLED, 1.0, 0.0)


SETTLING = [
    (SOBA(0.4, after_settling), SETTLED + 1),
    (SABA(0.4, after_settling), SETTLED + 1),
    (StocBiO(0.4, 1.0, inner_steps=100, neumann_terms=100), 1),
    (AmIGO(0.4, 1.0, inner_steps=100, linear_steps=100), 1),
    (PiggybackSGD(0.4, 1.0, inner_steps=100), 1),
]


def name_of(value):
    return type(value).__name__ if hasattr(value, "step") else getattr(value, "__name__", None)


@pytest.mark.parametrize(("method", "steps"), SETTLING, ids=name_of)
def test_with_full_batches_the_direction_is_the_hypergradient(method, steps):
    task = selection()
    after = stochastic.minimize(*task, method=method, steps=steps, key=0, batch=task.samples).theta
    _, exact = implicit(selection)(task.theta0, task.x0)
    np.testing.assert_allclose(task.theta0 - after, exact, atol=1e-8)
    assert jnp.linalg.norm(exact) > 1e-3


def test_directions_at_the_solution():
    theta = jnp.array([1.0, -2.0, 0.5])
    x = jnp.linalg.solve(HESSIAN, A.T @ (B + C @ theta) / N)
    v = -jnp.linalg.solve(HESSIAN, A_VAL.T @ (A_VAL @ x - B_VAL) / N)
    G, F = (partial(f, index=jnp.arange(N)) for f in (inner, outer))
    D = directions(inner_terms(G, x, theta, v), outer_terms(F, x, theta))
    np.testing.assert_allclose(D.x, jnp.zeros(P), atol=1e-12)
    np.testing.assert_allclose(D.v, jnp.zeros(P), atol=1e-12)
    np.testing.assert_allclose(D.theta, gradient(theta), atol=1e-12)


@pytest.mark.parametrize(("samples", "size", "count"), [(12, 4, 3), (12, 5, 12), (12, 8, 3)])
def test_every_sample_is_in_equally_many_minibatches(samples, size, count):
    blocks = np.asarray(minibatches(jax.random.key(0), samples, size))
    assert blocks.shape == (count, size)
    assert set(np.bincount(blocks.ravel(), minlength=samples)) == {count * size // samples}
    assert all(len(set(block)) == size for block in blocks)


def test_saba_remembers_the_newest_products():
    """The state after 8 steps against the products at every minibatch's last visit."""
    cut = minibatches(jax.random.key(0), N, 64)
    G, F = (FiniteSum(None, cut, lambda _, *args, f=f: f(*args)) for f in (inner, outer))
    problem, method = Bilevel(G, F), SABA(0.1, 0.05)
    state = method.init(problem, QUADRATIC.theta0, QUADRATIC.x0)
    step, products = jax.jit(method.step), jax.jit(lambda i, *at: inner_terms(G.term(i), *at))
    visits = {}
    for k in range(8):
        before = state
        state = step(problem, k, state, jax.random.key(k))
        i = int(G.draw(jax.random.split(jax.random.key(k))[0]))
        visits[i] = products(i, before.x, before.theta, before.v)
    assert 2 < len(visits) < G.terms
    for i in range(G.terms):
        first = products(i, QUADRATIC.x0, QUADRATIC.theta0, jnp.zeros(P))
        for kept, exact in zip(state.inner.terms, visits.get(i, first), strict=True):
            np.testing.assert_allclose(kept[i], exact, atol=1e-12)
    for memory in (state.inner, state.outer):
        for kept, mean in zip(memory.terms, memory.mean, strict=True):
            np.testing.assert_allclose(kept.mean(axis=0), mean, atol=1e-12)


def test_soba_decreases_like_its_stepsizes():
    """O(log K/√K), and no faster: with noise, ‖θ_k − θ*‖² follows the stepsize."""
    k, e = errors(SOBA(Power(0.5), Power(0.5)), 8000, 20)
    late = k >= 400
    assert -0.65 <= slope(k[late], e[late]) <= -0.4


def test_saba_is_linear_under_pl():
    """log e is a straight line down to rounding; hence (1/K) Σ e_k = O(1/K), the general rate."""
    k, e = errors(SABA(0.1, 0.1), 4000, 10)
    straight = (k > 100) & (np.cumsum(e < 1e-22) == 0)
    assert e.min() < 1e-22
    assert np.corrcoef(k[straight], np.log(e[straight]))[0, 1] < -0.99
    assert -1.02 <= slope_of_mean(k, e, 400) <= -0.95


NESTED = [
    StocBiO(0.2, 0.05, 0.4, inner_steps=4, neumann_terms=12),
    AmIGO(0.2, 0.05, 0.4, inner_steps=4, linear_steps=4),
]


def assert_one_over_k_to_a_floor(method, size):
    """(1/K) Σ (e_k − floor) decreases like 1/K; returns the floor."""
    k, e = errors(method, 800, 2, (size, size))
    floor = e[len(e) // 2 :].mean()
    assert floor < 1e-2 * e[0]
    before = k <= 400
    assert -1.05 <= slope_of_mean(k[before], e[before] - floor, 60) <= -0.9
    return floor


@pytest.mark.parametrize("method", NESTED, ids=name_of)
def test_nested_loops_decrease_like_one_over_k_to_a_floor(method):
    assert_one_over_k_to_a_floor(method, 16)


@pytest.mark.slow
@pytest.mark.parametrize("method", NESTED, ids=name_of)
def test_larger_batches_lower_the_floor_in_proportion(method):
    """A minibatch of b out of N has variance (N − b)/(b (N − 1))."""
    coarse, fine = (assert_one_over_k_to_a_floor(method, size) for size in (16, 64))
    expected = ((N - 16) / 16) / ((N - 64) / 64)
    assert 0.75 <= coarse / fine / expected <= 1.6  # larger: products of two noises


@pytest.mark.slow
def test_piggyback_directions_converge_like_one_over_the_inner_steps():
    """E‖D_K − ∇h‖² = O(log²K/K) with decreasing inner stepsizes (arXiv 2405.15894, theorem 2.2)."""
    mu = jnp.linalg.eigvalsh(HESSIAN)[0]
    theta0 = QUADRATIC.theta0

    def error(key, method):
        after = stochastic.minimize(
            *QUADRATIC, method=method, steps=1, key=key, batch=(16, N)
        ).theta
        return jnp.sum((theta0 - after - gradient(theta0)) ** 2)

    inner_steps, means = np.array([100, 400, 1600]), []
    for count in inner_steps:
        method = PiggybackSGD(jaxns.Decreasing(2 / mu, 20), 1.0, inner_steps=int(count))
        means.append(jnp.mean(jax.vmap(error, (0, None))(jnp.arange(64), method)))
    assert -1.15 <= slope(inner_steps, np.array(means)) <= -0.85


@pytest.mark.slow
def test_piggyback_descends_to_noise_proportional_to_its_stepsizes():
    floors = []
    for stepsize in (0.1, 0.05):
        _, e = errors(PiggybackSGD(stepsize, stepsize, inner_steps=60), 600, 5, seeds=16)
        floors.append(e[len(e) // 2 :].mean())
        assert floors[-1] < 1e-2 * e[0]
    assert 1.5 <= floors[0] / floors[1] <= 3


# On the two problems of the suite: (method, its stated rate's quantity, steps of each)
DESCENDING = [
    (SOBA(Power(0.4), Power(10.0)), 1000),
    (SABA(0.1, 4.0), 500),
    (StocBiO(0.1, 4.0, neumann_terms=30), 200),
    (AmIGO(0.1, 4.0), 200),
    (PiggybackSGD(0.1, 4.0, inner_steps=20), 200),
]


@pytest.mark.parametrize(("method", "steps"), DESCENDING, ids=name_of)
def test_every_method_cleans_data(method, steps):
    """It decreases h and ‖∇h‖, and gives the wrong labels less weight than the right ones."""
    task = cleaning()
    after = stochastic.minimize(*task, method=method, steps=steps, key=1, batch=(16, 16))
    (before, slope_before), (value, slope_after) = (
        implicit(cleaning)(theta, task.x0) for theta in (task.theta0, after.theta)
    )
    assert value < 0.9 * before
    assert jnp.linalg.norm(slope_after) < 0.5 * jnp.linalg.norm(slope_before)
    wrong = digits()[1]
    assert jnp.mean(after.theta[wrong]) < jnp.mean(after.theta[~wrong]) - 0.5


def recorded(problem, method, steps, batch, seeds=4):
    """k and e_k on a problem whose ∇h is that of a solve, at about 25 points even in log k."""
    every, task = steps // 200, problem()

    def run(key):
        return stochastic.minimize(
            *task,
            method=method,
            steps=steps,
            key=key,
            batch=batch,
            record_every=every,
            evaluate=lambda theta, x: (theta, x),
        )

    result = jax.vmap(run)(jnp.arange(seeds))
    k = np.asarray(result.steps[0])
    at = np.unique(np.searchsorted(k, np.append(0, np.geomspace(every, steps, 25))))
    rows = jax.tree.map(lambda r: np.asarray(r[:, at]), result.record)
    gradient = implicit(problem)
    squares = [
        [float(jnp.sum(gradient(theta, x)[1] ** 2)) for theta, x in zip(*run, strict=True)]
        for run in zip(*rows, strict=True)
    ]
    return k[at], np.mean(squares, axis=0)


STATED = [  # (problem, method, steps)
    (selection, SOBA(Power(0.5), Power(10.0)), 8000),
    (selection, SABA(0.1, 1.0), 6000),
    (selection, StocBiO(0.1, 1.0, neumann_terms=60), 4000),
    (selection, AmIGO(0.1, 1.0), 4000),
    (selection, PiggybackSGD(0.1, 1.0, inner_steps=60), 4000),
    (cleaning, SOBA(Power(0.5), Power(100.0)), 4000),
    (cleaning, SABA(0.1, 20.0), 4000),
    (cleaning, StocBiO(0.1, 20.0, neumann_terms=30), 2000),
    (cleaning, AmIGO(0.1, 20.0), 2000),
    (cleaning, PiggybackSGD(0.1, 20.0, inner_steps=30), 2000),
]


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "method", "steps"), STATED, ids=name_of)
def test_stated_rates_on_the_problems_of_the_suite(problem, method, steps):
    """SOBA: min e_k = O(log K/√K), an upper bound. The others: (1/K) Σ e_k = O(1/K), before a floor

    of noise that these runs do not reach. The mean holds e_0 + …, so that its slope is −1 where e_k
    is summable; 0.15 is for what has not been summed up yet.
    """
    k, e = recorded(problem, method, steps, (16, 16))
    late = k >= steps / 10
    if isinstance(method, SOBA):
        assert slope(k[late], np.minimum.accumulate(e)[late]) <= -0.5
    else:
        areas = np.cumsum((e[1:] + e[:-1]) / 2 * np.diff(k))
        assert -1.05 <= slope(k[1:][late[1:]], (areas / k[1:])[late[1:]]) <= -0.85


def small(method, as_tree=False, dtype=float):
    """Ten steps on the quadratic problem: θ, flat, whether it is given as arrays or as trees."""
    theta0, x0 = QUADRATIC.theta0.astype(dtype), QUADRATIC.x0.astype(dtype)
    if not as_tree:
        task = QUADRATIC._replace(theta0=theta0, x0=x0)
    else:

        def joined(f):
            return lambda x, theta, index: f(
                jnp.append(x["w"], x["b"]), jnp.concatenate(theta), index
            )

        task = Task(
            joined(outer),
            joined(inner),
            (theta0[:1], theta0[1:]),
            {"w": x0[:-1], "b": x0[-1]},
            (N, N),
        )
    result = stochastic.minimize(*task, method=method, steps=10, key=3, batch=(64, 64))
    assert {leaf.dtype for leaf in jax.tree.leaves(result[:2])} == {jnp.dtype(dtype)}
    return jnp.concatenate(result.theta) if as_tree else result.theta


BRIEF = [
    SOBA(0.1, 0.1),
    SABA(0.1, 0.1),
    StocBiO(0.1, 0.1, inner_steps=2, neumann_terms=2),
    AmIGO(0.1, 0.1, inner_steps=2, linear_steps=2),
    PiggybackSGD(0.1, 0.1, inner_steps=3),
]


@pytest.mark.parametrize("method", BRIEF, ids=name_of)
def test_trees_and_float32(method):
    expected = small(method)
    assert jnp.linalg.norm(expected - QUADRATIC.theta0) > 1e-2
    np.testing.assert_allclose(small(method, as_tree=True, dtype=jnp.float32), expected, rtol=1e-4)


def test_runs_repeat_and_batch():
    def run(key):
        return stochastic.minimize(
            *QUADRATIC, method=SOBA(0.1, 0.1), steps=20, key=key, batch=(4, 4)
        ).theta

    alone = jnp.stack([run(0), run(1)])
    np.testing.assert_array_equal(run(jax.random.key(0)), alone[0])
    np.testing.assert_allclose(jax.vmap(run)(jnp.arange(2)), alone, rtol=1e-12)
    assert jnp.max(jnp.abs(alone[0] - alone[1])) > 1e-4


def test_what_is_recorded():
    result = stochastic.minimize(*QUADRATIC, method=SOBA(0.1, 0.1), steps=6, key=0, record_every=2)
    assert result.steps.tolist() == [0, 2, 4, 6]
    assert result.record.shape == (4, Q)
    np.testing.assert_array_equal(result.record[0], QUADRATIC.theta0)
    np.testing.assert_array_equal(result.record[-1], result.theta)
    shorter = stochastic.minimize(*QUADRATIC, method=SOBA(0.1, 0.1), steps=4, key=0)
    np.testing.assert_allclose(shorter.theta, result.record[2], rtol=1e-12)


def test_new_numbers_are_not_traced_again():
    def run(scale, stepsize):
        task = cleaning()
        loss = task.inner.loss
        loss = type(loss)(scale * loss.A, loss.y)
        task = task._replace(inner=type(task.inner)(loss, 0.2 * scale))
        method = SOBA(stepsize, Power(stepsize))
        return stochastic.minimize(*task, method=method, steps=3, key=0).theta

    driver = importlib.import_module("jaxns.bilevel.stochastic.minimize")
    first = run(1.0, 0.1)
    traced = driver._run._cache_size()
    assert jnp.max(jnp.abs(run(0.5, 0.2) - first)) > 0
    assert driver._run._cache_size() == traced


def test_closures_over_tracers():
    def run(scale):
        def scaled(x, theta, index):
            return inner(x, scale * theta, index)

        task = QUADRATIC._replace(inner=scaled)
        return stochastic.minimize(*task, method=SOBA(0.1, 0.1), steps=5, key=0).theta

    scales = jnp.array([0.5, 2.0])
    np.testing.assert_allclose(jax.vmap(run)(scales), jnp.stack([run(s) for s in scales]))


def test_divergence_is_not_silent():
    def run(key):
        return stochastic.minimize(*QUADRATIC, method=SOBA(50.0, 0.1), steps=1000, key=key).theta

    with pytest.raises(jaxns.ConvergenceError, match="SOBA diverged: take smaller stepsizes"):
        run(0)
    assert jnp.all(jnp.isnan(jax.vmap(run)(jnp.arange(2))))


REFUSED = [
    (dict(method=SOBA), TypeError, "method must have the methods init and step"),
    (dict(steps=0), ValueError, "steps must be positive"),
    (dict(steps=2.5), TypeError, "steps must be an integer"),
    (dict(record_every=3), ValueError, "record_every must divide steps = 10"),
    (dict(batch=4), ValueError, "batch must be a pair"),
    (dict(batch=(4, N + 1)), ValueError, "batch must not exceed samples: 513 of 512 outer ones"),
    (dict(samples=(0, N)), ValueError, "samples must be positive"),
    (dict(theta0=jnp.arange(Q)), TypeError, "theta0 must hold floating-point numbers"),
    (dict(inner=None), TypeError, "inner must be a function"),
    (dict(outer=lambda x, theta, index: x), ValueError, "outer must return a scalar"),
    (dict(key="seed"), TypeError, "key must be a whole number or a key"),
    (dict(on_failure="warn"), ValueError, "on_failure must be one of"),
]


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED)
def test_bad_arguments(changes, error, message):
    arguments = QUADRATIC._asdict() | dict(method=SOBA(0.1, 0.1), steps=10, key=0)
    with pytest.raises(error, match=message):
        stochastic.minimize(**(arguments | changes))


def test_bad_methods_and_problems():
    X, y = np.ones((4, 2)), np.array([1, -1, 1, 1])
    for call, error, message in [
        (lambda: SOBA(-1.0, 0.1), ValueError, "inner_stepsize must be positive"),
        (lambda: SABA(0.1, 0.0), ValueError, "outer_stepsize must be positive"),
        (lambda: StocBiO(0.1, 0.1, neumann_terms=0), ValueError, "neumann_terms must be positive"),
        (lambda: AmIGO(0.1, 0.1, linear_steps=1.5), TypeError, "linear_steps must be an integer"),
        (lambda: PiggybackSGD(0.1, 0.1, inner_steps=0), ValueError, "inner_steps must be positive"),
        (lambda: Power(0.1, -1.0), ValueError, "exponent must be nonnegative"),
        (lambda: stochastic.regularisation_selection(X, y + 1, X, y), ValueError, "y must hold −1"),
        (
            lambda: stochastic.regularisation_selection(X, y, X[:, :1], y),
            ValueError,
            "as many columns",
        ),
        (lambda: stochastic.data_cleaning(X, y * 1.0, X, y), TypeError, "y must hold classes"),
        (lambda: stochastic.data_cleaning(X, y, X, y), ValueError, "y must be nonnegative"),
        (
            lambda: stochastic.data_cleaning(X, y**2, X, y**2, penalty=0),
            ValueError,
            "penalty must be positive",
        ),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_sgd_on_unknown_constants_needs_a_stepsize():
    cut = minibatches(jax.random.key(0), N, 64)
    G = FiniteSum(None, cut, lambda _, *args: inner(*args))
    problem = jaxns.Composite(AtTheta(G, QUADRATIC.theta0))
    with pytest.raises(TypeError, match="needs row_lipschitz on f; AtTheta has none; pass a step"):
        jaxns.solve(problem, jaxns.StochasticGradient(), QUADRATIC.x0, stop=jaxns.Stop(tol=None))
