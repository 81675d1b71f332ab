"""The three splits that the ``data`` section of a configuration names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autokd.config import CocoData, ShapesData
from autokd.data.annotations import read_split
from autokd.data.content import require_root
from autokd.data.dataset import MEMORY_LIMIT_BYTES, DetectionDataset
from autokd.data.geometry import Size
from autokd.data.report import DataReport
from autokd.data.shapes import write_shapes
from autokd.errors import DataError


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
        """Open every image's header, and log a report a split.

        Returns:
            The reports.

        Raises:
            DataError: if an image is missing or broken.
        """
        return tuple(split.check() for split in self.splits)


def load_datasets(
    data: ShapesData | CocoData,
    cache_dir: Path | str,
    *,
    check: bool = True,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> Datasets:
    """Read the splits of a set; the generated set is made first if it is not there yet.

    Args:
        data: the ``data`` section of a configuration.
        cache_dir: folder of the generated set.
        check: open every image's header, and log a report a split. Workers of a driver that has checked may skip it.
        memory_limit_bytes: size of a split's decoded images up to which they are kept in memory.

    Returns:
        The splits at ``data.image_size_px``. ``test`` is ``val`` if the set has no test file.

    Raises:
        DataError: if a file is missing or broken, or the splits have different classes.
    """
    if isinstance(data, ShapesData):
        data = _as_coco(data, Path(cache_dir))
    require_root(data)
    train = _dataset(data, data.train, "train", None, memory_limit_bytes)
    val = _dataset(data, data.val, "val", train.classes, memory_limit_bytes)
    test = val if data.test is None else _dataset(data, data.test, "test", train.classes, memory_limit_bytes)
    datasets = Datasets(train, val, test, test_is_val=test is val)
    if check:
        datasets.check()
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
    """Read one split.

    Args:
        annotation_path: the JSON file.
        images_dir: folder of the images.
        image_size_px: (H, W) of the network's input.
        name: name of the split.
        classes: classes in the order of the labels, those of the training split. None: the file's own, by id.
        memory_limit_bytes: size of all decoded images up to which they are kept in memory.

    Returns:
        The split, with its annotations cleaned. No image is opened, unless the JSON gives no size for it.

    Raises:
        DataError: if the folder is missing, or the annotations are broken or of other classes.
    """
    if not images_dir.is_dir():
        raise DataError(f"data.images: {images_dir} is no folder. Give the folder of the images, from data.root.")
    split = read_split(annotation_path, images_dir, name, classes)
    return DetectionDataset(split, image_size_px, memory_limit_bytes)


def _dataset(
    data: CocoData, file: Path, name: str, classes: tuple[str, ...] | None, memory_limit_bytes: int
) -> DetectionDataset:
    return load_split(
        data.root / file,
        data.root / data.images,
        data.image_size_px,
        name=name,
        classes=classes,
        memory_limit_bytes=memory_limit_bytes,
    )


def _as_coco(data: ShapesData, cache_dir: Path) -> CocoData:
    return CocoData(
        root=write_shapes(data, cache_dir),
        images=Path("images"),
        train=Path("instances_train.json"),
        val=Path("instances_val.json"),
        test=Path("instances_test.json"),
        image_size_px=data.image_size_px,
    )
