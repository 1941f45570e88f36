"""L-BFGS and Broyden: what they cost beside their peers, and what they keep of the Jacobian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import jaxns
from jaxns.functions import L1, LeastSquares, Quadratic, Smooth, SquaredL2
from jaxns.solve import STEPPING
from jaxns.solvers.broyden import LowRank
from jaxns.solvers.lbfgs import Pairs

N, P = 200, 50
rng = np.random.default_rng(0)


def orthogonal(rows, columns):
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


def problems():
    """Ridge and l2-logistic regression with Hessians of condition 1e4, or a little less."""
    X = orthogonal(N, P) * np.geomspace(1, 1e-2, P) @ orthogonal(P, P).T * np.sqrt(N)
    y = X @ rng.normal(size=P) + 0.1 * rng.normal(size=N)
    return {
        "ridge": jaxns.problems.ridge(X, y, 1e-6),
        "logistic": jaxns.problems.logistic_regression(X, np.sign(y), 1e-5),
    }


def gradient(problem):
    return jax.jit(lambda x: problem.f.gradient(x) + problem.g.gradient(x))


def optax_steps(problem, tol):
    """Gradients that optax's L-BFGS evaluates until the one at its iterate is below tol."""
    evaluations = [0]

    def value(x):
        jax.debug.callback(lambda: evaluations.__setitem__(0, evaluations[0] + 1))
        return problem(x)

    solver, x = optax.lbfgs(memory_size=10), jnp.zeros(P)

    @jax.jit
    def step(x, state):
        v, g = optax.value_and_grad_from_state(value)(x, state=state)
        updates, state = solver.update(g, state, x, value=v, grad=g, value_fn=value)
        return optax.apply_updates(x, updates), state, jnp.linalg.norm(g)

    state, size = solver.init(x), np.inf
    while size > tol and evaluations[0] < 5000:
        x, state, size = step(x, state)
    jax.effects_barrier()
    return evaluations[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic", pytest.param("ridge", marks=pytest.mark.slow)])
def test_gradient_evaluations_beside_peers(name):
    """Far fewer than accelerated gradient descent; as many as SciPy and optax, to the same ‖∇‖."""
    problem = problems()[name]
    ours = jaxns.solve(problem, jaxns.LBFGS())
    slow = jaxns.solve(problem, jaxns.Nesterov(jaxns.GradientDescent()))
    assert ours.status == jaxns.Status.CONVERGED
    assert ours.steps < 0.5 * slow.steps
    np.testing.assert_allclose(problem(ours.x), problem(slow.x), rtol=1e-12)

    tol = 1e-9
    size, value = gradient(problem), jax.jit(problem)
    norms = []

    def fun(x):
        g = np.asarray(size(x))
        norms.append(np.linalg.norm(g))
        return float(value(x)), g

    options = {"maxcor": 10, "ftol": 0, "gtol": tol / 10, "maxiter": 5000, "maxfun": 5000}
    scipy.optimize.minimize(fun, np.zeros(P), jac=True, method="L-BFGS-B", options=options)
    theirs = int(np.argmax(np.array(norms) <= tol)) + 1
    x_norm = float(jnp.linalg.norm(ours.x))
    alpha = float(jaxns.LBFGS().prepare(problem, jnp.zeros(P)).stepsize)
    stop = jaxns.Stop(tol=alpha * tol / x_norm)
    same = jaxns.solve(problem, jaxns.LBFGS(), stop=stop)
    assert jnp.linalg.norm(size(same.x)) <= 2 * tol
    assert same.steps <= 1.4 * min(theirs, optax_steps(problem, tol))


def test_two_loops_are_the_matrix():
    """H by its definition, as a matrix, and the exact inverse after n conjugate steps."""
    n = 6
    A = orthogonal(n, n) * np.geomspace(1, 1e3, n)
    A = jnp.asarray(A @ A.T)
    S = jnp.asarray(rng.normal(size=(4, n)))
    blank = jnp.zeros((5, n))
    pairs = Pairs(blank, blank)
    for s in S:
        pairs = pairs.push(s, A @ s)
    s, y = S[-1], A @ S[-1]
    H = (s @ y) / (y @ y) * jnp.eye(n)
    for s in S:
        y, V = A @ s, jnp.eye(n) - jnp.outer(A @ s, s) / (s @ A @ s)
        H = V.T @ H @ V + jnp.outer(s, s) / (s @ y)
    apply = jax.vmap(functools.partial(pairs.apply, initial=pairs.scaling(jnp.ones(()))))
    np.testing.assert_allclose(apply(jnp.eye(n)), H, rtol=1e-10, atol=1e-12)

    _, conjugate = jnp.linalg.eigh(A)
    pairs = Pairs(conjugate.T, conjugate.T @ A)
    exact = jax.vmap(functools.partial(pairs.apply, initial=jnp.asarray(1.0)))(jnp.eye(n))
    np.testing.assert_allclose(exact, jnp.linalg.inv(A), rtol=1e-9, atol=1e-12)


def test_broyden_updates_are_the_matrix():
    """H by its definition; the newest secant equation holds after the oldest row is dropped."""
    n, memory = 5, 3
    A = jnp.asarray(rng.normal(size=(n, n)) + 4 * np.eye(n))
    inverse = LowRank(jnp.zeros((memory, n)), jnp.zeros((memory, n)), jnp.asarray(0.25))
    H = 0.25 * jnp.eye(n)
    for k, s in enumerate(jnp.asarray(rng.normal(size=(5, n)))):
        y = A @ s
        inverse = inverse.update(s, y)
        np.testing.assert_allclose(inverse.apply(y), s, rtol=1e-10)
        if k < memory:
            H = H + jnp.outer(s - H @ y, s @ H) / (s @ H @ y)
            np.testing.assert_allclose(jax.vmap(inverse.transpose)(jnp.eye(n)), H, atol=1e-10)
    singular = inverse.update(s, A @ jnp.linalg.solve(A, jnp.zeros(n)))  # y = 0
    assert np.linalg.cond(jax.vmap(singular.apply)(jnp.eye(n))) < 1e6


def tridiagonal(x):
    before, after = jnp.append(0.0, x[:-1]), jnp.append(x[1:], 0.0)
    return (3 - 2 * x) * x - before - 2 * after + 1


def chandrasekhar(x):
    mu = (jnp.arange(x.size) + 0.5) / x.size
    return x - 1 / (1 - 0.45 / x.size * (mu[:, None] / (mu[:, None] + mu)) @ x)


M = jnp.asarray(rng.normal(size=(100, 100)) / 12)
EQUATIONS = {
    "Broyden's tridiagonal": (tridiagonal, -jnp.ones(100)),
    "Chandrasekhar's H": (chandrasekhar, jnp.ones(100)),
    "layer": (lambda x: x - jnp.tanh(M @ x + 0.5), jnp.zeros(100)),
    "the other sign": (lambda x: jnp.tanh(M @ x + 0.5) - x, jnp.zeros(100)),
    "arctan": (jnp.arctan, jnp.full(1, 3.0)),  # where Newton's full step diverges
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_broyden_solves_equations(name):
    fun, x0 = EQUATIONS[name]
    found = jaxns.solve(jaxns.Root(fun), jaxns.Broyden(), x0)
    assert found.steps <= 60
    np.testing.assert_allclose(fun(found.x), 0, atol=1e-10)


def test_a_start_far_away():
    """Backtracking: the objective of a poor quadratic model never grows."""
    X, y = rng.normal(size=(40, 3)), np.sign(rng.normal(size=40))
    problem = jaxns.problems.logistic_regression(X, y, 1e-3)
    far = jaxns.solve(problem, jaxns.LBFGS(stepsize=50.0), jnp.full(3, 30.0))
    np.testing.assert_allclose(far.x, jaxns.solve(problem).x, atol=1e-8)


def separable(x, curvature, b):
    return 0.5 * jnp.sum(curvature * x**2) - b @ x


def test_a_point_at_which_no_stepsize_is_known():
    """As certificates look at one, of more unknowns than make a dense system; by closed form."""
    n, here = 300, jaxns.Stop(tol=None, max_steps=0)
    curvature, b, v = jnp.linspace(1, 3, n), *jnp.asarray(rng.normal(size=(2, n)))

    def value(weight, x):
        problem = jaxns.Composite(Smooth(separable, curvature, b), SquaredL2(weight))
        theta = jaxns.LBFGS().prepare(problem, x), problem
        return v @ jaxns.Implicit().run(STEPPING, theta, x, here).image

    found = jax.grad(value)(0.5, b / (curvature + 0.5))
    np.testing.assert_allclose(found, -v @ (b / (curvature + 0.5) ** 2), rtol=1e-10)


def test_bad_arguments():
    with pytest.raises(ValueError, match="memory"):
        jaxns.LBFGS(memory=0)
    with pytest.raises(ValueError, match="every"):
        jaxns.LBFGS(every=0)
    with pytest.raises(ValueError, match="opa must have the shape"):
        jaxns.solve(jaxns.Composite(Quadratic(jnp.eye(2), jnp.ones(2))), jaxns.LBFGS(opa=[1.0]))
    with pytest.raises(TypeError, match="use LBFGS"):
        jaxns.solve(problems()["ridge"], jaxns.Broyden())
    lasso = jaxns.Composite(LeastSquares(jnp.eye(2), jnp.ones(2)), L1(0.1))
    with pytest.raises(TypeError, match="gradient on g"):
        jaxns.solve(lasso, jaxns.LBFGS())


traces = []


def fit(x, A, b):
    traces.append(1)
    return 0.5 * jnp.sum((A @ x["slope"] + x["level"] - b) ** 2) / b.size


def stationary(x, A, b, weight):
    gradient = jax.grad(fit)(x, A, b)
    return [gradient["level"] + weight * x["level"], gradient["slope"] + weight * x["slope"]]


def test_pytree_unknowns_traced_once():
    """A dictionary of unknowns, in the objective and in the equations; numbers do not retrace."""
    A, b = jnp.asarray(rng.normal(size=(12, 3))), jnp.asarray(rng.normal(size=12))
    x0 = {"level": jnp.zeros(()), "slope": jnp.zeros(3)}

    def objective(weight, mode, stepsize=0.1):
        problem = jaxns.Composite(Smooth(fit, A, b), SquaredL2(weight))
        solver = jaxns.LBFGS(stepsize=stepsize, opa=x0 | {"slope": jnp.ones(3)})
        return jaxns.solve(problem, solver, x0, mode=mode).x["slope"]

    def equations(weight, mode):
        problem = jaxns.Root(stationary, A, b, weight)
        return jaxns.solve(problem, jaxns.Broyden(), x0, mode=mode).x["slope"]

    full = jnp.column_stack([jnp.ones(12), A])

    def exact(weight):
        gram = full.T @ full / 12 + weight * jnp.eye(4)
        return jnp.linalg.solve(gram, full.T @ b / 12)[1:]

    for solution in (objective, equations):
        for mode in (jaxns.Implicit(), jaxns.Shine(refine=8)):
            np.testing.assert_allclose(solution(0.3, mode), exact(0.3), atol=1e-9)
            found = jax.jacrev(solution)(0.3, mode)
            np.testing.assert_allclose(found, jax.jacrev(exact)(0.3), atol=1e-8)
    traces.clear()
    objective(0.4, jaxns.Implicit(), 0.2)
    assert not traces
    equations(0.4, jaxns.Implicit())
    assert len(traces) == 1  # `Root` counts its equations
