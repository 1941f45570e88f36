"""Searches over what defines a problem, against closed forms, differences and grids.

What is measured on real data is in test_bilevel_studies.py.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize_scalar

import jaxns
from jaxns import bilevel, validate
from jaxns.bilevel import Box, Free, Positive, adaptive
from jaxns.bilevel.space import constrain, free
from jaxns.struct import static, struct

traces = []


def regression(seed: int = 2, n: int = 14, p: int = 8) -> tuple[np.ndarray, ...]:
    """X, y and as many held-out ones."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(2 * n, p))
    y = X @ np.where(np.arange(p) % 3, 0, 1.0) + 1.5 * random.normal(size=2 * n)
    return X[:n], y[:n], X[n:], y[n:]


X, y, X_VAL, Y_VAL = regression()


@struct
class Penalised:
    """θ -> a problem with these data, counting how often it is traced."""

    X: jax.Array
    y: jax.Array
    build: str = static(default="lasso")

    def __call__(self, theta):
        if not validate.is_known(jax.tree.leaves(theta)[0]):
            traces.append(1)
        if self.build == "elastic_net":
            l1, l2 = theta["l1"], theta["l2"]
            theta = (l1 + l2, l1 / (l1 + l2))
        numbers = theta if isinstance(theta, tuple) else (theta,)
        return getattr(jaxns.problems, self.build)(self.X, self.y, *numbers)


@struct
class HeldOut:
    """The mean squared error, or the logistic loss."""

    X: jax.Array
    y: jax.Array
    labels: bool = static(default=False)

    def __call__(self, x, theta):
        t = self.X @ x
        charge = jnp.logaddexp(0, -self.y * t) if self.labels else (t - self.y) ** 2
        return jnp.mean(charge)


def levels(build: str = "lasso", data: tuple = (X, y, X_VAL, Y_VAL), dtype: type = float) -> tuple:
    """outer, inner"""
    A, b, V, w = (jnp.asarray(a, dtype) for a in data)
    labels = "logistic" in build
    b, w = (jnp.sign(b), jnp.sign(w)) if labels else (b, w)
    return HeldOut(V, w, labels), Penalised(A, b, build)


def ridge_error(t: float) -> float:
    """The held-out error at the penalty e^t, from the normal equations."""
    beta = np.linalg.solve(X.T @ X + len(y) * np.exp(t) * np.eye(X.shape[1]), X.T @ y)
    return float(np.mean((X_VAL @ beta - Y_VAL) ** 2))


def difference(function, t: float, h: float = 1e-5) -> float:
    return (function(t + h) - function(t - h)) / (2 * h)


def converged(outer, inner):
    """u ↦ the value and gradient of outer(x(e^u), e^u), solved as far as it goes."""

    @jax.jit
    @jax.value_and_grad
    def exact(u):
        theta = jax.tree.map(jnp.exp, u)
        stop = jaxns.Stop(tol=1e-15, on_failure="ignore")
        return outer(jaxns.solve(inner(theta), stop=stop).x, theta)

    return exact


# The search -------------------------------------------------------------------------------------

MODES = {
    "implicit": (jaxns.Implicit(), None),
    "piggyback": (jaxns.Piggyback(), None),
    "one step of Newton": (jaxns.OneStep(), jaxns.Newton()),
    "shine": (jaxns.Shine(refine=20), jaxns.LBFGS()),
}


