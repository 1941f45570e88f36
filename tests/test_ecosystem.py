"""A solve inside what other packages make: layers, and the examples of docs/ecosystem.md."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxns

PAGE = (Path(__file__).parent.parent / "docs" / "ecosystem.md").read_text(encoding="utf-8")
DATA = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0]
EXAMPLES = re.findall(
    r"^<!-- needs (\w+) -->\n~~~python\n(.*?)^~~~$", PAGE, re.DOTALL | re.MULTILINE
)


@pytest.mark.slow
@pytest.mark.parametrize(("package", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_example_of_a_package_runs(package, example):
    pytest.importorskip(package)
    exec(DATA + example, {})


def test_every_example_of_the_page_is_found():
    assert len(EXAMPLES) == PAGE.count("~~~") // 2 == 8


# --- layers: u = argmin ½‖Du − s‖² + ½‖u‖², a solve with a closed form

SIGNALS = jnp.sin(jnp.arange(12.0)).reshape(4, 3)
WANTED = jnp.cos(jnp.arange(8.0)).reshape(4, 2)
START = jnp.cos(1 + jnp.arange(6.0)).reshape(3, 2)


def solved(D, s):
    ridge = jaxns.functions.SquaredL2(1.0)
    return jaxns.solve(jaxns.Composite(jaxns.functions.LeastSquares(D, s), ridge)).x


def closed_form(D, s):
    return jnp.linalg.solve(D.T @ D + jnp.eye(2), D.T @ s)


def coded_twice(layer, D, signals):
    """Through a layer, back by its own dictionary, and through it again: D is shared."""
    return jax.vmap(lambda s: layer(D, D @ layer(D, s)))(signals)


def loss(codes):
    return jnp.mean((codes - WANTED) ** 2)


def trained(losses):
    """Whether a step of optax on the parameters lowers the loss, compiled."""

    @jax.jit
    def step(parameters):
        optimizer = optax.sgd(0.1)
        gradient = jax.grad(losses)(parameters)
        update, _ = optimizer.update(gradient, optimizer.init(parameters))
        return gradient, losses(optax.apply_updates(parameters, update))

    return step


def expected():
    """The gradient and the loss after a step, with the closed form for the solve."""
    return trained(lambda D: loss(coded_twice(closed_form, D, SIGNALS)))(START)


@pytest.mark.slow
def test_a_layer_of_flax():
    nnx = pytest.importorskip("flax.nnx")

    class Coding(nnx.Module):
        def __init__(self, dictionary):
            self.dictionary = nnx.Param(dictionary)

        def __call__(self, signals):
            return coded_twice(solved, self.dictionary[...], signals)

    class Twins(nnx.Module):
        """One layer under two names: one parameter."""

        def __init__(self, layer):
            self.first, self.second = layer, layer

    graph, state = nnx.split(Twins(Coding(START)))
    assert len(jax.tree.leaves(state)) == 1

    def losses(state):
        twins = nnx.merge(graph, state)
        return (loss(twins.first(SIGNALS)) + loss(twins.second(SIGNALS))) / 2

    found, after = trained(losses)(state)
    assert jnp.allclose(jax.tree.leaves(found)[0], expected()[0], atol=1e-9)
    assert jnp.allclose(after, expected()[1], atol=1e-9)


@pytest.mark.slow
def test_a_layer_of_equinox():
    eqx = pytest.importorskip("equinox")

    class Coding(eqx.Module):
        dictionary: jax.Array

        def __call__(self, signals):
            return coded_twice(solved, self.dictionary, signals)

    found, after = trained(lambda layer: loss(layer(SIGNALS)))(Coding(START))
    assert jnp.allclose(found.dictionary, expected()[0], atol=1e-9)
    assert jnp.allclose(after, expected()[1], atol=1e-9)
    assert after < loss(Coding(START)(SIGNALS))
