"""Bad input: each raises at once, with the type Python would use and the name of the argument."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns import problems
from jaxns.functions import (
    L1,
    Box,
    ElasticNet,
    LeastSquares,
    Logistic,
    Quadratic,
    Simplex,
    Smooth,
    SquaredL2,
)

random = np.random.RandomState(0)
N, P = 6, 3
X, Y = random.randn(N, P), random.randn(N)
LABELS = np.sign(Y)
ONES = np.ones(N)
LASSO = problems.lasso(X, Y, 0.1)


def parabola(x):
    return jnp.sum((x - 1) ** 2)


SMOOTH = jaxns.Composite(Smooth(parabola))


def solve(*args, **options):
    return lambda: jaxns.solve(*args, **options)


# name of the row: (what is called, exception, words of the message: the argument's name first)
BAD = {
    "x0 of another shape": (solve(LASSO, x0=np.zeros(7)), ValueError, "x0", "(7,)"),
    "solver is a class": (
        solve(LASSO, jaxns.ForwardBackward),
        TypeError,
        "solver",
        "class ForwardBackward",
    ),
    "problem is a number": (solve(3), TypeError, "problem"),
    "max_steps is a string": (lambda: jaxns.Stop(max_steps="9"), TypeError, "max_steps"),
    "max_steps is None": (lambda: jaxns.Stop(max_steps=None), TypeError, "max_steps"),
    "max_steps a floating array": (
        lambda: jaxns.Stop(max_steps=jnp.array(3.0)),
        TypeError,
        "max_steps",
    ),
    "adjoint max_steps": (lambda: jaxns.Implicit(max_steps=1.5), TypeError, "max_steps"),
    # data
    "X is 1-D": (lambda: problems.lasso(X[0], Y, 0.1), ValueError, "X", "2 dimension"),
    "X of integers": (
        lambda: problems.lasso(np.ones((N, P), int), Y, 0.1),
        TypeError,
        "X",
        "floating-point",
        "astype",
    ),
    "X of booleans": (lambda: problems.ridge(X > 0, Y, 0.1), TypeError, "X", "bool"),
    "X is no array": (lambda: problems.ridge("data.csv", Y, 0.1), TypeError, "X"),
    "X of complex numbers": (lambda: problems.ridge(X * 1j, Y, 0.1), TypeError, "X", "complex"),
    "y too short": (lambda: problems.lasso(X, Y[:5], 0.1), ValueError, "y", "X", "6", "(5,)"),
    "y of integers": (lambda: problems.lasso(X, np.arange(N), 0.1), TypeError, "y", "int"),
    "y of strings": (lambda: problems.lasso(X, np.array(["a"] * N), 0.1), TypeError, "y"),
    "y is 3-D": (lambda: problems.lasso(X, Y[:, None, None], 0.1), ValueError, "y", "1 or 2"),
    "y is None": (lambda: problems.lasso(X, None, 0.1), TypeError, "y", "NoneType"),
    "labels 0 and 1": (
        lambda: problems.logistic_regression(X, (LABELS + 1) / 2, 0.1),
        ValueError,
        "y",
        "-1 and 1",
    ),
    "labels are strings": (
        lambda: problems.logistic_regression(X, np.array(["yes"] * N), 0.1),
        TypeError,
        "y",
    ),
    "labels of two columns": (
        lambda: problems.logistic_regression(X, LABELS[:, None], 0.1),
        ValueError,
        "y",
        "1 dimension",
    ),
    "A is 1-D": (lambda: LeastSquares(X[0], Y), ValueError, "A", "2 dimension"),
    "A and b": (lambda: LeastSquares(X, Y[:4]), ValueError, "b", "A", "6", "(4,)"),
    "A and y": (lambda: Logistic(X, LABELS[:4]), ValueError, "y", "A", "6", "(4,)"),
    "Q is not square": (lambda: Quadratic(np.ones((3, 2)), np.ones(3)), ValueError, "Q", "(3, 3)"),
    "weights negative": (lambda: LeastSquares(X, Y, weights=-ONES), ValueError, "weights", "-1"),
    "weights too short": (
        lambda: LeastSquares(X, Y, weights=ONES[:5]),
        ValueError,
        "weights",
        "6",
        "(5,)",
    ),
    "weights of integers": (
        lambda: Logistic(X, LABELS, weights=np.ones(N, int)),
        TypeError,
        "weights",
        "floating-point",
    ),
    "weights are one number": (lambda: LeastSquares(X, Y, weights=2.0), ValueError, "weights"),
    "sample_weight negative": (
        lambda: problems.lasso(X, Y, 0.1, sample_weight=-ONES),
        ValueError,
        "sample_weight",
        "-1",
    ),
    "sample_weight too short": (
        lambda: problems.logistic_regression(X, LABELS, 0.1, ONES[:5]),
        ValueError,
        "sample_weight",
        "X",
        "(5,)",
    ),
    "scale misspelt": (
        lambda: LeastSquares(X, Y, scale="maen"),
        ValueError,
        "scale",
        "did you mean 'mean'",
    ),
    "scale unknown": (lambda: Logistic(X, LABELS, scale="n"), ValueError, "scale", "'sum'"),
    # penalties and sets
    "penalty negative": (lambda: problems.lasso(X, Y, -1), ValueError, "penalty", "-1"),
    "penalty negative somewhere": (
        lambda: L1(np.array([1.0, -0.5, 1])),
        ValueError,
        "penalty",
        "-0.5",
    ),
    "penalty negative in a pytree": (
        lambda: SquaredL2({"a": 1.0, "b": -2.0}),
        ValueError,
        "penalty",
        "-2",
    ),
    "penalty is a string": (lambda: L1("small"), TypeError, "penalty", "'small'"),
    "penalty is None": (lambda: problems.ridge(X, Y, None), TypeError, "penalty", "None"),
    "penalty is a boolean": (lambda: L1(True), TypeError, "penalty", "True"),
    "penalty of integers": (lambda: L1(np.arange(3)), TypeError, "penalty", "floating-point"),
    "penalty too long": (solve(problems.lasso(X, Y, np.ones(4))), ValueError, "penalty", "(4,)"),
    "penalty with rows": (
        solve(problems.lasso(X, Y, np.ones((2, 3)))),
        ValueError,
        "penalty",
        "(2, 3)",
    ),
    "penalty of another structure": (
        lambda: L1({"a": 1.0, "b": 1.0}).prox(np.ones(3), 1.0),
        ValueError,
        "penalty",
        "structure",
    ),
    "l1 negative": (lambda: ElasticNet(-1.0, 1.0), ValueError, "l1", "-1"),
    "l2 negative": (lambda: ElasticNet(1.0, -1.0), ValueError, "l2", "-1"),
    "l2 too long": (lambda: ElasticNet(1.0, np.ones(4))(np.ones(3)), ValueError, "l2", "(4,)"),
    "l1_ratio above 1": (
        lambda: problems.elastic_net(X, Y, 0.1, 1.5),
        ValueError,
        "l1_ratio",
        "[0, 1]",
    ),
    "l1_ratio below 0": (lambda: problems.elastic_net(X, Y, 0.1, -0.5), ValueError, "l1_ratio"),
    "l1_ratio as an array": (
        lambda: problems.elastic_net(X, Y, 0.1, jnp.array(1.5)),
        ValueError,
        "l1_ratio",
        "1.5",
    ),
    "elastic net penalty": (lambda: problems.elastic_net(X, Y, -0.1), ValueError, "penalty"),
    "bounds exchanged": (lambda: Box(1, 0), ValueError, "lower", "upper"),
    "bounds exchanged somewhere": (
        lambda: Box(np.array([0.0, 2.0]), np.array([1.0, 1.0])),
        ValueError,
        "lower",
        "upper",
    ),
    "bounds exchanged in a pytree": (
        lambda: Box(0.5, {"a": np.array([1.0, -1.0])}),
        ValueError,
        "lower",
        "upper",
    ),
    "bounds of two shapes": (
        lambda: Box(np.zeros(2), np.ones(3)),
        ValueError,
        "lower",
        "upper",
        "(2,)",
        "(3,)",
    ),
    "bound is None": (lambda: Box(None, 1.0), TypeError, "lower", "None"),
    "bound is NaN": (lambda: Box(0.0, float("nan")), ValueError, "lower", "upper"),
    "bounds too long": (lambda: Box(np.zeros(4)).prox(np.ones(3), 1.0), ValueError, "lower"),
    "radius zero": (lambda: Simplex(0), ValueError, "radius", "positive"),
    "radius negative": (lambda: Simplex(-1.0), ValueError, "radius", "-1"),
    "radius per coordinate": (lambda: Simplex(np.ones(3)), ValueError, "radius", "scalar"),
    "fun is no function": (lambda: Smooth(3.0), TypeError, "fun", "float"),
    "lipschitz negative": (
        lambda: Smooth(parabola, lipschitz=-1),
        ValueError,
        "lipschitz",
        "positive",
    ),
    # stop, mode, solver
    "on_failure misspelt": (
        lambda: jaxns.Stop(on_failure="rase"),
        ValueError,
        "on_failure",
        "did you mean 'raise'",
    ),
    "max_steps fractional": (lambda: jaxns.Stop(max_steps=1.5), TypeError, "max_steps", "1.5"),
    "max_steps a boolean": (lambda: jaxns.Stop(max_steps=True), TypeError, "max_steps"),
    "max_steps negative": (lambda: jaxns.Stop(max_steps=-1), ValueError, "max_steps", "-1"),
    "tol negative": (lambda: jaxns.Stop(tol=-1), ValueError, "tol", "-1"),
    "tol is a string": (lambda: jaxns.Stop(tol="1e-3"), TypeError, "tol", "'1e-3'"),
    "method misspelt": (
        lambda: jaxns.Implicit(method="cgg"),
        ValueError,
        "method",
        "did you mean 'cg'",
    ),
    "adjoint tol negative": (lambda: jaxns.Implicit(tol=-1), ValueError, "tol"),
    "direction unknown": (
        lambda: jaxns.Implicit(direction="forward"),
        ValueError,
        "direction",
        "'both'",
    ),
    "piggyback direction": (lambda: jaxns.Piggyback(direction="fwd"), ValueError, "direction"),
    "no steps": (lambda: jaxns.OneStep(steps=0), ValueError, "steps", "0"),
    "a step and a half": (lambda: jaxns.OneStep(steps=1.5), TypeError, "steps", "1.5"),
    "stepsize negative": (
        lambda: jaxns.ForwardBackward(stepsize=-1),
        ValueError,
        "stepsize",
        "positive",
    ),
    "stepsize a string": (lambda: jaxns.HeavyBall(stepsize="1/L"), TypeError, "stepsize"),
    "gradient stepsize": (lambda: jaxns.GradientDescent(stepsize=0), ValueError, "stepsize"),
    "inertia above 1": (lambda: jaxns.HeavyBall(inertia=1.2), ValueError, "inertia", "1.2"),
    "inertia negative": (lambda: jaxns.HeavyBall(inertia=-0.1), ValueError, "inertia"),
    "relaxation zero": (
        lambda: jaxns.Relaxed(jaxns.ForwardBackward(), 0),
        ValueError,
        "relaxation",
    ),
    "wrapped class": (
        lambda: jaxns.Nesterov(jaxns.ForwardBackward),
        TypeError,
        "Nesterov wraps a solver",
        "ForwardBackward",
    ),
    # problems
    "f is a plain function": (lambda: jaxns.Composite(parabola), TypeError, "f", "Smooth(parabola"),
    "f is a class": (lambda: jaxns.Composite(LeastSquares), TypeError, "f", "LeastSquares"),
    "g is a class": (lambda: jaxns.Composite(LASSO.f, L1), TypeError, "g", "L1"),
    "g is a number": (lambda: jaxns.Composite(LASSO.f, 0.1), TypeError, "g", "0.1"),
    # solve
    "solver is a number": (solve(LASSO, 3), TypeError, "solver", "int"),
    "mode is a class": (solve(LASSO, mode=jaxns.Implicit), TypeError, "mode", "class Implicit"),
    "mode is a string": (solve(LASSO, mode="implicit"), TypeError, "mode", "Implicit()"),
    "stop is a number": (solve(LASSO, stop=1e-6), TypeError, "stop", "Stop(tol="),
    "stop is a class": (solve(LASSO, stop=jaxns.Stop), TypeError, "stop", "class Stop"),
    "x0 of integers": (
        solve(LASSO, x0=np.zeros(P, int)),
        TypeError,
        "x0",
        "floating-point",
    ),
    "x0 needed": (solve(SMOOTH), ValueError, "x0", "Smooth"),
    "gradient descent on a lasso": (
        solve(LASSO, jaxns.GradientDescent()),
        TypeError,
        "GradientDescent needs gradient on g",
        "L1 has none",
        "use ForwardBackward",
    ),
    "heavy ball without a constant": (
        solve(SMOOTH, jaxns.HeavyBall(), np.zeros(2)),
        ValueError,
        "HeavyBall needs a stepsize",
        "Smooth",
        "HeavyBall(stepsize=",
        "ForwardBackward",
    ),
    "z0 of integers": (
        lambda: jaxns.fixed_point(lambda z: z / 2, jnp.array(1)),
        TypeError,
        "z0",
        "floating-point",
    ),
    "F changes the shape": (
        lambda: jaxns.fixed_point(lambda z: jnp.ones(3), np.ones(2)),
        ValueError,
        "shape of z0",
        "(2,)",
        "(3,)",
    ),
    "F is no function": (lambda: jaxns.fixed_point(3, np.ones(2)), TypeError, "F", "int"),
}


@pytest.mark.parametrize("row", BAD.values(), ids=BAD.keys())
def test_bad_input_raises_with_the_name_of_the_argument(row):
    call, exception, name, *words = row
    with pytest.raises(exception) as caught:
        call()
    assert type(caught.value) is exception
    message = str(caught.value)
    assert re.search(rf"\b{re.escape(name)}\b", message)
    assert [word for word in words if word not in message] == []


GOOD = {
    "penalty an int": lambda: problems.lasso(X, Y, 10),
    "penalty a numpy int": lambda: problems.lasso(X, Y, np.int64(10)),
    "penalty a numpy float": lambda: problems.lasso(X, Y, np.float32(10)),
    "penalty a 0-d array": lambda: problems.lasso(X, Y, jnp.array(10.0)),
    "penalty a list": lambda: problems.lasso(X, Y, [10.0, 10.0, 10.0]),
    "X and y lists": lambda: problems.lasso(X.tolist(), Y.tolist(), 10),
}


@pytest.mark.parametrize("build", GOOD.values(), ids=GOOD.keys())
def test_numbers_in_any_form_are_accepted(build):
    expected = problems.lasso(X, Y, 10.0)
    x = np.ones(P)
    np.testing.assert_allclose(build()(x), expected(x), rtol=1e-6)
    assert jax.tree.leaves(build().g)[0].__class__ is not int  # a leaf that could be differentiated


def test_other_numbers_in_any_form():
    assert Box(np.int64(0), 1) == Box(0.0, 1.0)
    assert Box([0.0, -1.0], 1) == Box(np.array([0.0, -1.0]), 1.0)
    assert Simplex(np.int64(2)) == Simplex(2.0)
    assert jaxns.Stop(tol=0).tol == 0.0
    assert problems.elastic_net(X, Y, 2, 1).g == ElasticNet(2.0, 0.0)
    assert problems.elastic_net(X, Y, 2, 0).g == ElasticNet(0.0, 2.0)


def test_nan_in_the_data_is_left_to_the_solve():
    """Validation looks for mistakes of kind; a solve with NaN ends as diverged, not in silence."""
    X_nan = X.copy()
    X_nan[0, 0] = np.nan
    problems.lasso(X_nan, Y, 0.1)
    with pytest.raises(jaxns.ConvergenceError, match="NaN"):
        jaxns.solve(problems.lasso(X_nan, Y, 0.1))


def test_what_cannot_be_seen_is_not_checked():
    """Tracers pass: a negative penalty inside jit is a number like another."""
    assert jax.jit(lambda p: L1(p).penalty)(-1.0) == -1
    assert jax.jit(lambda r: Simplex(r).radius)(-1.0) == -1
    assert jax.vmap(lambda w: LeastSquares(X, Y, weights=w)(np.ones(P)))(
        -np.ones((2, N))
    ).shape == (2,)


def test_concrete_data_inside_jit():
    """Problems built while tracing, from arrays that are known: checked, and without a tracer."""
    labels = jnp.asarray(np.sign(Y))

    def every(penalty):
        f = LeastSquares(X, Y, weights=jnp.ones(len(Y)))
        sets = (Box(-jnp.ones(P), jnp.ones(P)), Simplex(jnp.asarray(1.0)))
        problem = problems.logistic_regression(X, labels, penalty)
        net = problems.elastic_net(X, Y, penalty, jnp.asarray(0.5))
        return [jaxns.Composite(f, g)(jnp.zeros(P)) for g in sets], problem, net

    jax.jit(every)(0.1)
    with pytest.raises(ValueError, match="labels"):
        jax.jit(lambda p: problems.logistic_regression(X, 2 * np.sign(Y), p))(0.1)
