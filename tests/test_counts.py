"""Nothing costs more than it did: counts, and not seconds, which no shared machine can promise.

Each case is a solve and its gradient in one number. Counted are its steps, the products that the
backward pass took, the operations in its equations (as they ran for `Piggyback`, every loop once
for the others), and operations and bytes in what XLA compiled, where XLA is the one of the record.
`counts.json` holds what they were;

    python tests/test_counts.py

writes it anew, after a change that is meant to cost more, or costs less.
"""

import json
import platform
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring

import jaxns
from jaxns.functions import L1, LeastSquares, Logistic
from jaxns.nonsmooth import cost

FILE = Path(__file__).with_name("counts.json")
GROWTH = 1.03  # that is let pass; iterations may differ by rounding on other machines
XLA = ("xla flops", "xla bytes")

random = np.random.default_rng(0)
A, b = random.normal(size=(40, 12)), random.normal(size=40)
labels = np.sign(b)
differences = np.eye(11, 12, 1) - np.eye(11, 12)
places = random.random((2, 16, 2))
distances = np.sum((places[0][:, None] - places[1]) ** 2, axis=-1)
masses = np.full(16, 1 / 16)


class Case(NamedTuple):
    """build: θ -> problem, at the number θ.   mode: its class, for one that can be watched."""

    build: Any
    at: float
    solver: Any
    mode: Any = jaxns.Implicit


def lasso(t):
    return jaxns.Composite(LeastSquares(A, b), L1(t))


def sparse_logistic(t):
    return jaxns.Composite(Logistic(A, labels, scale="mean"), L1(t))


def fused(t):
    return jaxns.Composite(LeastSquares(A, b), L1(t), differences)


def program(t):
    return jaxns.QuadraticProgram(A.T @ A, -t * (b @ A), G=A[:6], h=np.abs(b[:6]))


def transport(t):
    return jaxns.Transport(distances, masses, masses, t)


plain = jaxns.ForwardBackward(acceleration=False)
CASES = {
    "lasso, ForwardBackward, Implicit": Case(lasso, 3.0, jaxns.ForwardBackward()),
    "lasso, ForwardBackward, Piggyback": Case(lasso, 3.0, plain, jaxns.Piggyback),
    "lasso, Relaxed, OneStep": Case(lasso, 3.0, jaxns.Relaxed(plain, 0.8), jaxns.OneStep),
    "lasso, CoordinateDescent, Implicit": Case(lasso, 3.0, jaxns.CoordinateDescent()),
    "lasso, DouglasRachford, Implicit": Case(lasso, 3.0, jaxns.DouglasRachford()),
    "lasso, HeavyBall, Piggyback": Case(lasso, 3.0, jaxns.HeavyBall(), jaxns.Piggyback),
    "logistic, ForwardBackward, Implicit": Case(sparse_logistic, 0.03, jaxns.ForwardBackward()),
    "logistic, Newton, OneStep": Case(sparse_logistic, 0.03, jaxns.Newton(), jaxns.OneStep),
    "fused, ADMM, Implicit": Case(fused, 0.5, jaxns.ADMM()),
    "fused, PrimalDual, Implicit": Case(fused, 0.5, jaxns.PrimalDual()),
    "program, InteriorPoint, Implicit": Case(program, 1.0, jaxns.InteriorPoint()),
    "transport, Sinkhorn, Implicit": Case(transport, 0.1, jaxns.Sinkhorn()),
}


def this_xla() -> str:
    optimized = not jax.config.values["jax_disable_most_optimizations"]
    return f"jax {jax.__version__}, {platform.machine()}, {'all' if optimized else 'few'} passes"


def loss(case: Case, t: Any, probe: Any) -> tuple[Any, Any]:
    mode = case.mode() if case.mode is jaxns.Piggyback else case.mode(probe=probe)
    found = jaxns.solve(case.build(t), case.solver, mode=mode, stop=jaxns.Stop(tol=1e-9))
    return jnp.sum(jnp.sin(jax.tree.leaves(found.x)[0])), found.steps


def measured(case: Case) -> dict[str, float]:
    both = jax.value_and_grad(partial(loss, case), argnums=(0, 1), has_aux=True)
    arguments = jnp.asarray(case.at), jaxns.Probe()
    compiled = jax.jit(both).lower(*arguments).compile()
    (_, steps), (slope, probe) = compiled(*arguments)
    assert np.isfinite(slope)
    account: Any = compiled.cost_analysis()
    loops = "measured" if case.mode is jaxns.Piggyback else 1  # its backward pass is made of loops
    return {
        "steps": float(steps),
        "products": float(probe.steps),
        "operations": cost.count(both, *arguments, while_trips=loops).total,
        "xla flops": account["flops"],
        "xla bytes": account["bytes accessed"],
    }


OTHERS = (jaxns.Implicit, jaxns.Piggyback)
SLOW = {"lasso, HeavyBall, Piggyback", "transport, Sinkhorn, Implicit"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES]
)
def test_nothing_costs_more(name):
    recorded = json.loads(FILE.read_text(encoding="utf-8"))
    before, now = recorded["counts"][name], measured(CASES[name])
    if recorded["xla"] != this_xla():
        now = {what: number for what, number in now.items() if what not in XLA}
    grown = [
        f"{what}: {before[what]:g} before, {number:g} now (+{number / before[what] - 1:.1%})"
        for what, number in now.items()
        if number > GROWTH * before[what] + (what == "steps")
    ]
    assert not grown, f"{name} costs more; {'; '.join(grown)}"


@pytest.mark.parametrize(
    "mode", [jaxns.OneStep, *(pytest.param(m, marks=pytest.mark.slow) for m in OTHERS)]
)
def test_a_second_call_compiles_nothing(mode, request):
    """Outside of `jit`, where problem and solver are built anew around other numbers."""
    compiled = []

    def heard(event, duration, **kwargs):
        if event.startswith("/jax/core/compile"):
            compiled.append(event)

    def call(t):
        case = Case(lasso, t, jaxns.ForwardBackward(), mode)
        return jax.grad(partial(loss, case), has_aux=True)(jnp.asarray(t), jaxns.Probe())

    monitoring.register_event_duration_secs_listener(heard)
    request.addfinalizer(lambda: monitoring.unregister_event_duration_listener(heard))
    call(3.0)
    assert compiled
    compiled.clear()
    call(2.5)
    assert not compiled


if __name__ == "__main__":
    import conftest  # noqa: F401  (which says how the tests compile)

    counts = {name: measured(case) for name, case in CASES.items()}
    FILE.write_text(json.dumps({"xla": this_xla(), "counts": counts}, indent=1) + "\n")
