"""Progress of a command that counts: a bar on a terminal, a line every ten seconds elsewhere, nothing if quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from autokd.cli.terminal import console

LOG_INTERVAL_S = 10.0
"""Seconds between two lines where the output is no terminal."""


@contextmanager
def counting(what: str, *, is_quiet: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that takes the number of things done, and of all (None: unknown).

    Args:
        what: name of the things, such as "images".
        is_quiet: whether nothing is shown.
    """
    if is_quiet:
        yield lambda done, total: None
        return
    stream = console(is_error=True)
    if not stream.is_terminal:
        written_at = [time.monotonic()]

        def line(done: int, total: int | None) -> None:
            if time.monotonic() - written_at[0] >= LOG_INTERVAL_S:
                written_at[0] = time.monotonic()
                stream.print(f"{done}{'' if total is None else f' of {total}'} {what}", markup=False, soft_wrap=True)

        yield line
        return
    from rich.progress import Progress

    with Progress(console=stream, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
