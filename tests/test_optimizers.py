"""The transformations for optax: each against the formulas that define it, written in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import jaxns
from jaxns.optimizers import inexact, inna, innaprop, subgradient

P, STEPS = 5, 40
SIGMA, EPS = 0.999, 1e-8
DRAW = np.random.default_rng(0)
HESSIAN = np.diag(np.linspace(0.5, 2.0, P)) + 0.1
START = DRAW.normal(size=P)
NOISE = DRAW.normal(size=(STEPS, P))
CONSTANT, COSINE = (lambda k: 0.03 + 0 * k), optax.cosine_decay_schedule(0.05, STEPS + 5)


def follow(optimizer, start=START, noise=NOISE):
    """θ_1, θ_2, … with the gradients Hθ + noise, and the state at the end."""

    def step(carry, noise):
        theta, state = carry
        updates, state = optimizer.update(HESSIAN @ theta + noise, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    theta = jnp.asarray(start)
    (_, state), path = lax.scan(step, (theta, optimizer.init(theta)), jnp.asarray(noise))
    return np.asarray(path), state


def follow_form(form, schedule, alpha, beta):
    """The same for one of the forms below: (θ, memory, g̃, γ) -> (θ, memory)."""
    theta, v, memory, path = START.copy(), np.zeros(P), None, []
    for k, noise in enumerate(NOISE):
        g = HESSIAN @ theta + noise
        v = SIGMA * v + (1 - SIGMA) * g**2
        g = g / (np.sqrt(v / (1 - SIGMA ** (k + 1))) + EPS)
        theta, memory = form(theta, memory, g, float(schedule(k)), alpha, beta)
        path.append(theta)
    return np.array(path)


def four_lines(theta, psi, g, gamma, a, b):
    psi = (1 - a * b) * theta if psi is None else psi
    psi = (1 - gamma / b) * psi + gamma * (1 / b - a) * theta
    lead = 1 + gamma * (1 - a * b) / (b - gamma)
    return lead * theta - gamma / (b - gamma) * psi - gamma * b * g, psi


def velocity(theta, p, g, gamma, a, b):
    p = np.zeros(P) if p is None else p
    return theta + gamma * (p - b * g), (1 - a * gamma) * p - gamma * (1 - a * b) * g


def second_version(theta, m, g, gamma, a, b):
    m = np.zeros(P) if m is None else m
    keep = 1 - a * gamma
    m = keep * m + gamma**2 * (1 - a * b) / keep * g
    return theta - m - gamma * (b - gamma) / keep * g, m


def quasi_hyperbolic(theta, mean, g, gamma, a, b):
    mean = np.zeros(P) if mean is None else mean
    theta = theta - gamma / a * ((1 - a * b) * mean + a * b * g)
    return theta, (1 - a * gamma) * mean + a * gamma * g


FORMS = {
    "four lines": (four_lines, True),
    "velocity": (velocity, True),
    "quasi-hyperbolic": (quasi_hyperbolic, True),
    "second version": (second_version, False),
}


@pytest.mark.parametrize("schedule", [CONSTANT, COSINE], ids=["constant", "cosine"])
@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.9), (2.0, 2.0)])
def test_innaprop_is_the_paper_s_algorithm_in_every_form(schedule, alpha, beta):
    found, _ = follow(innaprop(schedule, alpha, beta, SIGMA, EPS, weight_decay=0))
    for name, (form, any_schedule) in FORMS.items():
        away = np.abs(found - follow_form(form, schedule, alpha, beta)).max()
        if any_schedule or schedule is CONSTANT:
            assert away < 1e-12, name
        else:
            assert away > 1e-3, name  # its memory is in units of γ: another method


@pytest.mark.parametrize("decay", ["paper", "decoupled"])
def test_innaprop_applies_weight_decay_first(decay):
    alpha, beta, lam = 0.5, 0.8, 0.3

    def paper(theta, psi, g, gamma, a, b):
        psi = (1 - a * b) * theta if psi is None else psi
        return four_lines((1 - gamma * lam) * theta, psi, g, gamma, a, b)

    def decoupled(theta, p, g, gamma, a, b):
        return velocity((1 - gamma * lam) * theta, p, g, gamma, a, b)

    form = {"paper": paper, "decoupled": decoupled}[decay]
    optimizer = innaprop(COSINE, alpha, beta, SIGMA, EPS, lam, decay)
    np.testing.assert_allclose(
        follow(optimizer)[0], follow_form(form, COSINE, alpha, beta), atol=1e-12
    )


def test_innaprop_is_adamw_without_momentum_where_alpha_beta_is_one():
    adamw = optax.adamw(COSINE, b1=0.0, b2=SIGMA, eps=EPS, weight_decay=0.1)
    one, _ = follow(innaprop(COSINE, 1.0, 1.0, SIGMA, EPS, 0.1))
    np.testing.assert_allclose(one, follow(adamw)[0], atol=1e-14)
    faster = optax.adamw(lambda k: 0.5 * COSINE(k), b1=0.0, b2=SIGMA, eps=EPS, weight_decay=0)
    two, _ = follow(innaprop(COSINE, 2.0, 0.5, SIGMA, EPS, 0))
    np.testing.assert_allclose(two, follow(faster)[0], atol=1e-14)


def test_innaprop_is_inna_on_rescaled_gradients():
    rescaled = optax.chain(
        optax.scale_by_rms(SIGMA, EPS, eps_in_sqrt=False, bias_correction=True),
        inna(COSINE, 0.1, 0.9),
    )
    found, _ = follow(innaprop(COSINE, 0.1, 0.9, SIGMA, EPS, 0))
    np.testing.assert_allclose(found, follow(rescaled)[0], atol=1e-13)


def test_steps_longer_than_beta_are_steps():
    """γ ≥ β, where the four lines divide by zero; the velocity form does not."""
    long = lambda k: 0.2 + 0 * k  # noqa: E731
    found, _ = follow(innaprop(long, 1.0, 0.2, SIGMA, EPS, 0))
    np.testing.assert_allclose(found, follow_form(velocity, long, 1.0, 0.2), atol=1e-12)


def test_two_buffers_and_a_counter():
    params = {"w": jnp.ones((3, 4), jnp.float32), "b": jnp.ones(4, jnp.float32)}
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    count = jnp.zeros((), jnp.int32).nbytes
    nbytes = {
        name: sum(leaf.nbytes for leaf in jax.tree.leaves(make.init(params)))
        for name, make in {
            "innaprop": innaprop(),
            "adamw": optax.adamw(1e-3),
            "inna": inna(),
            "subgradient": subgradient(0.1),
        }.items()
    }
    assert nbytes["innaprop"] == nbytes["adamw"] == 2 * size + count
    assert nbytes["inna"] == size + count
    assert nbytes["subgradient"] == count + 4


def matrix(optimizer, gradient):
    """Of one step, linear in (θ, ψ): from the state after `init`."""

    def step(point):
        state = optimizer.init(point[0])._replace(psi=point[1])
        move, after = optimizer.update(gradient(point[0]), state, point[0])
        return jnp.stack([point[0] + move, after.psi])

    return np.asarray(jax.jacobian(step)(jnp.ones(2)))


def modes(M, gamma):
    """The s of e^{st}, t = Σγ, that the steps by M make: eigenvalues are 1 + γs."""
    return np.sort_complex((np.linalg.eigvals(M) - 1) / gamma)


@pytest.mark.parametrize("h", [0.1, 1.0, 30.0])
def test_inna_has_the_modes_of_its_differential_equation(h):
    gamma, alpha, beta = 0.01, 0.5, 0.1
    found = modes(matrix(inna(gamma, alpha, beta), lambda theta: h * theta), gamma)
    expected = np.sort_complex(np.roots([1, alpha + beta * h, h]).astype(complex))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("lam", [0.001, 0.05])
def test_modes_of_weight_decay(lam):
    """Without a gradient; the larger λ is over the threshold (λ + α)² = 4λ/β, and oscillates."""
    alpha, beta = 0.1, 0.9
    expected = np.sort_complex(np.roots([1, lam + alpha, lam / beta]).astype(complex))
    assert (np.abs(expected.imag).max() > 0) == (lam > 0.0024)
    away = []
    for gamma in (1e-3, 5e-4):
        optimizer = innaprop(gamma, alpha, beta, weight_decay=lam)
        away.append(np.abs(modes(matrix(optimizer, jnp.zeros_like), gamma) - expected).max())
    assert away[0] < 1e-3 * alpha
    assert away[0] / away[1] == pytest.approx(2, rel=0.01)  # O(γ)
    optimizer = innaprop(1e-3, alpha, beta, weight_decay=lam, decay="decoupled")
    plain = modes(matrix(optimizer, jnp.zeros_like), 1e-3)
    np.testing.assert_allclose(plain, np.sort([-lam, -alpha]), atol=1e-9)


def test_inna_follows_the_phase_form_and_its_first_velocity():
    a, b, speed = 0.5, 0.1, 0.7
    rate = jaxns.Decreasing(0.1, 1, 1 / 2)
    theta, path = START.copy(), []
    psi = (1 - a * b) * theta + (b * speed - b**2) * (HESSIAN @ theta + NOISE[0])
    for k, noise in enumerate(NOISE):
        gamma, v = 0.1 / np.sqrt(k + 1), HESSIAN @ theta + noise
        p = (1 / b - a) * theta - psi / b
        psi, theta = psi + gamma * p, theta + gamma * (p - b * v)
        path.append(theta)
    found, _ = follow(inna(rate, a, b, speed))
    np.testing.assert_allclose(found, path, atol=1e-12)
    first = (found[0] - START) / 0.1
    np.testing.assert_allclose(first, -speed * (HESSIAN @ START + NOISE[0]), atol=1e-11)


def test_the_trajectory_of_inna_tends_to_that_of_the_differential_equation():
    """θ'' + (α + βh) θ' + hθ = 0, θ(0) = 1, θ'(0) = −βh, at t = 2: an error O(γ)."""
    h, a, b = 3.0, 0.5, 0.1
    r = np.roots([1, a + b * h, h])
    weights = np.linalg.solve([[1, 1], r], [1, -b * h])
    exact = (weights @ np.exp(2 * r)).real
    errors = []
    for steps in (1000, 2000):
        path = inexact.run(lambda x: h * x, jnp.ones(()), inna(2 / steps, a, b), steps, 1)
        errors.append(abs(float(path.x[-1]) - exact))
    assert errors[0] < 1e-2
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


TREE = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "none": None, "b": (jnp.ones(()),)}
EVERY = {
    "inna": inna(),
    "innaprop": innaprop(COSINE),
    "subgradient": subgradient(0.1, averaging=True),
    "perturbed": inexact.perturbed(0.1),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_types_and_structures_stay(name, dtype):
    """Under scan, with None for what is not trained: a step changes values only."""
    params = jax.tree.map(lambda a: a.astype(dtype), TREE)
    optimizer = EVERY[name]
    x, state = inexact.run(jax.grad(squared), params, optimizer, 3)
    assert jax.tree.structure(x) == jax.tree.structure(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(x)} == {jnp.dtype(dtype)}
    kept = {a.dtype for a in jax.tree.leaves(state) if jnp.issubdtype(a.dtype, jnp.floating)}
    assert kept <= {jnp.promote_types(dtype, "float32")}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


def squared(params):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def test_bfloat16_parameters_leave_the_memory_exact():
    """(1 − σ) g² is below 1/256 of v: in bfloat16 v would stay where the first steps bring it."""
    inject = optax.inject_hyperparams(innaprop, hyperparam_dtype=jnp.float32)
    for optimizer in (innaprop(0.0), inject(0.0)):
        _, state = inexact.run(jnp.ones_like, jnp.ones(3, jnp.bfloat16), optimizer, 2000, 1)
        v = optax.tree_utils.tree_get(state, "v")
        np.testing.assert_allclose(v, 1 - 0.999**2000, rtol=1e-3)


def test_vmap_over_rates_and_dampings():
    def final(rate, alpha):
        optimizer = innaprop(rate, alpha, 0.9)
        return inexact.run(jax.grad(squared), jnp.asarray(START), optimizer, 5, 1).x[0]

    rates, alphas = jnp.array([0.01, 0.1]), jnp.array([0.1, 2.0])
    found = jax.jit(jax.vmap(final))(rates, alphas)
    alone = [final(float(rate), float(alpha)) for rate, alpha in zip(rates, alphas, strict=True)]
    np.testing.assert_allclose(found, alone, atol=1e-14)


def test_chain_with_clipping():
    clipped = optax.chain(optax.clip_by_global_norm(0.5), inna(0.1))
    gradient = jnp.asarray(START)
    short = gradient * (0.5 / jnp.linalg.norm(gradient))
    found, _ = clipped.update(gradient, clipped.init(gradient), gradient)
    expected, _ = inna(0.1).update(short, inna(0.1).init(gradient), gradient)
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_injected_hyperparameters_are_the_same_method():
    injected = optax.inject_hyperparams(innaprop)(COSINE, alpha=0.5, decay="decoupled")
    found, state = follow(injected)
    np.testing.assert_allclose(
        found, follow(innaprop(COSINE, alpha=0.5, decay="decoupled"))[0], atol=1e-12
    )
    assert state.hyperparams["alpha"] == 0.5
    assert float(state.hyperparams["learning_rate"]) == float(COSINE(STEPS - 1))


def test_masks_and_several_transformations():
    gradient = jax.tree.map(lambda a: a + 1, TREE)
    labels = {"w": "decayed", "none": None, "b": ("plain",)}
    both = optax.multi_transform(
        {"decayed": innaprop(0.1, weight_decay=0.5), "plain": innaprop(0.1, weight_decay=0)},
        labels,
    )
    found, _ = both.update(gradient, both.init(TREE), TREE)
    for key, decay in (("w", 0.5), ("b", 0.0)):
        alone = innaprop(0.1, weight_decay=decay)
        expected, _ = alone.update(gradient[key], alone.init(TREE[key]), TREE[key])
        jax.tree.map(np.testing.assert_array_equal, found[key], expected)
    mask = {"w": True, "none": None, "b": (False,)}
    masked = optax.masked(inna(0.1), mask)
    found, _ = masked.update(gradient, masked.init(TREE), TREE)
    assert found["b"] == gradient["b"]
    np.testing.assert_allclose(found["w"], -0.1 * 0.1 * gradient["w"], atol=1e-15)
    ones = optax.tree_utils.tree_map_params(both, jnp.ones_like, both.init(TREE))
    assert jax.tree.structure(ones) == jax.tree.structure(both.init(TREE))


def test_average_of_the_subgradient_method():
    rate = jaxns.Decreasing(0.5, 10, 0.6)
    optimizer = optax.chain(optax.identity(), subgradient(rate, averaging=True))
    path, state = follow(optimizer)
    before, weights = np.vstack([START, path[:-1]]), 0.5 / (np.arange(STEPS) + 10) ** 0.6
    gradients = before @ HESSIAN + NOISE
    np.testing.assert_allclose(path, before - weights[:, None] * gradients, atol=1e-14)
    average = optax.tree_utils.tree_get(state, "average")
    np.testing.assert_allclose(average, weights @ before / weights.sum(), atol=1e-14)


def test_a_rate_of_zero_moves_nothing():
    optimizer = subgradient(0.0, averaging=True)
    path, state = follow(optimizer)
    np.testing.assert_array_equal(path, np.broadcast_to(START, path.shape))
    np.testing.assert_array_equal(state.average, START)


@pytest.mark.parametrize("q", [1.5, 3.0])
def test_errors_push_to_where_the_slope_is_their_size(q):
    """f(x) = Σ|x_i|^q in one coordinate: |x| = (ε/q)^{1/(q − 1)}."""
    eps = 0.1
    optimizer = optax.chain(inexact.perturbed(eps), subgradient(jaxns.Decreasing(0.5, 10, 0.6)))
    gradient = jax.grad(lambda x: jnp.sum(jnp.abs(x) ** q))
    path = inexact.run(gradient, jnp.ones(()), optimizer, 20_000, keep=10)
    np.testing.assert_allclose(jnp.abs(path.x), (eps / q) ** (1 / (q - 1)), rtol=1e-3)


def test_errors_have_the_size_that_is_stated():
    x, v = {"a": jnp.ones(3), "b": jnp.zeros(2)}, {"a": jnp.arange(3.0), "b": jnp.ones(2)}

    def error(adversary):
        optimizer = inexact.perturbed(0.3, adversary)
        return jaxns.tree.sub(optimizer.update(v, optimizer.init(x), x)[0], v)

    worst = error(None)
    np.testing.assert_allclose(jaxns.tree.norm(worst), 0.3, rtol=1e-12)
    np.testing.assert_allclose(jaxns.tree.vdot(worst, v), -0.3 * jaxns.tree.norm(v), rtol=1e-12)
    cut = error(lambda x, v: jaxns.tree.scale(100.0, x))
    np.testing.assert_allclose(cut["a"], 0.3 / np.sqrt(3), rtol=1e-12)
    short = error(lambda x, v: jaxns.tree.scale(0.1, x))
    np.testing.assert_allclose(short["a"], 0.03, rtol=1e-12)
    nothing = inexact.opposing(x, jaxns.tree.zeros_like(v))
    assert jaxns.tree.norm(nothing) == 0


def test_run_keeps_the_last_iterates():
    every = inexact.run(jax.grad(squared), jnp.ones(2), subgradient(0.1), 6)
    last = inexact.run(jax.grad(squared), jnp.ones(2), subgradient(0.1), 6, keep=2)
    np.testing.assert_allclose(every.x, 0.8 ** np.arange(1, 7)[:, None] * np.ones(2), rtol=1e-12)
    np.testing.assert_array_equal(last.x, every.x[-2:])
    assert last.state.count == 6


def test_the_package_is_found_when_it_is_asked_for():
    assert jaxns.optimizers.inna is inna
    with pytest.raises(AttributeError, match="no attribute 'optimizer'"):
        jaxns.optimizer  # noqa: B018


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: innaprop(-1e-3), "learning_rate must be nonnegative"),
        (lambda: innaprop(alpha=-0.1), "alpha must be nonnegative"),
        (lambda: innaprop(beta=0.0), "beta must be positive"),
        (lambda: innaprop(sigma=1.0), r"sigma must lie in \[0, 1\)"),
        (lambda: innaprop(eps=0.0), "eps must be positive"),
        (lambda: innaprop(weight_decay=-1.0), "weight_decay must be nonnegative"),
        (lambda: innaprop(decay="decouple"), "did you mean 'decoupled'"),
        (lambda: inna(beta=-1.0), "beta must be positive"),
        (lambda: inna(speed=-1.0), "speed must be nonnegative"),
        (lambda: subgradient(-1.0), "learning_rate must be nonnegative"),
        (lambda: inexact.perturbed(-1.0), "eps must be nonnegative"),
        (lambda: inexact.run(jnp.sign, 1.0, inna(), 0), "steps must be positive"),
        (lambda: inexact.run(jnp.sign, 1.0, inna(), 5, 6), "keep must lie in"),
        (lambda: jaxns.Decreasing(1, 1, 0), "power must be positive"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("value", ["fast", None, [0.1]])
def test_a_rate_is_a_number_or_a_function(value):
    with pytest.raises((TypeError, ValueError), match="learning_rate must"):
        innaprop(value)


@pytest.mark.parametrize("name", ["inna", "innaprop", "subgradient"])
def test_parameters_left_out_are_asked_for(name):
    optimizer = EVERY[name]
    with pytest.raises(ValueError, match=f"{name}.* needs the parameters"):
        optimizer.update(TREE, optimizer.init(TREE))
