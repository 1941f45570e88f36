"""The command `jaxns` as somebody types it: what it prints where, and how it ends."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("pydantic")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

import jaxns
import jaxns_cli.list
from jaxns.experiments import catalogue
from jaxns.experiments.certificates import certify
from jaxns.experiments.config import Problem
from jaxns.experiments.data import random_regressions
from jaxns.experiments.loading import load
from jaxns.experiments.reporting import Check, Table
from jaxns.experiments.run import Outcome
from jaxns.experiments.terminal import Terminal
from jaxns_cli import doctor, shipped
from jaxns_cli.main import main

RIDGE = {"id": "R", "penalty": "ridge", "rows": 20, "columns": 5, "steps": 200}
NAMES = sorted(path.stem for path in shipped.CONFIGS.glob("*.toml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder, where only what comes with jaxns is found."""
    monkeypatch.chdir(tmp_path)


def toml(**problem):
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in problem.items())


def fresh(*arguments, **variables):
    """In an interpreter of its own."""
    root = str(Path(jaxns.__file__).parents[1])
    path = os.pathsep.join([*variables.pop("path", ()), root])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path, **variables},
    )


def test_help_imports_no_library():
    code = "import sys; from jaxns_cli.parser import build; build(); print(*sys.modules)"
    loaded = set(fresh("-c", code).stdout.split())
    assert "jaxns_cli.parser" in loaded
    assert not {"jax", "jaxns", "numpy", "rich"} & loaded


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["list"], 0),
        (["bench", "--list"], 0),
        ([], 2),
        (["frob"], 2),
        (["list", "--frob"], 2),
        (["run", "diabetes_lasso", "--budget", "soon"], 2),
        (["run", "diabetes_lasso", "--set", "outer.stpes=3"], 2),
        (["certify", "kink_programs"], 2),
        (["completion", "cmd.exe"], 2),
        (["bench", "no_such_benchmark"], 2),
        (["report"], 1),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else str(given),
)
def test_status(arguments, status, capfd):
    try:
        ended = main(arguments)
    except SystemExit as exit:
        ended = exit.code
    out, err = capfd.readouterr()
    assert ended == status
    assert bool(out) == (status == 0)
    assert bool(err) == (status != 0)


