"""Two real processes, of which one is killed: how the other ends, and what can be gone on with."""

import dataclasses
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from jaxns.experiments.hosts import Host, HostEndedError, on_host
from jaxns_cli.main import main

CONFIG = Path(__file__).parents[1] / "configs" / "derivative_convergence_lasso.toml"
PATIENCE = 5


def arguments(out: Path, devices: int) -> list[str]:
    sets = ["repetitions=4", "perturbations=0", f"mesh.batch={devices}"]
    return ["run", str(CONFIG), "--out", str(out), *(p for s in sets for p in ("--set", s))]


def start_hosts(out: Path) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "jaxns", *arguments(out, 2), "--patience", str(PATIENCE)]
    return [
        subprocess.Popen(
            [*command, "--hosts", address, "2", this],
            env={**os.environ, "XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for this in "01"
    ]


def kept(out: Path) -> list[Path]:
    return sorted(out.glob(".partial-*/*.pickle"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.long)])
def test_a_host_that_is_killed(victim, tmp_path):
    """The survivor says so and ends; what both had finished is used by the next run, not redone."""
    hosts = start_hosts(tmp_path)
    waited = time.monotonic() + 200
    while len(kept(tmp_path)) < 2 and time.monotonic() < waited:
        time.sleep(0.05)
    hosts[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    said, _ = hosts[1 - victim].communicate(timeout=120)
    assert time.monotonic() - killed < 60
    hosts[victim].communicate(timeout=60)  # its pipe is closed: what worked for it has ended too
    assert hosts[1 - victim].returncode == 1
    last = said.splitlines()[-1]
    assert f"host {1 - victim} of 2 was ended by SIGABRT: another host died" in last
    assert "run it again on every host to go on" in last

    marked = 0
    for path in kept(tmp_path):  # so that one sees whether it was used
        unit = pickle.loads(path.read_bytes())
        if unit.id == "A1":
            path.write_bytes(pickle.dumps(dataclasses.replace(unit, id="A1, kept")))
            marked += 1
    assert marked == 2
    if victim == 0:
        for host in start_hosts(tmp_path):
            said, _ = host.communicate(timeout=240)
            assert host.returncode == 0, said
    else:  # the survivor, alone
        assert main(arguments(tmp_path, 1)) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    assert [c["id"] for c in record["result"]["problems"]] == ["A1, kept", "A2", "A2b"]
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("numbers", [["two", "0"], ["2", "2"]])
def test_hosts_that_cannot_be(numbers, tmp_path, capfd):
    several = ["--hosts", "127.0.0.1:1", *numbers]
    assert main([*arguments(tmp_path, 1), *several]) == 2
    assert "jaxns: --hosts: " in capfd.readouterr().err


def end(given: int) -> int:
    os.kill(os.getpid(), given)
    return 0


@pytest.mark.slow
def test_a_host_that_is_ended_by_something_else():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(HostEndedError, match=r"^host 0 of 1 was ended by SIGKILL$"):
        on_host(Host(address, 1, 0), end, signal.SIGKILL)
