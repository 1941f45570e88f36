"""The command line, where a program looks for it: `jaxns_cli` has it, and starts without JAX."""

from jaxns_cli.main import main

__all__ = ["main"]
