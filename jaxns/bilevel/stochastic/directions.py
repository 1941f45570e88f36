"""The products that a stochastic bilevel step is made of."""

from typing import NamedTuple

import jax
from jax import Array, lax

from jaxns import tree
from jaxns.bilevel.stochastic.finite_sum import FiniteSum, Term
from jaxns.tree import Tree


class Inner(NamedTuple):
    """gradient: ∇₁G.   hessian: ∇²₁₁G v.   cross: ∇²₂₁G v."""

    gradient: Tree
    hessian: Tree
    cross: Tree


class Outer(NamedTuple):
    """x: ∇₁F.   theta: ∇₂F."""

    x: Tree
    theta: Tree


class Directions(NamedTuple):
    """D_x = ∇₁G,   D_v = ∇²₁₁G v + ∇₁F,   D_θ = ∇²₂₁G v + ∇₂F (arXiv 2201.13409, section 2).

    Where x = x*(θ) and v = −[∇²₁₁G]⁻¹ ∇₁F, the first two vanish and D_θ = ∇h(θ).
    """

    x: Tree
    v: Tree
    theta: Tree


def inner_terms(G: Term, x: Tree, theta: Tree, v: Tree) -> Inner:
    """By one derivative, along v in x, of both partial gradients."""
    gradients = jax.grad(G, (0, 1))
    (gradient, _), (hessian, cross) = jax.jvp(lambda x: gradients(x, theta), (x,), (v,))
    return Inner(gradient, hessian, cross)


def outer_terms(F: Term, x: Tree, theta: Tree) -> Outer:
    return Outer(*jax.grad(F, (0, 1))(x, theta))


def directions(inner: Inner, outer: Outer) -> Directions:
    return Directions(
        inner.gradient,
        tree.add(inner.hessian, outer.x),
        tree.add(inner.cross, outer.theta),
    )


def descend(G: FiniteSum, x: Tree, theta: Tree, rho: Array, keys: Array) -> Tree:
    """x ← x − ρ ∇₁G_i(x, θ), once for each of the keys, which draw i."""

    def step(x: Tree, key: Array) -> tuple[Tree, None]:
        return tree.axpy(-rho, jax.grad(G.sample(key))(x, theta), x), None

    return lax.scan(step, x, keys)[0]
