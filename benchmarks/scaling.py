"""Many devices: what each does and says, counted, and a model of 8 to 1024 GPUs made of the counts.

    OPENBLAS_NUM_THREADS=1 python benchmarks/scaling.py [--json FILE] [--figure FILE.png]

Operations, bytes and collectives are read from the programs that XLA compiles for 1 to 1024 devices
(of one CPU, which runs only the small ones). The model's figures of GPUs are assumptions, `GPU`.
"""

import argparse
import json
import math
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxns
from jaxns.fixed_point import begin, proceed
from jaxns.functions import L1, LeastSquares
from jaxns.nonsmooth.cost import collectives
from jaxns.solve import ADVANCING
from jaxns.struct import seal

RUN = (1, 2, 4, 8)  # devices that solve
MODELLED = (8, 16, 32, 64, 128, 256, 512, 1024)  # devices that are compiled for
AXES = {"rows": P("i", None), "columns": P(None, "i")}
STOP = jaxns.Stop(tol=1e-8)
# Peak figures that NVIDIA states of an H200 in nodes of eight (DGX H200), float64; the latency of
# an all-reduce by NCCL's own model (src/graph/tuning.cc: a tree, protocol LL); a loop's turn, with
# its kernels and a predicate that the host reads, is guessed.
GPU = {
    "flops": 67e12,  # a second
    "memory": 4.8e12,  # bytes a second (H100: 3.35e12)
    "capacity": 141e9,  # bytes
    "node": 8,
    "nvlink": 450e9,  # bytes a second, each way
    "infiniband": 8 * 50e9,  # bytes a second of a node's eight cards, each way
    "turn": 20e-6,  # seconds
}


