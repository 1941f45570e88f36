"""The rule shared by the modes that differentiate the fixed-point equation where the run ended.

With A = ∂_z F(z, θ) and B = ∂_θ F(z, θ) at the last iterate, z = F(z, θ) gives

    dz = (I − A)⁻¹ B dθ,        θ̄ = Bᵀ (I − A)⁻ᵀ z̄.

A mode only supplies the inverse, exact or approximate, as `invert(system, b) -> (answer, Report)`:
the linear system solved (`Implicit`), K terms of the Neumann series (`OneStep`), the quasi-Newton
matrix that the run left behind (`Shine`). It may have

    known(iteration, theta, z, control): what the solver knows of the inverse, a pair
        b ↦ (I − A)⁻¹ b, b ↦ (I − A)⁻ᵀ b or None, to be put into the system;
    any_map: True where only the fixed point counts, and not by which map F it was reached: then F
        is that of `Solver.stationary`, where there is one;
    check(solved): raises where an eager backward pass got no finite answer.

The start z0 and the control state have no influence on a fixed point, hence derivative zero. Only
those leaves of θ are differentiated whose derivative is asked for.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero, zero_from_primal
from jax.flatten_util import ravel_pytree

from jaxns import linear
from jaxns.fixed_point import Iteration, Run, Stop, iterate
from jaxns.modes import probe
from jaxns.modes.oneway import reverse_only
from jaxns.struct import is_static, replace
from jaxns.tree import Tree


class System(NamedTuple):
    """The linear system that a mode solves, I − A or its transpose, on flat vectors.

    inverse: b ↦ an answer, from what the solver knows of the structure; `transposed` is that of the
    transposed system. The same for a preconditioner.
    start: where to begin.   loop: what iterates.
    """

    matvec: linear.Matvec
    loop: linear.Loop
    inverse: linear.Matvec | None = None
    transposed: linear.Matvec | None = None
    precondition: linear.Matvec | None = None
    precondition_transposed: linear.Matvec | None = None
    start: jax.Array | None = None

    def transpose(self, matvec: linear.Matvec, start: jax.Array | None) -> "System":
        """The system with the transposed matrix, `matvec`."""
        _, loop, forward, backward, M, M_transposed, _ = self
        return System(matvec, loop, backward, forward, M_transposed, M, start)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Selection:
    """Which of some leaves are differentiated."""

    wanted: tuple[bool, ...]

    def split(self, leaves: list) -> tuple[list, list]:
        pick = [leaf for leaf, yes in zip(leaves, self.wanted, strict=True) if yes]
        rest = [leaf for leaf, yes in zip(leaves, self.wanted, strict=True) if not yes]
        return pick, rest

    def merge(self, picked: list, rest: list) -> list:
        picked, rest = list(picked), list(rest)
        return [picked.pop(0) if yes else rest.pop(0) for yes in self.wanted]

    def save(self) -> list[jax.Array]:
        """As residuals of a forward pass, in whose shapes it is: arrays of one entry or none.

        The structure of residuals must not depend on what is differentiated. A function staged by
        `jit` has one for all its uses: that of the forward pass traced last.
        """
        return [jnp.zeros(int(yes), bool) for yes in self.wanted]

    @classmethod
    def read(cls, saved: list[jax.Array]) -> "Selection":
        return cls(tuple(flag.size > 0 for flag in saved))


def run(iteration: Iteration, theta: Any, z0: Tree, stop: Stop, mode: Any) -> Run:
    """Iterate, with `mode`'s rule attached in the direction it asks for."""
    leaves, structure = jax.tree.flatten(theta)
    flat = _Flat(iteration, structure)
    if mode.direction == "both":
        return _both(flat, leaves, z0, stop, mode)
    remedy = f"for forward-mode derivatives pass {type(mode).__name__}(direction='both')"
    return _reverse(flat, *reverse_only((leaves, z0), remedy), stop, mode)


class _Flat:
    """An iteration whose θ is a list of leaves. Hashable, like the iteration."""

    def __init__(self, iteration: Iteration, structure: Any) -> None:
        self.iteration, self.structure = iteration, structure

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Flat)
            and self.iteration == other.iteration
            and self.structure == other.structure
        )

    def __hash__(self) -> int:
        return hash((self.iteration, self.structure))

    def theta(self, leaves: list) -> Any:
        return jax.tree.unflatten(self.structure, leaves)

    def settled(self, control: Any, leaves: list, mode: Any) -> Any:
        """θ of the map to differentiate, with the adaptive parameters that the run ended with."""
        theta = self.theta(leaves)
        if control is not None:
            theta = self.iteration.settle(theta, lax.stop_gradient(control))
        return self.iteration.stationary(theta) if getattr(mode, "any_map", False) else theta


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _both(flat: _Flat, leaves: list, z0: Tree, stop: Stop, mode: Any) -> Run:
    return iterate(flat.iteration, flat.theta(leaves), z0, stop)


@partial(_both.defjvp, symbolic_zeros=True)
def _jvp(flat: _Flat, primals: tuple, tangents: tuple) -> tuple[Run, Run]:
    leaves, z0, stop, mode = primals
    run = _both(flat, leaves, z0, stop, mode)
    selection = Selection(tuple(not isinstance(t, SymbolicZero) for t in tangents[0]))
    wanted, _ = selection.split(tangents[0])
    dz = _pushforward(flat, selection, leaves, run.image, run.control, mode, wanted)
    return run, jax.tree.map(zero_from_primal, run).at_image(dz)


