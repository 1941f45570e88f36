"""The search on a terminal, where it is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(wanted: bool, done: int, steps: int) -> Iterator[Callable[[int, Any], None]]:
    """A function of the number of an evaluation and its row, which moves a bar; or does nothing.

    Raises `ImportError` where rich, which draws it, is not installed.
    """
    if not wanted:
        yield lambda count, row: None
        return
    try:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )
    except ImportError as error:
        raise ImportError(
            "progress=True needs rich: pip install 'jax-nonsmooth[experiments]'"
        ) from error
    columns = (BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}")) as shown:
        task = shown.add_task("compiling", total=steps, completed=done)

        def move(count: int, row: Any) -> None:
            what = f"value {row.value:.6g}, gradient {row.gradient_norm:.1e}"
            what += f", inner steps {row.inner_steps}"
            shown.update(task, completed=count, description=what)

        yield move