@pytest.mark.parametrize("name", MODES)
def test_ridge_is_tuned_as_its_normal_equations_say(name):
    mode, solver = MODES[name]
    found = bilevel.minimize(
        *levels("ridge"), 1.0, space=Positive(), mode=mode, solver=solver, steps=15
    )
    history = found.history
    t = np.log(history.theta)
    np.testing.assert_allclose(history.value, [ridge_error(s) for s in t], rtol=1e-10)
    slopes = [difference(ridge_error, s) for s in t]
    np.testing.assert_allclose(history.gradient, slopes, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(history.gradient_norm, np.abs(history.gradient))
    best = minimize_scalar(ridge_error, bounds=(-8, 5), method="bounded", options={"xatol": 1e-9})
    assert found.converged
    assert abs(np.log(found.theta) - best.x) < 1e-3
    assert found.value <= best.fun + 1e-9
    assert found.value == history.value.min()
    np.testing.assert_allclose(np.mean((X_VAL @ found.x - Y_VAL) ** 2), found.value)


def test_the_scan_takes_the_steps_of_the_loop_under_jit_and_vmap():
    outer, inner = levels()
    how = {"space": Positive(), "steps": 6}
    starts = jnp.array([0.3, 0.05])
    scans = jax.jit(jax.vmap(lambda theta: bilevel.scan(outer, inner, theta, **how)))(starts)
    for k, start in enumerate(starts):
        loop = bilevel.minimize(outer, inner, start, tol=0.0, **how)
        for name in ("value", "theta", "gradient", "inner_steps"):
            ours, other = (getattr(found.history, name) for found in (loop, scans))
            np.testing.assert_allclose(ours, other[k], rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(loop.value, scans.value[k], rtol=1e-12)
        assert np.all(np.isnan(scans.history.seconds))


def test_many_problems_at_once_are_a_loop_over_them():
    folds = [regression(seed) for seed in range(3)]
    parts = tuple(jnp.stack(arrays) for arrays in zip(*folds, strict=True))

    def inner(theta, part):
        return jaxns.problems.lasso(part[0], part[1], theta)

    def outer(x, theta):
        return jnp.mean((jnp.einsum("knp,kp->kn", parts[2], x) - parts[3]) ** 2)

    found = bilevel.minimize(outer, inner, 0.2, each=parts, space=Positive(), steps=3, tol=0.0)
    assert found.x.shape == (3, X.shape[1])

    def one(theta, part):
        x = jaxns.solve(inner(theta, part)).x
        return jnp.mean((part[2] @ x - part[3]) ** 2)

    for k, theta in enumerate(found.history.theta):
        pairs = [
            jax.value_and_grad(one)(jnp.asarray(theta), tuple(map(jnp.asarray, p))) for p in folds
        ]
        value, slope = np.mean(pairs, axis=0)
        np.testing.assert_allclose(found.history.value[k], value, rtol=1e-9)
        np.testing.assert_allclose(found.history.gradient[k], theta * slope, rtol=1e-7)


def test_new_data_of_the_same_shape_compile_nothing():
    def run(seed):
        return bilevel.minimize(
            *levels(data=regression(seed)), 0.2, space=Positive(), steps=3, tol=0.0
        )

    run(2)
    traces.clear()
    again = run(1)
    assert not traces
    outer, inner = levels(data=regression(1))
    closures = bilevel.minimize(
        lambda x, theta: outer(x, theta),
        lambda theta: inner(theta),
        0.2,
        space=Positive(),
        steps=3,
        tol=0.0,
    )
    np.testing.assert_allclose(closures.history.value, again.history.value, rtol=1e-12)


def test_an_object_that_changed_is_seen_to_have_changed():
    class Model:
        shrink = 1.0

        def outer(self, x, theta):
            return self.shrink * jnp.sum(x**2)

    model, (_, inner) = Model(), levels()
    first = bilevel.minimize(model.outer, inner, 0.2, steps=1)
    model.shrink = 0.5
    second = bilevel.minimize(model.outer, inner, 0.2, steps=1)
    np.testing.assert_allclose(second.value, first.value / 2)


def test_pytrees_float32_and_any_optimiser():
    outer, inner = levels("elastic_net", dtype=np.float32)
    start = {"l1": jnp.float32(0.2), "l2": jnp.float32(0.2)}
    found = bilevel.minimize(
        outer, inner, start, space=Positive(), optimizer=optax.adam(0.1), steps=5, tol=0.0
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found.theta)} == {jnp.dtype(jnp.float32)}
    assert found.x.dtype == found.history.value.dtype == np.float32
    assert found.history.theta["l1"].shape == (5,)
    assert found.value < found.history.value[0]
    exact = converged(*levels("elastic_net"))
    for k in range(5):
        u = {name: jnp.log(float(values[k])) for name, values in found.history.theta.items()}
        value, gradient = exact(u)
        assert abs(found.history.value[k] - value) < 1e-4
        for name, slope in gradient.items():
            assert abs(found.history.gradient[name][k] - slope) < 1e-4


def test_each_evaluation_starts_where_the_last_ended():
    outer, inner = levels()
    found = bilevel.minimize(outer, inner, 0.2, optimizer=optax.sgd(0.0), steps=3, tol=0.0)
    assert found.history.inner_steps[0] == jaxns.solve(inner(0.2)).steps
    assert found.history.inner_steps[1] == found.history.inner_steps[2] == 1


def test_a_callback_sees_every_row_and_may_end_the_search(capfd):
    rows = []

    def callback(count, row):
        rows.append((count, float(row.value)))
        return count == 2

    found = bilevel.minimize(*levels(), 0.2, space=Positive(), steps=3, callback=callback)
    assert rows == list(enumerate(found.history.value, start=1))
    assert len(rows) == 2
    assert not found.converged
    assert np.all(np.diff(found.history.seconds) > 0)
    assert capfd.readouterr() == ("", "")


def test_a_solve_that_fails_raises_at_first_and_is_a_bad_point_later():
    outer, inner = levels()
    hopeless = jaxns.Stop(max_steps=2)
    with pytest.raises(jaxns.ConvergenceError, match="at theta0 reached max_steps"):
        bilevel.minimize(outer, inner, 0.2, space=Positive(), stop=hopeless)
    with pytest.raises(jaxns.ConvergenceError, match="at theta0 the outer value is nan"):
        bilevel.minimize(lambda x, t: outer(x, t) * jnp.nan, inner, 0.2)

    # Targets that are lost above a penalty: the search has to find the best of what is left.
    def lossy(t):
        return Penalised(inner.X, jnp.where(t > 0.25, jnp.nan, 1) * inner.y)(t)

    found = bilevel.minimize(outer, lossy, 0.2, space=Positive(), steps=8)
    failed = found.history.status > jaxns.Status.COMPLETED.code
    assert failed.any()
    assert np.isnan(found.history.value[failed]).all()
    assert np.isfinite(found.value)
    assert found.value == np.nanmin(found.history.value)


def test_what_cannot_be_right_is_refused():
    outer, inner = levels()
    minimize = bilevel.minimize
    with pytest.raises(TypeError, match="inner must be a function"):
        minimize(outer, 0.1, 0.2)
    with pytest.raises(TypeError, match="outer must be a function"):
        minimize(1.0, inner, 0.2)
    with pytest.raises(TypeError, match="theta0 must hold floating-point"):
        minimize(outer, inner, jnp.arange(2))
    with pytest.raises(ValueError, match="theta0 must be positive"):
        minimize(outer, inner, -0.2, space=Positive())
    with pytest.raises(ValueError, match="steps must be positive"):
        minimize(outer, inner, 0.2, steps=0)
    with pytest.raises(TypeError, match=r"stop must be a jaxns\.Stop"):
        minimize(outer, inner, 0.2, stop=1e-6)
    with pytest.raises(ValueError, match="accuracy must be positive"):
        minimize(outer, inner, 0.2, accuracy=0.0)
    with pytest.raises(ValueError, match="accuracy needs a mode that looks at the last point"):
        minimize(outer, inner, 0.2, accuracy=0.1, mode=jaxns.Piggyback())
    with pytest.raises(ValueError, match="accuracy needs"):
        minimize(outer, inner, 0.2, accuracy=0.1, stop=jaxns.Stop(tol=None, max_steps=5))
    with pytest.raises(ValueError, match="checkpoint_every must be positive"):
        minimize(outer, inner, 0.2, checkpoint_every=0)


# A search on a terminal, and on disk -------------------------------------------------------------


def test_progress_is_shown_where_it_is_asked_for(capsys, monkeypatch):
    how = {"space": Positive(), "steps": 3, "tol": 0.0}
    bilevel.minimize(*levels(), 0.2, progress=True, **how)
    shown = capsys.readouterr().out
    assert "3/3" in shown
    assert "gradient" in shown
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ImportError, match=r"jax-nonsmooth\[experiments\]"):
        bilevel.minimize(*levels(), 0.2, progress=True, **how)