def test_an_interruption_has_the_status_of_one(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(jaxns_cli.list, "run", interrupted)
    assert main(["list"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error_message():
    code = "import sys; from jaxns_cli.main import main; sys.exit(main(['list', '--names']))"
    root = str(Path(jaxns.__file__).parents[1])
    command = f'{sys.executable} -c "{code}" | true; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"},
    )
    assert done.stdout.strip() in {"0", "1"}
    assert "Traceback" not in done.stderr


def test_names_that_come_along(capsys):
    assert main(["list", "--names"]) == 0
    assert capsys.readouterr().out.split() == NAMES
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == NAMES
    for one in listed:
        config = load(Path(one["path"]))
        assert (config.title, config.minutes) == (one["title"], one["minutes"])
    assert main(["run", "diabetes_laso"]) == 2
    assert "did you mean diabetes_lasso?" in capsys.readouterr().err


def test_configs_here_come_before_those_that_come_along(tmp_path, capsys):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.toml").write_text('experiment = "heavy_ball"\ntitle = "Mine"\n')
    assert main(["list", "--names"]) == 0
    assert capsys.readouterr().out.split() == ["mine"]
    assert shipped.find("mine", None) == Path("configs/mine.toml")
    (tmp_path / "configs" / "mine.toml").write_text("experiment = ")
    assert main(["list"]) == 2
    assert "not valid TOML" in capsys.readouterr().err


def test_run_by_name_as_json(tmp_path, capfd):
    sets = ["repetitions=2", "perturbations=0", f"problems=[{{ {toml(**RIDGE)} }}]"]
    overrides = [part for one in sets for part in ("--set", one)]
    status = main(["run", "derivative_convergence_lasso", "--json", *overrides])
    out, err = capfd.readouterr()
    (told,) = json.loads(out)
    assert status == (0 if told["met"] else 1)
    assert told["met"] == all(check["met"] for check in told["checks"])
    assert told["out"] == "results/derivative_convergence_lasso"
    assert {Path(file).name for file in told["files"]} == {
        "result.json", "table.csv", "figure.png", "figure.svg",
    }  # fmt: skip
    assert all((tmp_path / file).is_file() for file in told["files"])
    assert "1/1" in err


@pytest.mark.slow
def test_certify_as_json(capfd):
    """ρ of gradient descent on a ridge is 1 − λ_min/λ_max of its Hessian; at the penalty above
    which a lasso is zero there is a kink."""
    kinked = {**RIDGE, "id": "K", "penalty": "lasso", "penalty_ratio": 1.0}
    problems = f"problems=[{{ {toml(**RIDGE)} }}, {{ {toml(**kinked)} }}]"
    assert main(["certify", "derivative_convergence_lasso", "--set", problems, "--json"]) == 1
    told = json.loads(capfd.readouterr().out)["certificates"]
    one = random_regressions(Problem(**RIDGE), 1)
    eigenvalues = np.linalg.eigvalsh(one.A[0].T @ one.A[0]) + one.theta[0]
    assert told["R ridge"]["rho"] == pytest.approx(1 - eigenvalues[0] / eigenvalues[-1], rel=1e-6)
    assert told["R ridge"]["errors"]["Implicit"] < 1e-9
    assert told["R ridge"]["trusted"]
    assert told["K lasso"]["kink"]
    assert not told["K lasso"]["trusted"]


@pytest.mark.slow
def test_what_is_certified_of_a_selection_is_the_hypergradient():
    """At penalty_max / 10, as in test_experiments."""
    path = shipped.CONFIGS / "diabetes_lasso.toml"
    ((_, found),) = certify(load(path, ["search.start=0.1"])).items()
    penalty = 0.0567338813072
    assert float(found.gradient.g.penalty) * penalty == pytest.approx(0.059251630112, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["splitting_derivatives", "sinkhorn_derivatives"])
def test_problems_to_certify_are_solved_as_they_are_posed(name):
    """The seldom ones; a plan has the marginals that it was asked for."""
    settings = load(shipped.CONFIGS / f"{name}.toml")
    problems = catalogue.find(name).problems
    assert problems is not None
    for what, posed in problems(settings).items():
        solution = jaxns.solve(posed.problem, posed.solver, stop=jaxns.Stop(posed.tol))
        assert solution.status.ok, what
        if isinstance(posed.problem, jaxns.Transport):
            np.testing.assert_allclose(solution.x.plan.sum(1), posed.problem.a, atol=1e-10)


def test_colours_on_a_terminal_only(monkeypatch):
    outcome = Outcome(Table("T", ("a",), (("b",),)), (Check("c", "d", True),), ())
    green = "\x1b[32m"

    def shown():
        master, slave = os.openpty()
        with os.fdopen(slave, "w") as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            Terminal().show(outcome)
        said = b""
        with contextlib.suppress(OSError):  # which is how a terminal ends
            while part := os.read(master, 10_000):
                said += part
        os.close(master)
        return said.decode()

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert green in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert green not in shown()


def test_no_colours_elsewhere(capsys):
    main(["list"])
    assert "\x1b" not in capsys.readouterr().out


# The doctor ---------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Without the solve, which is tested by itself."""
    monkeypatch.setattr(doctor, "solve", lambda: iter(()))


def findings(capsys, status):
    assert main(["doctor", "--json"]) == status
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] == (status == 0)
    return {finding["what"]: finding for finding in told["findings"]}


def test_a_sound_installation(quick, capsys):
    found = findings(capsys, 0)
    assert found["jax"]["found"] == jax.__version__
    assert found["jaxns"]["found"].startswith(jaxns.__version__)
    assert found["precision"]["found"] == "float64"  # in these tests
    assert "cpu" in found["devices"]["found"]
    assert main(["doctor"]) == 0
    assert "ok    jax: " in capsys.readouterr().out


def test_the_doctor_solves_and_differentiates():
    (finding,) = doctor.solve()
    assert finding.ok


@pytest.mark.slow
def test_the_doctor_says_when_a_derivative_is_wrong(monkeypatch):
    monkeypatch.setattr(doctor, "TOLERANCE", 0.0)
    (finding,) = doctor.solve()
    assert finding.ok is False
    assert "reinstall jax" in finding.cure


def test_what_is_wrong_has_a_cure(quick, tmp_path, monkeypatch, capsys):
    version = doctor._version
    (tmp_path / "file").touch()
    monkeypatch.setattr(doctor, "_version", lambda n: "0.4.30" if n == "jax" else version(n))
    monkeypatch.setattr(doctor, "_setting", lambda name: str(tmp_path / "file" / "cache"))
    found = findings(capsys, 1)
    assert found["jax"]["found"] == "0.4.30, needs 0.10 or newer"
    assert found["jax"]["cure"] == "pip install --upgrade 'jax>=0.10'"
    assert "not writable" in found["compilation cache"]["found"]
    assert not found["compilation cache"]["ok"]


@pytest.mark.parametrize(
    ("plugin", "driver", "said"),
    [
        ("13.0", None, "nvidia-smi"),
        (None, "/usr/bin/nvidia-smi", "pip install 'jax-nonsmooth[gpu]'"),
        (None, None, ""),
    ],
)
def test_a_gpu_that_is_not_used_is_a_note(plugin, driver, said, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: plugin)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: driver)
    (finding,) = doctor.devices()
    assert said in finding.cure
    assert finding.ok is (None if said else True)


