"""Consoles that show what they can: on a Latin-1 or narrow terminal, in a pipe, in a log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 120
"""Width of tables where there is no terminal that has one; rich would take 80, and cut formulas."""


def replace_what_cannot_be_shown() -> None:
    """Have the standard streams write a question mark for a character that their encoding lacks.

    A run that has ended well would else fail at the last line, on a terminal of another encoding than UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def console(*, is_error: bool = False) -> Console:
    """Return a console on the standard output, or on the standard error stream.

    Args:
        is_error: whether it is the standard error stream.
    """
    import os

    from rich.console import Console

    stream = sys.stderr if is_error else sys.stdout
    has_width = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=is_error, width=None if has_width else PIPE_COLUMNS)
