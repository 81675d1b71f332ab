"""Names of image files in annotation files: they lead to regular files within the data folder, and nowhere else.

A data set may come from anyone, and its images are trained on and shown in reports that are passed on. A name that
leads out of the folder of the images would put the reader's own files there.

Links are followed as far as they stay within the folder of the images. A link in it that leads out is refused as a name
would be, since archives and repositories carry links; the configured folder itself may be a link, and lie anywhere.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from pathlib import Path, PureWindowsPath

from autokd.errors import DataError

_LONGEST_BYTES = 1024
_LONGEST_PART_BYTES = 255


def image_name_problem(name: str) -> str | None:
    """Return why a ``file_name`` is refused, or None.

    Args:
        name: path from the folder of the images. A backslash separates folders for some readers, so it counts too.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith(("/", "\\")) or PureWindowsPath(name).drive:
        return "is no path from data.images on"
    if ".." in parts:
        return "leads out of a folder by '..'"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "has a control character"
    if max(len(part.encode()) for part in parts) > _LONGEST_PART_BYTES or len(name.encode()) > _LONGEST_BYTES:
        return "is longer than a name of a file can be"
    return None


def require_inside(path: Path, folder: Path) -> Path:
    """Return the path of an image if it is within the folder of the images, links followed, and a regular file.

    Args:
        path: the image; one that does not exist is returned, for an error where it is read.
        folder: folder of the images.

    Raises:
        DataError: if it lies elsewhere, or is a pipe, a device or a folder.
    """
    real = os.path.realpath(path)
    root = os.path.realpath(folder)
    if os.path.commonpath((real, root)) != root:
        raise DataError(
            f"{path}: leads out of data.images, to {real}. Put the file there (a hard link will do), or set "
            "data.images to the folder in which the files themselves lie."
        )
    try:
        mode = os.stat(real).st_mode
    except OSError:
        return path
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is no file of an image, but a folder, a pipe or a device. Put the image there.")
    return path
