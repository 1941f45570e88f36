"""SHINE (arXiv 2106.00553): the inverse that a solver has learned, in place of a linear system."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import jaxns
from jaxns.fixed_point import Iteration, iterate
from jaxns.functions import Logistic, Quadratic, SquaredL2

rng = np.random.default_rng(0)


def finish(problem, solver, x0, stop):
    """The prepared solver, the point and the control that its run ends with."""
    solver = solver.prepare(problem, x0)
    run = iterate(HOW, (solver, problem), x0, stop)
    solver = solver.settle(run.control) if hasattr(solver, "settle") else solver
    return solver, run.image, run.control


HOW = Iteration(
    lambda theta, z: theta[0].step(theta[1], z),
    lambda theta, z: theta[0].control(theta[1], z),
    lambda theta, z, control: theta[0].advance(theta[1], z, control),
)


@jax.jit
def matrices(problem, solver, x0, stop):
    """I − ∂F where the run ends; the estimate of its inverse, and that of its transpose's."""
    solver, x, control = finish(problem, solver, x0, stop)
    solve, transpose = solver.estimate(problem, x, control)
    eye = jnp.eye(x.size)
    equation = eye - jax.jacobian(lambda x: solver.step(problem, x))(x)
    return equation, jax.vmap(solve, out_axes=1)(eye), jax.vmap(transpose, out_axes=1)(eye)


