"""Derivatives of certified solutions, by numpy alone: what the library's are compared with.

An answer is taken for no more than the name of a smooth piece: which terms are zero, which
constraints are active. The equations that hold on the piece are solved anew, to rounding; that the
result meets the optimality conditions of the whole problem, strictly, is asserted; and it is
differentiated by the implicit function theorem. Jacobians are complex-step derivatives, which lose
no digits, so equations must be analytic: no abs, no conjugate.
"""

from collections.abc import Callable
from typing import NamedTuple

import cvxpy as cp
import numpy as np
from scipy.linalg import null_space

STEP = 1e-30  # i times this is a direction; nothing is subtracted, so it can be as small as wished
SMALL = 1e-6  # relative: a term that is below this in an answer is said to be zero in the solution


class Piece(NamedTuple):
    """equations(u, theta) = 0 with u near `start`, giving x = answer(u, theta).

    certify(u, theta): raises where that x does not solve the problem.
    """

    start: np.ndarray
    equations: Callable
    answer: Callable
    certify: Callable


def jacobian(fun: Callable, u: np.ndarray) -> np.ndarray:
    columns = np.eye(len(u))
    return np.stack([fun(u + 1j * STEP * e).imag / STEP for e in columns], axis=-1)


def solve(piece: Piece, theta: np.ndarray) -> np.ndarray:
    """u, certified."""
    u = piece.start
    if len(u):
        for _ in range(30):
            change = np.linalg.lstsq(
                jacobian(lambda u: piece.equations(u, theta), u), piece.equations(u, theta)
            )[0]
            u = u - change
            if np.abs(change).max() <= 1e-14 * np.abs(u).max():
                break
        assert np.abs(change).max() <= 1e-12 * np.abs(u).max(), "the piece has no solution"
    piece.certify(u, theta)
    return u


def gradient(piece: Piece, theta: np.ndarray, scalar: Callable) -> np.ndarray:
    """Of scalar(x(theta))."""
    u = solve(piece, theta)
    in_theta = jacobian(lambda t: scalar(piece.answer(u, t)), theta)
    if not len(u):
        return in_theta
    du = -np.linalg.lstsq(
        jacobian(lambda u: piece.equations(u, theta), u),
        jacobian(lambda t: piece.equations(u, t), theta),
    )[0]
    return in_theta + jacobian(lambda u: scalar(piece.answer(u, theta)), u) @ du


def length(v):
    return np.sqrt(v @ v)


def penalised(slope: Callable, terms: list, weights: Callable) -> Callable:
    """min f(x) + Σᵢ weightsᵢ(θ) ‖Kᵢx‖, slope(x, θ) = ∇f; terms: the matrices Kᵢ."""

    def piece(x: np.ndarray, theta: np.ndarray) -> Piece:
        sizes = np.array([length(K @ x) for K in terms])
        zero = sizes <= SMALL * max(sizes.max(), 1e-300)
        still = [K for K, is_zero in zip(terms, zero, strict=True) if is_zero]
        N = null_space(np.concatenate(still)) if still else np.eye(len(x))

        def smooth(x, theta):
            t = weights(theta)
            total = slope(x, theta)
            for i in np.flatnonzero(~zero):
                total = total + t[i] * (terms[i] @ x / length(terms[i] @ x)) @ terms[i]
            return total

        def certify(u, theta):
            rest = smooth(N @ u, theta)
            if still:
                assert multipliers(still, weights(theta)[zero], rest) < 1 - 1e-5
            else:
                np.testing.assert_allclose(rest, 0, atol=1e-12)

        return Piece(N.T @ x, lambda u, t: N.T @ smooth(N @ u, t), lambda u, _: N @ u, certify)

    return piece


def multipliers(terms: list, weights: np.ndarray, rest: np.ndarray) -> float:
    """The least max ‖zᵢ‖ with Σ weightsᵢ Kᵢᵀzᵢ = −rest: at most 1 at a minimiser."""
    A = np.concatenate([t * K for t, K in zip(weights, terms, strict=True)]).T
    z = np.linalg.lstsq(A, -rest)[0]
    assert np.abs(A @ z + rest).max() <= 1e-11 * (1 + np.abs(rest).max())
    ends = np.cumsum([len(K) for K in terms])[:-1]
    largest = max(length(part) for part in np.split(z, ends))
    if largest < 1 or np.linalg.matrix_rank(A) == A.shape[1]:
        return largest
    free = null_space(A)
    v = cp.Variable(free.shape[1])
    split = zip(np.split(z, ends), np.split(free, ends), strict=True)
    largest = cp.maximum(*[cp.norm(z0 + F @ v) for z0, F in split])
    problem = cp.Problem(cp.Minimize(largest))
    problem.solve("CLARABEL")
    return problem.value


