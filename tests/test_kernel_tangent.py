"""Log determinants of linearised Laplace approximations: bounds, estimates, cost."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import central_difference

from jaxns import kernels

rng = np.random.default_rng(0)
N, C = 12, 3
INPUTS = jnp.asarray(rng.normal(size=(N, 2)))
PARAMS = {
    "inner": jnp.asarray(rng.normal(size=(5, 2))),
    "outer": jnp.asarray(rng.normal(size=(C, 5))),
}
PRECISION = {"inner": 0.7, "outer": 2.0}


def network(params, x):
    return params["outer"] @ jnp.tanh(params["inner"] @ x)


def softmax_hessian(logits):
    p = jax.nn.softmax(logits)
    return jnp.diag(p) - jnp.outer(p, p)


HESSIANS = jax.vmap(lambda x: softmax_hessian(network(PARAMS, x)))(INPUTS)


def ours(precision=PRECISION, **options):
    return kernels.tangent_log_det(network, PARAMS, INPUTS, HESSIANS, precision, **options)


def full(precision=PRECISION, hessians=HESSIANS):
    """log det(P₀ + JᵀLJ) − log det P₀, over the parameters: (P, P) and not (NC, NC)."""
    J = jax.vmap(jax.jacobian(network), (None, 0))(PARAMS, INPUTS)
    J = jnp.concatenate([J[name].reshape(N, C, -1) for name in ("inner", "outer")], axis=2)
    P0 = jnp.diag(
        jnp.repeat(jnp.array([precision["inner"], precision["outer"]]), np.array([10, 15]))
    )
    H = jnp.einsum("icp,icd,idq->pq", J, hessians, J)
    return jnp.linalg.slogdet(P0 + H)[1] - jnp.linalg.slogdet(P0)[1]


@pytest.mark.parametrize("outputs", ["joint", "separate"])
def test_larger_blocks_bound_more_tightly(outputs):
    """Nested partitions; the whole is exact, by a determinant over the parameters instead."""
    bounds = [float(ours(block=size, outputs=outputs)) for size in (1, 4, 12)]
    assert np.all(np.diff(bounds) < 0)
    exact = float(full())
    if outputs == "joint":
        np.testing.assert_allclose(bounds[-1], exact, rtol=1e-10)
    else:
        assert bounds[-1] > exact


@pytest.mark.slow
def test_a_random_block_is_an_unbiased_estimate_of_the_bound():
    """All blocks of 2 of 4 inputs, and each of the outputs, come up equally often."""
    few, hessians = INPUTS[:4], HESSIANS[:4]

    def some(index, **options):
        index = jnp.asarray(index)
        return kernels.tangent_log_det(
            network, PARAMS, few[index], hessians[index], PRECISION, **options
        )

    pairs = jnp.array(list(itertools.combinations(range(4), 2)))
    everything = jnp.arange(4)
    for outputs in ("joint", "separate"):
        of_pairs = jax.vmap(lambda index, outputs=outputs: some(index, outputs=outputs))(pairs)
        expected = 2 * np.mean(of_pairs)  # of the partitions into two pairs
        draw = jax.jit(
            jax.vmap(
                lambda key, outputs=outputs: some(everything, block=2, outputs=outputs, key=key)
            )
        )
        found = draw(jax.random.split(jax.random.key(0), 4000))
        half_width = 3.5 * np.std(found, ddof=1) / 4000**0.5
        assert half_width < 0.05 * expected
        assert abs(np.mean(found) - expected) < half_width


@pytest.mark.parametrize("options", [{}, {"block": 4, "outputs": "separate", "key": 3}])
def test_gradients_in_the_prior_precision_are_those_of_differences(options):
    def value(log_precision):
        precision = {"inner": jnp.exp(log_precision[0]), "outer": jnp.exp(log_precision[1])}
        return ours(precision, **options)

    value, point = jax.jit(value), jnp.array([-0.3, 0.5])
    expected = central_difference(value, point)
    np.testing.assert_allclose(jax.grad(value)(point), expected, rtol=1e-7)


def test_gradients_in_singular_hessians_with_equal_eigenvalues():
    """Where the eigenvectors have no derivative; the directions stay positive semidefinite."""
    v = jnp.asarray(rng.normal(size=(N, C)))

    def along(t, log_det):
        scale = (1 + t * v)[:, :, None] * jnp.array([1.0, 1.0, 0.0])
        return log_det(jnp.einsum("ica,ida->icd", scale * jnp.eye(C), scale * jnp.eye(C)))

    def mine(hessians):
        return kernels.tangent_log_det(network, PARAMS, INPUTS, hessians, PRECISION)

    slope = jax.jit(jax.grad(lambda t: along(t, mine)))(0.0)
    expected = jax.grad(lambda t: along(t, lambda hessians: full(hessians=hessians)))(0.0)
    np.testing.assert_allclose(slope, expected, rtol=1e-9)


def test_the_cost_of_an_estimate_is_that_of_its_block():
    """Floating-point operations by XLA's count: independent of N, quadratic in M at most."""

    def flops(n, block):
        X, H = jnp.ones((n, 2)), jnp.ones((n, 1, 1))
        params = {"inner": jnp.ones((400, 2)), "outer": jnp.ones((1, 400))}
        key = jax.random.key_data(jax.random.key(0))

        def estimate(params, X, H):
            return kernels.tangent_log_det(network, params, X, H, 1.0, block=block, key=key)

        cost = jax.jit(estimate).lower(params, X, H).compile().cost_analysis()
        return cost["flops"]

    few, many, larger = flops(64, 16), flops(1024, 16), flops(1024, 32)
    assert many < 1.2 * few
    assert larger < 4.4 * many


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="block must divide"):
        ours(block=5)
    with pytest.raises(ValueError, match="precision must be positive"):
        ours({"inner": 0.0, "outer": 1.0})
    with pytest.raises(ValueError, match="outputs must be one of"):
        ours(outputs="both")
    with pytest.raises(ValueError, match="hessians must have shape"):
        kernels.tangent_log_det(network, PARAMS, INPUTS, HESSIANS[:, :2], 1.0)
    with pytest.raises(ValueError, match="inputs must have one entry per row of hessians"):
        kernels.tangent_log_det(network, PARAMS, INPUTS[:4], HESSIANS, 1.0)
