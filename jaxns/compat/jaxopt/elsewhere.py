"""Where the classes of JAXopt are that this package has not, because others maintain them."""

from typing import NoReturn

HOMES = {
    "ArmijoSGD": "jaxns.StochasticGradient, or optax",
    "BFGS": "jaxns.LBFGS, or optimistix.BFGS",
    "BacktrackingLineSearch": "optax.scale_by_backtracking_linesearch",
    "Bisection": "optimistix.Bisection",
    "Broyden": "jaxns.Broyden",
    "GaussNewton": "optimistix.GaussNewton",
    "HagerZhangLineSearch": "optax.scale_by_zoom_linesearch",
    "IterativeRefinement": "jaxns.compat.jaxopt.linear_solve, whose answers are refined",
    "LBFGS": "jaxns.LBFGS, or optax.lbfgs",
    "LBFGSB": "ProjectedGradient, or jaxns.ProximalNewton with a Box",
    "LevenbergMarquardt": "optimistix.LevenbergMarquardt",
    "NonlinearCG": "jaxns.LBFGS, or optimistix.NonlinearCG",
    "OptaxSolver": "optax itself",
    "PolyakSGD": "optax.polyak_sgd",
    "ScipyBoundedLeastSquares": "scipy.optimize.least_squares, with custom_root around it",
    "ScipyBoundedMinimize": "scipy.optimize.minimize, with custom_root around it",
    "ScipyLeastSquares": "scipy.optimize.least_squares, with custom_root around it",
    "ScipyMinimize": "scipy.optimize.minimize, with custom_root around it",
    "ScipyRootFinding": "scipy.optimize.root, with custom_root around it",
    "ZoomLineSearch": "optax.scale_by_zoom_linesearch",
}


def refuse(name: str) -> NoReturn:
    """An `AttributeError` that says what to use for `name`."""
    remedy = f": use {HOMES[name]}" if name in HOMES else ""
    raise AttributeError(f"module 'jaxns.compat.jaxopt' has no attribute {name!r}{remedy}")
