"""The cache folder of a run, looked at before anything is computed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from autokd.errors import StorageError


def require_cache(cache_dir: Path) -> None:
    """See that files can be made in the cache folder, or where it will be made; nothing is left there.

    Args:
        cache_dir: the folder, which may not exist yet.

    Raises:
        StorageError: if it is a file, belongs to somebody else, is read-only, or its disk is full.
    """
    place = cache_dir
    while not os.path.lexists(place):
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        raise StorageError(
            f"{cache_dir}: the cache cannot be kept there ({error.strerror}). Give another folder with --cache-dir or "
            "AUTOKD_CACHE, or have this one made writable."
        ) from error
