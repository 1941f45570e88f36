"""Batches larger than memory: blocks, what is told of them, and what is kept on disk."""

import filecmp
import itertools
import os
import signal
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns import batch

DATA = """
import jax, jax.numpy as jnp, numpy as np
import jaxns
from jaxns import batch
from jaxns.functions import L1, LeastSquares
jax.config.update("jax_enable_x64", True)
random = np.random.default_rng(0)
rows = random.normal(size=(11, 12, 3)), random.normal(size=(11, 12)), np.linspace(0.1, 3.0, 11)

def lasso(data):
    A, b, penalty = data
    return jaxns.Composite(LeastSquares(A, b), L1(penalty))

def solve(block):
    return batch.solve(lasso, over=block, width=1)
"""
space: dict = {}
wrong: Any = 2.5
exec(DATA, space)
rows, lasso, solve = (space[name] for name in ("rows", "lasso", "solve"))


def some(begin, end):
    return jax.tree.map(lambda leaf: leaf[begin:end], rows)


@pytest.fixture(scope="module")
def whole():
    return jax.device_get(batch.solve(lasso, over=rows, width=1))


def joined(parts):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_blocks_of_what_is_on_disk(whole, tmp_path):
    """One program for all blocks, the last of which is shorter; none is read before its turn."""
    traced, told = [], []

    def f(block):
        traced.append(block[0].shape)
        return solve(block)

    for i, leaf in enumerate(rows):
        np.save(tmp_path / f"{i}.npy", leaf)
    mapped = tuple(np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(3))
    parts = list(batch.stream(f, mapped, size=4, report=told.append))
    assert traced == [(4, 12, 3)]
    assert [len(part.x) for part in parts] == [4, 4, 3]
    same(joined(parts), whole)
    steps = np.cumsum([whole.steps[:4].sum(), whole.steps[4:8].sum(), whole.steps[8:].sum()])
    expected = zip([4, 8, 11], steps, strict=True)
    assert told == [batch.Progress(done, 11, 0, total) for done, total in expected]


def test_blocks_that_an_iterator_brings(whole):
    asked = []

    def parts():
        for begin, end in [(0, 5), (5, 6), (6, 11)]:
            asked.append(begin)
            yield some(begin, end)

    blocks = batch.stream(solve, parts(), size=4)
    first = next(blocks)
    assert asked == [0]  # and the rest of that part is being solved meanwhile
    found = [first, *blocks]
    assert [len(part.x) for part in found] == [4, 1, 1, 4, 1]
    same(joined(found), whole)


def test_gradients_of_every_item():
    """f may be any function of a batch: of ridge regressions with one design, in closed form."""
    A, targets = jnp.asarray(rows[0][0]), rows[1]
    M = np.linalg.solve(A.T @ A / 12 + 0.5 * np.eye(3), A.T / 12)

    def f(targets):
        def total(targets):
            x = batch.solve(lambda y: jaxns.problems.ridge(A, y, 0.5), over=targets, width=1).x
            values = jnp.sum(x**2, axis=1)
            return values.sum(), values

        return jax.grad(total, has_aux=True)(targets)

    gradients, values = joined([*batch.stream(f, targets, size=4)])
    np.testing.assert_allclose(values, np.sum((targets @ M.T) ** 2, axis=1), atol=1e-12)
    np.testing.assert_allclose(gradients, 2 * targets @ M.T @ M, atol=1e-12)


def stingy(block):
    stop = jaxns.Stop(max_steps=40)
    return {"items": batch.solve(lasso, over=block, stop=stop, width=1), "b": block[1][:, 0]}


def test_failures_are_told_at_the_end(whole, tmp_path):
    hard = np.flatnonzero(whole.steps > 40)
    assert 0 < len(hard) < 11
    told = []
    names = ", ".join(map(str, hard[:10]))
    said = rf"{len(hard)} of 11 problems failed \(numbers {names}.*max_steps"
    blocks = batch.stream(stingy, rows, size=4, report=told.append)
    found = joined([*itertools.islice(blocks, 3)])
    with pytest.raises(jaxns.ConvergenceError, match=said):
        next(blocks)
    assert told[-1].failed == len(hard)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found["items"].x[:, 0])), hard)
    np.testing.assert_array_equal(np.flatnonzero(~found["items"].status.ok), hard)
    for _ in range(2):  # what is on disk is not solved again, and is raised for again
        with pytest.raises(jaxns.ConvergenceError, match=said):
            batch.store(stingy, rows, tmp_path, size=4)
    same(batch.store(stingy, rows, tmp_path, size=4, on_failure="ignore"), found)
    np.testing.assert_array_equal(np.load(tmp_path / "items.steps.npy"), found["items"].steps)


