"""What an iteration costs beside the products that no implementation can do without.

Each solver makes a fixed number of steps on a lasso-like problem; the same number of its products
(with the design matrix, the operator, the factor of a linear system), each depending on the last,
is timed in turns with it in the same process. Ratios are medians of those within one round.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve

import jaxns
from benchmarks.frame import Findings, Options, Table
from benchmarks.timing import chain, in_turns, medians, ratio
from jaxns.functions import L1, Box, LeastSquares, SquaredDistance, SquaredL2

REPEATS = 15
STEPS = 100


def steps(problem: jaxns.Composite, solver: object) -> Callable:
    """So many steps of a solve."""
    x0 = problem.start()
    theta = solver.prepare(problem, x0)  # pyright: ignore[reportAttributeAccessIssue]
    z = theta.init(problem, x0)

    def run(problem, theta, z):
        control = theta.control(problem, z) if hasattr(theta, "control") else None

        def body(_, carry):
            z, control = carry
            if control is None:
                return theta.step(problem, z), None
            return theta.advance(problem, z, control)

        return jax.lax.fori_loop(0, STEPS, body, (z, control))[0]

    compiled = jax.jit(run).lower(problem, theta, z).compile()
    return lambda: compiled(problem, theta, z)


def table(n: int, p: int) -> dict[str, tuple[str, Callable, Callable]]:
    rng = np.random.default_rng(0)
    A = jnp.asarray(rng.normal(size=(n, p)) / np.sqrt(n))
    b, x = jnp.asarray(rng.normal(size=n)), jnp.asarray(rng.normal(size=p))
    f, penalty = LeastSquares(A, b), L1(0.1)
    lasso = jaxns.Composite(f, penalty)
    analysis = jaxns.Composite(SquaredDistance(x), penalty, A)
    regularised = jaxns.Composite(f, SquaredL2(0.1))
    root = jnp.linalg.cholesky(jnp.eye(n) + A @ A.T)

    def there_and_back(x):
        return (A @ x) @ A * 1e-3

    def with_factor(x):
        return cho_solve((root, True), A @ x) @ A * 1e-3

    def with_system(v):
        return A @ (inverse @ ((v @ A) @ inverse)) * 1e-3

    inverse = jnp.asarray(rng.normal(size=(p, p)) / p)
    twice = chain(there_and_back, x, STEPS)
    factor = chain(with_factor, x, STEPS)
    products = "A x, Aᵀ r"
    return {
        "ForwardBackward": (products, twice, steps(lasso, jaxns.ForwardBackward())),
        "GradientDescent": (products, twice, steps(regularised, jaxns.GradientDescent())),
        "HeavyBall": (products, twice, steps(lasso, jaxns.HeavyBall())),
        "DavisYin": (products, twice, steps(_three(f), jaxns.DavisYin())),
        "PrimalDual, Condat-Vũ": (products, twice, steps(analysis, jaxns.PrimalDual())),
        "PrimalDual, Chambolle-Pock": (
            products, twice, steps(analysis, jaxns.PrimalDual(smooth=False)),
        ),
        "DouglasRachford": (
            f"{products}, {n} × {n} factor", factor, steps(lasso, jaxns.DouglasRachford()),
        ),
        "ADMM": (f"{products}, {n} × {n} factor", factor, steps(lasso, jaxns.ADMM())),
        "ADMM, f(x) + g(Kx)": (
            f"{products}, {p} × {p} system",
            chain(with_system, b, STEPS),
            steps(analysis, jaxns.ADMM()),
        ),
    }  # fmt: skip


def _three(f: LeastSquares) -> jaxns.Composite:
    return jaxns.Composite(f, L1(0.1), h=Box(-1.0, 1.0))


def run(options: Options) -> Findings:
    n, p = (50, 200) if options.reduced else (500, 2000)
    found = Table(("solver", "unavoidable", "µs a step", "of which unavoidable", "ratio"))
    numbers = {}
    cases = table(n, p)
    for name in options.chosen(cases):
        what, products, solve = cases[name]
        times = in_turns({"products": products, "solver": solve}, options.repeats)
        cost = ratio(times, "solver", "products")
        whole, part = (1e6 * medians(times)[k] / STEPS for k in ("solver", "products"))
        found.row(f"`{name}`", what, f"{whole:.0f}", f"{part:.0f}", f"{cost:.2f}")
        numbers[name] = {"step": whole, "products": part, "ratio": cost}
    found.text = f"A of {n} × {p}, float64."
    return Findings((found,), numbers=numbers)
