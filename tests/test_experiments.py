"""Every config through the real command line, at a small size."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("pydantic")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("PIL")

from PIL import Image

import jaxns
from jaxns.experiments import catalogue, closed_form, config, notebook, session
from jaxns.experiments.data import split_of
from jaxns.experiments.holdout import HoldOut
from jaxns.experiments.loading import load
from jaxns.experiments.rates import fitted_rate, identification
from jaxns_cli.main import NEEDS, main

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = [
    "data.degree=1",
    "outer.steps=25",
    "grid.points=5",
    "grid.curve=6",
    "derivative_error.steps=400",
    "search.start=0.1",
    'modes=[{name="implicit"}, {name="piggyback"}, {name="one_step", steps=20}]',
]


def run(name, out, overrides=()):
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["run", str(CONFIGS / name), "--out", str(out), *arguments]) == 0
    figure = (out / "figure.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    assert len(figure) > 20_000
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def lasso(tmp_path_factory):
    return run("diabetes_lasso.toml", tmp_path_factory.mktemp("lasso"), SMALL)


@pytest.fixture(scope="module")
def elastic_net(tmp_path_factory):
    return run("diabetes_elastic_net.toml", tmp_path_factory.mktemp("elastic_net"), SMALL)


@pytest.fixture(scope="module")
def convergence(tmp_path_factory):
    out = tmp_path_factory.mktemp("convergence")
    return run("derivative_convergence_lasso.toml", out, ["repetitions=5", "perturbations=5"])


EXPERIMENTS = ["lasso", pytest.param("elastic_net", marks=pytest.mark.slow)]


@pytest.mark.parametrize("which", EXPERIMENTS)
def test_penalty_selection(which, request):
    result = request.getfixturevalue(which)["result"]
    modes = {mode["label"]: mode for mode in result["modes"]}
    best = np.min(result["grid"]["errors"])
    for label in ("implicit", "piggyback"):
        assert modes[label]["derivative_error"] < 1e-6
        assert modes[label]["errors"][-1] <= best + 1e-3
    assert 1e-6 < modes["one-step, K = 20"]["derivative_error"] < 1
    np.testing.assert_allclose(
        modes["piggyback"]["log_penalties"], modes["implicit"]["log_penalties"], atol=1e-5
    )
    penalties = np.exp(modes["implicit"]["log_penalties"]) / result["penalty_max"]
    assert penalties.shape == (26, len(result["penalties"]))
    assert np.all((penalties > 1e-3 * (1 - 1e-9)) & (penalties < 1 + 1e-9))


@pytest.mark.parametrize("which", EXPERIMENTS)
def test_derivative_errors_fall(which, request):
    curves = request.getfixturevalue(which)["result"]["derivative_errors"]["curves"]
    last = {curve["label"]: curve["errors"][-1] for curve in curves}
    assert last["implicit"] < 1e-10
    assert last["piggyback, accelerated"] < 1e-10
    assert last["piggyback, plain"] < curves[0]["errors"][0] / 10
    assert all(None not in curve["errors"] for curve in curves)


def test_record(lasso):
    assert lasso["config"]["outer"]["steps"] == 25
    assert lasso["config"]["inner"] == {"tol": 1e-12, "max_steps": 100_000}
    provenance = lasso["provenance"]
    assert provenance["versions"]["jaxns"] == jaxns.__version__
    assert {"python", "jax", "jaxlib", "optax", "numpy", "scikit-learn"} < set(
        provenance["versions"]
    )
    assert provenance["precision"] == "float64"
    assert provenance["seeds"] == {"data.seed": 0}
    assert provenance["device"]
    assert provenance["timestamp"]
    assert [row[0] for row in lasso["table"]["rows"]][-1] == "grid search"


@pytest.mark.slow
def test_float32(tmp_path):
    result = run("diabetes_lasso.toml", tmp_path, [*SMALL, "precision=float32", "grid.points=3"])
    first = result["result"]["modes"][0]
    # The residual stops at 10 eps = 1e-6, and the condition number on the support is about 20.
    assert first["derivative_error"] < 1e-4
    assert result["provenance"]["precision"] == "float32"


def test_the_default_data_are_those_of_the_reference_table():
    """lasso/diab2/10: 295 × 64, its penalty, validation error, derivative and support."""
    with jax.enable_x64(True):
        split = split_of(config.Data())
        assert split.X.shape == (295, 64)
        assert "sex^2" not in split.names
        assert split.penalty_max / 10 == pytest.approx(0.0567338813072, rel=1e-10)
        holdout = HoldOut("lasso", split, jaxns.Stop())
        (error, (_, x)), gradient = jax.value_and_grad(holdout.validation_error, has_aux=True)(
            jnp.log(jnp.array([split.penalty_max / 10])), holdout.arrays, jaxns.Implicit()
        )
    assert float(error) == pytest.approx(0.538664816836, rel=1e-10)
    assert float(gradient[0]) == pytest.approx(0.059251630112, rel=1e-8)
    assert np.count_nonzero(x) == 12


def test_rates(convergence):
    """The 'must show' lines of arXiv 2206.00457's experiments A1, A2, A2b."""
    problems = {problem["id"]: problem for problem in convergence["result"]["problems"]}
    for problem in problems.values():
        theory, x, J = (np.array(problem[k]) for k in ("theory", "x_rates", "J_rates"))
        tolerance = 0.02 if problem["penalty"] == "ridge" else 0.01
        assert np.median(np.abs(J / theory - 1)) < tolerance
        assert np.median(np.abs(J / x - 1)) < tolerance
        assert np.all(np.sqrt(theory) >= J)
        assert np.max(np.array(problem["J_errors"])[:, -1]) < 1e-12
        assert np.max(problem["perturbed_errors"]) < 1e-12
        assert problem["off_support"] == 0
    assert np.all(np.array(problems["A2b"]["identified"]) > 10)


