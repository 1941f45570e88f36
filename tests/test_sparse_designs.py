"""Sparse design matrices give what dense ones give: products, constants, solutions, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO, BCSR

import jaxns
from jaxns.functions import (
    L1,
    Gram,
    Huber,
    LeastSquares,
    Logistic,
    Multinomial,
    Poisson,
    SquaredHinge,
    SquaredL2,
)

random = np.random.RandomState(0)
N, P = 12, 5
DENSE = random.randn(N, P) * (random.rand(N, P) < 0.4)
DENSE[3] = 0  # an empty row
B, WEIGHTS = random.randn(N), random.rand(N) + 0.1
LABELS = np.sign(B)
TARGETS = random.randn(N, 2)
SPARSE = {"BCOO": BCOO.fromdense(DENSE), "BCSR": BCSR.fromdense(DENSE)}
WIDE = BCOO.fromdense(DENSE.T)
TIGHT = jaxns.Stop(tol=1e-14)

LOSSES = {
    "squares": lambda A: LeastSquares(A, B, "mean", WEIGHTS),
    "squares-targets": lambda A: LeastSquares(A, TARGETS),
    "squares-wide": lambda A: LeastSquares(A.T, B[:P], "mean", WEIGHTS[:P]),
    "logistic": lambda A: Logistic(A, LABELS, "mean", WEIGHTS),
    "huber": lambda A: Huber(A, B, 0.5, "mean", WEIGHTS),
    "poisson": lambda A: Poisson(A, np.abs(B)),
    "squared-hinge": lambda A: SquaredHinge(A, LABELS, weights=WEIGHTS),
    "multinomial": lambda A: Multinomial(A, np.arange(N) % 3, weights=WEIGHTS),
    "gram": lambda A: Gram(A, B[:P]),
}


@jax.jit
def everything(f, x, index):
    """All that a loss can be asked for."""
    answers = [f(x), f.gradient(x), f.lipschitz()]
    if x.ndim == 1 or isinstance(f, Multinomial):
        answers += [f.hessian(x), f.hessian(x, index)]
    if hasattr(f, "prox"):
        answers += [f.prox(x, 0.7), f.factor(0.7).prox(x, 0.7)]
    return answers


QUICK = {"squares-targets", "squares-wide", "logistic", "multinomial"}


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(make, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name, make in LOSSES.items()
    ],
)
def test_a_loss_is_the_same(loss):
    sparse, dense = loss(SPARSE["BCOO"]), loss(DENSE)
    start = dense.start()
    assert (sparse.start().shape, sparse.start().dtype) == (start.shape, start.dtype)
    x, index = jnp.asarray(np.random.RandomState(1).randn(*start.shape)), np.array([2, 0, 4])
    found, expected = everything(sparse, x, index), everything(dense, x, index)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_columns_of_a_sparse_matrix():
    """Some of them twice; entries that only fill up, and one that is stored in two parts."""
    column, index = jnp.array([0, 1, 2, P, 1]), jnp.array([1, 4, 1, 0])
    row = jnp.array([0, 2, 3, N, 2])

    def columns(data, A):
        return LeastSquares(A(data), B).columns(index)

    def dense(data):
        return jnp.zeros((N, P)).at[row, column].add(data, mode="drop")

    def sparse(data):
        return BCOO((data, jnp.stack([row, column], 1)), shape=(N, P))

    data = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(columns(data, sparse), columns(data, dense))
    found, expected = (jax.jacobian(lambda d, A=A: columns(d, A))(data) for A in (sparse, dense))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", SPARSE)
def test_float32_stays_float32(kind):
    A = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == float else leaf, SPARSE)
    f = LeastSquares(A[kind], B.astype(np.float32))
    assert f.start().dtype == f.gradient(f.start()).dtype == f.lipschitz().dtype == jnp.float32


def test_large_lipschitz_is_bounded_without_a_dense_matrix():
    """1e5 × 4e4 with 2e5 entries would take 32 GB dense."""
    n, p, per_row = 100_000, 40_000, 2
    rows = np.repeat(np.arange(n), per_row)
    data, columns = random.randn(n * per_row), random.randint(p, size=n * per_row)
    A = BCOO((jnp.asarray(data), jnp.stack([jnp.asarray(rows), jnp.asarray(columns)], 1)),
             shape=(n, p))  # fmt: skip
    true = scipy.sparse.linalg.svds(
        scipy.sparse.coo_matrix((data, (rows, columns)), (n, p)).tocsr(), k=1,
        return_singular_vectors=False,
    )[0] ** 2  # fmt: skip
    found = jax.jit(lambda f: f.lipschitz())(LeastSquares(A, np.zeros(n)))
    assert true * (1 - 1e-12) <= found <= 1.1 * true


PROBLEMS = {
    "lasso": lambda A, penalty, y, w: jaxns.problems.lasso(A, y, penalty, w),
    "ridge": lambda A, penalty, y, w: jaxns.problems.ridge(A, y, penalty, w),
    "logistic": lambda A, penalty, y, w: jaxns.Composite(
        Logistic(A, LABELS, "mean", w), SquaredL2(penalty)
    ),
}
SOLVERS = [
    ("lasso", jaxns.ForwardBackward()),
    ("lasso", jaxns.HeavyBall()),
    ("ridge", jaxns.GradientDescent()),
    ("logistic", jaxns.Nesterov(jaxns.GradientDescent())),
]


@pytest.mark.parametrize(
    ("problem", "solver"),
    [SOLVERS[0], *(pytest.param(*row, marks=pytest.mark.slow) for row in SOLVERS[1:])],
)
def test_solutions_and_their_derivatives(problem, solver):
    """In the penalty, the targets and the weights; jitted, and over a batch of penalties."""

    def solution(A, penalty, y, w):
        return jaxns.solve(PROBLEMS[problem](A, penalty, y, w), solver, stop=TIGHT).x

    both = jax.jit(lambda *a: (solution(*a), jax.jacobian(solution, (1, 2, 3))(*a)))
    batch = jax.jit(jax.vmap(solution, (None, 0, None, None)))
    penalties, rest = np.array([0.05, 0.1]), (B, WEIGHTS)
    for sparse, dense in zip(
        jax.tree.leaves(both(SPARSE["BCOO"], 0.1, *rest)),
        jax.tree.leaves(both(DENSE, 0.1, *rest)),
        strict=True,
    ):
        np.testing.assert_allclose(sparse, dense, atol=1e-10)
    found = batch(SPARSE["BCOO"], penalties, *rest)
    np.testing.assert_allclose(found, batch(DENSE, penalties, *rest), atol=1e-10)


MODES = [
    ("BCOO", jaxns.Implicit()),
    pytest.param("BCSR", jaxns.Implicit(direction="both"), marks=pytest.mark.slow),
    pytest.param("BCOO", jaxns.Piggyback(), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_derivative_in_the_stored_entries(kind, mode):
    """That in the dense matrix, read where entries are stored."""

    def total(data, A):
        leaves, structure = jax.tree.flatten(A)
        A = jax.tree.unflatten(structure, [data, *leaves[1:]])
        return jnp.sum(jaxns.solve(jaxns.problems.lasso(A, B, 0.05), mode=mode, stop=TIGHT).x)

    in_dense = jax.jit(jax.grad(lambda A: total(A, A)))(jnp.asarray(DENSE))
    found = jax.jit(jax.grad(total))(SPARSE[kind].data, SPARSE[kind])
    np.testing.assert_allclose(found, np.asarray(in_dense)[DENSE != 0], atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("build", [jaxns.problems.svm, jaxns.problems.svr])
def test_support_vector_machines(build):
    found, expected = (jaxns.solve(build(A, LABELS, 0.3)).x for A in (SPARSE["BCSR"], DENSE))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_sparse_operator_in_a_composite():
    for kind, K in SPARSE.items():
        problem = jaxns.Composite(SquaredL2(1.0), L1(1.0), K)
        np.testing.assert_allclose(problem.apply(jnp.asarray(B[:P])), DENSE @ B[:P], atol=1e-14)
        np.testing.assert_allclose(problem.adjoint(jnp.asarray(B)), DENSE.T @ B, atol=1e-14)
        assert problem.start().shape == (P,), kind


def test_other_sparse_matrices_say_what_to_do():
    with pytest.raises(TypeError, match=r"A must be .* got csr_matrix; convert it with BCOO"):
        LeastSquares(scipy.sparse.csr_matrix(DENSE), B)
    with pytest.raises(TypeError, match="X must be"):
        jaxns.problems.lasso(scipy.sparse.coo_array(DENSE), B, 0.1)
