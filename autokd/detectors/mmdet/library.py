"""The first import of MMDetection, so that an error about its absence comes with the remedy."""

from __future__ import annotations

from autokd.errors import DetectorError
from autokd.mmcv_ops import provide_mmcv_ops

PROGRAM_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError),
)
"""Errors that a user's config may raise when it runs, and mmdet when it builds and runs the model."""
_REMEDY = "Install it with: pip install 'autokd[mmdet]'. 'autokd doctor' shows what is there."


def require_mmdet() -> None:
    """Import mmdet with its operators and register its models.

    Raises:
        DetectorError: if mmdet or a library that it needs is absent.
    """
    try:
        provide_mmcv_ops()  # before mmdet, whose modules take mmcv's operators when they are imported
        import mmdet.models  # noqa: F401
    except ImportError as error:
        raise DetectorError(f"framework: mmdet cannot be used here ({error}). {_REMEDY}") from error
