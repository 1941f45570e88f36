"""The driver of stochastic bilevel methods."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxns import tree, validate
from jaxns.bilevel.stochastic.finite_sum import Bilevel, FiniteSum, minibatches
from jaxns.closure import hoist
from jaxns.fixed_point import refuse
from jaxns.struct import seal
from jaxns.tree import Tree


@runtime_checkable
class Method(Protocol):
    """What `minimize` asks of a method: a pytree; nothing to inherit.

    init(problem, theta, x) -> state: with fields `theta` and `x`, where the method is.
    step(problem, k, state, key) -> state: one outer step, the one numbered k = 0, 1, …

    `problem.inner` and `problem.outer` are the means G and F over minibatches; see
    `jaxns.bilevel.stochastic.finite_sum`.
    """

    def init(self, problem: Bilevel, theta: Tree, x: Tree) -> Any: ...

    def step(self, problem: Bilevel, k: Array, state: Any, key: Array) -> Any: ...


class Result(NamedTuple):
    """theta, x: after the last step.

    record: what `evaluate` returned after 0, r, 2r, … steps, along a new first axis.
    steps: those numbers of steps.
    """

    theta: Tree
    x: Tree
    record: Any
    steps: Array


def minimize(
    outer: Callable[[Tree, Tree, Array], Array],
    inner: Callable[[Tree, Tree, Array], Array],
    theta0: Tree,
    x0: Tree,
    samples: tuple[int, int],
    *,
    method: Method,
    steps: int,
    key: Any,
    batch: tuple[int, int] = (1, 1),
    record_every: int | None = None,
    evaluate: Callable[[Tree, Tree], Any] | None = None,
    on_failure: str = "raise",
) -> Result:
    """Minimise F(x*(θ), θ) over θ, x*(θ) = argmin_x G(x, θ), by steps of a stochastic method.

    outer: (x, θ, index) -> the mean over the outer samples in `index` (an integer array) of the
        outer loss; F is the mean over all.
    inner: the same for G, over the inner samples, with whatever regularises it; smooth, and
        strongly convex in x.
    theta0, x0: where to start: pytrees of floating-point arrays.
    samples: how many there are: (inner, outer).
    method: `SOBA`, `SABA`, `StocBiO`, `AmIGO` or `PiggybackSGD`, or one of your own.
    steps: outer steps to make.
    key: what draws: a seed, or a key of `jax.random`; `jax.vmap` over keys makes many runs at once.
    batch: samples in a minibatch: (inner, outer). The samples are cut into minibatches once, at
        random; a draw is one of these.
    record_every: evaluate after every so many steps, which must divide `steps`; by default at the
        start and the end only.
    evaluate: (θ, x) -> what shall be recorded; by default θ.
    on_failure: what to do when θ or x has become infinite or NaN: "raise" (NaN under a
        transformation), "nan" or "ignore".

    Functions with arrays in their closure may be given, and callable pytrees (`jaxns.struct`),
    which are not traced again when only their numbers change.

    Raises `ValueError` or `TypeError` for arguments that cannot be right, `ConvergenceError` for a
    run that diverged.
    """
    validate.choice("on_failure", on_failure, ("raise", "nan", "ignore"))
    if isinstance(method, type) or not isinstance(method, Method):
        raise TypeError(f"method must have the methods init and step, got {method!r}")
    steps = validate.positive("steps", validate.integer("steps", steps))
    every = steps if record_every is None else validate.integer("record_every", record_every)
    if validate.positive("record_every", every) > steps or steps % every:
        raise ValueError(f"record_every must divide steps = {steps}, got {every}")
    theta0 = jax.tree.map(partial(validate.array, "theta0"), theta0)
    x0 = jax.tree.map(partial(validate.array, "x0"), x0)
    of_run, *of_cuts = jax.random.split(jax.random.wrap_key_data(validate.key("key", key)), 3)
    cut = _minibatches(of_cuts, _pair("samples", samples), _pair("batch", batch))
    problem = Bilevel(
        inner=_finite_sum("inner", inner, x0, theta0, cut[0]),
        outer=_finite_sum("outer", outer, x0, theta0, cut[1]),
    )
    look, data = _explicit("evaluate", evaluate or _theta, theta0, x0)
    result = _run(steps, every, look, data, seal(method), problem, theta0, x0, of_run)
    end = (result.theta, result.x)
    finite = jnp.isfinite(tree.norm(end))
    message = f"{type(method).__name__} diverged: take smaller stepsizes"
    theta, x = refuse(finite, end, on_failure, lambda: message)
    return result._replace(theta=theta, x=x)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    steps: int,
    every: int,
    evaluate: Callable,
    data: Any,
    method: Any,
    problem: Bilevel,
    theta: Tree,
    x: Tree,
    key: Array,
) -> Result:
    def step(state: Any, k: Array) -> tuple[Any, None]:
        return method.step(problem, k, state, jax.random.fold_in(key, k)), None

    def stretch(state: Any, start: Array) -> tuple[Any, Any]:
        state, _ = lax.scan(step, state, start + jnp.arange(every))
        return state, evaluate(data, state.theta, state.x)

    first = evaluate(data, theta, x)
    state, later = lax.scan(stretch, method.init(problem, theta, x), jnp.arange(0, steps, every))
    record = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), first, later)
    return Result(state.theta, state.x, record, jnp.arange(0, steps + 1, every))


def _theta(theta: Tree, x: Tree) -> Tree:
    return theta


def _call(fun: Callable, *args: Any) -> Any:
    return fun(*args)


def _explicit(name: str, fun: Any, *args: Any) -> tuple[Callable, Any]:
    """(explicit, data): explicit(data, *args) = fun(*args), equal for another fun like this one."""
    if isinstance(fun, type) or not callable(fun):
        raise TypeError(f"{name} must be a function, got {fun!r}")
    is_leaf = jax.tree.structure(fun) == jax.tree.structure(0)
    return hoist(fun, *args) if is_leaf else (_call, seal(fun))


def _finite_sum(name: str, fun: Any, x: Tree, theta: Tree, blocks: Array) -> FiniteSum:
    explicit, data = _explicit(name, fun, x, theta, blocks[0])
    value = jax.eval_shape(explicit, data, x, theta, blocks[0])
    if jax.tree.map(jnp.shape, value) != ():
        raise ValueError(f"{name} must return a scalar, got {value}")
    return FiniteSum(data, blocks, explicit)


def _minibatches(keys: Any, samples: tuple[int, int], batch: tuple[int, int]) -> list[Array]:
    """Those of the inner samples and those of the outer ones."""
    for name, count, size in zip(("inner", "outer"), samples, batch, strict=True):
        if size > count:
            raise ValueError(f"batch must not exceed samples: {size} of {count} {name} ones")
    return [minibatches(*cut) for cut in zip(keys, samples, batch, strict=True)]


def _pair(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name} must be a pair (inner, outer), got {value!r}")
    inner, outer = (validate.positive(name, validate.integer(name, v)) for v in value)
    return inner, outer
