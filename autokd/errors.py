"""The exceptions of AutoKD: one family, so that a caller can catch all of them at once.

A message says where, what was found, what is allowed, and the remedy. Failures of a trial, such as a non-finite loss or
a lost worker, are outcomes and not exceptions: ``autokd.jobs``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class AutoKDError(Exception):
    """Base of every error that AutoKD raises on purpose."""


class ConfigError(AutoKDError):
    """A config file or a setting is invalid: unknown key, wrong type, missing path."""


class SpecError(ConfigError):
    """A spec of a distiller is invalid: unknown operator, parameter out of range, ill-typed step."""


class SpaceError(ConfigError):
    """A space has no distillers or useless options, or a spec lies outside it."""


class DataError(AutoKDError):
    """A data set is broken in a way that COCO's own tools do not tolerate."""


class DetectorError(AutoKDError):
    """A detector cannot be built, loaded or adapted."""


class DistillError(AutoKDError):
    """A distiller cannot be built for this pair, or was called with outputs that it cannot use."""


class NonFiniteError(AutoKDError):
    """A loss or a tap holds NaN or infinity; the message names it."""


class CheckpointError(AutoKDError):
    """The checkpoint of a training is damaged, or belongs to another training or version."""


class StorageError(AutoKDError):
    """A run directory or a database cannot be opened, or belongs to another search."""


class BenchmarkError(AutoKDError):
    """A recorded table cannot be read, was recorded for another space or recipe, or lacks a row that is needed."""


class RuntimeUnavailableError(AutoKDError):
    """The configured runtime is unavailable: Ray is not installed, or the cluster does not answer."""


def one_of(found: object, allowed: Iterable[str], *, noun: str = "") -> str:
    """Return a sentence on a word that is not allowed: "'cosin' is not one of cosine, l1. Did you mean 'cosine'?".

    Args:
        found: the word that was found.
        allowed: the words that may stand there.
        noun: the kind of word, which then begins the sentence, such as "key".

    Returns:
        The sentence, with a question for the allowed word that is most similar, if one is similar.
    """
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


class MissingExtraError(AutoKDError):
    """A package of an extra is not installed."""


@contextmanager
def needs_extra(package: str, extra: str) -> Iterator[None]:
    """Turn a failed import within the context into an error with the command that installs the package.

    Args:
        package: name of the package.
        extra: extra of AutoKD that has it.

    Yields:
        Nothing.

    Raises:
        MissingExtraError: if the import fails.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"{package} is not installed ({error}). Install it: pip install 'autokd[{extra}]'."
        ) from error
