"""One learning rate per group by Newton's method (arXiv 2312.03885), against explicit matrices."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from jaxns.optimizers import cubic_step, newton_summary, partition, summaries

random = np.random.default_rng(0)
X = jnp.asarray(random.normal(size=(12, 2)))
y = jnp.asarray(random.normal(size=(12, 1)))
SIZES = (2, 3, 1)
PARAMS = [
    {"w": jnp.asarray(random.normal(size=(m, n))), "b": jnp.asarray(random.normal(size=n))}
    for m, n in itertools.pairwise(SIZES)
]
U = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), PARAMS)
OWN = [{"w": "a", "b": np.array([0, 1, 0])}, {"w": 7, "b": "a"}]
GROUPS = {  # of the tensors b, w of two layers, in this order; labels of the 13 entries
    "tensors": np.repeat(range(4), (3, 6, 1, 3)),
    "all": np.zeros(13, int),
    "weights and biases": np.repeat([0, 1, 0, 1], (3, 6, 1, 3)),
    "entries": np.arange(13),
    2: np.repeat([0, 1], (9, 4)),
    "own": np.array([0, 1, 0, *[2] * 6, 2, *[3] * 3]),
}


def loss(params, X=X, y=y):
    z = X
    for layer in params:
        z = jnp.tanh(z @ layer["w"] + layer["b"])
    return jnp.mean((z - y) ** 2)


def step_of(loss, params, u, groups, rates):
    """Diag(u) I η."""
    I = partition(params, groups)
    eta = rates(summaries(loss, params, u, I))
    return jax.tree.map(jnp.multiply, I.spread(eta, params), u)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_partitions(groups):
    I = partition(PARAMS, OWN if groups == "own" else groups)
    eta = jnp.arange(I.S) + 1.0
    np.testing.assert_array_equal(ravel_pytree(I.spread(eta, PARAMS))[0], GROUPS[groups] + 1)
    assert max(GROUPS[groups]) + 1 == I.S


def test_summaries_are_the_matrices_of_the_paper():
    """For groups of whole tensors and parts of them; all at once, and a batch at a time."""
    flat, unravel = ravel_pytree(PARAMS)
    gradient, hessian, third = derivatives(lambda theta: loss(unravel(theta)))(flat)
    uI = np.asarray(ravel_pytree(U)[0])[:, None] * np.eye(4)[GROUPS["own"]]
    both = jax.jit(lambda p: [summaries(loss, p, U, OWN, batch) for batch in (None, 3)])
    for found in both(PARAMS):
        np.testing.assert_allclose(found.g, uI.T @ gradient, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.H, uI.T @ hessian @ uI, rtol=0, atol=1e-12)
        d3 = np.einsum("abc,as,bs,cs->s", third, uI, uI, uI, optimize=True)
        np.testing.assert_allclose(found.d3, d3, rtol=0, atol=1e-12)


def derivatives(f):
    return jax.jit(lambda x: (jax.grad(f)(x), jax.hessian(f)(x), jax.jacfwd(jax.hessian(f))(x)))


def test_one_group_is_cauchy_and_one_per_entry_is_newton():
    def convex(w):
        return jnp.mean(jnp.logaddexp(0.0, -y[:, 0] * (X @ w["a"] + w["b"]))) + jnp.sum(w["a"] ** 2)

    w = {"a": jnp.array([0.3, -0.2]), "b": jnp.array(0.1)}
    flat, unravel = ravel_pytree(w)
    g, H, _ = derivatives(lambda theta: convex(unravel(theta)))(flat)
    newton = partial(cubic_step, lam=0.0)

    @jax.jit
    def steps(w, u):
        cauchy = newton(*summaries(convex, w, u, "all"))
        return cauchy.eta, step_of(convex, w, u, "entries", lambda s: newton(*s).eta)

    cauchy, step = steps(w, unravel(g))
    np.testing.assert_allclose(cauchy, [g @ g / (g @ H @ g)], rtol=1e-12)
    np.testing.assert_allclose(ravel_pytree(step)[0], jnp.linalg.solve(H, g), rtol=1e-10)


def models(S, count):
    """H of every signature, D of every scale."""
    H = random.normal(size=(count, S, S))
    H = H + H.swapaxes(1, 2) + np.linspace(-3, 6, count)[:, None, None] * np.eye(S)
    return H, random.normal(size=(count, S)), 10 ** random.uniform(-3, 2, size=(count, S))


def value(eta, H, g, d3, lam):
    return -g @ eta + eta @ H @ eta / 2 + lam / 6 * np.linalg.norm(np.cbrt(d3) * eta) ** 3


def test_the_step_is_the_global_minimiser_of_the_cubic_model():
    """Also where H is indefinite; among the local minimisers that are found from many starts."""
    lam, S = 3.0, 3
    H, g, d3 = models(S, 12)
    found = jax.jit(jax.vmap(partial(cubic_step, lam=lam)))(H, g, d3)
    assert found.solved.all()
    indefinite = 0
    for h, gi, d, eta, r in zip(H, g, d3, found.eta, found.r, strict=True):
        D = np.cbrt(d)
        M = h + lam / 2 * float(r) * np.diag(D**2)
        np.testing.assert_allclose(np.linalg.norm(D * eta), r, rtol=1e-10)
        np.testing.assert_allclose(M @ eta, gi, rtol=0, atol=1e-10 * np.abs(gi).max())
        assert np.linalg.eigvalsh(M)[0] >= -1e-12 * np.abs(M).max()
        lowest = np.linalg.eigvalsh(h / np.outer(D, D))[0]
        assert r > max(0, -2 * lowest / lam)
        indefinite += lowest < 0
        scale = np.linalg.norm(eta)
        best = min(
            minimize(value, start, (h, gi, d, lam), tol=1e-12).fun
            for start in (2 * scale * random.normal(size=(6, S)))
        )
        mine = value(np.asarray(eta), h, gi, d, lam)
        assert mine <= best + 1e-8 * abs(best)
    assert 3 <= indefinite <= 11


@pytest.mark.parametrize(
    ("H", "g", "d3", "lam", "solved"),
    [
        ([[2, 0], [0, -1]], [1, 1], [1, 1], 1.0, True),
        ([[2, 0.1], [0.1, -1]], [1, 1], [0, 1], 1.0, True),  # no D where H curves up
        ([[2, 0], [0, -1]], [1, 1], [1, 0], 1.0, False),  # no D where it curves down
        ([[2, 0], [0, -1]], [1, 1], [1, 1], 0.0, False),
        ([[2, 0], [0, 1]], [1, 1], [0, 0], 1.0, True),
        ([[2, 0], [0, -1]], [1, 0], [1, 1], 1.0, False),  # the hard case
        ([[2, 0], [0, 1]], [0, 0], [1, 1], 1.0, True),
        ([[2, 0], [0, 0]], [1, 0], [1, 0], 1.0, True),  # nothing depends on the second
        ([[2, 0], [0, np.nan]], [1, 1], [1, 1], 1.0, False),
        ([[2, 0], [0, 1]], [1, np.inf], [1, 1], 1.0, False),
    ],
)
def test_degenerate_models(H, g, d3, lam, solved):
    H, g, d3 = (np.asarray(a, float) for a in (H, g, d3))
    found = cubic_step(H, g, d3, lam)
    assert found.solved == solved
    assert np.all(np.isfinite(found.eta))
    M = H + lam / 2 * float(found.r) * np.diag(np.cbrt(d3) ** 2)
    np.testing.assert_allclose(M @ found.eta if solved else found.eta, g if solved else 0,
                               rtol=0, atol=1e-12)  # fmt: skip


def test_float32():
    H, g, d3 = (jnp.asarray(a, jnp.float32) for a in ([[2, 0.1], [0.1, -1]], [1, 1], [1, 0.1]))
    exact = cubic_step(H, g, d3)
    with jax.enable_x64(False):
        single = cubic_step(H, g, d3)
    assert single.eta.dtype == jnp.float32
    assert exact.eta.dtype == jnp.float64
    assert single.solved
    np.testing.assert_allclose(single.eta, exact.eta, rtol=1e-5)


SCALES = jax.tree.map(lambda p: jnp.asarray(10 ** random.uniform(-2, 2)), PARAMS)
SHIFTS = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), PARAMS)


def in_units(w):
    """θ_s = a_s w_s + b_s."""
    return jax.tree.map(lambda a, w, b: a * w + b, SCALES, w, SHIFTS)


RATES = {
    "cubic": lambda s: cubic_step(*s).eta,
    "diagonal": lambda s: cubic_step(jnp.diag(jnp.diag(s.H)), s.g, s.d3).eta,
    "ridge": lambda s: jnp.linalg.solve(s.H + jnp.eye(len(s.g)), s.g),
}


@jax.jit
def steps_along_the_gradient(w):
    """For each kind of rates: the step in θ, and in θ's units that in w."""
    theta, in_w = in_units(w), lambda w: loss(in_units(w))
    u_theta, u_w = jax.grad(loss)(theta), jax.grad(in_w)(w)
    I = partition(w)
    of_theta, of_w = summaries(loss, theta, u_theta, I), summaries(in_w, w, u_w, I)

    def steps(rates):
        here, there = I.spread(rates(of_theta), w), I.spread(rates(of_w), w)
        there = jax.tree.map(lambda a, eta, u: a * eta * u, SCALES, there, u_w)
        return [ravel_pytree(t)[0] for t in (jax.tree.map(jnp.multiply, here, u_theta), there)]

    etas = {name: rates(of_theta) for name, rates in RATES.items()}
    return {name: steps(rates) for name, rates in RATES.items()}, of_theta, etas


