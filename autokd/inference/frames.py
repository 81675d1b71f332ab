"""Images and videos as frames: files, folders, globs; videos by PyAV.

Legend: sizes are (height, width) in pixels.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autokd.data import NetworkInput, network_input
from autokd.errors import DataError, needs_extra

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True, eq=False)
class Frame:
    """An image to detect on.

    Args:
        source: file that it comes from.
        number: number of the frame in a video, from 0; None: the file is an image.
        content: the pixels of a frame of a video; None: they are read from the file.
    """

    source: Path
    number: int | None = None
    content: Image.Image | None = None

    @property
    def name(self) -> str:
        """Name of the file, with the frame's number for a video: ``street.mp4#12``."""
        return self.source.name if self.number is None else f"{self.source.name}#{self.number}"

    def as_input(self, image_size_px: tuple[int, int], *, has_two_frames: bool = False) -> NetworkInput:
        """Return the frame scaled into the network's input.

        Args:
            image_size_px: (height, width) of the network's input.
            has_two_frames: whether an image that lies across the input has it turned.

        Raises:
            DataError: if the file is missing or broken.
        """
        source = self.source if self.content is None else self.content
        return network_input(source, image_size_px, has_two_frames=has_two_frames)


def find_sources(patterns: Iterable[str | Path]) -> list[Path]:
    """Return the image and video files that arguments name, each once, those of one argument in the order of names.

    Args:
        patterns: files, folders (their images and videos, without those of folders inside), or globs. A path that
            exists is taken as it is, so that brackets in it are no glob; ``~`` is the home folder.

    Raises:
        DataError: if an argument names nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        found |= dict.fromkeys(_found(os.path.expanduser(pattern)))
    return list(found)


def _found(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)]
        if not files:
            raise DataError(f"{path}: the folder has no images or videos ({', '.join(IMAGE_SUFFIXES[:3])}, ...).")
        return files
    if path.exists():
        return [path]
    files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(name)]
    if not files:
        raise DataError(f"{pattern}: no such file, folder or glob with a match, seen from {Path.cwd()}.")
    return files


def is_video(path: Path) -> bool:
    """Whether a file is read as a video, by its suffix.

    Args:
        path: the file.
    """
    return path.suffix.lower() in VIDEO_SUFFIXES


def frames_of(sources: Sequence[Path], every: int = 1) -> Iterator[Frame]:
    """Yield images, and the frames of videos.

    Args:
        sources: files, as ``find_sources`` returns them.
        every: every how many frames of a video one is taken.

    Raises:
        DataError: if a video cannot be read.
        MissingExtraError: if there is a video, and PyAV is not installed.
    """
    for source in sources:
        if is_video(source):
            yield from _frames_of_video(source, every)
        else:
            yield Frame(source)


def _frames_of_video(source: Path, every: int) -> Iterator[Frame]:
    with needs_extra("PyAV", "video"):
        import av
    try:
        with av.open(str(source)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % every == 0:
                    yield Frame(source, number, frame.to_image())
    except (av.error.FFmpegError, IndexError) as error:
        raise DataError(f"{source}: cannot be read as a video: {error}. Convert it, or give its frames.") from error
