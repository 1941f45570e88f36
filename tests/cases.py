"""The table of cases: every solver, on problems it serves, through every contract.

A new solver is one row in SOLVERS. Problems are functions of a vector θ, so that their derivatives
can be compared with central differences.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxns
from jaxns.functions import (
    L1,
    Box,
    ElasticNet,
    LeastSquares,
    Logistic,
    NonNegative,
    Simplex,
    Smooth,
    SquaredL2,
)
from jaxns.functions.quadratics import SquaredDistance

N, P = 12, 4
_rng = np.random.default_rng(0)
X = jnp.asarray(_rng.normal(size=(N, P)))
y = X @ jnp.array([2.0, 0.0, -1.0, 0.5]) + 0.3 * jnp.asarray(_rng.normal(size=N))
labels = jnp.sign(y)
differences = jnp.diff(jnp.eye(P), axis=0)
STRICT = jaxns.Stop(tol=1e-14, on_failure="raise")


def _huber_like(x, A, b):
    r = A @ x - b
    return jnp.sum(jnp.sqrt(1 + r**2)) / b.size


def _normal_equations(x, A, b, weight):
    """Of a least-squares problem with an arctangent for a penalty's derivative."""
    return A.T @ (A @ x - b) / b.size + weight * jnp.arctan(x)


_SUM = (jnp.ones((1, P)), jnp.ones(1))


def _within(t):
    """−t₀ ≤ x ≤ t₁, as Gx ≤ h."""
    return jnp.vstack([-jnp.eye(P), jnp.eye(P)]), jnp.repeat(t, P)


