"""The splitting solvers: against independent solutions, and against each other step by step."""

import functools

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from sklearn.linear_model import Lasso
from test_rates import rate, relative

import jaxns
from jaxns.functions import (
    L1,
    Box,
    LeastSquares,
    Logistic,
    NonNegative,
    Quadratic,
    Simplex,
    Smooth,
    SquaredDistance,
    SquaredL2,
    Zero,
)

N, P = 15, 6
rng = np.random.default_rng(5)
A = jnp.asarray(rng.normal(size=(N, P)))
b = A @ jnp.array([1.0, 1.0, 0.0, 0.0, -0.6, 0.5]) + 0.3 * jnp.asarray(rng.normal(size=N))
wide = jnp.asarray(rng.normal(size=(4, P)))
D = jnp.diff(jnp.eye(P), axis=0)
STRICT = jaxns.Stop(tol=1e-14)
f = LeastSquares(A, b)
beta = cp.Variable(P)
squares = 0.5 * cp.sum_squares(np.asarray(A) @ beta - np.asarray(b))
variation = cp.norm1(np.asarray(D) @ beta)

# name: the problem, and the same for cvxpy (objective, constraints).
PROBLEMS = {
    "lasso": (jaxns.Composite(f, L1(2.0)), squares + 2 * cp.norm1(beta), []),
    "nonnegative": (jaxns.Composite(f, NonNegative()), squares, [beta >= 0]),
    "simplex": (jaxns.Composite(f, Simplex(1.5)), squares, [beta >= 0, cp.sum(beta) == 1.5]),
    "fused": (jaxns.Composite(f, L1(2.0), D), squares + 2 * variation, []),
    "denoising": (
        jaxns.Composite(SquaredDistance(b[:P]), L1(0.5), D),
        0.5 * cp.sum_squares(beta - np.asarray(b[:P])) + 0.5 * variation,
        [],
    ),
    "basis pursuit": (
        jaxns.Composite(L1(jnp.linspace(1.0, 2.0, P)), Box(b[:4], b[:4]), wide),
        np.linspace(1.0, 2.0, P) @ cp.abs(beta),
        [np.asarray(wide) @ beta == np.asarray(b[:4])],
    ),
    "lasso in a box": (
        jaxns.Composite(f, L1(2.0), h=Box(-0.3, 0.7)),
        squares + 2 * cp.norm1(beta),
        [beta >= -0.3, beta <= 0.7],
    ),
    "fused in a box": (
        jaxns.Composite(f, L1(2.0), D, h=Box(-0.3, 0.7)),
        squares + 2 * variation,
        [beta >= -0.3, beta <= 0.7],
    ),
    "nonnegative with a sum": (
        jaxns.Composite(f, NonNegative(), h=Simplex(1.5)),
        squares,
        [beta >= 0, cp.sum(beta) == 1.5],
    ),
    "logistic, fused": (
        jaxns.Composite(Logistic(A, jnp.sign(b)), L1(1.0), D),
        cp.sum(cp.logistic(np.asarray(-jnp.sign(b)[:, None] * A) @ beta)) + variation,
        [],
    ),
}
SERVED = {
    jaxns.DouglasRachford(): ("lasso", "nonnegative", "simplex"),
    jaxns.ADMM(): ("lasso", "fused", "denoising", "basis pursuit", "logistic, fused"),
    jaxns.ADMM(relaxation=1.6): ("fused", "simplex"),
    jaxns.ADMM(linearised=True): ("fused", "denoising"),
    jaxns.PrimalDual(): ("fused", "basis pursuit", "fused in a box", "logistic, fused"),
    jaxns.PrimalDual(smooth=False): ("lasso", "denoising"),
    jaxns.DavisYin(): ("lasso", "lasso in a box", "nonnegative with a sum"),
}
NAMES = ("DouglasRachford", "ADMM", "ADMM, relaxed", "ADMM, linearised", "PrimalDual")
NAMES += ("PrimalDual, Chambolle-Pock", "DavisYin")
VARIANTS = ("ADMM, relaxed", "ADMM, linearised", "PrimalDual, Chambolle-Pock")
PAIRS = [
    pytest.param(
        solver, problem, id=f"{name}-{problem}", marks=[pytest.mark.slow] * (name in VARIANTS)
    )
    for name, (solver, problems) in zip(NAMES, SERVED.items(), strict=True)
    for problem in problems
]


