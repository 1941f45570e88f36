"""What programs and their derivatives cost: counted, compiled, and bounded by the theorem."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxns
from jaxns.modes import tape
from jaxns.nonsmooth.cost import compiled, count, omega_table, ratio
from jaxns.trust import gradient_cost

A, B = np.ones((3, 4)), np.ones((4, 5))
x4 = np.arange(1.0, 5.0)


def total(f, *args, **options):
    found = count(f, *args, **options)
    assert found.known, found.unknown
    return found.total


def scanned(x):
    return lax.scan(lambda c, a: (c * a + 1, None), 1.0, x)[0]


def halved(x):
    return lax.while_loop(lambda c: c > 1, lambda c: c / 2 - 0.1, x)


COUNTS = [
    (lambda a, b: a @ b, (A, B), 15 * (2 * 4 - 1)),
    (lambda a: jnp.sum(jnp.exp(a) + 1), (A,), 12 + 12 + 11),
    (lambda a: a.T.reshape(-1)[::2], (A,), 0),
    (lambda a: jnp.max(jnp.abs(a), axis=1), (A,), 12 + 9),
    (lambda a: a**5, (x4,), 4 * 3),
    (lambda a: a / 3, (x4,), 4 * 2),
    (jnp.sort, (x4,), 4 * 2),
    (jnp.cumsum, (x4,), 4),
    (jax.nn.relu, (x4,), 4),
    (jax.jit(lambda a: jax.checkpoint(jnp.sin)(a) * 2), (x4,), 8),
    (jnp.linalg.cholesky, (np.eye(6),), {"cholesky": 6**3 / 3}),
    (lambda a: jnp.zeros(4).at[np.array([0, 0, 1])].add(a), (np.ones(3),), {"scatter-add": 3}),
    (lambda a: lax.cond(a[0] > 0, lambda: a, lambda: a * a), (x4,), 1 + 4),
    (scanned, (x4,), 4 * 2),
    (lambda a: (a * a, jnp.sin(a))[0], (x4,), 4),
    (
        lambda a: lax.conv(a, np.ones((2, 3, 3, 3)), (1, 1), "VALID"),
        (np.ones((1, 3, 5, 5)),),
        2 * 9 * (2 * 27 - 1),
    ),
]


@pytest.mark.parametrize("case", range(len(COUNTS)))
def test_counts_by_hand(case):
    f, args, expected = COUNTS[case]
    if isinstance(expected, dict):  # beside arithmetic with indices
        found = count(f, *args).by_primitive
        assert {name: found[name] for name in expected} == expected
    else:
        assert total(f, *args) == expected


def test_a_nonlinear_operation_costs_what_one_says():
    assert total(lambda a: jnp.tanh(a) * a, x4, nonlinear=10.0) == 44
    with pytest.raises(ValueError, match="nonlinear"):
        count(jnp.tanh, x4, nonlinear=0.0)


def test_loops_cost_as_often_as_they_run():
    """A scan's count is linear in its length, XLA's too; a while's is what it is told."""
    lengths = [8, 64, 512]
    assert [total(scanned, np.ones(n)) for n in lengths] == [2 * n for n in lengths]
    flops = [compiled(scanned, np.ones(n)).flops for n in lengths]
    np.testing.assert_allclose(np.diff(flops) / np.diff(lengths), 2, rtol=0.1)
    as_given = [compiled(scanned, np.ones(n), correct=False).flops for n in lengths]
    assert as_given[0] == as_given[1] == as_given[2]  # XLA's account: of one trip

    unknown = count(halved, 10.0)
    assert unknown.unknown == {"while": 1}
    assert "at least" in str(unknown)
    assert np.isnan(compiled(halved, 10.0).flops)
    assert total(halved, 10.0, while_trips=7) == 7 * 3 + 8  # c/2 is two, as c (1/2)
    flops = [compiled(halved, 10.0, while_trips=trips).flops for trips in (1, 11)]
    np.testing.assert_allclose(flops[1] - flops[0], 10 * 2, atol=10)
    with pytest.raises(ValueError, match="1 while"):
        count(halved, 10.0, while_trips=[3, 4])


