"""What devices say to each other: the collectives of a compiled program."""

import math
import re
from collections.abc import Iterator
from typing import Any

import jax

from jaxns.struct import static, struct

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
CALL = r" (?:call\(.*to_apply|async-start\(.*calls)=%?([\w.\-]+)"
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}  # else the name says it


@struct
class Collective:
    """One collective of a compiled program.

    kind: one of "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute".
    bytes: of the arrays that one device has from it.
    devices: that take part in it, of each group.
    loops: the loops around it, outermost first, by the names that JAX gave them.
    trips: of each of those loops; NaN where the program does not say.
    branch: whether it lies in a branch, which may not be taken.
    name: of the operation of the program that it is for.
    """

    kind: str = static()
    bytes: int
    devices: int
    loops: tuple[str, ...] = static()
    trips: tuple[float, ...] = static()
    branch: bool = static()
    name: str = static()

    @property
    def sent(self) -> float:
        """Bytes that each device sends, each time, by a ring (Patarasuk and Yuan 2009)."""
        others = (self.devices - 1) / self.devices
        if self.kind == "all-reduce":
            return 2 * others * self.bytes
        if self.kind == "reduce-scatter":  # which leaves a share of what goes in
            return (self.devices - 1) * self.bytes
        return self.bytes if self.kind == "collective-permute" else others * self.bytes


def collectives(f: Any, *args: Any) -> tuple[Collective, ...]:
    """The collectives of f(*args), compiled for the devices on which the arrays of `args` lie.

    Empty on one device. One in a loop is listed once, with the loops that it is in. What is in a
    branch that is never taken is listed too.

    f: a function, one that `jax.jit` has made, or one that is compiled already.
    args: pytrees of arrays, or of `jax.ShapeDtypeStruct`, with their shardings; none for the last.
    """
    if not hasattr(f, "as_text"):
        f = (f if hasattr(f, "lower") else jax.jit(f)).lower(*args).compile()
    return tuple(_read(f.as_text()))


def _read(text: str) -> Iterator[Collective]:
    """From XLA's text of a module, in which every computation is written once."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            lines = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        else:
            lines.append(line)

    def within(name: str, loops: tuple, trips: tuple, branch: bool) -> Iterator[Collective]:
        for line in bodies[name]:
            found = re.search(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
            if found:
                size = _bytes(found[1], found[2], started=bool(found[3]))
                yield Collective(found[2], size, _group(line), loops, trips, branch, _name(line))
            if parts := re.search(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                here = (*loops, _name(line)), (*trips, _trips(line))
                for part in parts.groups():
                    yield from within(part, *here, branch)
            elif parts := re.search(r"branch_computations=\{(.*?)\}", line):
                for part in re.findall(r"[\w.\-]+", parts[1]):
                    yield from within(part, loops, trips, True)
            elif parts := re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line):
                for part in parts:
                    yield from within(part, loops, trips, True)
            elif parts := re.search(CALL, line):
                yield from within(parts[1], loops, trips, branch)

    return within(entry, (), (), False)


def _bytes(shapes: str, kind: str, started: bool) -> int:
    """Of a shape or a tuple; one that is only started has its operands before them (and contexts
    of the runtime after them, `u32[]`)."""
    sizes = [
        math.prod(map(int, filter(None, dimensions.split(",")))) * _bits(dtype) // 8
        for dtype, dimensions in re.findall(r"([a-z]\w*)\[([\d,]*)\]", shapes)
        if not (started and (dtype, dimensions) == ("u32", ""))
    ]
    if started and kind in ("all-gather", "collective-permute"):
        sizes = sizes[len(sizes) // 2 :]
    return sum(sizes)


def _bits(dtype: str) -> int:
    return BITS[dtype] if dtype in BITS else int(re.sub(r"\D.*", "", dtype.lstrip("sufe")))


def _group(line: str) -> int:
    """How many devices each group has, in any of the three ways in which XLA writes groups."""
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    if shape := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(shape[1])
    if first := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return first[1].count(",") + 1
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    return pairs[1].count("{") if pairs else 1


def _name(line: str) -> str:
    found = re.search(r'op_name="([^"]*)"', line)
    return found[1] if found else ""


def _trips(line: str) -> float:
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
    return float(found[1]) if found else math.nan
