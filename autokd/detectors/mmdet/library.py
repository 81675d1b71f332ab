"""MMDetection itself: imported here first, so that its absence is told with its remedy."""

from __future__ import annotations

from autokd.errors import DetectorError
from autokd.mmcv_ops import provide_mmcv_ops

PROGRAM_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError),
)
"""What a user's config may raise as it runs, and mmdet as it builds and tries what the config describes."""
_REMEDY = "Install it with: pip install 'autokd[mmdet]'. 'autokd doctor' shows what is there."


def require_mmdet() -> None:
    """Import mmdet with its operators and register its models; DetectorError where that cannot be done."""
    try:
        provide_mmcv_ops()
        import mmdet.models  # noqa: F401
    except ImportError as error:
        raise DetectorError(f"framework: mmdet cannot be used here ({error}). {_REMEDY}") from error
