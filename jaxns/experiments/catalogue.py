"""The experiments there are, by the names in configs: modules, each with its `EXPERIMENT`."""

import importlib

from jaxns.experiments.reporting import Experiment

NAMES = (
    "against_cvxpylayers",
    "bilevel_bound",
    "cheap_gradient",
    "derivative_convergence",
    "flow_sensitivities",
    "heavy_ball",
    "hypergradient_accuracy",
    "hypergradient_convergence",
    "hyperparameter_search",
    "inexact_subgradient",
    "innaprop_digits",
    "interior_point_one_step",
    "kink_programs",
    "monotone_inclusions",
    "newton_one_step",
    "newton_summary",
    "penalty_selection",
    "relu_prime_training",
    "relu_prime_volume",
    "sgd_derivatives",
    "shine",
    "shine_hyperparameters",
    "sinkhorn_derivatives",
    "splitting_derivatives",
    "truncated_ridge",
)


def find(name: str) -> Experiment:
    return importlib.import_module(f"jaxns.experiments.{name}").EXPERIMENT
