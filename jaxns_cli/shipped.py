"""What comes with jaxns: the configs and the benchmarks, in a wheel or at the top of a checkout."""

import difflib
from pathlib import Path

from jaxns_cli.main import UsageError

HERE = Path(__file__).parent
TOP = HERE / "bundle" if (HERE / "bundle").is_dir() else HERE.parent
CONFIGS = TOP / "configs"


def folder(named: Path | None) -> Path:
    """Where configs are looked for: as one says, else ./configs, else those that come along."""
    here = Path("configs")
    return named or (here if any(here.glob("*.toml")) else CONFIGS)


def find(config: str, named: Path | None) -> Path:
    """The file of a config: itself, or by its bare name the one in that folder."""
    path = Path(config)
    if path.name != config or path.suffix == ".toml" or path.is_file():
        return path
    where = folder(named)
    if (found := where / f"{config}.toml").is_file():
        return found
    near = difflib.get_close_matches(config, [other.stem for other in where.glob("*.toml")], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"no config named {config!r} in {where}{hint}")
