"""Packages that an installation may lack: an error that names the extra in place of an ImportError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autokd.errors import AutoKDError


class MissingExtraError(AutoKDError):
    """A package of an extra is not installed."""


@contextmanager
def needs_extra(package: str, extra: str) -> Iterator[None]:
    """Turn a failed import within the context into an error with the command that installs the package.

    Args:
        package: name of the package.
        extra: extra of AutoKD that has it.

    Raises:
        MissingExtraError: if the import fails.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"{package} is not installed ({error}). Install it: pip install 'autokd[{extra}]'."
        ) from error
