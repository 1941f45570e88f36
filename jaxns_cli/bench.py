"""`jaxns bench`: the benchmarks, `python -m benchmarks`, with whatever follows."""

import argparse
import os
import subprocess
import sys

from jaxns_cli import shipped


def run(arguments: argparse.Namespace) -> int:
    """In a process of its own: it sets the number of threads before NumPy is imported."""
    path = os.pathsep.join(filter(None, (str(shipped.TOP), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks", *arguments.rest],
        env={**os.environ, "PYTHONPATH": path},
    ).returncode
