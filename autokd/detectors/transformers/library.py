"""The first import of transformers, so that an error about its absence comes with the remedy."""

from __future__ import annotations

from typing import Any

from autokd.errors import DetectorError

PROGRAM_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError),
)
"""Errors that transformers raises when it reads a configuration, and builds and runs a model of it."""


def transformers_library() -> Any:
    """Return the package transformers.

    Raises:
        DetectorError: if it, or a library that it needs, is absent.
    """
    try:
        import transformers
    except ImportError as error:
        raise DetectorError(
            f"framework: transformers cannot be used here ({error}). Install it with: pip install "
            "'autokd[transformers]'. 'autokd doctor' shows what is there."
        ) from error
    transformers.utils.logging.disable_progress_bar()  # it would write into the live view
    return transformers


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
