"""Solvers of numbers, celer, skglm and scikit-learn, with a Cholesky solve on the support.

None of them differentiates its solution. With the support S of it known, the derivative of the
criterion C in θ is a linear system of the support's size: (∇²f_SS + ∇²g_SS) w = ∇C_S,
dC/dθ = −wᵀ ∂_θ ∇g_S.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import block_diag, cho_factor, cho_solve
from scipy.special import expit

from benchmarks.peers.method import Method, Task, on_host

EPOCHS = 100_000
LIMITS = {
    "celer": {"max_epochs": EPOCHS, "max_iter": 200},
    "skglm": {"max_epochs": EPOCHS, "max_iter": 200},
    "sklearn.linear_model": {"max_iter": EPOCHS},
}


def estimators(kind: str, n: int, l1: Any, l2: Any, group: int) -> dict[str, tuple[str, dict]]:
    """module -> (class, arguments) for a model of this kind, where it has one."""
    everyone = ("celer", "skglm", "sklearn.linear_model")
    match kind:
        case "lasso":
            return dict.fromkeys(everyone, ("Lasso", {"alpha": l1}))
        case "elastic net":
            mixed = {"alpha": l1 + l2, "l1_ratio": l1 / (l1 + l2)}
            return dict.fromkeys(everyone, ("ElasticNet", mixed))
        case "weighted lasso":
            weighted = {"alpha": float(l1[0]), "weights": l1 / l1[0]}
            return {"celer": ("Lasso", weighted), "skglm": ("WeightedLasso", weighted)}
        case "group lasso":
            grouped = {"groups": group, "alpha": l1}
            return dict.fromkeys(("celer", "skglm"), ("GroupLasso", grouped))
        case "sparse logistic":
            inverse = {"C": 1 / (n * l1)}
            return {
                "celer": ("LogisticRegression", inverse),
                "skglm": ("SparseLogisticRegression", {"alpha": l1}),
                "sklearn.linear_model": (
                    "LogisticRegression", inverse | {"l1_ratio": 1, "solver": "liblinear"},
                ),
            }  # fmt: skip
        case "ridge":
            return {"sklearn.linear_model": ("Ridge", {"alpha": n * l2, "solver": "cholesky"})}
    return {}


def linear(model: Any) -> dict[str, Callable[[Task], Method]]:
    """Those of the libraries that have this kind of model."""
    X, y = model.split.X, model.split.y
    X = np.asfortranarray(X) if isinstance(X, np.ndarray) else X
    l1, l2 = (np.asarray(each, float) for each in model.weights(model.theta))
    l1, l2 = (float(each) if each.ndim == 0 else each for each in (l1, l2))

    def method(module, name, arguments):
        def make(_):
            estimator = getattr(importlib.import_module(module), name)
            common = arguments | LIMITS[module] | {"fit_intercept": False}

            def fit(tol):
                return np.asarray(estimator(tol=tol, **common).fit(X, y).coef_).ravel()

            return on_host(fit, lambda x: hypergradient(model, x))

        return make

    found = estimators(model.kind, len(y), l1, l2, model.group)
    names = {"sklearn.linear_model": "scikit-learn"}
    return {names.get(module, module): method(module, *how) for module, how in found.items()}


def hypergradient(model: Any, x: np.ndarray) -> np.ndarray:
    """In θ, as `Model` describes it; NaN where the support is not yet one that has a derivative."""
    X, y, V, w = model.split
    S = model.support(x)
    u = x[S]
    columns, held_out = ((Z[:, S].toarray() if hasattr(Z, "toarray") else Z[:, S]) for Z in (X, V))
    t = held_out @ u
    if model.logistic:
        slope = held_out.T @ (-w * expit(-w * t)) / len(w)
        margin = y * (columns @ u)
        curvature = (columns.T * (expit(margin) * expit(-margin) / len(y))) @ columns
    else:
        slope = 2 * held_out.T @ (t - w) / len(w)
        curvature = columns.T @ columns / len(y)
    l1, l2 = (np.asarray(each) for each in model.weights(model.theta))
    curvature[np.diag_indices(len(S))] += l2
    direction = np.sign(u)
    if model.kind == "group lasso":
        blocks = u.reshape(-1, model.group)
        lengths = np.linalg.norm(blocks, axis=1)
        units = blocks / lengths[:, None]
        bend = [
            (np.eye(model.group) - np.outer(e, e)) / s for e, s in zip(units, lengths, strict=True)
        ]
        curvature += l1 * block_diag(*bend)
        direction = units.ravel()
    try:
        solved = cho_solve(cho_factor(curvature), slope)
    except np.linalg.LinAlgError:
        return np.full_like(model.theta, np.nan)
    match model.kind:
        case "elastic net":
            return -np.array([l1 * direction @ solved, l2 * u @ solved])
        case "weighted lasso":
            gradient = np.zeros(len(x))
            gradient[S] = -l1[S] * direction * solved
            return gradient
        case "ridge":
            return -l2 * u @ solved
    return -l1 * direction @ solved
