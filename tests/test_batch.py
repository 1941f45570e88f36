"""Many problems at once: the answers of a loop, its derivatives, and what it costs."""

import os
import socket
import subprocess
import sys

import forced_devices
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import PROBLEMS, SOLVERS, STRICT
from cases import start as start_of

import jaxns
from jaxns import batch
from jaxns.fixed_point import Iteration, begin, proceed_to_end
from jaxns.functions import L1, LeastSquares, SquaredL2

DATA = """
import jax, jax.numpy as jnp, numpy as np
import jaxns
from jaxns import batch
from jaxns.functions import L1, LeastSquares
jax.config.update("jax_enable_x64", True)
random = np.random.default_rng(0)
A, b = jnp.asarray(random.normal(size=(11, 20, 6))), jnp.asarray(random.normal(size=(11, 20)))
penalties = jnp.linspace(0.1, 3.0, 11)

def lasso(data):
    A, b, penalty = data
    return jaxns.Composite(LeastSquares(A, b), L1(penalty))

def of(penalties, **options):
    return batch.solve(lasso, over=(A, b, penalties), **options)

alone = jnp.stack([jaxns.solve(lasso((A[i], b[i], penalties[i]))).x for i in range(11)])
"""
space: dict = {}
exec(DATA, space)
A, b, penalties, lasso, of, alone = (
    space[name] for name in ("A", "b", "penalties", "lasso", "of", "alone")
)


@pytest.mark.parametrize(("width", "chunk"), [(1, 1000), (3, 7), (16, 50)])
def test_the_answers_of_a_loop(width, chunk):
    found = of(penalties, width=width, chunk=chunk)
    np.testing.assert_allclose(found.x, alone, atol=1e-12)
    assert found.steps.shape == found.residual.shape == found.status.code.shape == (11,)
    assert len(set(found.steps.tolist())) > 1
    assert np.all(found.status == jaxns.Status.CONVERGED)


def test_a_batched_problem_and_a_warm_start():
    problems = jax.vmap(lambda *data: lasso(data))(A, b, penalties)
    found = batch.solve(problems, jaxns.ForwardBackward())
    np.testing.assert_allclose(found.x, alone, atol=1e-12)
    again = batch.solve(problems, jaxns.ForwardBackward(), found)
    assert int(jnp.max(again.steps)) <= 3
    np.testing.assert_allclose(again.x, alone, atol=1e-12)


@jaxns.struct
class Picard:
    """z ← z − g(z), of a `Root`."""

    def init(self, problem, x0):
        return x0

    def step(self, problem, z):
        return z - problem.residual(z)

    def solution(self, problem, z):
        return z


MODES = {
    "implicit": jaxns.Implicit(),
    "both": jaxns.Implicit(direction="both"),
    "one step": jaxns.OneStep(400),
    "piggyback": jaxns.Piggyback(),
}


@pytest.mark.parametrize(
    "name", ["implicit", *(pytest.param(n, marks=pytest.mark.slow) for n in [*MODES][1:])]
)
def test_derivatives(name):
    """Against central differences, for the data that items bring and for those that they share."""

    def loss(data, scale):
        def build(item):
            A, b, penalty = item
            return jaxns.Composite(LeastSquares(A, scale * b), L1(penalty))

        x = batch.solve(build, over=data, mode=MODES[name], width=4, chunk=20).x
        return jnp.sum(jnp.sin(x) * jnp.arange(66.0).reshape(11, 6))

    data, scale = (A, b, penalties), jnp.asarray(1.1)

    def of_one(penalty, A, b, weights):
        problem = jaxns.Composite(LeastSquares(A, scale * b), L1(penalty))
        return jnp.sum(jnp.sin(jaxns.solve(problem, mode=MODES[name]).x) * weights)

    gradient = jax.grad(loss, argnums=(0, 1))(data, scale)
    weights = jnp.arange(66.0).reshape(11, 6)
    looped = [jax.grad(of_one)(penalties[i], A[i], b[i], weights[i]) for i in range(11)]
    np.testing.assert_allclose(gradient[0][2], jnp.stack(looped), rtol=1e-12, atol=1e-12)
    direction = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(1).normal(size=leaf.shape)), (data, scale)
    )
    h = 1e-6
    moved = [
        loss(*jax.tree.map(lambda leaf, d, s=s: leaf + s * h * d, (data, scale), direction))
        for s in (1, -1)
    ]
    along = sum(
        jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    )
    np.testing.assert_allclose(along, (moved[0] - moved[1]) / (2 * h), rtol=1e-6)