def test_extras_that_are_missing_are_a_note(quick, monkeypatch, capsys):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "pydantic" else version(n))
    found = findings(capsys, 0)
    assert "pip install 'jax-nonsmooth[experiments]'" in found["extras"]["cure"]
    assert "experiments" in found["extras"]["found"].partition("without")[2]


def test_beside_the_namesake_the_doctor_starts_and_the_others_say_so(tmp_path):
    info = tmp_path / "site" / "jaxns-3.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jaxns\nVersion: 3.0.0\n")
    code = "import sys; from jaxns_cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = fresh("-c", code, "doctor", path=[str(info.parent)])
    assert done.returncode == 1
    assert "WRONG name: the distribution 'jaxns' 3.0.0" in done.stdout
    assert "pip uninstall jaxns jax-nonsmooth" in done.stdout
    assert not done.stderr
    done = fresh("-c", code, "run", "diabetes_lasso", path=[str(info.parent)])
    assert done.returncode == 1
    assert "pip uninstall jaxns jax-nonsmooth" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_installation_sends_to_the_doctor(tmp_path):
    """A package that cannot be imported, with no namesake to blame."""
    (tmp_path / "optax").mkdir()
    (tmp_path / "optax" / "__init__.py").write_text("raise ImportError('optax is broken')")
    done = fresh("-m", "jaxns_cli", "run", "diabetes_lasso", path=[str(tmp_path)])
    assert done.returncode == 1
    assert "optax is broken" in done.stderr
    assert "`jaxns doctor` looks for the cause" in done.stderr


# Completion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(shell, tmp_path, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("certify", "doctor", "jaxns list --names"))
    if shell == "bash":
        (tmp_path / "script").write_text(script)
        typed = "COMP_WORDS=(jaxns doc); COMP_CWORD=1; _shtab_jaxns; echo ${COMPREPLY[@]}"
        done = subprocess.run(
            ["bash", "-c", f"source {tmp_path / 'script'}; {typed}"], capture_output=True, text=True
        )
        assert done.stdout.split() == ["doctor"]