# θ -> problem, with θ of two entries where the solution is differentiable.
PROBLEMS: dict[str, tuple[Callable[[jax.Array], Any], jax.Array]] = {
    "lasso": (lambda t: jaxns.problems.lasso(X, t[1] * y, t[0]), jnp.array([0.3, 1.1])),
    "elastic_net": (
        lambda t: jaxns.Composite(LeastSquares(X, y), ElasticNet(t[0], t[1])),
        jnp.array([2.0, 3.0]),
    ),
    "ridge": (lambda t: jaxns.problems.ridge(X, t[1] * y, t[0]), jnp.array([0.5, 1.1])),
    "logistic": (
        lambda t: jaxns.problems.logistic_regression(t[1] * X, labels, t[0]),
        jnp.array([0.2, 1.1]),
    ),
    "sparse_logistic": (
        lambda t: jaxns.Composite(Logistic(t[1] * X, labels, scale="mean"), L1(t[0])),
        jnp.array([0.05, 1.1]),
    ),
    "nonnegative": (
        lambda t: jaxns.Composite(LeastSquares(t[0] * X, t[1] * y), NonNegative()),
        jnp.array([0.9, 1.1]),
    ),
    "box": (
        lambda t: jaxns.Composite(LeastSquares(X, y), Box(-t[0], t[1])),
        jnp.array([0.6, 1.2]),
    ),
    "simplex": (
        lambda t: jaxns.Composite(LeastSquares(X, t[1] * y), Simplex(t[0])),
        jnp.array([2.2, 1.1]),
    ),
    "smooth": (
        lambda t: jaxns.Composite(Smooth(_huber_like, X, t[1] * y), SquaredL2(t[0])),
        jnp.array([0.2, 1.1]),
    ),
    "robust_lasso": (
        lambda t: jaxns.Composite(Smooth(_huber_like, X, t[1] * y), L1(t[0])),
        jnp.array([0.1, 1.1]),
    ),
    "equations": (
        lambda t: jaxns.Root(_normal_equations, X, t[1] * y, t[0]),
        jnp.array([0.4, 1.1]),
    ),
    "quadratic_program": (
        lambda t: jaxns.QuadraticProgram(X.T @ X, -t[1] * (y @ X), *_SUM, X[:5], t[0] + y[:5]),
        jnp.array([0.3, 1.1]),
    ),
    "bounded": (
        lambda t: jaxns.QuadraticProgram(X.T @ X, -(y @ X), None, None, *_within(t)),
        jnp.array([0.6, 1.2]),
    ),
    "linear_program": (
        lambda t: jaxns.QuadraticProgram(0 * X.T @ X, -(y @ X), *_SUM, *_within(t)),
        jnp.array([0.6, 1.2]),
    ),
    "fused": (
        lambda t: jaxns.Composite(LeastSquares(X, t[1] * y, scale="mean"), L1(t[0]), differences),
        jnp.array([0.3, 1.1]),
    ),
    "denoise": (
        lambda t: jaxns.Composite(SquaredDistance(t[1] * y[:P]), L1(t[0]), differences),
        jnp.array([0.3, 1.1]),
    ),
    "three": (
        lambda t: jaxns.Composite(LeastSquares(X, y, scale="mean"), L1(t[0]), h=Box(-0.4, t[1])),
        jnp.array([0.3, 1.1]),
    ),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A solver, the problems it is run on, and how to read an array of P numbers off its answer."""

    solver: Any
    problems: tuple[str, ...]
    slow: tuple[str, ...] = ()  # of the problems, those compared with differences on request only
    read: Callable[[Any], jax.Array] = lambda x: x


_plain = jaxns.ForwardBackward(acceleration=False)
SOLVERS: dict[str, Case] = {
    "ForwardBackward": Case(
        jaxns.ForwardBackward(),
        ("lasso", "elastic_net", "ridge", "sparse_logistic", "nonnegative", "box", "simplex"),
        ("elastic_net", "ridge", "nonnegative", "box"),
    ),
    "ForwardBackward, plain": Case(_plain, ("lasso", "logistic")),
    "ForwardBackward, backtracking": Case(jaxns.ForwardBackward(), ("smooth", "robust_lasso")),
    "ForwardBackward, plain, backtracking": Case(_plain, ("robust_lasso",), ("robust_lasso",)),
    "GradientDescent": Case(jaxns.GradientDescent(), ("ridge", "logistic")),
    "GradientDescent, backtracking": Case(jaxns.GradientDescent(), ("smooth",)),
    "HeavyBall": Case(jaxns.HeavyBall(), ("lasso", "ridge", "nonnegative"), ("nonnegative",)),
    "CoordinateDescent": Case(
        jaxns.CoordinateDescent(), ("lasso", "sparse_logistic", "box"), ("sparse_logistic", "box")
    ),
    "WorkingSet": Case(
        jaxns.WorkingSet(), ("sparse_logistic", "elastic_net"), ("sparse_logistic", "elastic_net")
    ),
    "Newton": Case(
        jaxns.Newton(),
        ("sparse_logistic", "logistic", "elastic_net", "box", "simplex", "smooth", "robust_lasso"),
        ("logistic", "elastic_net", "box", "simplex", "smooth", "robust_lasso"),
    ),
    "ProximalNewton": Case(
        jaxns.ProximalNewton(),
        ("sparse_logistic", "robust_lasso", "simplex"),
        ("sparse_logistic", "robust_lasso", "simplex"),
    ),
    "SelfConcordant": Case(
        jaxns.SelfConcordant(),
        ("sparse_logistic", "robust_lasso"),
        ("sparse_logistic", "robust_lasso"),
    ),
    "InteriorPoint": Case(
        jaxns.InteriorPoint(),
        ("quadratic_program", "bounded", "linear_program"),
        ("bounded", "linear_program"),
        read=lambda optimum: optimum.x,
    ),
    "LBFGS": Case(jaxns.LBFGS(), ("logistic", "ridge"), ("ridge",)),
    "LBFGS, without a Lipschitz constant": Case(jaxns.LBFGS(), ("smooth",), ("smooth",)),
    "LBFGS, aware": Case(
        jaxns.LBFGS(memory=4, opa=jnp.arange(1.0, 1 + P), every=3), ("ridge",), ("ridge",)
    ),
    "Broyden": Case(jaxns.Broyden(), ("equations",)),
    "Nesterov": Case(jaxns.Nesterov(jaxns.GradientDescent()), ("ridge", "logistic"), ("logistic",)),
    "Anderson": Case(
        jaxns.Anderson(jaxns.ForwardBackward()), ("lasso", "logistic", "box"), ("logistic", "box")
    ),
    "DouglasRachford": Case(
        jaxns.DouglasRachford(), ("lasso", "elastic_net", "simplex"), ("elastic_net", "simplex")
    ),
    "ADMM": Case(jaxns.ADMM(), ("fused", "denoise", "nonnegative"), ("denoise", "nonnegative")),
    "ADMM, linearised": Case(jaxns.ADMM(), ("logistic",), ("logistic",)),
    "PrimalDual": Case(jaxns.PrimalDual(), ("fused", "three", "box"), ("three", "box")),
    "PrimalDual, Chambolle-Pock": Case(
        jaxns.PrimalDual(smooth=False), ("lasso", "denoise"), ("lasso", "denoise")
    ),
    "DavisYin": Case(jaxns.DavisYin(), ("three", "lasso", "simplex"), ("lasso", "simplex")),
    "StochasticGradient, every row": Case(
        jaxns.StochasticGradient(batch_size=None), ("elastic_net",)
    ),
    "Relaxed": Case(
        jaxns.Relaxed(jaxns.ForwardBackward(), 0.8), ("lasso", "simplex"), ("simplex",)
    ),
}
# Solvers of other problems than Composite, and the files that put them through the contracts.
ELSEWHERE = {"Sinkhorn": "test_sinkhorn.py"}
PAIRS = [(solver, problem) for solver, case in SOLVERS.items() for problem in case.problems]
SLOW_PAIRS = [(solver, problem) for solver, case in SOLVERS.items() for problem in case.slow]


def start(problem: str) -> jax.Array | None:
    return jnp.zeros(P) if problem in ("smooth", "robust_lasso", "equations") else None


def solution(solver: str, problem: str, theta: jax.Array, **options: Any) -> jax.Array:
    build, _ = PROBLEMS[problem]
    options = {"stop": STRICT, **options}
    sol = jaxns.solve(build(theta), SOLVERS[solver].solver, start(problem), **options)
    return SOLVERS[solver].read(sol.x)


def central_difference(fun: Callable, x: Any, h: float = 1e-5) -> np.ndarray:
    """∂fun/∂x by central differences, in float64; a fourth-order formula, x of any shape."""
    x = np.asarray(x, dtype=float)
    columns = []
    for i in np.ndindex(x.shape):

        def at(step, i=i):
            moved = x.copy()
            moved[i] += step
            return np.asarray(fun(jnp.asarray(moved)))

        columns.append((8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h))
    out = np.stack(columns, axis=-1) if columns else np.zeros(0)
    return out.reshape(out.shape[:-1] + x.shape)