def test_cost_follows_the_sum_of_the_iterations():
    """One slow lane of 64: evaluations of F are counted where they happen."""
    evaluated = []

    def step(theta, z):
        jax.debug.callback(lambda lanes: evaluated.append(np.size(lanes)), z, ordered=False)
        return theta * z + 1

    def evaluations(loop):
        iteration = Iteration(step) if loop is None else Iteration(step, loop=loop)
        stop = jaxns.Stop(tol=1e-10, on_failure="ignore")

        def run(theta):
            return proceed_to_end(iteration, theta, stop, begin(iteration, theta, 0.0, stop))

        evaluated.clear()
        ended = jax.jit(jax.vmap(run))(rates)
        jax.effects_barrier()
        return sum(evaluated), ended

    rates = jnp.full(32, 0.5).at[17].set(0.9)
    together, slow = evaluations(None)
    leaving, fast = evaluations(batch.Compaction(16, 10))
    np.testing.assert_array_equal(slow.progress.steps, fast.progress.steps)
    np.testing.assert_array_equal(slow.image, fast.image)
    total, slowest = int(slow.progress.steps.sum()), int(slow.progress.steps.max())
    assert together == 32 * slowest
    assert leaving < total + 32 * 10 + slowest  # a lane waits for less than a chunk; two at the end
    assert leaving < together / 3