def quadratic_program(data: Callable, read: Callable = lambda x, y, theta: x) -> Callable:
    """min ½xᵀQx + qᵀx, Ax = b, Gx ≤ h, of which data(θ) = (Q, q, A, b, G, h).

    read: (x, multipliers of Ax = b, θ) -> what is asked for.
    """

    def piece(x: np.ndarray, theta: np.ndarray) -> Piece:
        _, q, _, b, G, h = data(theta)
        active = h - G @ x <= SMALL * (1 + np.abs(h))
        n, m = len(q), len(b)

        def equations(u, theta):
            Q, q, A, b, G, h = data(theta)
            x, y, z = np.split(u, [n, n + m])
            return np.concatenate(
                [Q @ x + q + y @ A + z @ G[active], A @ x - b, G[active] @ x - h[active]]
            )

        def certify(u, theta):
            _, q, *_, G, h = data(theta)
            x, _, z = np.split(u, [n, n + m])
            assert np.abs(equations(u, theta)).max() <= 1e-11 * (1 + np.abs(q).max())
            assert (z > 1e-6 * z.max(initial=0)).all()
            assert ((h - G @ x)[~active] > 1e-6).all()

        start = np.concatenate([x, np.zeros(m + active.sum())])
        return Piece(start, equations, lambda u, t: read(u[:n], u[n : n + m], t), certify)

    return piece


def low_rank(slope: Callable, shape: tuple, weight: Callable) -> Callable:
    """min f(X) + weight(θ) ‖X‖_*, through X = WZ and weight/2 (‖W‖² + ‖Z‖²) on its rank."""

    def piece(x: np.ndarray, theta: np.ndarray) -> Piece:
        U, s, Vt = np.linalg.svd(x.reshape(shape), full_matrices=False)
        rank = int((s > SMALL * s[0]).sum())
        root = np.sqrt(s[:rank])

        def factors(u):
            W, Z = np.split(u, [shape[0] * rank])
            return W.reshape(shape[0], rank), Z.reshape(rank, shape[1])

        def equations(u, theta):
            W, Z = factors(u)
            g = slope(W @ Z, theta)
            parts = g @ Z.T + weight(theta) * W, W.T @ g + weight(theta) * Z
            return np.concatenate([part.ravel() for part in parts])

        def certify(u, theta):
            values = np.linalg.svd(slope(np.matmul(*factors(u)), theta), compute_uv=False)
            np.testing.assert_allclose(values[:rank], weight(theta), rtol=1e-11)
            assert (values[rank:] < (1 - 1e-5) * weight(theta)).all()

        start = np.concatenate([(U[:, :rank] * root).ravel(), (root[:, None] * Vt[:rank]).ravel()])
        return Piece(start, equations, lambda u, _: np.matmul(*factors(u)).ravel(), certify)

    return piece


def transport(data: Callable) -> Callable:
    """Plans from a to b, data(θ) = (C, a, b, epsilon); the potentials are free by a constant."""

    def piece(x: np.ndarray, theta: np.ndarray) -> Piece:
        C, a, b, epsilon = data(theta)
        logs = epsilon * np.log(x.reshape(C.shape) / np.outer(a, b)) + C
        start = np.concatenate([logs[:, 0] - logs[0, 0], logs[0]])

        def plan(u, theta):
            C, a, b, epsilon = data(theta)
            f, g = np.split(u, [len(a)])
            return a[:, None] * b * np.exp((f[:, None] + g - C) / epsilon)

        def equations(u, theta):
            _, a, b, _ = data(theta)
            P = plan(u, theta)
            return np.concatenate([P.sum(1) - a, P.sum(0) - b])

        def certify(u, theta):
            assert np.abs(equations(u, theta)).max() <= 1e-14

        return Piece(start, equations, lambda u, t: plan(u, t).ravel(), certify)

    return piece


def rows_of(K: np.ndarray) -> list:
    return list(K[:, None, :])