Q = np.linalg.qr(rng.normal(size=(8, 8)))[0]
Q = jnp.asarray(Q * np.geomspace(1, 20, 8) @ Q.T)
M = jnp.asarray(rng.normal(size=(8, 8)) / 4 + 2 * np.eye(8))
q = jnp.asarray(rng.normal(size=8))
QUADRATIC = jaxns.Composite(Quadratic(Q, q))
LINEAR = jaxns.Root(lambda x, M, q: M @ x - q, M, q)
NINE = jaxns.Stop(tol=None, max_steps=9)
ESTIMATES = {
    "LBFGS": (QUADRATIC, jaxns.LBFGS(memory=40), jaxns.Stop(), 0.4),
    "LBFGS, aware": (QUADRATIC, jaxns.LBFGS(memory=40, opa=q, every=1), jaxns.Stop(), 0.2),
    "Broyden": (LINEAR, jaxns.Broyden(memory=40), jaxns.Stop(), 0.5),
    "Anderson": (QUADRATIC, jaxns.Anderson(jaxns.GradientDescent(), memory=9), NINE, 1e-6),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates(name):
    """H ≈ (I − ∂F)⁻¹ where the memory holds the whole run; exact for n differences of Anderson."""
    problem, solver, stop, accuracy = ESTIMATES[name]
    equation, found, transposed = matrices(problem, solver, jnp.zeros(8), stop)
    np.testing.assert_allclose(transposed, found.T, atol=1e-2 * accuracy)
    assert jnp.linalg.norm(found @ equation - jnp.eye(8), 2) < accuracy
    assert accuracy < 0.9 * jnp.linalg.norm(equation - jnp.eye(8), 2)  # that of the identity


def breast_cancer():
    """Experiment G2: a fifth of the data, scaled without centring, penalty 1."""
    X, t = load_breast_cancer(return_X_y=True)
    X = StandardScaler(with_mean=False).fit_transform(X)
    return map(jnp.asarray, train_test_split(X, 2.0 * t - 1, train_size=0.2, random_state=3))


X, X_held_out, labels, labels_held_out = breast_cancer()
N, P = X.shape
LOSS = jaxns.Composite(Logistic(X, labels), SquaredL2(1.0))


def compare(found, exact):
    """‖a‖ / ‖b‖ and 1 − cos(a, b)."""
    sizes = jnp.linalg.norm(found), jnp.linalg.norm(exact)
    return jnp.array([sizes[0] / sizes[1], 1 - found @ exact / (sizes[0] * sizes[1])])


@jax.jit
def draw(v, other):
    """How well H v estimates (∇²)⁻¹ v, for v = prescribed to OPA, the last y, and any other."""
    solver = jaxns.LBFGS(memory=60, initial=1.0, opa=v, every=5)
    stop = jaxns.Stop(tol=3e-10)  # of x; the gradient is then at 1e-6
    solver, _, control = finish(LOSS, solver, jnp.zeros(P), stop)
    solve, _ = solver.estimate(LOSS, control.point, control)
    hessian = jax.hessian(LOSS)(control.point)
    return jnp.stack(
        [
            compare(solver.stepsize * solve(u), jnp.linalg.solve(hessian, u))
            for u in (v, control.pairs.y[-1], other)
        ]
    )


@pytest.mark.parametrize("draws", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_directions_that_the_run_knows_are_inverted_well(draws):
    """Experiment G2, its must-show lines: Krylov exact, prescribed with OPA closer than random."""
    v, other = np.random.default_rng(42).normal(size=(2, draws, P))
    ratios, angles = np.moveaxis(np.median(jax.vmap(draw)(v, other), axis=0), 1, 0)
    prescribed, krylov, random = angles
    assert krylov < 1e-9
    assert prescribed < 2e-4
    assert 10 * prescribed < random < 1e-2
    assert abs(ratios[0] - 1) < 2e-3
    assert abs(ratios[1] - 1) < 1e-6
    assert 1.01 < ratios[2] < 1.1


def criterion(penalty, mode, solver):
    """The loss on held-out data of a penalty; v is its gradient in x."""
    problem = jaxns.Composite(Logistic(X, labels), SquaredL2(penalty))
    return outer(jaxns.solve(problem, solver, mode=mode, stop=jaxns.Stop(tol=3e-10)).x)


def outer(x):
    return Logistic(X_held_out, labels_held_out, scale="mean")(x)


@pytest.mark.slow
def test_the_gradient_is_better_where_the_solver_knows_the_outer_loss():
    """OPA by the outer gradient, better than by its value at the solution, better than none."""
    exact = jax.grad(criterion)(1.0, jaxns.Implicit(), jaxns.LBFGS())
    fixed = jax.grad(outer)(jaxns.solve(LOSS).x)

    def error(**options):
        solver = jaxns.LBFGS(memory=60, initial=1.0, **options)
        return abs(jax.grad(criterion)(1.0, jaxns.Shine(), solver) / exact - 1)

    none = error()
    prescribed = error(opa=fixed)
    assert prescribed < 0.3 * none
    assert error(opa=jax.grad(outer)) < 0.3 * prescribed


def products(mode, solver):
    """Products of arrays, and loops, in the compiled backward pass; a loop's body counts once."""
    _, pull = jax.vjp(lambda penalty: criterion(penalty, mode, solver), 1.0)
    text = jax.jit(lambda pull, g: pull(g)).lower(pull, 1.0).compile().as_text()
    return len(re.findall(r"\bdot\(", text)), len(re.findall(r"\bwhile\(", text))


def test_the_backward_pass_is_one_two_loop_product():
    """Two loops over the memory and no Hessian-vector product; conjugate gradients need tens."""
    solver = jaxns.LBFGS(memory=60)
    without, _ = products(jaxns.OneStep(), solver)  # what the outer loss takes
    assert products(jaxns.Shine(), solver) == (without, 2)
    assert products(jaxns.Implicit(method="cg"), solver)[0] >= without + 4
    cg = jaxns.Implicit(method="cg", probe=jaxns.Probe())
    report = jax.grad(criterion, argnums=1, allow_int=True)(1.0, cg, solver).probe
    assert report.steps > 20
    watched = jaxns.Shine(probe=jaxns.Probe(0.0, 0.0, 0.0, jnp.zeros(P)))
    report = jax.grad(criterion, argnums=1)(1.0, watched, solver).probe
    assert report.steps == 1  # for the residual
    x = jaxns.solve(LOSS, solver, stop=jaxns.Stop(tol=3e-10)).x
    v, w = jax.grad(outer)(x), report.adjoint
    left = v - jaxns.LBFGS().prepare(LOSS, x).stepsize * jax.hessian(LOSS)(x) @ w
    size = jnp.linalg.norm
    np.testing.assert_allclose(report.residual, size(left) / size(v), rtol=1e-6)


W = jnp.asarray(rng.normal(size=(30, 30)) / 7)
LAYER = jnp.asarray(rng.normal(size=30))


def layer(x, b):
    return x - jnp.tanh(W @ x + b)


def of_layer(b, mode, solver=jaxns.Broyden()):
    """An equilibrium model: nonsymmetric."""
    x = jaxns.solve(jaxns.Root(layer, b), solver, jnp.zeros(30), mode=mode).x
    return jnp.sum(jnp.cos(jnp.arange(30)) * x)


@jaxns.struct
class Picard:
    def init(self, problem, x0):
        return x0

    def step(self, problem, x):
        return x - problem.residual(x)

    def solution(self, problem, x):
        return x


def through_anderson(b, mode):
    return of_layer(b, mode, jaxns.Anderson(Picard(), memory=8))


@pytest.mark.slow
@pytest.mark.parametrize("run", [of_layer, pytest.param(through_anderson, marks=pytest.mark.slow)])
def test_refining_improves_steadily(run):
    """The residual falls with every step of GMRES, and the gradient's error with it."""
    exact = jax.grad(run)(LAYER, jaxns.Implicit())
    residuals, errors = [], []
    for steps in (0, 1, 4, 16):
        mode = jaxns.Shine(refine=steps, probe=jaxns.Probe())
        found, report = jax.grad(run, argnums=(0, 1))(LAYER, mode)
        residuals.append(float(report.probe.residual))
        errors.append(float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)))
    assert np.all(np.diff(residuals) < 0)
    assert errors[0] < 0.5
    assert errors[2] < 0.1 * errors[0]
    assert errors[-1] < 1e-5
    left = jnp.linalg.norm(jax.grad(run)(LAYER, jaxns.OneStep()) - exact)
    assert errors[0] < left / jnp.linalg.norm(exact)  # better than without any inverse