def test_the_step_does_not_depend_on_units_unless_there_is_a_ridge():
    steps, *_ = steps_along_the_gradient(PARAMS)
    differences = {
        name: float(np.linalg.norm(there - here) / np.linalg.norm(here))
        for name, (here, there) in steps.items()
    }
    assert differences["cubic"] < 1e-10
    assert differences["diagonal"] < 1e-10
    assert differences["ridge"] > 0.1


def test_a_diagonal_model_is_minimised_by_another_step():
    _, s, eta = steps_along_the_gradient(PARAMS)
    full, rough = (
        value(np.asarray(eta[name]), *map(np.asarray, s[:2]), np.abs(s.d3), 1.0)
        for name in ("cubic", "diagonal")
    )
    assert full < 0
    assert full < rough - 0.01 * abs(full)


def run(optimizer, params, loss, steps):
    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params, value_fn=loss)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    history = []
    for _ in range(steps):
        params, state = step(params, state)
        history.append((params, state))
    return history


@pytest.mark.slow
def test_a_trajectory_does_not_depend_on_units():
    start = in_units(PARAMS)
    optimizer = newton_summary(period=2, damping=0.5, average=2, momentum=0.3)
    plain = run(optimizer, start, loss, 7)
    other = run(optimizer, PARAMS, lambda w: loss(in_units(w)), 7)
    assert loss(plain[-1][0]) < loss(start)
    for (theta, _), (w, _) in zip(plain, other, strict=True):
        there, here = (ravel_pytree(t)[0] for t in (in_units(w), theta))
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-9)