def test_fitted_rate():
    k = np.arange(300)
    assert fitted_rate(0.9**k) == pytest.approx(0.9, rel=1e-10)
    assert fitted_rate(np.maximum(0.5 * 0.8**k, 1e-14)) == pytest.approx(0.8, rel=1e-10)
    late = np.where(k < 20, 1e-3, 1e-3 * 0.9 ** (k - 20.0))
    assert fitted_rate(late, start=20) == pytest.approx(0.9, rel=1e-10)
    assert np.isnan(fitted_rate(np.ones(10)))


def test_identification():
    supports = np.array([[0, 0], [1, 1], [1, 0], [1, 1], [1, 1]], bool)
    assert identification(supports) == 3
    assert identification(supports[3:]) == 0


def test_closed_form_says_when_the_support_is_wrong():
    H, c = np.eye(3), np.array([3.0, 0.5, -2.0])
    right = closed_form.reference(H, c, 1.0, 0.0, np.array([2.0, 0.0, -1.0]))
    np.testing.assert_allclose(right.x, [2, 0, -1])
    np.testing.assert_allclose(right.d_l1, [-1, 0, 1])
    np.testing.assert_allclose(right.d_l2, [-2, 0, 1])
    assert right.violation == 0
    missing = closed_form.reference(H, c, 1.0, 0.0, np.array([2.0, 0.0, 0.0]))
    spurious = closed_form.reference(H, c, 1.0, 0.0, np.array([2.0, 1.0, -1.0]))
    assert missing.violation > 0.1
    assert spurious.violation > 0.1


LASSO = str(CONFIGS / "diabetes_lasso.toml")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["outer.stepz=3"], ["outer.stepz", "did you mean outer.steps?"]),
        (["learning_rate=3.0"], ["learning_rate", "did you mean outer.learning_rate?"]),
        (["data.qqqq=3"], ["data.qqqq", "expected data.path, data.target, data.ignore"]),
        (["outer.steps=ten"], ["outer.steps: expected an integer, got 'ten'"]),
        (["outer.steps=2.5"], ["outer.steps: expected an integer, got 2.5"]),
        (["outer.learning_rate=-1.0"], ["outer.learning_rate", "greater than 0", "-1.0"]),
        (["outer.optimizer=adamm"], ["outer.optimizer", "did you mean 'adam'?"]),
        (["modes.1.name=pigyback"], ["modes.1.name", "did you mean 'piggyback'?"]),
        (["modes.0.steps=3"], ["modes.0: steps belongs to one_step"]),
        (["modes=[]"], ["modes: expected at least one entry"]),
        (["data=3"], ["data: expected a section"]),
        (["search.start=1e-9"], ["search: needs lowest <= start <= highest"]),
        (["experiment=penalty_selecton"], ["did you mean 'penalty_selection'?"]),
        (["precision=float16"], ["precision: expected 'float64' or 'float32', got 'float16'"]),
        (["outer.steps"], ["--set outer.steps: expected key=value"]),
        (["data.seed.x=3"], ["data.seed is a value, not a section"]),
        (["modes.9.name=x"], ["modes is a list; expected an index from 0 to 3, got '9'"]),
        (["outer.stepz=3", "data.degree=9"], ["outer.stepz", "data.degree: expected less than"]),
    ],
)
def test_config_errors(overrides, said, tmp_path, capsys):
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["run", LASSO, "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert all(words in error for words in said), error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_missing_file_names_the_nearest(capsys):
    assert main(["run", str(CONFIGS / "diabetes_laso.toml")]) == 2
    error = capsys.readouterr().err
    assert f"did you mean {LASSO}?" in error


def test_broken_files(tmp_path, capsys):
    path = tmp_path / "broken.toml"
    path.write_text("experiment = ")
    assert main(["run", str(path)]) == 2
    assert "not valid TOML" in capsys.readouterr().err
    path.write_text("precision = 'float64'")
    assert main(["run", str(path)]) == 2
    assert "experiment is missing" in capsys.readouterr().err


def test_a_solve_that_fails_is_said_to(tmp_path, capsys):
    overrides = [*SMALL, "inner.max_steps=3", "grid.points=2"]
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["run", LASSO, "--out", str(tmp_path), *arguments]) == 1
    assert "raise inner.max_steps" in capsys.readouterr().err


