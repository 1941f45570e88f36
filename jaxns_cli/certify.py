"""`jaxns certify`: whether the derivatives of a config's problems can be trusted."""

import argparse
import json
import math
from typing import Any

import numpy as np

import jaxns
from jaxns.experiments.certificates import certify
from jaxns.experiments.loading import load
from jaxns_cli import shipped

NUMBERS = (
    "steps", "residual", "distance", "rho", "norm", "inverse", "kernel", "margin", "kink",
    "adjoint_residual", "unique",
)  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    path = shipped.find(arguments.config, arguments.folder)
    certificates = certify(load(path, arguments.set, arguments.reduced))
    if arguments.json:
        told = {name: summary(certificate) for name, certificate in certificates.items()}
        print(json.dumps({"config": str(path), "certificates": told}, indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(f"{name}\n{certificate}" for name, certificate in certificates.items()))
    return 0 if all(map(trusted, certificates.values())) else 1


def trusted(certificate: jaxns.Certificate) -> bool:
    """Whether there is one derivative, and a mode that has it.

    A kernel of I − ∂F does not tell: the potentials of a transport plan have one, the plan has not.
    """
    return not bool(certificate.kink) and certificate.recommended is not None


def summary(certificate: jaxns.Certificate) -> dict[str, Any]:
    """As JSON has it: what is not finite is null."""
    by_mode = ("errors", "evaluations", "memory")
    return {
        "what": certificate.what,
        "status": str(certificate.status),
        **{name: _plain(getattr(certificate, name)) for name in NUMBERS},
        **{
            name: {mode: _plain(value) for mode, value in getattr(certificate, name).items()}
            for name in by_mode
        },
        "recommended": certificate.recommended,
        "reasons": list(certificate.reasons),
        "trusted": trusted(certificate),
    }


def _plain(number: Any) -> Any:
    value = np.asarray(number).item()
    return value if math.isfinite(value) else None
