"""The cache folder of a run, looked at before anything is computed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from autokd.errors import StorageError
from autokd.files import make_private_folder


def open_cache(cache_dir: Path) -> None:
    """Make the cache folder, if it is missing, and see that files can be made in it.

    Args:
        cache_dir: the folder.

    Raises:
        StorageError: if it is a file, belongs to somebody else, is read-only, or its disk is full.
    """
    try:
        make_private_folder(cache_dir)
        with tempfile.TemporaryFile(dir=cache_dir) as file:
            file.write(b"x")
    except OSError as error:
        raise StorageError(
            f"{cache_dir}: the cache cannot be kept there ({error.strerror}). Give another folder with --cache-dir or "
            "AUTOKD_CACHE, or have this one made writable."
        ) from error