def test_trips_and_branches_are_measured_by_a_run():
    def trips(x):
        n = 0
        while x > 1:
            x, n = x / 2 - 0.1, n + 1
        return n

    n = trips(100.0)
    assert n > 5
    assert total(halved, 100.0, while_trips="measured") == n * 4 + 1

    def nested(x):
        """Branches inside a loop inside a loop, through a call."""

        def outer(c, a):
            inside = jax.jit(halved)(a)
            return lax.cond(inside > 0.5, lambda: c + inside, lambda: c * jnp.exp(c) * c), None

        return lax.scan(outer, 0.0, x)[0]

    x = np.array([100.0, 3.0, 1.0, 40.0])
    ends = []
    for value in x:
        while value > 1:
            value = value / 2 - 0.1
        ends.append(value > 0.5)
    runs = sum(trips(value) for value in x)
    branches = sum(1 if end else 3 for end in ends)
    assert 0 < sum(ends) < 4
    expected = runs * 3 + (runs + 4) + 4 + branches
    np.testing.assert_allclose(total(nested, x, while_trips="measured"), expected, rtol=1e-12)


def test_what_is_not_known_is_said():
    found = count(lambda key: jax.random.bits(key, (3,)) > 5, jax.random.key(0))
    assert found.unknown
    assert "NOT KNOWN" in str(found)
    both = ratio(lambda x: halved(jnp.sum(x)) * 2.0, x4, xla=False, mode="forward")
    assert np.isnan(both.jaxpr)
    assert not both.within
    assert "while" in str(both)


def test_omega_is_five():
    """The table of the theorem: 5 backwards, 3 p + 1 forwards, whatever an exp costs."""
    for c in (1.0, 4.0, 20.0):
        for p in (1, 8, 100):
            table = omega_table(c, p)
            kept = [row for row in table.values() if row.expanded]
            assert max(row.reverse for row in kept) == 5
            assert max(row.forward for row in kept) == 3 * p + 1
    assert table["max(a, b) as one"].reverse == 6
    assert table["a/b as one"].reverse == 8
    assert omega_table(2.0)["tanh, sigmoid"].reverse == 1 + 4 / 2
    assert omega_table(2.0, 3)["log, √a, 1/a"].forward == 1 + (1 + 3) / 2
    with pytest.raises(ValueError, match="nonlinear"):
        omega_table(0.5)


OPERATIONS = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: a - b,
    lambda a, b: a * 3.0 + 1.0,
    lambda a, b: jax.nn.relu(a),
    lambda a, b: jnp.abs(a),
    lambda a, b: jnp.exp(a),
    lambda a, b: jnp.log(a),
    lambda a, b: jnp.tanh(a),
    lambda a, b: jax.lax.logistic(a),
    lambda a, b: jax.lax.sqrt(a),
]


def straight_line(seed, n):
    """A random program on n scalars, each used; its nodes are in the table."""
    random = np.random.default_rng(seed)
    plan = [(random.integers(len(OPERATIONS)), *random.integers(2 * n, size=2)) for _ in range(n)]

    def program(x):
        nodes = list(x)
        for which, i, j in plan:
            nodes.append(OPERATIONS[which](nodes[i % len(nodes)], nodes[j % len(nodes)]))
        out = nodes[0]
        for node in nodes[1:]:
            out = out + node * 0.5
        return out

    return program


def test_a_gradient_of_scalar_operations_costs_at_most_five_times_its_program():
    """Of every random program, for every n, and without growth in n (the theorem)."""
    found = {
        n: [ratio(straight_line(seed, n), [1.0] * n, xla=False).jaxpr for seed in range(3)]
        for n in (2, 8, 32, 96)
    }
    assert max(map(max, found.values())) <= 5
    assert max(found[96]) <= max(found[2]) + 0.5
    chain = [
        ratio(
            lambda x: jnp.sum(jax.nn.relu(x[:-1] * x[1:]) + x[:-1] * x[1:]), np.ones(n), xla=False
        )
        for n in (2, 8, 32, 128, 512)
    ]
    measured = [4.00, 2.94, 2.83, 2.81, 2.80]
    np.testing.assert_allclose([each.jaxpr for each in chain], measured, rtol=0.1)
    assert all(each.within for each in chain)


def test_forward_mode_grows_with_the_directions():
    M = np.ones((16, 16))

    def f(x):
        return jax.nn.relu(M @ jax.nn.relu(M @ x)).sum()

    p = np.array([1, 4, 16, 64])
    found = [ratio(f, np.ones(16), mode="forward", directions=int(k), xla=False) for k in p]
    assert all(each.within for each in found)
    slopes = np.diff([each.jaxpr for each in found]) / np.diff(p)
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-12)
    assert 1 <= slopes[0] <= 3
    backwards = ratio(f, np.ones(16), xla=False)
    np.testing.assert_allclose(backwards.jaxpr, 2.0, rtol=0.1)