@functools.cache
def independent(problem):
    """By an interior-point method."""
    _, objective, constraints = PROBLEMS[problem]
    tight = {f"tol_{kind}": 1e-14 for kind in ("gap_abs", "gap_rel", "feas", "ktratio")}
    cp.Problem(cp.Minimize(objective), constraints).solve(cp.CLARABEL, **tight)
    return np.array(beta.value)


@pytest.mark.parametrize(("solver", "problem"), PAIRS)
def test_solutions(solver, problem):
    x = jaxns.solve(PROBLEMS[problem][0], solver, stop=STRICT).x
    np.testing.assert_allclose(x, independent(problem), atol=1e-8)


def test_the_lasso_of_scikit_learn():
    expected = Lasso(alpha=0.1, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(A, b).coef_
    for solver in (jaxns.DouglasRachford(), jaxns.ADMM(), jaxns.PrimalDual(), jaxns.DavisYin()):
        x = jaxns.solve(jaxns.problems.lasso(A, b, 0.1), solver, stop=STRICT).x
        np.testing.assert_allclose(x, expected, atol=1e-8)


def test_default_solvers():
    chosen = {
        "lasso": "ForwardBackward",
        "fused": "PrimalDual",
        "lasso in a box": "DavisYin",
        "fused in a box": "PrimalDual",
    }
    for problem, name in chosen.items():
        assert type(PROBLEMS[problem][0].default_solver()).__name__ == name
    assert isinstance(jaxns.SplitForm(f, L1(1.0)).default_solver(), jaxns.ADMM)


# Split problems in general position: A, B and c of every kind.
SPLIT = {
    "B a number": (jaxns.SplitForm(f, L1(2.0), D, -2.0, jnp.full(P - 1, 0.1)), -2 * np.eye(P - 1)),
    "B a matrix": (
        jaxns.SplitForm(f, SquaredDistance(jnp.ones(3)), D, jnp.asarray(rng.normal(size=(5, 3)))),
        None,
    ),
    "A a number": (jaxns.SplitForm(f, L1(2.0), 0.5, -1.0, 0.2), -np.eye(P)),
}


@pytest.mark.parametrize("name", SPLIT)
def test_split_form(name):
    """x, z and the multiplier y satisfy the conditions of optimality; cvxpy finds the same x."""
    problem, B = SPLIT[name]
    B = np.asarray(problem.B) if B is None else B
    M = np.asarray(problem.A) if np.ndim(problem.A) else problem.A * np.eye(P)
    (x, z, y), state = (s := jaxns.solve(problem, stop=STRICT)).x, s.z
    assert len(state) == 2
    np.testing.assert_allclose(M @ x + B @ z, np.broadcast_to(problem.c, len(M)), atol=1e-11)
    np.testing.assert_allclose(f.gradient(x) + y @ M, 0, atol=1e-10)
    slope = -np.asarray(y @ B)
    if isinstance(problem.g, L1):
        assert np.max(np.abs(slope)) <= 2 + 1e-9
        np.testing.assert_allclose(slope[z != 0], 2 * np.sign(z[z != 0]), atol=1e-9)
    else:
        np.testing.assert_allclose(slope, z - 1, atol=1e-10)
    w = cp.Variable(len(z))
    penalty = 2 * cp.norm1(w) if isinstance(problem.g, L1) else 0.5 * cp.sum_squares(w - 1)
    tight = {f"tol_{kind}": 1e-13 for kind in ("gap_abs", "gap_rel", "feas")}
    equal = M @ beta + B @ w == np.broadcast_to(problem.c, len(M))
    cp.Problem(cp.Minimize(squares + penalty), [equal]).solve(cp.CLARABEL, **tight)
    np.testing.assert_allclose(x, beta.value, atol=1e-7)


def test_the_derivative_of_a_multiplier():
    """dy/dc is minus the Hessian of the optimal value in c, so symmetric; and by differences."""

    def y(c):
        problem = jaxns.SplitForm(f, SquaredL2(0.7), D, -1.0, c)
        return jaxns.solve(problem, stop=STRICT).x.y

    c = jnp.asarray(rng.normal(size=P - 1))
    found = jax.jacrev(y)(c)
    np.testing.assert_allclose(found, found.T, atol=1e-10)
    # ∇f(x) = −Dᵀy and 0.7 z = y with z = Dx − c: x = (AᵀA + 0.7 DᵀD)⁻¹ (Aᵀb + 0.7 Dᵀc).
    H = A.T @ A + 0.7 * D.T @ D
    expected = 0.7 * (0.7 * D @ jnp.linalg.solve(H, D.T) - jnp.eye(P - 1))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def after(steps, problem, solver, x0=None):
    return jaxns.solve(problem, solver, x0, stop=jaxns.Stop(tol=None, max_steps=steps))


@pytest.mark.parametrize("relaxation", [1.0, 1.5])
def test_admm_is_douglas_rachford_on_the_dual(relaxation):
    """r u_{k+1} = Y_k on f*(−Kᵀy) + g*(y) with stepsize r, from V_0 = r K x_1."""
    r, Q, q = 1.7, A.T @ A, -A.T @ b
    inverse = jnp.linalg.inv(Q)
    dual = jaxns.Composite(Quadratic(D @ inverse @ D.T, D @ inverse @ q), Box(-2.0, 2.0))
    primal = jaxns.Composite(Quadratic(Q, q), L1(2.0), D)
    admm = jaxns.ADMM(r, relaxation=relaxation, adaptive=False)
    reflected = jaxns.DouglasRachford(r, relaxation)
    first = jnp.linalg.solve(Q + r * D.T @ D, -q)  # x_1, from z_0 = u_0 = 0
    V = relaxation * r * D @ first
    for k in (0, 1, 5, 20):
        _, u = after(k + 1, primal, admm).z
        np.testing.assert_allclose(r * u, after(k, dual, reflected, V).x, atol=1e-12)


def test_chambolle_pock_without_an_operator_is_douglas_rachford():
    """x_{k+1} = Y_k for τσ = 1, with the roles of f and g exchanged."""
    tau = 0.3
    forwards, backwards = jaxns.Composite(f, L1(2.0)), jaxns.Composite(L1(2.0), f)
    both = jaxns.PrimalDual(tau=tau, sigma=1 / tau, smooth=False)
    x0 = jnp.asarray(rng.normal(size=P))
    for k in (0, 1, 5, 20):
        found = after(k + 1, forwards, both, x0).x
        expected = after(k, backwards, jaxns.DouglasRachford(tau), x0).x
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_davis_yin_contains_the_others():
    """f = 0: Douglas-Rachford.   g = 0, or h = 0: forward-backward."""
    g, gamma, x0 = L1(2.0), 0.02, jnp.asarray(rng.normal(size=P))
    davis_yin = jaxns.DavisYin(gamma)
    forward = jaxns.ForwardBackward(gamma, acceleration=False)
    for k in (0, 1, 5, 20):
        found = after(k, jaxns.Composite(Zero(), g, h=f), davis_yin, x0)
        expected = after(k, jaxns.Composite(f, g), jaxns.DouglasRachford(gamma), x0)
        np.testing.assert_allclose(found.z, expected.z, atol=1e-13)
        np.testing.assert_allclose(found.x, expected.x, atol=1e-13)
        expected = after(k, jaxns.Composite(f, g), forward, x0).x
        without_g = after(k, jaxns.Composite(f, Zero(), h=g), davis_yin, x0).x
        np.testing.assert_allclose(without_g, expected, atol=1e-13)
        expected = after(k, jaxns.Composite(f, g), forward, g.prox(x0, gamma)).x
        without_h = after(k, jaxns.Composite(f, g), davis_yin, x0).x
        np.testing.assert_allclose(without_h, expected, atol=1e-13)


def exact_update(function, r, d):
    """argmin f(x) + r/2 ‖Dx − d‖², by a user who knows that f is a least-squares loss."""
    system = function.A.T @ function.A + r * D.T @ D
    return jnp.linalg.solve(system, function.b @ function.A + r * d @ D)


@pytest.mark.slow
def test_an_update_of_ones_own():
    problem = PROBLEMS["fused"][0]
    mine = jaxns.ADMM(2.0, x_update=exact_update, adaptive=False)
    ours = jaxns.ADMM(2.0, adaptive=False)
    for k in (1, 7):
        np.testing.assert_allclose(after(k, problem, mine).x, after(k, problem, ours).x, atol=1e-12)

    def x(penalty, solver):
        return jaxns.solve(jaxns.Composite(f, L1(penalty), D), solver, stop=STRICT).x

    found = jax.jacrev(lambda p: x(p, jaxns.ADMM(x_update=exact_update)))(2.0)
    np.testing.assert_allclose(found, jax.jacrev(lambda p: x(p, None))(2.0), atol=1e-9)


@jaxns.struct
class Differences:
    """D as an operator."""

    def __call__(self, x):
        return x[1:] - x[:-1]

    def T(self, u):
        return jnp.pad(u, (1, 0)) - jnp.pad(u, (0, 1))


@pytest.mark.parametrize(
    ("K", "solver"),
    [
        pytest.param(Differences(), jaxns.PrimalDual(), id="operator"),
        pytest.param(BCOO.fromdense(D), jaxns.ADMM(), id="sparse"),
        pytest.param(Differences(), jaxns.ADMM(), marks=pytest.mark.slow, id="linearised"),
        pytest.param(BCOO.fromdense(D), jaxns.PrimalDual(), marks=pytest.mark.slow, id="matrix"),
    ],
)
def test_operators(K, solver):
    """K only has to multiply; an operator without a matrix makes ADMM linearise."""

    def x(penalty):
        return jaxns.solve(jaxns.Composite(f, L1(penalty), K), solver, stop=STRICT).x

    np.testing.assert_allclose(x(2.0), independent("fused"), atol=1e-8)
    dense = lambda p: jaxns.solve(jaxns.Composite(f, L1(p), D), stop=STRICT).x  # noqa: E731
    np.testing.assert_allclose(jax.jacrev(x)(2.0), jax.jacrev(dense)(2.0), atol=1e-8)


def test_the_adapted_penalty_forgives_a_bad_start():
    """From penalties far off, not many more steps; and the solution is read with the final one."""
    problem = PROBLEMS["fused"][0]
    for start in (1e-4, 1e4):
        adapted = jaxns.solve(problem, jaxns.ADMM(start), stop=STRICT)
        np.testing.assert_allclose(adapted.x, independent("fused"), atol=1e-8)
        assert adapted.steps < 1000
        fixed = jaxns.solve(
            problem,
            jaxns.ADMM(start, adaptive=False),
            stop=jaxns.Stop(max_steps=3000, on_failure="ignore"),
        )
        assert fixed.status == jaxns.Status.MAX_STEPS
        weighed = jaxns.solve(problem, jaxns.PrimalDual(weight=start), stop=STRICT)
        np.testing.assert_allclose(weighed.x, independent("fused"), atol=1e-8)
        assert weighed.steps < 3000


@pytest.mark.slow
def test_step_needs_no_preparation():
    """A solver taken out of `solve` maps a point as the prepared one does."""
    for solver, problem in ((p.values[0], p.values[1]) for p in PAIRS):
        what = PROBLEMS[problem][0]
        x0 = jnp.full(P, 0.2)
        z = solver.init(what, x0)
        prepared = solver.prepare(what, x0)
        for alone, expected in zip(solver.step(what, z), prepared.step(what, z), strict=True):
            np.testing.assert_allclose(alone, expected, atol=1e-12)
        np.testing.assert_allclose(solver.solution(what, z), prepared.solution(what, z), atol=1e-12)


def test_heavy_ball_by_polyak():
    """Rate √β on an ill-conditioned quadratic, for which β = 0.5 needs several times the steps."""
    spectrum = jnp.geomspace(1e-2, 1.0, P)
    U = jnp.linalg.qr(jnp.asarray(rng.normal(size=(P, P))))[0]
    Q, q = (U * spectrum) @ U.T, jnp.ones(P)
    build = lambda q: jaxns.Composite(Quadratic(Q, q))  # noqa: E731
    x, J = -jnp.linalg.solve(Q, q), -jnp.linalg.inv(Q)
    root = (1 - 0.1) / (1 + 0.1)  # (√L − √μ)/(√L + √μ)
    path = jaxns.derivative_path(build, q, 250, solver=jaxns.HeavyBall())
    for errors in (relative(path.x, x), relative(path.jacobian, J)):
        assert rate(errors) <= root + 0.03  # defective: k √βᵏ
        assert errors[-1] < 1e-12
    plain = jaxns.solve(build(q), jaxns.HeavyBall(inertia=0.5))
    assert plain.steps > 4 * jaxns.solve(build(q), jaxns.HeavyBall()).steps
    said = after(9, jaxns.Composite(f, L1(2.0)), jaxns.HeavyBall(strong_convexity=1.0)).x
    L = float(f.lipschitz())
    alpha, inertia = 4 / (L**0.5 + 1) ** 2, ((L**0.5 - 1) / (L**0.5 + 1)) ** 2
    expected = after(9, jaxns.Composite(f, L1(2.0)), jaxns.HeavyBall(alpha, inertia)).x
    np.testing.assert_allclose(said, expected, atol=1e-12)


def value(x):
    return jnp.sum(x**2)


REFUSED = {
    "no prox of f": (
        lambda: jaxns.solve(PROBLEMS["logistic, fused"][0].split_form(), jaxns.DouglasRachford()),
        "DouglasRachford needs prox on f; Logistic has none; use ForwardBackward",
    ),
    "an operator": (
        lambda: jaxns.solve(PROBLEMS["fused"][0], jaxns.DouglasRachford()),
        "DouglasRachford solves .* without K; use ADMM or PrimalDual",
    ),
    "three functions": (
        lambda: jaxns.solve(PROBLEMS["lasso in a box"][0], jaxns.ADMM()),
        "ADMM solves .* without h; use PrimalDual or DavisYin",
    ),
    "an operator and three": (
        lambda: jaxns.solve(PROBLEMS["fused in a box"][0], jaxns.DavisYin()),
        r"DavisYin solves min f\(x\) \+ g\(x\) \+ h\(x\), without K; use PrimalDual",
    ),
    "nothing to linearise": (
        lambda: jaxns.solve(jaxns.Composite(Smooth(value), L1(1.0), D), jaxns.ADMM(), jnp.ones(P)),
        "ADMM needs prox on f; Smooth has none; or a Lipschitz constant",
    ),
    "B without a closed form": (
        lambda: jaxns.solve(jaxns.SplitForm(f, L1(1.0), D, D), jaxns.ADMM()),
        "ADMM needs B to be a multiple of the identity, or g quadratic",
    ),
    "no Lipschitz constant": (
        lambda: jaxns.solve(jaxns.Composite(Smooth(value), L1(1.0), D), None, jnp.ones(P)),
        "PrimalDual needs a stepsize: Smooth knows no Lipschitz constant; pass PrimalDual",
    ),
    "two functions without gradient": (
        lambda: jaxns.solve(jaxns.Composite(L1(1.0), L1(1.0), h=Box(-1.0, 1.0)), None, jnp.ones(P)),
        "PrimalDual needs gradient on h; Box has none",
    ),
    "one of the stepsizes": (lambda: jaxns.PrimalDual(tau=0.1), "tau and sigma"),
    "a negative stepsize": (lambda: jaxns.PrimalDual(tau=-0.1, sigma=1.0), "tau must be positive"),
    "relaxed too far": (lambda: jaxns.ADMM(relaxation=2.0), "relaxation"),
    "a penalty of zero": (lambda: jaxns.ADMM(0.0), "penalty must be positive"),
    "an operator with one dimension": (
        lambda: jaxns.SplitForm(f, L1(1.0), jnp.ones(3)),
        r"A must have 2 dimension\(s\)",
    ),
    "no function": (lambda: jaxns.SplitForm(f, 3.0), "g must be a function"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()