def kept_search(directory: Path, pause: float = 0.0, steps: int = 12, **changes):
    def wait(count, row):
        time.sleep(pause)

    how = {"space": Positive(), "accuracy": 0.1, "tol": 0.0, "callback": wait} | changes
    return bilevel.minimize(*levels(), 0.2, checkpoint=directory, steps=steps, **how)


def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path):
    """`kill -9` in the middle of it, in another process."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import conftest, "
    script += f"test_bilevel as t; t.kept_search(t.Path({str(tmp_path)!r}), pause=0.2)"
    environment = os.environ | {"PYTHONPATH": str(Path(jaxns.__file__).parent.parent)}
    child = subprocess.Popen([sys.executable, "-c", script], env=environment)

    def evaluations():
        try:
            with np.load(tmp_path / "search.npz") as kept:
                return len(kept["history 0"])
        except FileNotFoundError:
            return 0

    deadline = time.monotonic() + 300
    while evaluations() < 4 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = evaluations()
    assert 4 <= done < 12

    counts = []
    undisturbed = kept_search(tmp_path / "another")
    resumed = kept_search(tmp_path, callback=lambda count, row: counts.append(count))
    assert counts == list(range(done + 1, 13))
    for name in resumed.history._fields:
        if name != "seconds":
            ours, other = (getattr(r.history, name) for r in (resumed, undisturbed))
            np.testing.assert_allclose(ours, other, rtol=1e-12, atol=0, err_msg=name)
    assert np.all(np.diff(resumed.history.seconds) > 0)
    np.testing.assert_allclose(resumed.x, undisturbed.x, rtol=1e-12)
    np.testing.assert_allclose(resumed.theta, undisturbed.theta, rtol=1e-12)

    again = kept_search(tmp_path, callback=lambda *_: pytest.fail("evaluated once more"))
    assert again.value == resumed.value
    longer = kept_search(tmp_path, steps=14)
    assert len(longer.history.value) == 14


def test_another_search_is_not_taken_for_ours(tmp_path):
    how = {"space": Positive(), "steps": 2, "tol": 0.0, "checkpoint": tmp_path}
    bilevel.minimize(*levels(), 0.2, **how)
    others = {
        "other shapes": ((*levels(data=regression(p=9)), 0.2), {}),
        "other shapes or types": ((*levels(), 0.2), {"optimizer": optax.adam(0.1)}),
        "other numbers": ((*levels(data=regression(5)), 0.2), {}),
        "found other numbers": ((*levels(), 0.3), {}),
    }
    for why, (what, changes) in others.items():
        with pytest.raises(ValueError, match=f"holds another search .*{why}"):
            bilevel.minimize(*what, **(how | changes))
    assert len(bilevel.minimize(*levels(), 0.2, **how).history.value) == 2


def test_random_optimisers_are_kept_too(tmp_path):
    optimizer = optax.noisy_sgd(0.1, key=jax.random.key(0))
    how = {"space": Positive(), "optimizer": optimizer, "tol": 0.0}
    whole = bilevel.minimize(*levels(), 0.2, steps=5, **how)
    bilevel.minimize(*levels(), 0.2, steps=3, checkpoint=tmp_path, checkpoint_every=2, **how)
    rest = bilevel.minimize(*levels(), 0.2, steps=5, checkpoint=tmp_path, **how)
    np.testing.assert_allclose(rest.history.theta, whole.history.theta, rtol=1e-12)


# Accuracy ---------------------------------------------------------------------------------------

WIDE = regression(3, n=40, p=60)
ACCURACY = {
    "lasso": (0.3, 0.1),
    "elastic_net": ({"l1": 0.2, "l2": 0.1}, 0.1),
    "sparse_logistic": (0.05, 0.03),
}


@pytest.mark.parametrize("name", ACCURACY)
def test_a_hypergradient_is_as_accurate_as_asked(name):
    start, accuracy = ACCURACY[name]
    outer, inner = levels(name, WIDE)
    found = bilevel.minimize(
        outer, inner, start, space=Positive(), accuracy=accuracy, steps=15, tol=1e-7
    )
    history, exact = found.history, converged(outer, inner)
    for k in range(len(history.value)):
        theta, claimed = jax.tree.map(
            lambda a, k=k: jnp.asarray(a[k]), (history.theta, history.gradient)
        )
        _, gradient = exact(jax.tree.map(jnp.log, theta))
        off = jaxns.tree.norm(jaxns.tree.sub(claimed, gradient))
        assert off <= accuracy * jaxns.tree.norm(gradient), k
        assert history.error[k] <= accuracy


def test_accuracy_saves_two_thirds_of_the_inner_steps():
    outer, inner = levels("lasso", WIDE)
    how = {"space": Positive(), "steps": 30, "tol": 1e-7}
    tight = bilevel.minimize(outer, inner, 0.3, **how)
    loose = bilevel.minimize(outer, inner, 0.3, accuracy=0.1, **how)
    assert tight.history.inner_steps.sum() >= 3 * loose.history.inner_steps.sum()
    assert abs(tight.value - loose.value) <= 1e-6
    assert loose.history.tol[0] > loose.history.tol[-1]


# Spaces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space", [Free(), Positive(), Box(0.1, 5.0), Box(0.1, 5.0, log=True)], ids=repr
)
def test_spaces_go_there_and_back(space):
    theta = {"a": jnp.array([0.2, 4.0]), "b": (jnp.array(1.0),)}
    u = free(space, theta)
    back = constrain(space, u)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), theta, back)
    far = constrain(space, jax.tree.map(lambda a: a - 7.0, u))
    if isinstance(space, Box):
        assert all(np.all((leaf > 0.1) & (leaf < 5.0)) for leaf in jax.tree.leaves(far))


def test_a_space_may_be_a_tree_that_ends_early():
    space = {"a": Positive(), "b": Free()}
    theta = {"a": (jnp.array(2.0), jnp.array(3.0)), "b": jnp.array(-1.0)}
    u = free(space, theta)
    np.testing.assert_allclose(u["a"], np.log([2, 3]))
    assert u["b"] == -1
    assert constrain(space, u)["b"] == -1


def test_spaces_refuse_what_is_outside():
    with pytest.raises(ValueError, match="high must be above low"):
        Box(1.0, 1.0)
    with pytest.raises(ValueError, match="low must be positive"):
        Box(0.0, 1.0, log=True)
    with pytest.raises(ValueError, match=r"theta0 must be in \(0.0, 1.0\)"):
        free(Box(0.0, 1.0), jnp.array(1.0))


def test_a_box_below_zero_is_a_box():
    box = Box(-2.0, -1.0)
    np.testing.assert_allclose(box.constrain(box.free(jnp.array(-1.5))), -1.5)


# The optimiser ----------------------------------------------------------------------------------


def descend(function, start, steps):
    """The last point, and all values and points, by `adaptive` as one of optax's optimisers."""
    optimizer = optax.chain(optax.identity(), adaptive())

    def body(carry, _):
        u, state = carry
        value, gradient = jax.value_and_grad(function)(u)
        updates, state = optimizer.update(gradient, state, u, value=value)
        return (optax.apply_updates(u, updates), state), (value, u)

    run = jax.jit(lambda carry: jax.lax.scan(body, carry, length=steps))
    (u, _), (values, path) = run((start, optimizer.init(start)))
    return u, values, path


