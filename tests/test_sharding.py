"""Several devices: data sharded by the compiler, and whole problems spread by `shard_map`.

Run in a process of its own, which has four devices and a time limit (a failure may be a deadlock).
"""

import forced_devices
import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import jaxns
jax.config.update("jax_enable_x64", True)
mode = {mode}
mesh = jax.make_mesh((4,), ("i",), axis_types=(AxisType.Auto,))
rng = np.random.default_rng(0)
A, b = jnp.asarray(rng.normal(size=(40, 12))), jnp.asarray(rng.normal(size=40))
penalties = jnp.linspace(0.01, 0.2, 8)

def loss(penalty, A=A, b=b):
    return jnp.sum(jaxns.solve(jaxns.problems.lasso(A, b, penalty), mode=mode).x ** 2)

gradient = jax.vmap(jax.grad(loss))(penalties)
ahead, behind = (jax.vmap(loss)(penalties + h) for h in (1e-5, -1e-5))
np.testing.assert_allclose(gradient, (ahead - behind) / 2e-5, rtol=1e-6)
for rows, columns in [("i", None), (None, "i")]:
    sharded = jax.device_put(A, NamedSharding(mesh, P(rows, columns)))
    assert len(sharded.sharding.device_set) == 4
    found = jax.grad(loss)(penalties[0], sharded, b)
    np.testing.assert_allclose(found, gradient[0], rtol=1e-12)

spread = jax.jit(jax.shard_map(jax.vmap(loss), mesh=mesh, in_specs=P("i"), out_specs=P("i")))
np.testing.assert_allclose(spread(penalties), jax.vmap(loss)(penalties), rtol=1e-12)
found = jax.jit(jax.grad(lambda p: spread(p).sum()))(penalties)
np.testing.assert_allclose(found, gradient, rtol=1e-12)
within = jax.shard_map(jax.vmap(jax.grad(loss)), mesh=mesh, in_specs=P("i"), out_specs=P("i"))
np.testing.assert_allclose(jax.jit(within)(penalties), gradient, rtol=1e-12)
if mode.direction == "both":
    _, found = jax.jvp(spread, (penalties,), (jnp.ones(8),))
    np.testing.assert_allclose(found, gradient, rtol=1e-12)
print("all close")
"""


MODES = [
    f"jaxns.{mode}({arguments}direction={direction!r})"
    for mode, arguments in [
        ("Implicit", ""),
        ("OneStep", "300, "),
        ("Piggyback", ""),
        ("Piggyback", "last=2000, "),
        ("Piggyback", "checkpoints='logarithmic', "),
    ]
    for direction in ("reverse", "both")
]
DEFAULT = "jaxns.Piggyback(last=2000, direction='both')"


@pytest.mark.parametrize(
    "mode", [m if m == DEFAULT else pytest.param(m, marks=pytest.mark.slow) for m in MODES]
)
def test_four_devices(mode):
    forced_devices.run(PROGRAM.format(mode=mode), 4, timeout=240)
