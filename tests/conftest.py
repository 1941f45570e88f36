"""The suite computes in float64 unless a test asks for float32 arrays.

Programs are compiled without most of XLA's optimisations, in two thirds of the time; set
JAXNS_OPTIMIZE=1 to have them.
"""

import gc
import os
from pathlib import Path
from zlib import crc32

import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)
if os.environ.get("JAXNS_OPTIMIZE") is None:  # compiling is most of what the suite does
    jax.config.update("jax_disable_most_optimizations", True)

SLOW, LONG = (  # beside those that say so themselves: more than 3 s and 14 s when all were timed
    frozenset((Path(__file__).parent / name).read_text(encoding="utf-8").splitlines())
    for name in ("slow_tests.txt", "long_tests.txt")
)
MAPPINGS = Path("/proc/self/maps")  # of memory: a process may have 65530 by default on Linux
ENOUGH = 20_000


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid in SLOW | LONG:
            item.add_marker(pytest.mark.slow)
        if item.nodeid in LONG:
            item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order(request):
    """A module's `random` and `rng` start from the name of the test, not from the tests before."""
    seed = crc32(request.node.name.encode())
    for name in ("random", "rng"):
        source = getattr(request.module, name, None)
        if isinstance(source, np.random.RandomState):
            source.seed(seed)
        elif isinstance(source, np.random.Generator):
            source.bit_generator.state = type(source.bit_generator)(seed).state


@pytest.fixture(autouse=True, scope="session")
def tests_run():
    return [0]


@pytest.fixture(autouse=True)
def forget_compiled_programs(tests_run):
    """Every compiled program holds mappings of memory, and thousands of them hold too many."""
    yield
    tests_run[0] += 1
    if tests_run[0] % 20 == 0 and MAPPINGS.exists():
        with MAPPINGS.open() as lines:
            held = sum(1 for _ in lines)
        if held > ENOUGH:
            jax.clear_caches()
            gc.collect()