def rosenbrock(u):
    return (1 - u["x"]) ** 2 + 100 * (u["y"] - u["x"] ** 2) ** 2


def quadratic(u):
    return 0.5 * jnp.sum(jnp.geomspace(1, 1e2, u.size) * (u - 1) ** 2)


@pytest.mark.parametrize(
    ("function", "start", "steps"),
    [
        (rosenbrock, {"x": jnp.array(-1.2), "y": jnp.array(1.0)}, 80),
        (quadratic, jnp.zeros(20), 100),
    ],
    ids=["rosenbrock", "quadratic"],
)
def test_adaptive_steps_find_known_minimisers(function, start, steps):
    u, values, path = descend(function, start, steps)
    for leaf in jax.tree.leaves(u):
        np.testing.assert_allclose(leaf, 1, atol=1e-6)
    moves = jax.tree.map(lambda leaf: jnp.abs(jnp.diff(leaf, axis=0)).max(), path)
    assert max(jax.tree.leaves(moves)) <= 1 + 1e-12  # reach
    assert values[-1] < 1e-12


def test_adaptive_steps_come_back_from_points_without_a_value():
    def function(u):
        return jnp.where(u < 1.5, (u - 1.4) ** 2, jnp.nan)

    u, values, _ = descend(function, jnp.array(1.0), 30)
    assert np.isnan(values).any()
    np.testing.assert_allclose(u, 1.4, atol=1e-6)
