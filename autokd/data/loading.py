"""The three splits that the ``data`` section of a configuration names."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autokd.config import CocoData, ShapesData, SplitFolders, VocData, YoloData
from autokd.data.annotations import AnnotatedSplit, read_split
from autokd.data.columns import open_columns
from autokd.data.content import require_root
from autokd.data.convert import as_coco
from autokd.data.dataset import MEMORY_LIMIT_BYTES, DetectionDataset
from autokd.data.depth import FULL_DEPTH_SHIFT, shift_of_depth
from autokd.data.geometry import Size
from autokd.data.image_files import open_files
from autokd.data.image_folder import ImageFolder
from autokd.data.orientation import Frames, frames_note, wants_two
from autokd.data.report import DataReport
from autokd.data.shapes import write_shapes
from autokd.data.sharing import shared_images
from autokd.data.unlabeled import UnlabeledImages
from autokd.errors import DataError

logger = logging.getLogger("autokd.data")

AnyData = ShapesData | CocoData | VocData | YoloData


@dataclass(frozen=True)
class StoredSplit:
    """Where another process of the machine finds what this one has read of a split.

    Attributes:
        annotation_path: the annotation file.
        folder: where its images lie.
        annotations: name of the folder of its annotations in the cache.
        files: name of the folder of what its image files are.
    """

    annotation_path: Path
    folder: ImageFolder
    annotations: str
    files: str


@dataclass(frozen=True, eq=False)
class Datasets:
    """The splits of a set. A search chooses on ``val`` and reports on ``test``."""

    train: DetectionDataset
    """Split that detectors are trained on. Its classes give the labels of all splits."""
    val: DetectionDataset
    """Split on which candidates and the winner are chosen."""
    test: DetectionDataset
    """Split on which results are reported; ``val`` itself if the set has no test file."""
    test_is_val: bool = False
    """Whether ``test`` is ``val``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; label k is ``classes[k]``."""
        return self.train.classes

    @property
    def num_classes(self) -> int:
        """Number of the classes."""
        return len(self.classes)

    @property
    def splits(self) -> tuple[DetectionDataset, ...]:
        """Each split once."""
        return (self.train, self.val) if self.test_is_val else (self.train, self.val, self.test)

    @property
    def stored(self) -> Mapping[str, StoredSplit]:
        """What ``load_datasets`` needs in another process to read nothing again; empty if the cache has nothing."""
        if not all(each.split.columns.key and each.files.key for each in self.splits):
            return {}
        return {
            each.name: StoredSplit(each.annotation_path, each.split.folder, each.split.columns.key, each.files.key)
            for each in self.splits
        }

    @cached_property
    def shared_images(self) -> tuple[str, ...]:
        """A sentence for each pair of splits that have images in common."""
        return shared_images(self.splits)

    @property
    def frames_note(self) -> str:
        """A sentence on two frames, that they are used or would be worth it; empty if neither is so."""
        return frames_note(self.train.frames, self.train.split.columns.sizes)

    def at_size(self, image_size_px: Size) -> Datasets:
        """Return the same splits for another size of the network's input; itself if the size is the same.

        Args:
            image_size_px: (H, W) of the network's input.
        """
        if self.train.image_size_px == tuple(image_size_px):
            return self
        train, val = (split.at_size(image_size_px) for split in (self.train, self.val))
        return Datasets(train, val, val if self.test_is_val else self.test.at_size(image_size_px), self.test_is_val)

    def check(self) -> tuple[DataReport, ...]:
        """Look at every image file, and log a report a split and the images that splits share.

        Returns:
            The reports.

        Raises:
            DataError: if an image is missing or broken.
        """
        reports = tuple(split.check() for split in self.splits)
        for sentence in self.shared_images:
            logger.warning("%s", sentence)
        return reports


def load_datasets(
    data: AnyData,
    cache_dir: Path | str,
    *,
    check: bool = True,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    stored: Mapping[str, StoredSplit] | None = None,
) -> Datasets:
    """Read the splits of a set; the generated set is made first if it is not there yet.

    The cache keeps what was read of annotations and image files; it is read again if they have changed. A set in
    another format than COCO's is converted into the cache first.

    Args:
        data: the ``data`` section of a configuration.
        cache_dir: folder of the cache.
        check: log a report a split, and the images that splits share.
        memory_limit_bytes: size of a split's decoded images up to which they are kept in memory.
        stored: ``Datasets.stored`` of a process that has read the same set: its annotations and its findings about
            image files are opened without a look at any file of the set. What this machine's cache lacks is read.

    Returns:
        The splits at ``data.image_size_px``. ``test`` is ``val`` if the set has no test file, or the same one.

    Raises:
        DataError: if a file is missing or broken, or the splits have different classes.
    """
    cache_dir = Path(cache_dir)
    splits = _open_stored(stored, cache_dir) if stored else None
    if splits is None:
        splits = _read_splits(data, cache_dir)
    sets = [DetectionDataset(split, data.image_size_px, memory_limit_bytes) for split in splits]
    if not isinstance(data, ShapesData) and wants_two(
        data.orientations, sets[0].image_size_px, splits[0].columns.sizes
    ):
        for each in sets:
            each.frames = Frames.two(each.image_size_px, each.split.columns.sizes)
    peak = max(split.files.peak for split in sets)
    # One factor for all splits, so that equal values stay equal.
    shift = shift_of_depth(peak) if peak else FULL_DEPTH_SHIFT
    for split in sets:
        split.deep_shift = shift
    train, val, *rest = sets
    datasets = Datasets(train, val, rest[0] if rest else val, test_is_val=not rest)
    if check:
        datasets.check()
        if not isinstance(data, ShapesData) and data.unlabeled is not None:
            found = UnlabeledImages(data.root / data.unlabeled, train.image_size_px, shift).files
            logger.info("unlabeled: %d images", len(found))
    return datasets


def load_split(
    annotation_path: Path,
    images_dir: Path,
    image_size_px: Size,
    *,
    name: str = "train",
    classes: tuple[str, ...] | None = None,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> DetectionDataset:
    """Read one split, without the cache.

    Args:
        annotation_path: the JSON file.
        images_dir: folder of the images.
        image_size_px: (H, W) of the network's input.
        name: name of the split.
        classes: classes in the order of the labels, those of the training split. None: the file's own, by id.
        memory_limit_bytes: size of all decoded images up to which they are kept in memory.

    Returns:
        The split, with its annotations cleaned. No image is opened, unless the JSON gives no size for it. Images of 16
        bits a channel are taken to fill their range.

    Raises:
        DataError: if the folder is missing, or the annotations are broken or of other classes.
    """
    _require_folder(images_dir)
    split = read_split(annotation_path, images_dir, name, classes)
    return DetectionDataset(split, image_size_px, memory_limit_bytes)


def _read_splits(data: AnyData, cache_dir: Path) -> list[AnnotatedSplit]:
    """Return train, val, and test if it is another split than val."""
    coco = _shapes_as_coco(data, cache_dir) if isinstance(data, ShapesData) else as_coco(data, cache_dir)
    require_root(coco.root)
    train = _read(coco, coco.train, "train", None, cache_dir)
    val = _read(coco, coco.val, "val", train.classes, cache_dir)
    if coco.test is None or _is_same_file(coco.root / coco.test, coco.root / coco.val):
        return [train, val]
    return [train, val, _read(coco, coco.test, "test", train.classes, cache_dir)]


def _read(data: CocoData, file: Path, name: str, classes: tuple[str, ...] | None, cache_dir: Path) -> AnnotatedSplit:
    folder = getattr(data.images, name) if isinstance(data.images, SplitFolders) else data.images
    assert folder is not None, "the section gives a folder for each file"
    _require_folder(data.root / folder)
    return read_split(data.root / file, data.root / folder, name, classes, cache_dir)


def _open_stored(stored: Mapping[str, StoredSplit], cache_dir: Path) -> list[AnnotatedSplit] | None:
    """Return train, val and maybe test from the cache; None if the cache of this machine lacks a part."""
    splits: list[AnnotatedSplit] = []
    for name, about in stored.items():
        columns, files = open_columns(about.annotations, cache_dir), open_files(about.files, cache_dir)
        if columns is None or files is None:
            return None
        classes = splits[0].classes if splits else None
        splits.append(AnnotatedSplit(name, about.annotation_path, about.folder, classes, columns, files=files))
    return splits


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # the reader names what is missing
        return False


def _require_folder(images_dir: Path) -> None:
    if not images_dir.is_dir():
        raise DataError(f"data.images: {images_dir} is no folder. Give the folder of the images, from data.root.")


def _shapes_as_coco(data: ShapesData, cache_dir: Path) -> CocoData:
    return CocoData(
        root=write_shapes(data, cache_dir),
        images=Path("images"),
        train=Path("instances_train.json"),
        val=Path("instances_val.json"),
        test=Path("instances_test.json"),
        image_size_px=data.image_size_px,
    )
