"""Certificates of the derivatives of the problems that a config describes."""

import jax

import jaxns
from jaxns.experiments import catalogue
from jaxns.experiments.config import Base
from jaxns.experiments.loading import ConfigError
from jaxns.experiments.run import devices


def certify(settings: Base) -> dict[str, jaxns.Certificate]:
    """`jaxns.certify` of each problem, in the precision and on the device of the config.

    Raises `ConfigError` for an experiment that names no problems: see `Experiment.problems`.
    """
    problems = catalogue.find(settings.experiment).problems
    if problems is None:
        able = [name for name in catalogue.NAMES if catalogue.find(name).problems]
        raise ConfigError(
            f"experiment {settings.experiment!r} names no problems to certify; "
            f"those that do: {', '.join(able)}"
        )
    with jax.enable_x64(settings.precision == "float64"), jax.default_device(devices(settings)[1]):
        found = {}
        for name, posed in problems(settings).items():
            stop = jaxns.Stop(posed.tol, on_failure="ignore")
            solution = jaxns.solve(posed.problem, posed.solver, stop=stop)
            cotangent = jax.grad(posed.outer)(solution.x) if posed.outer else None
            found[name] = jaxns.certify(
                posed.problem, posed.solver, solution, stop=stop, cotangent=cotangent
            )
        return found