def _equation(flat, selection, leaves, z, control, mode):
    """F(selected leaves of θ, z as a vector), and the point where it is linearised."""
    active, passive = selection.split(leaves)
    vector, unravel = ravel_pytree(z)

    def F(active, vector):
        theta = flat.settled(control, selection.merge(active, passive), mode)
        return ravel_pytree(flat.iteration.step(theta, unravel(vector)))[0]

    return F, active, vector, unravel


def _system(flat, leaves, z, control, mode, matvec):
    """The system with matrix I − A, and what the solver and the mode know of its inverse."""
    flatten, unravel = (lambda tree: ravel_pytree(tree)[0]), ravel_pytree(z)[1]

    def on_vectors(function):
        return None if function is None else lambda v: flatten(function(unravel(v)))

    leaves, z, control = lax.stop_gradient((leaves, z, control))
    known = getattr(mode, "known", lambda *point: None)
    found = known(flat.iteration, flat.settled(control, leaves, mode), z, control)
    inverse, transposed = (None, None) if found is None else map(on_vectors, found)
    M = on_vectors(getattr(mode, "precondition", None))
    M_transposed = None if M is None else _transpose(M, flatten(z))
    return System(matvec, flat.iteration.loop, inverse, transposed, M, M_transposed)


def _transpose(M: linear.Matvec, like: jax.Array) -> linear.Matvec:
    """v ↦ Mᵀ v."""

    def transposed(v):
        return jax.linear_transpose(M, like)(v)[0]

    return transposed


@partial(jax.jit, static_argnums=(0, 1))
def _pushforward(flat, selection, leaves, z, control, mode, tangents):
    F, active, vector, unravel = _equation(flat, selection, leaves, z, control, mode)
    _, b = jax.jvp(lambda active: F(active, vector), (active,), (tangents,))  # B dθ
    _, push = jax.linearize(partial(F, active), vector)  # A
    system = _system(flat, leaves, z, control, mode, lambda u: u - push(u))
    return unravel(mode.invert(system, b)[0])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reverse(flat: _Flat, leaves: list, z0: Tree, stop: Stop, mode: Any) -> Run:
    return iterate(flat.iteration, flat.theta(leaves), z0, stop)


def _forward_pass(flat: _Flat, leaves: list, z0: Tree, stop: Stop, mode: Any):
    selection, (leaves, z0, stop, mode) = unwrap(leaves, z0, stop, mode)
    # The twin and not the bare loop: so the derivative can be differentiated again, both ways.
    run = _both(flat, leaves, z0, stop, mode)
    return run, (selection.save(), leaves, run.image, run.control, mode)


def _backward_pass(flat: _Flat, saved: tuple, cotangent: Run):
    selected, leaves, z, control, mode = saved
    selection = Selection.read(selected)
    z_bar = jax.tree.map(instantiate, cotangent.image, is_leaf=is_symbolic_zero)
    grads, solved, probe = _pullback(flat, selection, leaves, z, control, mode, z_bar)
    if hasattr(mode, "check"):
        mode.check(solved)
    grads = selection.merge(grads, [None] * selection.wanted.count(False))
    if probe is None:
        return grads, None, None, None
    nothing = {f.name: None for f in dataclasses.fields(mode) if not is_static(f)}
    return grads, None, None, replace(mode, **nothing | {"probe": probe})


_reverse.defvjp(_forward_pass, _backward_pass, symbolic_zeros=True)


@partial(jax.jit, static_argnums=(0, 1))
def _pullback(flat, selection, leaves, z, control, mode, z_bar):
    F, active, vector, unravel = _equation(flat, selection, leaves, z, control, mode)
    v, _ = ravel_pytree(z_bar)
    _, pull = jax.vjp(partial(F, active), vector)  # Aᵀ
    start = getattr(mode, "start", None)
    start = None if start is None else ravel_pytree(start)[0]
    system = _system(flat, leaves, z, control, mode, None)
    w, report = mode.invert(system.transpose(lambda w: w - pull(w)[0], start), v)
    _, pull_theta = jax.vjp(lambda active: F(active, vector), active)  # Bᵀ
    solved = jnp.all(jnp.isfinite(w)) | ~jnp.all(jnp.isfinite(v))  # a NaN that came in may go out
    watching = getattr(mode, "probe", None)
    seen = None if watching is None else probe.read(watching, report, unravel(w))
    return pull_theta(w)[0], solved, seen


def check_probe(mode: Any) -> None:
    """For the construction of a mode."""
    if mode.probe is None:
        return
    if not isinstance(mode.probe, probe.Probe):
        raise TypeError(f"probe must be a jaxns.Probe(), got {type(mode.probe).__name__}")
    if mode.direction != "reverse":
        raise ValueError("a probe watches the backward pass of direction='reverse' only")


def unwrap(leaves: list, *others: Any) -> tuple[Selection, tuple]:
    """Which leaves a derivative is wanted for, and the values of what a forward pass was given."""
    selection = Selection(tuple(leaf.perturbed for leaf in leaves))
    given = (leaves, *others)
    return selection, jax.tree.map(
        lambda p: p.value, given, is_leaf=lambda p: hasattr(p, "perturbed")
    )


def is_symbolic_zero(x: Any) -> bool:
    return isinstance(x, SymbolicZero)


def instantiate(x: Any) -> Any:
    aval: Any = getattr(x, "aval", x)
    return jnp.zeros(aval.shape, aval.dtype) if isinstance(x, SymbolicZero) else x
