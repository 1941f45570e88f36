"""A program in a process of its own, which has several devices of one CPU and a time limit."""

import os
import subprocess
import sys


def run(program: str, devices: int, timeout: float = 600) -> None:
    """Fails unless the program ends well, and with the words "all close"."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all close"
