"""Piggyback differentiation: the derivative of the iteration that really ran."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero, zero_from_primal

from jaxns import tree, validate
from jaxns.fixed_point import Iteration, Run, Stop, begin, is_running, move, proceed
from jaxns.modes.oneway import forward_only, reverse_only
from jaxns.modes.rule import Selection, instantiate, is_symbolic_zero, unwrap
from jaxns.modes.tape import (
    Storage,
    Tape,
    advances,
    checkpoint,
    read,
    steps_after,
    storage,
    stride,
    write,
)
from jaxns.modes.work import Work
from jaxns.struct import settle, static, struct
from jaxns.tree import Tree

MOST_STEPS = 2**31 - 1  # that a run can count


@struct
class Piggyback:
    r"""Differentiate through the K steps that were made (arXiv 2206.00457, recursion PB).

        forward:  J_{k+1} = A_k J_k + B_k,   J_0 = ∂z_0/∂θ
        reverse:  θ̄ += B_kᵀ w,   w ← A_kᵀ w,   for k = K−1 … 0;   finally z̄_0 = w

    with A_k, B_k the derivatives of step k as it ran, acceleration included. Stepsizes that a
    solver finds by itself, from a Lipschitz constant or by backtracking, are constants of the run.

    The reverse pass replays the run from checkpoints that are laid down while it happens, twice as
    far apart each time they fill their buffer. With 2c states stored it recomputes each step at
    most twice while K ≤ c², and at most three times while K ≤ c³/2; the number stored is fixed
    before K is known and does not grow with `max_steps`. (c a power of two; about so otherwise.)

    direction: "reverse" (`grad`, `vjp`, `jacrev`; forward over reverse for `hessian`) or "both"
        (`jvp` and `jacfwd` too, first derivatives only).
    last: differentiate the last `last` of the K steps only: J_{K − last} = 0, and the reverse pass
        ends there. The derivative in x0 is then zero. At a fixed point the derivative misses
        A^last J, at most ρ^last ‖J‖ where ‖A‖ ≤ ρ (arXiv 2305.13768; truncated backpropagation,
        arXiv 1810.10667), and its time and memory are those of `last` steps. With last ≥ K it is
        the whole.
    checkpoints: states stored at most. By default 96, or as many as fill 128 iterates (a state of
        an accelerated iteration is two or more) but 16 at least, or fewer when `max_steps` is so
        small that 2 √max_steps are enough: two recomputations suffice up to K = 1536 for a plain
        map, and K = 1024 for an accelerated one. "logarithmic" stores about 2 log₂ n, n the steps
        that may be reversed (`max_steps` or `last`; 2³¹ if it is not known when tracing), for about
        log K recomputations of each step: with K = n = 10³, 10⁴, 10⁵ it stores 24, 32, 36 states
        and evaluates F 3.5, 4.5, 5.5 times a step going back, against 2.0, 2.8, 3.9 by default.
    """

    own_loop: ClassVar[bool] = True  # which lays down checkpoints

    direction: str = static(default="reverse")
    checkpoints: int | str | None = static(default=None)
    last: int | None = static(default=None)

    def __post_init__(self) -> None:
        validate.choice("direction", self.direction, ("reverse", "both"))
        if isinstance(self.checkpoints, str):
            validate.choice("checkpoints", self.checkpoints, ("logarithmic",))
        elif self.checkpoints is not None and self.checkpoints < 4:
            raise ValueError(f"checkpoints must be at least 4, got {self.checkpoints}")
        if self.last is not None:
            settle(self, "last", validate.positive("last", validate.integer("last", self.last)))

    def run(self, iteration: Iteration, theta: Any, z0: Tree, stop: Stop) -> Run:
        leaves, structure = jax.tree.flatten(theta)
        most = stop.max_steps if isinstance(stop.max_steps, int) else MOST_STEPS
        length = min(self.last or most, most)
        last = length if length < most else None
        task = _Task(iteration, structure, storage(self.checkpoints, length), last)
        if self.direction == "both":
            return _both(task, leaves, z0, stop)
        return _reverse(task, *reverse_only((leaves, z0), _FORWARD), stop)

    def cost(self, steps: Any, adjoint_steps: Any, z: Tree, control: Any) -> tuple[Any, Any]:
        """Evaluations and bytes: each step twice more forward and once back; the states stored.

        These are as many as where `max_steps` is not known when tracing.
        """
        length = self.last or MOST_STEPS
        states = 2 * storage(self.checkpoints, length).slots(z, control)
        return 3 * jnp.minimum(steps, length), states * tree.nbytes((z, control))

    def work(self, steps: Any, adjoint_steps: Any, z: Tree, control: Any) -> Work:
        """Each step once back, and what is advanced again from the checkpoints, as for `cost`."""
        length = self.last or MOST_STEPS
        slots = storage(self.checkpoints, length).slots(z, control)
        reversed_steps = jnp.minimum(steps, length)
        return Work(advances(reversed_steps, slots, self.last), 0, reversed_steps)


class _Task(NamedTuple):
    """What is static: the iteration, the structure of θ, and how much to store.

    last: how many steps at the end are differentiated, or None for all of them.
    """

    iteration: Iteration
    structure: Any
    storage: Storage
    last: int | None

    def first(self, steps: Array) -> Array:
        """The first step that is differentiated, of a run of so many."""
        return 0 * steps if self.last is None else jnp.maximum(steps - self.last, 0)

    def is_whole(self, steps: Array) -> Array:
        return jnp.asarray(True) if self.last is None else steps <= self.last

    def theta(self, leaves: list) -> Any:
        return jax.tree.unflatten(self.structure, leaves)

    def begin(self, leaves: list, z0: Tree) -> tuple[list, list]:
        theta = self.theta(leaves)
        return _floating((z0, self.iteration.control(theta, z0)))

    def move(self, state: Any, leaves: list, floating: list, other: list) -> tuple[list, list]:
        """One step on a state given by its floating and its other leaves (`state`: structure)."""
        structure, selection = state
        z, control = jax.tree.unflatten(structure, selection.merge(floating, other))
        return _floating(move(self.iteration, self.theta(leaves), z, control))


@partial(jax.jit, static_argnums=0)
def _record(task: _Task, leaves: list, z0: Tree, stop: Stop) -> tuple[Run, Tape]:
    """Iterate, laying down checkpoints.

    To go back to the start: when the buffer is full, keep every other one. To go back `last` steps:
    so far apart that c of them always reach that far, each in the place of the earliest.
    """
    theta = task.theta(leaves)
    start = begin(task.iteration, theta, z0, stop)
    c = task.storage.slots(start.z, start.control)

    def step(carry):
        run, tape = carry
        k = tape.steps
        slot = jnp.where(k % tape.spacing == 0, (k // tape.spacing) % c, c)  # slot c is for waste
        state = (run.z, run.control)
        if task.last is not None:  # under vmap, a lane that has stopped keeps its last states
            state = tree.where(is_running(run), state, read(tape.states, slot))
        states = write(tape.states, slot, state)
        after = proceed(task.iteration, theta, stop, run)
        run = tree.where(is_running(run), after, run)
        return run, Tape(states, tape.spacing, k + 1)

    def going(carry):
        return tree.any_lane(is_running(carry[0]))

    def room(carry):
        _, tape = carry
        return going(carry) & (tape.steps < c * tape.spacing)

    def fill(carry):
        run, tape = tree.while_loop(room, step, carry)
        full = tape.steps >= c * tape.spacing
        states = lax.fori_loop(  # in place
            1,
            jnp.where(full, c // 2, 0),
            lambda i, s: write(s, i, read(s, 2 * i)),
            tape.states,
        )
        return run, Tape(states, jnp.where(full, 2 * tape.spacing, tape.spacing), tape.steps)

    blank = jax.tree.map(
        lambda leaf: jnp.zeros((c + 1, *jnp.shape(leaf)), jnp.result_type(leaf)),
        (start.z, start.control),
    )
    spacing = jnp.asarray(1 if task.last is None else -(-task.last // (c - 1)), jnp.int32)
    tape = Tape(blank, spacing, 0 * spacing)
    return tree.while_loop(going, fill if task.last is None else step, (start, tape))


@partial(jax.jit, static_argnums=(0, 1))
def _replay_back(task, selection, leaves, z0, run, tape, z_bar):
    """θ̄ of the selected leaves, and z̄_0, from z̄ at the end of the run."""
    active, passive = selection.split(leaves)
    state = _structure((run.z, run.control))
    slots = task.storage.slots(run.z, run.control)
    begun, ended = task.first(run.progress.steps), run.progress.steps
    blank = jax.tree.map(jnp.zeros_like, run).at_image(z_bar)
    w, _ = _floating((blank.z, blank.control))

    def step(active, floating, other):
        return task.move(state, selection.merge(active, passive), floating, other)

    def climb(goal, top, index, stack):
        """Advance from the checkpoint on top of the stack to `goal`, storing on the way."""

        def body(carry):
            top, index, stack = carry
            length = stride(goal - index[top], slots - 1 - top)
            point = lax.fori_loop(0, length, lambda _, s: step(active, *s), read(stack, top))
            return (
                top + 1,
                index.at[top + 1].set(index[top] + length),
                write(stack, top + 1, point),
            )

        return tree.while_loop(lambda c: c[1][c[0]] < goal, body, (top, index, stack))

    def back(carry):
        """Reverse the step from state k − 1 to state k."""
        k, top, index, stack, w, grads = carry
        top, index, stack = climb(k - 1, top, index, stack)
        floating, other = read(stack, top)
        _, pull, _ = jax.vjp(lambda a, s: step(a, s, other), active, floating, has_aux=True)
        grads_k, w_k = pull(w)
        ran = (k > begun) & (k <= ended)  # under vmap, other lanes are left alone
        w = tree.where(ran, w_k, w)
        grads = tree.where(ran, tree.add(grads, grads_k), grads)
        return k - 1, jnp.maximum(top - 1, 0), index, stack, w, grads

    def stretch(carry):
        """Reverse the steps that follow checkpoint j."""
        j, index, stack, w, grads = carry
        first, last = steps_after(tape, j, begun, ended)
        stack = write(stack, 0, _floating(checkpoint(tape, j)))
        carry = (last, 0 * j, index.at[0].set(first), stack, w, grads)
        _, _, index, stack, w, grads = tree.while_loop(lambda c: c[0] > first, back, carry)
        return j - 1, index, stack, w, grads

    stack = _floating(jax.tree.map(lambda s: jnp.zeros_like(s[:slots]), tape.states))
    index = jnp.zeros(slots, jnp.int32)
    blocks = (tape.steps + tape.spacing - 1) // tape.spacing
    carry = (blocks - 1, index, stack, w, tree.zeros_like(active))
    *_, w, grads = tree.while_loop(
        lambda c: tree.any_lane((c[0] + 1) * tape.spacing > begun), stretch, carry
    )
    w = tree.where(task.is_whole(ended), w, tree.zeros_like(w))

    def start(active, z0):
        floating, other = task.begin(selection.merge(active, passive), z0)
        return jax.tree.map(tree.vary_like, floating, w), other

    _, pull, _ = jax.vjp(start, active, z0, has_aux=True)
    grads_0, z0_bar = pull(w)
    return tree.add(grads, grads_0), z0_bar


@partial(jax.jit, static_argnums=(0, 1))
def _replay_forward(task, selection, leaves, z0, run, tape, tangents, z0_dot):
    """ż at the end of the run, from θ̇ of the selected leaves and ż_0."""
    active, passive = selection.split(leaves)
    state = _structure((run.z, run.control))

    def start(active, z0):
        return task.begin(selection.merge(active, passive), z0)

    def body(carry):
        k, floating, dots, other = carry

        def step(active, floating):
            return task.move(state, selection.merge(active, passive), floating, other)

        after, after_dots, after_other = jax.jvp(
            step, (active, floating), (tangents, dots), has_aux=True
        )
        floating, other = tree.where(k < ended, (after, after_other), (floating, other))
        dots = tree.where((k >= begun) & (k < ended), after_dots, dots)
        return k + 1, floating, dots, other

    def stretch(carry):
        """Push forward through the steps that follow checkpoint j."""
        j, dots, _ = carry
        first, last = steps_after(tape, j, begun, ended)
        floating, other = _floating(checkpoint(tape, j))
        carry = (first, floating, dots, other)
        _, _, dots, other = tree.while_loop(lambda c: c[0] < last, body, carry)
        return j + 1, dots, other

    begun, ended = task.first(run.progress.steps), run.progress.steps
    _, dots, other = jax.jvp(start, (active, z0), (tangents, z0_dot), has_aux=True)
    dots = tree.where(task.is_whole(ended), dots, tree.zeros_like(dots))
    j = -tree.over_lanes(-(begun // tape.spacing))
    _, dots, other = tree.while_loop(
        lambda c: c[0] * tape.spacing < tape.steps, stretch, (j, dots, other)
    )
    structure, selection = state
    z, control = jax.tree.unflatten(structure, selection.merge(dots, other))
    return run._replace(z=z, control=control).image


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reverse(task: _Task, leaves: list, z0: Tree, stop: Stop) -> Run:
    return _record(task, leaves, z0, stop)[0]


def _forward_pass(task: _Task, leaves: list, z0: Tree, stop: Stop):
    selection, (leaves, z0, stop) = unwrap(leaves, z0, stop)
    run, tape = _record(task, leaves, z0, stop)
    return forward_only(run, _TWICE), (selection.save(), leaves, z0, run, tape)


def _backward_pass(task: _Task, saved: tuple, cotangent: Run):
    selected, *rest = saved
    selection = Selection.read(selected)
    z_bar = jax.tree.map(instantiate, cotangent.image, is_leaf=is_symbolic_zero)
    grads, z0_bar = forward_only(_replay_back(task, selection, *rest, z_bar), _TWICE)
    return selection.merge(grads, [None] * selection.wanted.count(False)), z0_bar, None


_reverse.defvjp(_forward_pass, _backward_pass, symbolic_zeros=True)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _both(task: _Task, leaves: list, z0: Tree, stop: Stop) -> Run:
    return _record(task, leaves, z0, stop)[0]


@partial(_both.defjvp, symbolic_zeros=True)
def _jvp(task: _Task, primals: tuple, tangents: tuple) -> tuple[Run, Run]:
    leaves, z0, stop = primals
    run, tape = _record(task, leaves, z0, stop)
    selection = Selection(tuple(not isinstance(t, SymbolicZero) for t in tangents[0]))
    wanted, _ = selection.split(tangents[0])
    z0_dot = jax.tree.map(instantiate, tangents[1], is_leaf=is_symbolic_zero)

    def forward(dots):
        return _replay_forward(task, selection, leaves, z0, run, tape, *dots)

    def transpose(z_bar):
        return _replay_back(task, selection, leaves, z0, run, tape, z_bar)

    dz = _linear(forward, transpose, (wanted, z0_dot), run.image, (leaves, z0))
    return run, jax.tree.map(zero_from_primal, run).at_image(dz)


def _linear(forward: Callable, transpose: Callable, x: Tree, like: Tree, constants: Any) -> Tree:
    """forward(x), a linear map with a transpose of its own, batchable, from public API.

    It is the second block of the solution of the unit triangular system [[I, 0], [−L, I]], which
    `custom_linear_solve` knows how to transpose without looking inside: if every leaf of its
    right-hand side is a tangent, and none a zero. On trees, so that each leaf stays where it is.
    """

    def solve(_, b):
        x, z = b
        return x, tree.add(forward(x), z)

    def transpose_solve(_, b):
        x, z = b
        return tree.add(x, transpose(z)), z

    x, zero = jax.tree.map(jnp.asarray, (x, tree.zeros_like(like)))
    nothing = jnp.where(False, sum(jnp.sum(leaf) for leaf in jax.tree.leaves(x)), 0)
    b = jax.tree.map(lambda leaf: leaf + nothing.astype(leaf.dtype), (x, zero))
    return lax.custom_linear_solve(
        lambda v: _first_order(v, constants), b, solve, transpose_solve, symmetric=True
    )[1]


@jax.custom_jvp
def _first_order(v: Tree, constants: Any) -> Tree:
    return v


@_first_order.defjvp
def _(primals, tangents):
    raise TypeError(
        "Piggyback(direction='both') has first derivatives only; for second derivatives use "
        "Piggyback(direction='reverse') with forward over reverse, or Implicit(direction='both')"
    )


_FORWARD = "for forward-mode derivatives pass Piggyback(direction='both')"
_TWICE = (
    "Piggyback's reverse pass cannot be reversed again: for second derivatives use forward over "
    "reverse (jax.hessian, or jax.jacfwd of jax.grad), or Implicit(), which has grad of grad"
)


def _floating(state: Tree) -> tuple[list, list]:
    leaves = jax.tree.leaves(state)
    return _structure(state)[1].split(leaves)


def _structure(state: Tree) -> tuple[Any, Selection]:
    leaves, structure = jax.tree.flatten(state)
    floating = tuple(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves)
    return structure, Selection(floating)