def sharded(axis: str, devices: int) -> tuple[NamedSharding, NamedSharding, NamedSharding]:
    """How a design, what is of its rows' length and what is of its columns' length are laid out."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("i",))
    spec = AXES[axis]
    return tuple(NamedSharding(mesh, s) for s in (spec, P(spec[0]), P(spec[1])))  # pyright: ignore


def account(f: Callable, *args: Any) -> dict[str, float]:
    """Of one device: operations, bytes of its memory; collectives, their bytes, and those sent."""
    compiled = jax.jit(f).lower(*args).compile()
    costs = compiled.cost_analysis()
    said = collectives(compiled)
    times = [math.prod(c.trips) for c in said]
    return {
        "flops": costs.get("flops", 0.0),
        "bytes": costs["bytes accessed"],
        "collectives": sum(times),
        "message": sum(t * c.bytes for t, c in zip(times, said, strict=True)),
        "sent": sum(t * c.sent for t, c in zip(times, said, strict=True)),
    }


def parts(axis: str, n: int, p: int, devices: int, *names: str) -> dict[str, dict[str, float]]:
    """What a solve and its gradient are made of, each compiled by itself: a step, a product with
    the transposed Jacobian, and the stepsize; those named, or all."""
    layouts = sharded(axis, devices)

    def shape(dimensions: tuple[int, ...], layout: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dimensions, jnp.float64, sharding=layout)

    A, b, x = (shape(d, layout) for d, layout in zip(((n, p), (n,), (p,)), layouts, strict=True))
    nowhere = NamedSharding(layouts[0].mesh, P())

    def theta(A, b):
        return seal((jaxns.ForwardBackward(1e-3), lasso(A, b, 0.1)))

    def step(A, b, run):
        return proceed(ADVANCING, theta(A, b), STOP, run)

    def product(A, b, x, w):
        solver, problem = theta(A, b)
        return w - jax.vjp(lambda x: solver.step(problem, x), x)[1](w)[0]

    run = jax.eval_shape(lambda A, b: begin(ADVANCING, theta(A, b), jnp.zeros(p), STOP), A, b)
    run = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=x.sharding if leaf.shape == (p,) else nowhere
        ),
        run,
    )
    programs = {
        "step": (step, A, b, run),
        "product": (product, A, b, x, x),
        "stepsize": (lambda A, b: lasso(A, b, 0.1).f.lipschitz(), A, b),
    }
    return {name: account(*programs[name]) for name in names or programs}


def lasso(A: Any, b: Any, penalty: Any) -> jaxns.Composite:
    return jaxns.Composite(LeastSquares(A, b), L1(penalty))


def regression(n: int, p: int) -> tuple[np.ndarray, np.ndarray, float]:
    """A design, targets, and a tenth of the penalty that gives zero."""
    random = np.random.default_rng(0)
    A = random.standard_normal((n, p))
    x = random.standard_normal(p) * (random.random(p) < 10 / p)
    b = A @ x + 0.1 * random.standard_normal(n)
    return A, b, 0.1 * float(np.abs(A.T @ b).max())


def solved(axis: str, n: int, p: int, devices: int) -> dict[str, float]:
    """A solve and its gradient in the penalty, made: steps, products, and whether the loop of the
    whole program says what a step by itself says."""
    layouts = sharded(axis, devices)
    *data, penalty = regression(n, p)
    A, b = (
        jax.make_array_from_callback(a.shape, layout, lambda i, a=a: a[i])
        for a, layout in zip(data, layouts, strict=False)
    )

    def loss(penalty, probe, A, b):
        mode = jaxns.Implicit(probe=probe)
        found = jaxns.solve(lasso(A, b, penalty), mode=mode, stop=STOP)
        return jnp.sum(found.x**2), found.steps

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    arguments = penalty, jaxns.Probe(), A, b
    compiled = both.lower(*arguments).compile()
    (value, steps), (slope, probe) = compiled(*arguments)
    jax.block_until_ready(compiled(*arguments))
    began = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    seconds = time.perf_counter() - began
    loop = [
        c for c in collectives(compiled) if not c.branch and c.loops and "iterate" in c.loops[0]
    ]
    return {
        "value": float(value),
        "slope": float(slope),
        "steps": int(steps),
        "products": int(probe.steps),
        "loop": sum(c.bytes for c in loop),
        "seconds": seconds,
    }


def many(count: int, devices: int) -> dict[str, Any]:
    """Lassos spread over devices: the steps of each, collectives inside and outside of loops."""
    random = np.random.default_rng(0)
    correlation = random.random((count, 1, 1)) * 0.9
    A = np.sqrt(1 - correlation) * random.standard_normal((count, 100, 50))
    A += np.sqrt(correlation) * random.standard_normal((count, 100, 1))
    x = random.standard_normal((count, 50)) * (random.random((count, 50)) < 0.2)
    b = np.einsum("bnp,bp->bn", A, x) + 0.1 * random.standard_normal((count, 100))
    largest = np.abs(np.einsum("bnp,bn->bp", A, b)).max(1)
    data = A, b, largest * 10 ** random.uniform(-2, -1, count)
    mesh = jaxns.batch.mesh(devices)

    def solve(item):
        found = jaxns.solve(lasso(*item), stop=jaxns.Stop(tol=1e-8, on_failure="nan"))
        return found.x, found.steps

    spread = jaxns.batch.vmap(solve, mesh)
    compiled = jax.jit(spread).lower(data).compile() if jax.process_count() == 1 else None
    said = collectives(compiled) if compiled else ()
    steps = np.asarray(spread(data)[1])
    each = steps.reshape(devices, -1).sum(1)
    layout = NamedSharding(mesh, P("batch"))
    row = jax.ShapeDtypeStruct((count, 51), jnp.float64, sharding=layout)  # x and steps
    whole = jax.jit(lambda row: row, out_shardings=NamedSharding(mesh, P()))
    gathered = collectives(whole.lower(row).compile())
    return {
        "steps": steps.tolist(),
        "most": int(each.max()),
        "mean": float(each.mean()),
        "collectives": len(said),
        "gathered": sum(c.bytes for c in gathered),
    }


def seconds(work: dict[str, float], devices: int) -> dict[str, float]:
    """The model of one step: memory or arithmetic, the loop's turn, latency and bandwidth."""
    nodes = max(1, devices // GPU["node"])
    within = min(devices, GPU["node"]) - 1
    latency = 4.4 + 2 * (within * 0.52 * (1.8 if nodes > 1 else 1) + math.log2(nodes) * 5.0)
    wire = GPU["nvlink"] if nodes == 1 else min(GPU["nvlink"], GPU["infiniband"])
    return {
        "work": max(work["flops"] / GPU["flops"], work["bytes"] / GPU["memory"]),
        "latency": work["collectives"] * latency * 1e-6,
        "wire": work["sent"] / wire,
        "turn": GPU["turn"],
    }


def alone(steps: np.ndarray, problems: int, devices: int, lane: float) -> float:
    """Seconds of the model for the slowest of some devices, whose lanes leave as they converge."""
    random = np.random.default_rng(0)
    slowest = 0.0
    for _ in range(min(devices, 64)):  # a sample of the devices
        drawn = np.sort(random.choice(steps, problems // devices))
        lengths = np.diff(drawn, prepend=0)
        lanes = np.arange(len(drawn), 0, -1)
        turns = np.maximum(GPU["turn"], lanes * lane / GPU["memory"])
        slowest = max(slowest, float(lengths @ turns))
    return slowest


def table(head: str, rows: list[list[Any]]) -> str:
    columns = head.split(" | ")
    lines = [f"| {head} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""])


def data_axis(found: dict[str, Any], two: dict[str, Any] | None) -> None:
    head = (
        "sharded | design | devices | flops a step | bytes a step | collectives a step "
        "| their bytes | … in the whole program | steps | products back | MB in all "
        "| slope, relative | seconds"
    )
    for kind in ("strong", "weak"):
        rows = []
        for axis in AXES:
            for devices in RUN:
                grow = devices if kind == "weak" else 8
                n, p = (512 * grow, 320) if axis == "rows" else (320, 512 * grow)
                made = {"parts": parts(axis, n, p, devices), **solved(axis, n, p, devices)}
                found[f"{kind} {axis} {devices}"] = made
                first = found[f"strong {axis} 1"] if kind == "strong" else None
                rows.append(_row(axis, n, p, str(devices), made, first))
            if kind == "strong" and two is not None:
                rows.append(_row(axis, n, p, "2 × 1", two[axis], found[f"strong {axis} 1"]))
        print(f"Data axis, {kind} scaling\n\n" + table(head, rows), flush=True)


def _row(axis: str, n: int, p: int, devices: str, made: dict, first: dict | None) -> list[Any]:
    step, back, begun = (made["parts"][k] for k in ("step", "product", "stepsize"))
    steps, products = made["steps"], made["products"]
    total = begun["message"] + steps * step["message"] + products * back["message"]
    return [
        axis,
        f"{n} × {p}",
        devices,
        f"{step['flops']:.3g}",
        f"{step['bytes']:.3g}",
        f"{step['collectives']:.0f}",
        f"{step['message']:.0f}",
        f"{made['loop']:.0f}",
        steps,
        products,
        f"{total / 1e6:.2f}",
        "" if first is None else f"{abs(made['slope'] / first['slope'] - 1):.0e}",
        f"{made['seconds']:.2f}",
    ]


def batch_axis(found: dict[str, Any], two: dict[str, Any] | None) -> None:
    head = (
        "problems | devices | collectives | steps, busiest device | steps, mean device "
        "| efficiency | kB of results for each host"
    )
    for kind in ("strong", "weak"):
        rows = []
        for devices in RUN:
            count = 512 if kind == "strong" else 64 * devices
            made = found[f"batch {kind} {devices}"] = many(count, devices)
            rows.append(_of_batch(count, str(devices), made))
        if kind == "strong" and two is not None:
            rows.append(_of_batch(count, "2 × 1", two["batch"]))
        print(f"Batch axis, {kind} scaling\n\n" + table(head, rows), flush=True)


def _of_batch(count: int, devices: str, made: dict[str, Any]) -> list[Any]:
    share = made["mean"] / made["most"]
    sizes = f"{made['gathered'] / 1e3:.0f}"
    mean = f"{made['mean']:.0f}"
    return [count, devices, made["collectives"], made["most"], mean, f"{share:.3f}", sizes]


DESIGNS = [(1 << 20, 1 << 14), (1 << 20, 1 << 11), (1 << 17, 1 << 11)]
BATCHES = [1 << 20, 1 << 17, 1 << 14]


def model(found: dict[str, Any]) -> dict[str, Any]:
    """Seconds a step, for designs over devices; seconds a batch, from the steps that were made."""
    data, rows, least = {}, [], []
    for axis in AXES:
        for long, short in DESIGNS:
            n, p = (long, short) if axis == "rows" else (short, long)
            times = {N: seconds(parts(axis, n, p, N, "step")["step"], N) for N in MODELLED}
            data[f"{axis} {n} × {p}"] = {"bytes": 8 * n * p, "seconds": times}
            total = [f"{1e6 * sum(t.values()):.0f}" for t in times.values()]
            rows.append([axis, f"{n} × {p}", f"{8 * n * p / 1e9:.1f}", *total])
        waits = [t["latency"] + t["wire"] for t in times.values()]
        sizes = [GPU["memory"] * wait / 2 for wait in waits]  # the design is read twice
        data[f"overtaken {axis}"] = dict(zip(MODELLED, sizes, strict=True))
        least.append([axis, *(f"{size / 1e6:.0f}" for size in sizes)])
    head = " | ".join(map(str, MODELLED))
    print("Model, data axis: µs a step\n\n" + table(f"sharded | design | GB | {head}", rows))
    print(
        "MB of design a device below which a step waits for others longer than it reads "
        f"(short side {DESIGNS[-1][1]})\n\n" + table(f"sharded | {head}", least),
        flush=True,
    )
    rows = []
    for axis in AXES:
        times = {}
        for N in MODELLED:
            n, p = (N << 16, 1 << 11) if axis == "rows" else (1 << 11, N << 16)
            times[N] = sum(seconds(parts(axis, n, p, N, "step")["step"], N).values())
        data[f"weak {axis}"] = times
        rows.append([axis, *(f"{1e6 * t:.0f} ({times[8] / t:.2f})" for t in times.values())])
    print(
        "Model, data axis, 1.1 GB of design a device: µs a step (efficiency, of 8)\n\n"
        + table(f"sharded | {head}", rows),
        flush=True,
    )
    lane = parts("rows", 100, 50, 1, "step")["step"]["bytes"]
    steps = np.asarray(found["batch strong 1"]["steps"])
    rows = []
    for count in BATCHES:
        times = {N: alone(steps, count, N, lane) for N in MODELLED}
        data[f"batch {count}"] = {"seconds": times}
        ideal = [times[8] * 8 / N for N in MODELLED]
        cells = [f"{1e3 * t:.1f} ({i / t:.2f})" for t, i in zip(times.values(), ideal, strict=True)]
        rows.append([count, *cells])
    print(
        "Model, batch axis: ms to solve all (efficiency, of 8)\n\n"
        + table(f"problems | {head}", rows)
    )
    return data


def draw(data: dict[str, Any], file: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for axis, panel in zip(AXES, axes, strict=False):
        cases = {k: v for k, v in data.items() if k.startswith(axis)}
        for i, (name, case) in enumerate(cases.items()):
            total = [1e6 * sum(t.values()) for t in case["seconds"].values()]
            work = [1e6 * t["work"] for t in case["seconds"].values()]
            label = f"{name.removeprefix(axis)}, {case['bytes'] / 1e9:.1f} GB"
            panel.loglog(MODELLED, total, "o-", color=f"C{i}", label=label)
            panel.loglog(MODELLED, work, ":", color=f"C{i}")
        panel.set(title=f"Data axis by {axis}", ylabel="time of a step, µs")
        panel.text(0.03, 0.03, "dotted: reading the design alone", transform=panel.transAxes)
    for i, count in enumerate(BATCHES):
        times = [1e3 * t for t in data[f"batch {count}"]["seconds"].values()]
        ideal = [times[0] * MODELLED[0] / N for N in MODELLED]
        axes[2].loglog(MODELLED, times, "o-", color=f"C{i}", label=f"{count} lassos")
        axes[2].loglog(MODELLED, ideal, ":", color=f"C{i}")
    axes[2].text(0.03, 0.03, "dotted: in proportion", transform=axes[2].transAxes)
    axes[2].set(title="Batch axis, lassos of 100 × 50", ylabel="time to solve all, ms")
    for panel in axes:
        panel.set_xlabel("GPUs")
        panel.set_xticks(MODELLED, MODELLED)
        panel.minorticks_off()
        panel.legend(fontsize=8, loc="upper right")
    figure.savefig(file, dpi=150)


def one_host(address: str, this: int, file: str) -> None:
    """One of two processes of one device, of which the first writes what it found."""
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(address, 2, this, heartbeat_timeout_seconds=30)
    found: dict[str, Any] = {
        axis: {"parts": parts(axis, n, p, 2), **solved(axis, n, p, 2)}
        for axis, (n, p) in {"rows": (4096, 320), "columns": (320, 4096)}.items()
    }
    found["batch"] = many(512, 2)
    process_allgather(np.zeros(1))  # nobody leaves before the other is done
    if this == 0:
        Path(file).write_text(json.dumps(found), encoding="utf-8")


def two_hosts() -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--json", str(file), "--host", address]
        hosts = [subprocess.Popen([*command, str(this)]) for this in range(2)]
        if any([host.wait(timeout=900) for host in hosts]):
            raise RuntimeError("one of two hosts failed")
        return json.loads(file.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--figure", metavar="FILE")
    parser.add_argument("--host", nargs=2, metavar=("ADDRESS:PORT", "THIS"), help="for itself")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if arguments.host:
        return one_host(arguments.host[0], int(arguments.host[1]), arguments.json)
    two = two_hosts()
    jax.config.update("jax_num_cpu_devices", max(MODELLED))
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    found: dict[str, Any] = {"two hosts": two, "gpu": GPU}
    data_axis(found, two)
    batch_axis(found, two)
    found["model"] = model(found)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1), encoding="utf-8")
    if arguments.figure:
        draw(found["model"], arguments.figure)


if __name__ == "__main__":
    main()