def test_lanes_that_fail_are_named():
    stop = jaxns.Stop(max_steps=20)
    easy = penalties.at[jnp.array([1, 2, 5])].set(1e6)
    with pytest.raises(jaxns.ConvergenceError, match=r"8 of 11 problems failed \(numbers 0, 3, 4"):
        of(easy, stop=stop)
    quiet = of(easy, stop=jaxns.Stop(max_steps=20, on_failure="nan"))
    assert np.flatnonzero(np.isfinite(quiet.x).all(axis=1)).tolist() == [1, 2, 5]
    inside = jax.jit(lambda p: of(p, stop=stop).x)(easy)
    np.testing.assert_array_equal(inside, quiet.x)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: of(penalties[:3]), ValueError, r"one first axis, that of the batch"),
        (lambda: of(penalties, width=0), ValueError, "width"),
        (lambda: of(penalties, chunk=2.5), TypeError, "chunk"),
        (lambda: batch.solve(3.0, over=penalties), TypeError, "problems must be a function"),
        (
            lambda: batch.mesh(1000),
            ValueError,
            r"count must be between 1 and \d+, for \d+ cpu device",
        ),
        (lambda: batch.vmap(jnp.sin, np.ones(3)), TypeError, "mesh must be a jax.sharding.Mesh"),
    ],
)
def test_wrong_arguments(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_lane_of_nan_among_others():
    """It is told apart, and changes no digit of the others or of their derivatives."""
    broken, others = A.at[3].set(jnp.nan), np.delete(np.arange(11), 3)
    stop = jaxns.Stop(on_failure="nan")

    def total(penalties, A):
        found = batch.solve(lasso, over=(A, b, penalties), stop=stop, width=4)
        return jnp.nansum(found.x**2), found

    of_both = jax.jit(jax.grad(total, has_aux=True))
    (slopes, found), (expected, _) = of_both(penalties, broken), of_both(penalties, A)
    assert found.status.code[3] == jaxns.Status.DIVERGED.code
    assert np.all(found.status.ok[others])
    assert np.all(np.isnan(found.x[3]))
    np.testing.assert_allclose(found.x[others], alone[others], atol=1e-12)
    np.testing.assert_array_equal(slopes[others], expected[others])


@pytest.mark.slow
def test_a_batch_of_batches_and_second_derivatives():
    """Ridge regressions in closed form, the outer batch by `vmap`."""

    def build(item):
        A, b, penalty = item
        return jaxns.Composite(LeastSquares(A, b), SquaredL2(penalty))

    def exact(A, b, penalty):
        return jnp.linalg.solve(A.T @ A + penalty * jnp.eye(6), A.T @ b)

    def total(penalties, solutions):
        return jnp.sum(solutions(A[:3], b[:3], penalties) ** 2)

    ours = lambda *data: batch.solve(build, over=data, width=2).x  # noqa: E731
    pair = jnp.stack([penalties[:3], penalties[3:6]])
    found, expected = (
        jax.vmap(jax.hessian(lambda p, f=f: total(p, f)))(pair) for f in (ours, jax.vmap(exact))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_no_items_integers_trees_and_float32():
    assert batch.solve(lasso, over=(A[:0], b[:0], penalties[:0])).x.shape == (0, 6)
    chosen = jnp.array([7, 2])
    found = batch.solve(lambda i: lasso((A[i], b[i], penalties[i])), over=chosen, width=4)
    np.testing.assert_allclose(found.x, alone[chosen], atol=1e-12)

    def root(x, shift):
        return {"u": x["u"] - shift, "v": x["v"] - 2 * shift}

    shifts = jnp.arange(3, dtype=jnp.float32)
    start = {"u": jnp.zeros(3, jnp.float32), "v": jnp.zeros((3, 2), jnp.float32)}
    found = batch.solve(
        lambda shift: jaxns.Root(root, shift), jaxns.Newton(), start, over=shifts, width=2
    )
    assert found.x["v"].dtype == jnp.float32
    np.testing.assert_array_equal(found.x["u"], shifts)
    np.testing.assert_array_equal(found.x["v"], 2 * shifts[:, None] * jnp.ones(2))


# Each solver on one of its problems, of which it is asked for three.
EACH = {name: case.problems[0] for name, case in SOLVERS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_every_solver(name):
    """The solutions of a loop, where lanes end at different steps."""
    build, theta = PROBLEMS[EACH[name]]
    case, thetas = SOLVERS[name], theta * jnp.array([[1.0], [1.1], [0.9]])
    start = start_of(EACH[name])
    starts = None if start is None else jnp.stack([start] * 3)
    found = batch.solve(build, case.solver, starts, over=thetas, width=2, stop=STRICT)
    for i in range(3):
        alone = jaxns.solve(build(thetas[i]), case.solver, start, stop=STRICT)
        of_lane = jax.tree.map(lambda leaf, i=i: leaf[i], found.x)
        np.testing.assert_allclose(case.read(of_lane), case.read(alone.x), rtol=0, atol=1e-12)


def test_adjoint_systems_leave_too():
    """Applications of A in a backward pass by Neumann's series, counted where they happen."""
    applied = []

    @jax.custom_vjp
    def scaled(rate, z):
        return rate * z

    def backward(saved, bar):
        rate, z = saved
        jax.debug.callback(lambda lanes: applied.append(np.size(lanes)), bar, ordered=False)
        return bar * z, bar * rate

    scaled.defvjp(lambda rate, z: (rate * z, (rate, z)), backward)
    rates = jnp.full(32, 0.5).at[17].set(0.9)
    mode = jaxns.Implicit(method="neumann", tol=1e-10)

    def total(rates):
        roots = batch.solve(
            lambda rate: jaxns.Root(lambda z, rate: z - scaled(rate, z) - 1, rate),
            Picard(), jnp.zeros(32), over=rates, mode=mode, width=16,
        )  # fmt: skip
        return jnp.sum(roots.x)

    slopes = jax.jit(jax.grad(total))(rates)
    jax.effects_barrier()
    np.testing.assert_allclose(slopes, 1 / (1 - rates) ** 2, rtol=1e-9)
    needed = jnp.ceil(jnp.log(1e-10) / jnp.log(rates))  # rate^k ≤ tol
    assert sum(applied) < 2 * needed.sum() < 32 * needed.max() / 2


def test_one_item_and_shared_data():
    design, target = A[0], b[0]

    def build(penalty):
        return jaxns.Composite(LeastSquares(design, target), SquaredL2(penalty))

    found = batch.solve(build, over=penalties[:1])
    exact = jnp.linalg.solve(design.T @ design + penalties[0] * jnp.eye(6), design.T @ target)
    np.testing.assert_allclose(found.x, exact[None], atol=1e-12)


EIGHT = f"""{DATA}
mesh = batch.mesh()
assert mesh.size == 8
np.testing.assert_allclose(of(penalties, mesh=mesh).x, alone, atol=1e-12)
slope = lambda p, mesh: jax.grad(lambda p: jnp.sum(of(p, mesh=mesh).x ** 2))(p)
np.testing.assert_allclose(slope(penalties, mesh), slope(penalties, None), atol=1e-12)
def eight(*data):
    return batch.solve(lasso, over=data, mesh=mesh).x

compiled = jax.jit(eight).lower(A[:8], b[:8], penalties[:8]).compile().as_text()
assert "while" in compiled
assert not any(word in compiled for word in ("all-reduce", "all-gather", "collective-permute"))
print("all close")
"""


def python(program, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_eight_devices():
    """A batch that they do not divide; no device waits for another inside a loop."""
    forced_devices.run(EIGHT, 8, timeout=240)


TWO = f"""
import sys, jax
jax.distributed.initialize("127.0.0.1:" + sys.argv[1], 2, int(sys.argv[2]))
{DATA}
assert jax.process_count() == 2
found = of(penalties, mesh=batch.mesh())
np.testing.assert_allclose(found.x, alone, atol=1e-12)
assert found.steps.shape == (11,)
print("all close")
"""


@pytest.mark.slow
def test_two_hosts():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = TWO.replace("sys.argv[1]", repr(str(port)))
    flags = "--xla_force_host_platform_device_count=2"
    hosts = [
        python(program.replace("int(sys.argv[2])", str(host)), XLA_FLAGS=flags) for host in range(2)
    ]
    for host in hosts:
        out, error = host.communicate(timeout=240)
        assert out.strip().endswith("all close"), error


def along(penalties, mode=jaxns.Implicit(), **options):
    random = np.random.default_rng(1)
    A, b = random.normal(size=(20, 40)), random.normal(size=20)

    def build(penalty):
        return jaxns.Composite(LeastSquares(A, b), L1(penalty))

    solver = jaxns.ForwardBackward()
    return build, jaxns.batch.path(build, solver, over=penalties, mode=mode, **options)


def test_a_path_of_penalties():
    penalties = jnp.geomspace(4.0, 3.0, 12)
    build, found = along(penalties)
    cold = [jaxns.solve(build(penalty), jaxns.ForwardBackward()) for penalty in penalties]
    for x, alone in zip(found.x, cold, strict=True):
        np.testing.assert_allclose(x, alone.x, atol=1e-11)
    assert jnp.sum(found.steps[1:]) < 0.9 * sum(int(alone.steps) for alone in cold[1:])

    both = jaxns.Implicit(direction="both")
    ones = jnp.ones_like(penalties)
    _, slopes = jax.jvp(lambda t: along(t, both)[1].x, (penalties,), (ones,))
    h = 1e-6
    ahead, behind = (along(penalties + step)[1].x for step in (h, -h))
    np.testing.assert_allclose(slopes, (ahead - behind) / (2 * h), atol=1e-7)


def test_a_point_of_a_path_that_fails_is_passed_by():
    penalties = jnp.array([5.0, jnp.nan, 3.0])
    with pytest.raises(jaxns.ConvergenceError, match="1 of 3"):
        along(penalties)
    _, found = along(penalties, stop=jaxns.Stop(on_failure="nan"))
    assert found.status.ok.tolist() == [True, False, True]
    assert jnp.isnan(found.x).all(axis=1).tolist() == [False, True, False]


def test_a_path_is_not_unrolled():
    with pytest.raises(ValueError, match="Piggyback has too few steps"):
        along(jnp.ones(2), jaxns.Piggyback())
