"""The exceptions of AutoKD: one family, so that a caller can catch all of them at once.

A message says where, what was found, what is allowed, and the remedy. Failures of a trial (a non-finite
loss, a lost worker, ...) are outcomes, not exceptions: see ``autokd.outcomes``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutoKDError(Exception):
    """Base of every error that AutoKD raises on purpose."""


class ConfigError(AutoKDError):
    """A space file or a setting is wrong: unknown key, wrong type, missing path."""


class SpecError(ConfigError):
    """A distiller's description is wrong: unknown operator, bad parameter, ill-typed step."""


class SpaceError(ConfigError):
    """A space offers nothing, or a spec lies outside it."""


class DataError(AutoKDError):
    """A data set is broken in a way that COCO's own tools would not tolerate."""


class DetectorError(AutoKDError):
    """A detector cannot be built, loaded or adapted."""


class DistillError(AutoKDError):
    """A distiller cannot be built for this pair, or was called with outputs that it cannot use."""


class NonFiniteError(AutoKDError):
    """A loss or a tap holds NaN or infinity; the message names it."""


class StorageError(AutoKDError):
    """A run directory or a database cannot be opened, or belongs to another search."""


class BenchmarkError(AutoKDError):
    """A recorded table cannot be read, was made for something else, or does not hold what is asked for."""


class RuntimeUnavailableError(AutoKDError):
    """The chosen runtime cannot run here (Ray is absent, the cluster does not answer)."""


def one_of(found: object, allowed: Iterable[str], *, noun: str = "") -> str:
    """Return "'cosin' is not one of cosine, l1, l2. Did you mean 'cosine'?"."""
    names = sorted(allowed)
    what = f"{noun} " if noun else ""
    message = f"{what}{found!r} is not one of {', '.join(names) or '(nothing)'}."
    close = difflib.get_close_matches(str(found), names, n=1)
    return f"{message} Did you mean {close[0]!r}?" if close else message


def name_list(names: Iterable[object], *, limit: int | None = None, empty: str = "none") -> str:
    """Return "a, b, c and 5 more".

    Args:
        names: what is listed, in this order.
        limit: number of names that are written out; None: all of them.
        empty: the text for no names at all.
    """
    texts = [str(name) for name in names]
    shown = texts[:limit]
    more = f" and {len(texts) - len(shown)} more" if len(texts) > len(shown) else ""
    return ", ".join(shown) + more if texts else empty
