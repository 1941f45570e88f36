"""One of several hosts (`jax.distributed`), with somebody left to say why it ended.

JAX's runtime ends the process of a host that has lost another, from C++, where nothing can be
caught. So the work of a host has a process of its own, and the one that was started waits for it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection
from typing import Any, NamedTuple

import jax

PATIENCE = 30.0  # seconds


class HostEndedError(Exception):
    """A host was ended before its work was done."""


class Host(NamedTuple):
    """address: where the first host listens, "NAME:PORT".   hosts: how many.   this: which one.

    patience: seconds without a sign of life after which a host counts as dead, and the others end.
    """

    address: str
    hosts: int
    this: int
    patience: float = PATIENCE


def on_host(host: Host, work: Callable[[Any], int], given: Any) -> int:
    """work(given), as one of several hosts: what it returns, an exit status.

    work, given: picklable. Raises `HostEndedError` where the process was ended by a signal.
    """
    process = multiprocessing.get_context("spawn").Process(target=_host, args=(host, work, given))
    process.start()
    process.join()
    status = process.exitcode or 0
    if status < 0:
        ended = signal.Signals(-status)
        reason = (
            ": another host died, failed or gave no sign of life for "
            f"{host.patience:g} s; what JAX said of it is above"
        )
        raise HostEndedError(
            f"host {host.this} of {host.hosts} was ended by {ended.name}"
            + (reason if ended == signal.SIGABRT else "")
        )
    return status


def _host(host: Host, work: Callable[[Any], int], given: Any) -> None:
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    seconds = max(1, round(host.patience))
    try:
        jax.distributed.initialize(
            host.address,
            host.hosts,
            host.this,
            heartbeat_timeout_seconds=seconds,
            shutdown_timeout_seconds=seconds,
        )
    except (RuntimeError, ValueError) as error:
        raise SystemExit(f"jaxns: --hosts: {error}") from None
    raise SystemExit(work(given))


def _end_with_the_other() -> None:
    """A host whose waiting process was killed is to die too, and not to work on in secret."""
    waiting = multiprocessing.parent_process()
    if waiting is not None:
        connection.wait([waiting.sentinel])
        os._exit(1)