def test_the_optimiser_step_by_step():
    """Means, warm-up, moving average and clipping, from a plain loop with numpy."""
    average, warmup, momentum, damping, period = 2, 3, 0.25, 0.3, 2
    updater = optax.sgd(1.0, momentum=0.9)
    optimizer = newton_summary(
        updater, period=period, average=average, warmup=warmup, momentum=momentum, damping=damping
    )
    params, memory, kept, eta = PARAMS, updater.init(PARAMS), [], None
    I = partition(params)
    of = jax.jit(lambda params, u: summaries(loss, params, jax.tree.map(jnp.negative, u), I))
    gradient, step = jax.jit(jax.grad(loss)), jax.jit(cubic_step)
    for k, (theta, state) in enumerate(run(optimizer, PARAMS, loss, 12)):
        proposal, memory = updater.update(gradient(params), memory)
        if k % period == 0:
            s = of(params, proposal)
            kept.append([np.asarray(s.H), np.asarray(s.g), np.abs(s.d3)])
            n = len(kept)
            begun = 0 if n < average else (n // average - 1) * average
            found = step(*(np.mean(a, axis=0) for a in zip(*kept[begun:], strict=True)))
            assert found.solved
            new = np.maximum(found.eta, 0)
            eta = new if eta is None else momentum * eta + (1 - momentum) * new
        if len(kept) > warmup:
            scale = I.spread(jnp.asarray(damping * eta), params)
            params = jax.tree.map(lambda p, c, d: p + c * d, params, scale, proposal)
        np.testing.assert_allclose(state.rates.eta, eta, rtol=1e-8)
        np.testing.assert_allclose(
            ravel_pytree(theta)[0], ravel_pytree(params)[0], rtol=0, atol=1e-10
        )
        if len(kept) <= warmup:
            np.testing.assert_array_equal(ravel_pytree(theta)[0], ravel_pytree(PARAMS)[0])


@pytest.mark.parametrize(("on_failure", "moves"), [("keep", 4), ("skip", 2)])
def test_a_model_without_a_step(on_failure, moves):
    """v²/2 + w² and no third order: η = (1, ½). From the second summary on, −v²/2 + w²."""
    optimizer = newton_summary(optax.sgd(1.0), period=2, damping=0.5, on_failure=on_failure)

    @jax.jit
    def step(params, state, sign):
        f = lambda p: sign * p["v"] ** 2 / 2 + p["w"] ** 2  # noqa: E731
        updates, state = optimizer.update(jax.grad(f)(params), state, params, value_fn=f)
        return optax.apply_updates(params, updates), state

    params = {"v": jnp.array(1.0), "w": jnp.array(1.0)}
    state = optimizer.init(params)
    for k in range(4):
        params, state = step(params, state, 1.0 if k < 2 else -1.0)
        assert state.rates.solved == (k < 2)
        np.testing.assert_allclose(state.rates.eta, [1, 0.5])
    # Each move takes ½ · 1 · v from v, then adds it, and takes ½ · ½ · 2w from w.
    assert float(params["v"]) == pytest.approx(0.5**2 * 1.5 ** (moves - 2))
    assert float(params["w"]) == pytest.approx(0.5**moves)


@pytest.mark.slow
def test_float32_parameters_and_many_starts_at_once():
    def final(seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        shapes = [(2, 4), (4, 1)]
        w = [jax.random.normal(k, s, jnp.float32) for k, s in zip(keys[:2], shapes, strict=True)]
        net = lambda w: jnp.mean((jnp.tanh(X @ w[0]) @ w[1] - y) ** 2)  # noqa: E731
        optimizer = newton_summary(optax.adam(1.0), period=3, damping=0.3)

        def step(carry, _):
            w, state = carry
            updates, state = optimizer.update(jax.grad(net)(w), state, w, value_fn=net)
            return (optax.apply_updates(w, updates), state), net(w)

        (w, state), losses = jax.lax.scan(step, (w, optimizer.init(w)), length=20)
        return w, state.rates.eta, losses

    w, eta, losses = jax.jit(jax.vmap(final))(jnp.arange(4))
    assert all(leaf.dtype == jnp.float32 for leaf in w)
    assert eta.dtype == jnp.float64
    assert np.all(losses[:, -1] < losses[:, 0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: partition(PARAMS, "tensor"), "groups must be one of"),
        (lambda: partition(PARAMS, 7), "groups must be from 1 to 4"),
        (lambda: partition(PARAMS, [0, 1]), "groups must have the structure of params"),
        (lambda: partition([X], [np.arange(3)]), "groups must label a tensor of shape"),
        (lambda: partition({}), "params must hold at least one array"),
        (lambda: summaries(loss, PARAMS, PARAMS[0]), "direction must have the structure"),
        (lambda: cubic_step(np.eye(3), np.ones(2), np.ones(2)), "H, g, d3 must have shapes"),
        (lambda: cubic_step(np.eye(2), np.ones(2), np.ones(2), -1.0), "lam must be nonnegative"),
        (lambda: newton_summary(period=0), "period must be at least 1"),
        (lambda: newton_summary(damping=2.0), "damping must lie in"),
        (lambda: newton_summary(on_failure="stop"), "on_failure must be one of"),
        (
            lambda: newton_summary().update(PARAMS, newton_summary().init(PARAMS), PARAMS),
            "update needs params and value_fn",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