def test_overrides():
    loaded = load(
        CONFIGS / "diabetes_lasso.toml", ["outer.optimizer=sgd", "modes.3.steps=7", "data.seed = 5"]
    )
    assert isinstance(loaded, config.PenaltySelection)
    assert loaded.outer.optimizer == "sgd"
    assert loaded.modes[3].label == "one-step, K = 7"
    assert loaded.data.seed == 5


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_loads(path):
    """… and says what it is for, at its size and at the reduced one."""
    settings, reduced = load(path), load(path, reduced=True)
    assert settings.experiment == reduced.experiment
    assert settings.experiment in catalogue.NAMES
    assert settings.title
    assert settings.paper
    assert settings.precision == "float64" or path.stem == "cheap_gradient"  # which counts


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"jaxns {jaxns.__version__}"


def test_without_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(NEEDS, "run", ("pydantic", "no_such_package_at_all"))
    assert main(["run", LASSO]) == 1
    error = capsys.readouterr().err
    assert "no_such_package_at_all" in error
    assert "pip install 'jax-nonsmooth[experiments]'" in error


def test_list(capsys):
    assert main(["list", "--folder", str(CONFIGS)]) == 0
    out = capsys.readouterr().out
    assert all(path.stem in out for path in CONFIGS.glob("*.toml"))
    assert main(["list", "--folder", str(CONFIGS / "nowhere")]) == 2
    assert "no configs in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give config files or names, or --all"),
        (["--all", "a.toml"], "give config files or names, or --all"),
        (["a.toml", "b.toml", "--out", "x"], "--out is for one config"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    assert main(["run", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_page_of_what_is_reproduced(lasso, tmp_path, capsys):
    """From records: a line that is not met stands there as such."""
    folder, results = tmp_path / "configs", tmp_path / "results"
    (results / "diabetes_lasso").mkdir(parents=True)
    folder.mkdir()
    shutil.copy(LASSO, folder)
    arguments = ["report", "--folder", str(folder), "--results", str(results)]
    assert main([*arguments, "--out", str(tmp_path / "page.md")]) == 1
    assert "jaxns run --all writes it" in capsys.readouterr().err
    checks = [*lasso["checks"], {"claim": "|x| < 1", "measured": "2", "met": False}]
    record = json.dumps({**lasso, "checks": checks})
    (results / "diabetes_lasso" / "result.json").write_text(record)
    Image.new("RGB", (2000, 1000), "white").save(results / "diabetes_lasso" / "figure.png")
    (folder / "not_reproduced.md").write_text("## Not here\n")
    assert main([*arguments, "--out", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert f"{len(checks) - 1} of {len(checks)} |" in page
    assert r"| **not met** | \|x\| < 1 | 2 |" in page
    assert page.endswith("## Not here\n")
    assert "(images/reproduction/diabetes_lasso.png)" in page
    with Image.open(tmp_path / "images" / "reproduction" / "diabetes_lasso.png") as figure:
        assert figure.size == (1000, 500)
    assert all(version in page for version in (jaxns.__version__, jax.__version__))


def test_the_page_in_the_documentation_is_of_these_configs():
    page = (CONFIGS.parent / "docs" / "reproduction.md").read_text()
    for path in CONFIGS.glob("*.toml"):
        assert f"(#{path.stem})" in page, "jaxns run --all && jaxns report"
        assert load(path).title in page
        image = CONFIGS.parent / "docs" / "images" / "reproduction" / f"{path.stem}.png"
        assert 5_000 < image.stat().st_size < 150_000


def test_in_a_notebook():
    seen = notebook.see(CONFIGS / "heavy_ball.toml", "steps=8", reduced=False)
    shown, said = seen._repr_html_(), repr(seen)
    assert seen.table.title in said
    assert f"of {len(seen.checks)} checks met" in said
    assert shown.count("<tr>") == 1 + len(seen.table.rows)
    assert shown.count("<li>") == len(seen.checks)
    assert "not met" in shown
    assert seen.figure().axes


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("device='tpu'", "device: no tpu here, only"),
        ("mesh.batch=4096", "mesh.batch: count must be between 1 and"),
    ],
)
def test_devices_that_are_not_there(override, said, tmp_path, capsys):
    arguments = ["run", str(CONFIGS / "kink_programs.toml"), "--out", str(tmp_path)]
    assert main([*arguments, "--set", override]) == 1
    assert said in capsys.readouterr().err


def test_a_mesh_that_is_not_used_is_said_to_be(tmp_path, caplog):
    path = str(CONFIGS / "heavy_ball.toml")
    main(["run", path, "--set", "steps=8", "--set", "mesh.batch=1", "--out", str(tmp_path)])
    assert "has no repetitions to spread" in caplog.text


@pytest.mark.slow
def test_two_hosts_of_two_devices_have_the_numbers_of_one(convergence, tmp_path):
    """The first one writes; the repetitions are spread over the four devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    path = str(CONFIGS / "derivative_convergence_lasso.toml")
    sets = ["--set", "repetitions=5", "--set", "perturbations=5", "--set", "mesh.batch=4"]
    sets += ["--out", str(tmp_path)]
    hosts = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jaxns",
                "run",
                path,
                *sets,
                "--hosts",
                address,
                "2",
                host,
            ],
            env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for host in "01"
    ]
    for host in hosts:
        said, _ = host.communicate(timeout=300)
        assert host.returncode == 0, said
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["provenance"]["devices"], record["provenance"]["hosts"]) == (4, 2)
    for ours, theirs in zip(
        record["result"]["problems"], convergence["result"]["problems"], strict=True
    ):
        for name in ("x_errors", "J_errors"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-10)


def test_a_budget_runs_what_fits(tmp_path, monkeypatch, capsys):
    """The shortest first; here one of two, whose record, table and figures are written."""
    folder = tmp_path / "configs"
    folder.mkdir()
    text = (CONFIGS / "heavy_ball.toml").read_text()
    (folder / "short.toml").write_text(text.replace("minutes = 0.1", "minutes = 0.1\nsteps = 8"
                                                    ).replace("\nsteps = 200", ""))  # fmt: skip
    (folder / "long.toml").write_text(text.replace("minutes = 0.1", "minutes = 30"))
    monkeypatch.chdir(tmp_path)
    main(["run", "--all", "--folder", str(folder), "--budget", "20m"])
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["short"]
    written = {path.name for path in (tmp_path / "results" / "short").iterdir()}
    assert written == {"result.json", "table.csv", "figure.png", "figure.svg"}


def test_what_is_not_met_is_an_error(tmp_path, capsys):
    """After 8 steps of 200 the derivative along one element has not died out."""
    path = str(CONFIGS / "heavy_ball.toml")
    assert main(["run", path, "--set", "steps=8", "--out", str(tmp_path)]) == 1
    assert "NOT MET" in capsys.readouterr().out
    record = json.loads((tmp_path / "result.json").read_text())
    assert not all(check["met"] for check in record["checks"])
    table = (tmp_path / "table.csv").read_text().splitlines()
    assert table[0] == "panel,curve,repetition,at,value"
    assert len(table) == 1 + 4 * 8


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    """Finished units are not computed again, unless the config says otherwise."""
    made = []

    def unit(name):
        def compute():
            made.append(name)
            if name == "third" and made.count("third") == 1:
                raise KeyboardInterrupt
            return np.full(3, len(made))

        return compute

    def attempt(settings):
        here = session.Session(lambda *told: None, tmp_path, settings)
        units = {name: unit(name) for name in ("first", "second", "third")}
        return here, here.each("units", units)

    settings = load(CONFIGS / "heavy_ball.toml")
    with pytest.raises(KeyboardInterrupt):
        attempt(settings)
    here, results = attempt(settings)
    assert made == ["first", "second", "third", "third"]
    np.testing.assert_array_equal(results[0], 1)
    attempt(load(CONFIGS / "heavy_ball.toml", ["steps=40"]))
    assert made[4:] == ["first", "second", "third"]
    here.close()
    attempt(settings)
    assert made[7:] == ["first", "second", "third"]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_shows_what_it_is_to_show(path, tmp_path):
    """At the reduced size; each ends with the paper's lines, all met."""
    assert main(["run", str(path), "--reduced", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["checks"]
    assert all(check["met"] for check in record["checks"])
    for name in ("figure.png", "figure.svg"):
        assert (tmp_path / name).stat().st_size > 20_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diabetes_lasso", "diabetes_elastic_net"])
def test_gradients_beat_the_grid(name, tmp_path):
    record = run(f"{name}.toml", tmp_path)
    rows = {row[0]: row for row in record["table"]["rows"]}
    gradient, grid = float(rows["implicit"][1]), float(rows["grid search"][1])
    assert gradient <= grid
    assert float(rows["implicit"][-1]) < 1e-10
