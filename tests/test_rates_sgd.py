"""Experiment D1 of arXiv 2405.15894: stochastic gradient descent and its derivative.

f_i(x, θ) = ½ (a_iᵀx − b_i(θ))² with b(θ) = b0 + θ db, one row a step. b0 out of the range of A
makes the iterates noisy, db out of it their derivatives. Errors are means of squares over runs.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxns
from jaxns.functions import LeastSquares

N, P = 100, 10
_rng = np.random.default_rng(0)
A = jnp.asarray(_rng.normal(size=(N, P)))
OFF = jnp.asarray(_rng.normal(size=(2, N)))  # out of the range of A
ON = jnp.asarray(_rng.normal(size=(2, P))) @ A.T
STEEPEST = float(jnp.max(jnp.sum(A**2, axis=1)))
MU = float(jnp.linalg.eigvalsh(A.T @ A / N)[0])
DECREASING = jaxns.Decreasing(2 / MU, 4 / MU * STEEPEST)


class Errors(NamedTuple):
    """Mean squared errors after k steps, k along the first axis."""

    x: np.ndarray
    jacobian: np.ndarray


def errors(b0, db, stepsize, steps, runs):
    """For each of a batch of stepsizes, if there is one."""

    def build(theta):
        return jaxns.Composite(LeastSquares(A, b0 + theta * db, scale="mean"))

    x, jacobian = (jnp.linalg.lstsq(A, b)[0] for b in (b0, db))

    def run(stepsize, key):
        solver = jaxns.StochasticGradient(stepsize, key=key)
        path = jaxns.derivative_path(build, 0.0, steps, solver=solver)
        return jnp.sum((path.x - x) ** 2, 1), jnp.sum((path.jacobian - jacobian) ** 2, 1)

    def mean(stepsize):
        of_runs = jax.vmap(run, (None, 0))(stepsize, jax.random.split(jax.random.key(0), runs))
        return Errors(*(e.mean(0) for e in of_runs))

    batch = any(jnp.ndim(leaf) for leaf in jax.tree.leaves(stepsize))
    return jax.tree.map(np.asarray, jax.vmap(mean)(stepsize) if batch else mean(stepsize))


def slope(e):
    """Of log e over log k, from 5e3 on."""
    k = np.unique(np.geomspace(5e3, len(e) - 1, 200).astype(int))
    return np.polyfit(np.log(k), np.log(e[k]), 1)[0]


def assert_straight_line_to(e, floor):
    """log e decreases like k, to below `floor`."""
    k = np.arange(len(e))
    window = (k > 100) & (np.cumsum(e < floor) == 0)
    assert e.min() < floor
    line = np.polyfit(k[window], np.log(e[window]), 1)
    assert line[0] < 0
    assert np.corrcoef(k[window], np.log(e[window]))[0, 1] < -0.99


def test_constant_stepsize_ends_in_noise_proportional_to_it():
    etas = jnp.array([1, 1 / 2, 1 / 4]) / (2 * STEEPEST)
    for e in errors(OFF[0], OFF[1], etas, 6000, 50):
        plateau = e[:, 3000:].mean(axis=1)
        for coarse, fine in itertools.pairwise(plateau):
            assert 1.7 <= coarse / fine <= 2.4


@pytest.mark.slow
def test_decreasing_stepsize_decreases_the_error_like_one_over_k():
    path = errors(OFF[0], OFF[1], DECREASING, 100_000, 30)
    assert -1.15 <= slope(path.x) <= -0.85
    assert -1.15 <= slope(path.jacobian) <= -0.85


def test_double_interpolation_is_linear():
    path = errors(ON[0], ON[1], 1 / (2 * STEEPEST), 4000, 50)
    assert_straight_line_to(path.x, 1e-20)
    assert_straight_line_to(path.jacobian, 1e-20)


def test_simple_interpolation_is_linear_for_the_iterates_only():
    path = errors(ON[0], OFF[1], 1 / (2 * STEEPEST), 6000, 50)
    assert_straight_line_to(path.x, 1e-20)
    early, late = path.jacobian[2000:4000].mean(), path.jacobian[4000:].mean()
    assert 0.7 < early / late < 1.4
    assert late > 1e-3


@pytest.mark.slow
def test_simple_interpolation_with_decreasing_stepsize():
    path = errors(ON[0], OFF[1], DECREASING, 100_000, 30)
    assert -1.15 <= slope(path.jacobian) <= -0.85
    assert path.x[-1] < 1e-4 * path.jacobian[-1]
