"""Where the image files of a split lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autokd.data.image_names import require_inside

_LOOKED_AT = 3
"""Names at the start, in the middle and at the end of a list that are looked for."""


@dataclass(frozen=True)
class ImageFolder:
    """A folder, and how the names of an annotation file are read in it.

    Attributes:
        path: the folder.
        splits_backslashes: whether a backslash in a name separates folders, as programs on Windows write it.
        is_found: whether it is another folder than the configured one.
    """

    path: Path
    splits_backslashes: bool = False
    is_found: bool = False

    def relative(self, name: str) -> str:
        """Return an image's path from the folder.

        Args:
            name: ``file_name`` of the annotation file.
        """
        return name.replace("\\", "/") if self.splits_backslashes else name

    def file(self, name: str) -> Path:
        """Return an image's path.

        Args:
            name: ``file_name`` of the annotation file.
        """
        return self.path / self.relative(name)

    def safe_file(self, name: str) -> Path:
        """Return an image's path, to be opened.

        Args:
            name: ``file_name`` of the annotation file.

        Raises:
            DataError: if it leads out of the folder, or to something else than a file.
        """
        return require_inside(self.file(name), self.path)

    def remarks(self) -> tuple[str, ...]:
        """Return a sentence for each way in which names are not read as written in the configured folder."""
        found = ("backslashes in names of images are taken for separators of folders",) * self.splits_backslashes
        return found + (f"images are read from {self.path}, since they are not in data.images",) * self.is_found


def find_image_folder(configured: Path, annotation_path: Path, names: Sequence[str]) -> ImageFolder:
    """Find the folder in which the images of an annotation file lie.

    The configured folder is taken if the images are there by their very names. Otherwise backslashes are tried as
    separators, then the folder in it that is named like the annotation file (``train2017`` of
    ``instances_train2017.json``), then the folder of the annotation file, which is where Roboflow exports images.

    Args:
        configured: folder that the configuration names.
        annotation_path: the annotation file.
        names: ``file_name`` of every image.

    Returns:
        The first folder and reading under which a few of the images exist; if there is none, the configured one.
    """
    step = max(1, (len(names) - 1) // (_LOOKED_AT - 1))
    few = names[::step][:_LOOKED_AT]
    named_alike = configured / annotation_path.stem.removeprefix("instances_")
    has_backslash = any("\\" in name for name in few)
    for folder in (configured, named_alike, annotation_path.parent):
        for splits in (False, True)[: 1 + has_backslash]:
            found = ImageFolder(folder, splits, folder != configured)
            if all(found.file(name).is_file() for name in few):
                return found
    return ImageFolder(configured)
