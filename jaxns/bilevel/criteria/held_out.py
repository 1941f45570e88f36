"""Criteria that charge predictions of samples that the fit has not seen."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxns import validate
from jaxns.bilevel.criteria.losses import linear, squared
from jaxns.bilevel.levels import Bilevel
from jaxns.struct import seal, struct
from jaxns.tree import Tree


@struct
class Fit:
    """(θ, part) ↦ model(X, y, θ, …), the problem of these samples.

    model: (X, y, θ) -> problem, with `sample_weight=` where there are folds: a builder of
        `jaxns.problems`, a function, or a callable pytree.
    part: a dict that replaces X or y, or adds a keyword.
    """

    model: Any
    X: Any
    y: Any

    def __call__(self, theta: Tree, part: dict | None = None) -> Any:
        data = {"X": self.X, "y": self.y} | (part or {})
        return self.model(data.pop("X"), data.pop("y"), theta, **data)


@struct
class HeldOut:
    """(x, θ) ↦ Σᵢ wᵢ loss(yᵢ, predict(X, x)ᵢ) / Σᵢ wᵢ.

    parts: None, or a dict of arrays that replace X, y or weights, one after the other along their
        first axis; the value is then the mean over them. Solutions x beyond them are left out.
    """

    X: Any
    y: Any
    loss: Any = squared
    predict: Any = linear
    weights: Any = None
    parts: Any = None

    def __call__(self, x: Tree, theta: Tree) -> Array:
        if self.parts is None:
            return self._mean(x)
        count = len(jax.tree.leaves(self.parts)[0])
        counted = jax.tree.map(lambda a: a[:count], x)
        return jnp.mean(jax.vmap(self._mean)(counted, self.parts))

    def _mean(self, x: Tree, part: dict | None = None) -> Array:
        data = {"X": self.X, "y": self.y, "weights": self.weights} | (part or {})
        charge, w = self.loss(data["y"], self.predict(data["X"], x)), data["weights"]
        return jnp.mean(charge) if w is None else jnp.sum(w * charge) / jnp.sum(w)


def holdout(
    model: Callable,
    X: Any,
    y: Any,
    X_val: Any,
    y_val: Any,
    *,
    loss: Callable = squared,
    predict: Callable = linear,
) -> Bilevel:
    """The mean loss on (X_val, y_val) of the model fitted to (X, y).

    model: (X, y, θ) -> problem, such as `jaxns.problems.lasso`.
    loss: (y, t) -> (n,), of predictions t; see `jaxns.bilevel.criteria`.
    predict: (X, x) -> t, from the solution x.

    Raises `ValueError` or `TypeError` where X and y, or X_val and y_val, do not fit together.
    """
    X, y = _samples(X, y, "X", "y")
    X_val, y_val = _samples(X_val, y_val, "X_val", "y_val")
    return seal(Bilevel(HeldOut(X_val, y_val, loss, predict), Fit(model, X, y)))


def cross_validation(
    model: Callable,
    X: Any,
    y: Any,
    *,
    folds: Any = 5,
    loss: Callable = squared,
    predict: Callable = linear,
    scale: str = "mean",
    refit: bool = False,
) -> Bilevel:
    """The loss on each fold of the model fitted to the others, a mean over folds of means.

    Folds are weights of 0 and 1, so that X is held once and all folds are one batched solve.

    model: (X, y, θ, sample_weight=w) -> problem, such as `jaxns.problems.lasso`.
    folds: their number K, of successive samples as in `sklearn.model_selection.KFold`; the fold
        0 … K − 1 of each sample, (n,) integers; or which samples each holds out, (K, n) booleans.
    loss, predict: as for `holdout`.
    scale: "mean" where the model divides its loss by n, "sum" where it does not (`svm`, `svr`): so
        that the problem of a fold is that of its rows alone.
    refit: whether the problem of all samples is solved too, as the last of the solutions, which
        does not count: the model to go on with, at the θ that was chosen.
    """
    X, y = _samples(X, y, "X", "y")
    validate.choice("scale", scale, ("mean", "sum"))
    held = held_out(folds, X.shape[0])
    used = ~np.concatenate([held, np.zeros((1, X.shape[0]), bool)]) if refit else ~held
    train = used / used.mean(1, keepdims=True) if scale == "mean" else used
    real = jnp.result_type(X.dtype)
    outer = HeldOut(X, y, loss, predict, parts={"weights": jnp.asarray(held, real)})
    return seal(Bilevel(outer, Fit(model, X, y), {"sample_weight": jnp.asarray(train, real)}))


def multitask(
    model: Callable,
    X: Any,
    Y: Any,
    X_val: Any,
    Y_val: Any,
    *,
    loss: Callable = squared,
    predict: Callable = linear,
) -> Bilevel:
    """The mean over tasks of the hold-out loss, for penalties θ that all tasks share.

    Each task is a problem of its own. For one problem that couples them pass the builder
    `multitask_lasso` to `holdout` or `cross_validation`.

    X: (tasks, n, p), or (n, p) for the same samples in all.   Y: (tasks, n).   X_val, Y_val: alike.
    model, loss, predict: as for `holdout`.
    """
    fit, parts = _tasks(X, Y, "X", "Y")
    check, held = _tasks(X_val, Y_val, "X_val", "Y_val")
    if len(parts["y"]) != len(held["y"]):
        raise ValueError(f"Y_val must have the {len(parts['y'])} tasks of Y, got {len(held['y'])}")
    outer = HeldOut(check, None, loss, predict, parts=held)
    return seal(Bilevel(outer, Fit(model, fit, None), parts))


def held_out(folds: Any, n: int) -> np.ndarray:
    """Which of n samples each fold holds out, (K, n), from what `cross_validation` is given."""
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, bool):
        if not 2 <= folds <= n:
            raise ValueError(f"folds must be between 2 and the {n} samples, got {folds}")
        sizes = np.full(folds, n // folds) + (np.arange(folds) < n % folds)
        folds = np.repeat(np.arange(folds), sizes)
    if not validate.is_known(folds):
        raise TypeError("folds must be known while tracing")
    folds = np.asarray(folds)
    if folds.ndim == 1 and np.issubdtype(folds.dtype, np.integer):
        folds = folds == np.arange(folds.max(initial=0) + 1)[:, None]
    if folds.ndim != 2 or folds.dtype != bool or folds.shape[1] != n:
        raise ValueError(
            f"folds must be a number, the fold of each of the {n} samples as integers, or (K, {n}) "
            f"booleans; got {folds.dtype} of shape {folds.shape}"
        )
    if not (folds.any(1) & ~folds.all(1)).all():
        raise ValueError("folds must each hold out some samples, and not all of them")
    return folds


def _samples(X: Any, y: Any, name: str, target: str) -> tuple[Any, Array]:
    X, y = validate.matrix(name, X), validate.array(target, y, (1, 2))
    validate.same_length(target, y, name, X.shape[0])
    return X, y


def _tasks(X: Any, Y: Any, name: str, target: str) -> tuple[Any, dict]:
    """What all tasks share, and what is each one's own."""
    if getattr(X, "ndim", 3) == 2:
        shared, own = validate.matrix(name, X), {"y": validate.array(target, Y, 2)}
        wanted = (own["y"].shape[0], shared.shape[0])
    else:
        shared, own = None, {"X": validate.array(name, X, 3), "y": validate.array(target, Y, 2)}
        wanted = own["X"].shape[:2]
    if own["y"].shape != wanted:
        raise ValueError(
            f"{target} must have shape {wanted}, (tasks, n) as {name} has them; "
            f"got {own['y'].shape}"
        )
    return shared, own