@pytest.mark.slow
def test_both_directions_and_transformations():
    """A Jacobian by rows and by columns, batched and compiled; a second derivative passes."""
    both, reverse = jaxns.Shine(direction="both"), jaxns.Shine()

    def solution(b, mode):
        return jaxns.solve(jaxns.Root(layer, b), jaxns.Broyden(), jnp.zeros(30), mode=mode).x

    by_rows = jax.jacrev(solution)(LAYER, reverse)
    np.testing.assert_allclose(jax.jacfwd(solution)(LAYER, both), by_rows, atol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.jacrev(solution))(LAYER, both), by_rows, atol=1e-12)
    lanes = jax.vmap(jax.grad(of_layer), (0, None))(jnp.stack([LAYER, 2 * LAYER]), reverse)
    # Rounding differs between lanes and their like alone, and with it the last pairs.
    for lane, b in zip(lanes, (LAYER, 2 * LAYER), strict=True):
        np.testing.assert_allclose(lane, jax.grad(of_layer)(b, reverse), rtol=1e-3)
    second = jax.grad(lambda b: jnp.sum(jax.grad(of_layer)(b, reverse) ** 2))(LAYER)
    assert jnp.all(jnp.isfinite(second))
    with pytest.raises(TypeError, match="direction='both'"):
        jax.jacfwd(solution)(LAYER, reverse)


@jaxns.struct
class Boastful(Picard):
    """Claims that I − ∂F is nearly singular."""

    def estimate(self, problem, x, control):
        return lambda b: 100.0 * b, lambda b: 100.0 * b


def test_an_estimate_too_large_is_not_believed():
    """w = v, as one step does."""
    boast = lambda mode: jax.grad(of_layer)(LAYER, mode, Boastful())  # noqa: E731
    one = boast(jaxns.OneStep())
    np.testing.assert_allclose(boast(jaxns.Shine(fallback=1.3)), one, rtol=1e-12)
    np.testing.assert_allclose(boast(jaxns.Shine()), 100 * one, rtol=1e-12)


def test_who_cannot_be_asked():
    with pytest.raises(TypeError, match=r"LBFGS, Broyden, or Anderson.*Implicit\(\)"):
        jax.grad(of_layer)(LAYER, jaxns.Shine(), Picard())
    with pytest.raises(TypeError, match="estimate"):
        jax.grad(
            lambda t: jaxns.fixed_point(lambda x: 0.5 * x + t, jnp.ones(()), mode=jaxns.Shine()).x
        )(1.0)
    with pytest.raises(ValueError, match="refine"):
        jaxns.Shine(refine=-1)
    with pytest.raises(ValueError, match="fallback"):
        jaxns.Shine(fallback=0.0)
    with pytest.raises(ValueError, match="probe watches"):
        jaxns.Shine(direction="both", probe=jaxns.Probe())