def test_a_network_costs_two_to_three_times_its_value():
    sizes = [784, 256, 256, 256, 10]
    params = [(np.ones((a, b)), np.ones(b)) for a, b in itertools.pairwise(sizes)]

    def loss(params, x):
        for W, b in params[:-1]:
            x = jax.nn.relu(x @ W + b)
        W, b = params[-1]
        return -jnp.mean(jax.nn.log_softmax(x @ W + b)[:, 0])

    for argnums, measured in [(0, 2.40), ((0, 1), 3.00), (1, 2.00)]:
        found = ratio(loss, params, np.ones((128, 784)), argnums=argnums, xla=False).jaxpr
        np.testing.assert_allclose(found, measured, rtol=0.02)


@pytest.mark.slow
def test_who_is_to_blame_when_the_bound_is_not_kept():
    product = ratio(jnp.prod, np.ones(128))
    assert not product.within
    assert list(product.blame) == ["reduce_prod"]
    assert "reduce_prod" in str(product)
    assert ratio(lambda x: lax.scan(lambda c, a: (c * a, None), 1.0, x)[0], np.ones(128)).within

    ties = ratio(lambda a, b: jnp.maximum(a, b).sum(), x4, x4, argnums=(0, 1), xla=False)
    assert list(ties.blame) == ["max"]
    indexed = ratio(lambda x: sum(x[i] * x[i + 1] for i in range(20)), np.ones(21), xla=False)
    assert indexed.jaxpr > 5
    assert next(iter(indexed.blame)) == "add_any of the derivative"


def test_the_clock_too():
    found = ratio(lambda x: jnp.sum(jnp.sin(x)), np.ones(1000), repeats=3)
    assert found.seconds > 0
    assert found.xla_bytes > 0
    assert {"operations", "XLA flops", "XLA bytes", "seconds"} <= {
        line[:12].strip() for line in str(found).splitlines()
    }
    with pytest.raises(ValueError, match="repeats"):
        compiled(jnp.sin, 1.0, repeats=-1)
    with pytest.raises(ValueError, match="mode"):
        ratio(jnp.sin, 1.0, mode="backward")  # pyright: ignore


SOLVED = {
    "ForwardBackward": (jaxns.ForwardBackward(acceleration=False), jaxns.problems.lasso),
    "GradientDescent": (jaxns.GradientDescent(), jaxns.problems.ridge),
    "DouglasRachford": (jaxns.DouglasRachford(), jaxns.problems.lasso),
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVED)
def test_what_a_gradient_through_a_solve_costs(name):
    """Within a tenth of what each mode foresees, from how often it takes F and its transpose."""
    random = np.random.default_rng(0)
    X, y = random.normal(size=(40, 20)), random.normal(size=40)
    solver, build = SOLVED[name]
    modes = (jaxns.Piggyback(), jaxns.Piggyback(last=20), jaxns.Implicit(), jaxns.OneStep(5))
    stop = jaxns.Stop(tol=None, max_steps=150)
    found = gradient_cost(build(X, y, 0.1), solver, modes=modes, stop=stop)
    assert found.steps == 150
    assert not found.unknown
    assert found.evaluations["Piggyback"] == 3 * 150
    for mode, measured in found.measured.items():
        np.testing.assert_allclose(found.foreseen[mode], measured, rtol=0.1, err_msg=mode)
    assert found.measured["Piggyback"] > 1.5 > found.measured["Implicit"] > 1
    if name == "ForwardBackward":
        assert 2 * 2 * 40 * 20 <= found.step <= 2.5 * 2 * 40 * 20  # two products with X
        assert found.solve >= 150 * found.step
    assert "Piggyback" in str(found)


@pytest.mark.parametrize("slots", [2, 4, 6])
def test_how_often_a_replay_goes_forward(slots):
    """The formula, against the schedule that the reverse pass follows, one step at a time."""
    for steps in (1, slots, 2 * slots, 4 * slots):
        spacing = 1
        while spacing * slots < steps:
            spacing *= 2
        count = sum(
            _forward(min(spacing, steps - first), slots) for first in range(0, steps, spacing)
        )
        np.testing.assert_allclose(tape.advances(jnp.asarray(steps), slots, None), count, rtol=0.15)


def _forward(length, slots):
    """Steps forward to reverse so many, with the states that the stack keeps."""
    stack, forward = [0], 0
    for k in range(length, 0, -1):
        while stack[-1] < k - 1:
            free = slots - len(stack)
            ahead = int(tape.stride(jnp.asarray(k - 1 - stack[-1]), jnp.asarray(free)))
            forward += ahead
            stack.append(stack[-1] + ahead)
        stack.pop() if len(stack) > 1 else None
    return forward