def test_what_is_kept_is_not_solved_again(whole, tmp_path):
    def until(done):
        def report(progress):
            if progress.done == done:
                raise InterruptedError

        return report

    with pytest.raises(InterruptedError):
        batch.store(solve, rows, tmp_path, size=4, report=until(8))
    with (tmp_path / "x.npy").open("ab") as file:
        file.write(b"half of a block")
    told = []
    found = batch.store(solve, rows, tmp_path, size=4, report=told.append)
    assert [progress.done for progress in told] == [8, 11]
    assert told[-1].steps == whole.steps.sum()
    assert isinstance(found.x, np.memmap)
    same(found, whole)
    for name in ("x", "z", "steps", "residual", "status.code"):
        assert len(np.load(tmp_path / f"{name}.npy")) == 11
    again = batch.store(solve, rows, tmp_path, size=4, report=told.append)
    assert [progress.done for progress in told] == [8, 11, 11]
    same(again, whole)

    penalties = rows[2].copy()
    penalties[4] += 1
    for said, f, over, size in [
        ("number of rows is 11, and here 10", solve, some(0, 10), 4),
        ("number of rows is 11, and here None", solve, iter([rows]), 4),
        ("size is 4, and here 5", solve, rows, 5),
        ("program", stingy, rows, 4),
        ("other rows", solve, (*rows[:2], penalties), 4),
    ]:
        with pytest.raises(ValueError, match=f"holds another stream .*{said}"):
            batch.store(f, over, tmp_path, size=size)
    with (tmp_path / "z.npy").open("r+b") as file:
        file.truncate(200)
    with pytest.raises(ValueError, match=r"without all of z\.npy"):
        batch.store(solve, rows, tmp_path, size=4)


def test_an_iterator_is_gone_on_with(whole, tmp_path):
    def parts(until=99):
        for begin, end in [(0, 5), (5, 6), (6, 11)]:
            if begin >= until:
                raise InterruptedError
            yield some(begin, end)

    with pytest.raises(InterruptedError):
        batch.store(solve, parts(6), tmp_path, size=4)
    assert 0 < len(np.load(tmp_path / "x.npy")) < 6
    same(batch.store(solve, parts(), tmp_path, size=4), whole)


def test_no_rows(tmp_path):
    assert [*batch.stream(solve, some(0, 0), size=4)] == []
    assert batch.store(solve, some(0, 0), tmp_path, size=4).x.shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: batch.stream(wrong, rows, size=4), TypeError, "f must be a function of a batch"),
        (lambda: batch.stream(solve, rows, size=0), ValueError, "size"),
        (lambda: batch.stream(solve, rows, size=wrong), TypeError, "size"),
        (lambda: batch.stream(solve, rows, size=4, on_failure="nan"), ValueError, "on_failure"),
        (lambda: batch.stream(solve, (*rows[:2], rows[2][:5]), size=4), ValueError, "one first"),
        (lambda: batch.stream(solve, [1.0], size=4), ValueError, "over must hold arrays.*float"),
        (lambda: batch.stream(solve, iter([]), size=4), ValueError, "over must bring a block"),
        (lambda: batch.stream(lambda b: b[2].sum(), rows, size=4), ValueError, "f must return"),
    ],
)
def test_wrong_arguments(call, error, said):
    with pytest.raises(error, match=said):
        call()


KILLED = f"""{DATA}
import os, sys
folder, place = sys.argv[1], int(sys.argv[2])
sync, count = os.fsync, iter(range(10**6))

def fsync(file):
    sync(file)
    if next(count) == place:
        print("here", flush=True)
        sys.stdin.read()

os.fsync = fsync
batch.store(solve, rows, folder, size=2)
print("done")
"""


# Each array is written to disk once before the blocks; each block, all of them and the journal.
@pytest.mark.parametrize("places", [[15], pytest.param([0, 10, 16, 9], marks=pytest.mark.slow)])
def test_killed(places, tmp_path):
    """By SIGKILL, in the midst of a block, between blocks, and again after having gone on."""
    broken, sound = tmp_path / "broken", tmp_path / "sound"
    compiled_so = str(jax.config.read("jax_disable_most_optimizations"))
    for place in places:
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(broken), str(place)],
            env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": compiled_so},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    batch.store(solve, rows, broken, size=2)
    batch.store(solve, rows, sound, size=2)
    names = sorted(path.name for path in sound.iterdir())
    assert [*filecmp.cmpfiles(broken, sound, names, shallow=False)] == [names, [], []]
