"""Sets in Pascal VOC's and YOLO's formats, converted once and kept in the cache as COCO files.

``globox`` reads boxes; splits, lists of images and names of classes are read by ``voc_layout`` and ``yolo_layout``.
Images stay where they are. A converted set is found again by the names, lengths and times of all its files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autokd.config import CocoData, VocData, YoloData
from autokd.data.annotation_file import Problems
from autokd.data.labeled_images import LabeledImage, ReadImage
from autokd.data.stamps import stamps_of
from autokd.data.voc_layout import read_voc_image, voc_splits
from autokd.data.yolo_layout import read_yolo_image, yolo_splits
from autokd.errors import DataError
from autokd.files import META_FILE, atomic_folder, digest_of, read_meta, write_json_atomically
from autokd.locks import exclusive_lock

CONVERTED_FOLDER = "converted"
_VERSION = 1
"""Version of the conversion; raised when it gives other boxes."""

Read = Callable[[LabeledImage], ReadImage]


def as_coco(data: CocoData | VocData | YoloData, cache_dir: Path) -> CocoData:
    """Return the section of a set in COCO's format; one in another format is converted first, if it is not yet.

    Args:
        data: the section of the configuration.
        cache_dir: folder of the cache.

    Raises:
        DataError: if a file is missing or broken, or the cache cannot be written.
    """
    if isinstance(data, CocoData):
        return data
    names: tuple[str, ...] | None = None
    read: Read = read_voc_image
    if isinstance(data, VocData):
        splits = voc_splits(data)
    else:
        splits, names = yolo_splits(data)
        known = names
        read = lambda labeled: read_yolo_image(labeled, known)  # noqa: E731
    listed = {split: [(str(each.image), str(each.labels)) for each in images] for split, images in splits.items()}
    files = [path for pairs in listed.values() for pair in pairs for path in pair]
    key = digest_of(
        version=_VERSION, globox=version("globox"), format=data.format, names=names, listed=listed,
        stamps=stamps_of(files).tolist(),
    )  # fmt: skip
    folder = cache_dir / CONVERTED_FOLDER / key
    try:
        if not _is_sound(folder):
            with exclusive_lock(folder):
                if not _is_sound(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                    with atomic_folder(folder) as temporary:
                        _write(temporary, data.root, splits, names, read)
    except OSError as error:
        raise DataError(
            f"{folder}: the set in COCO's format cannot be written ({error}). Give a --cache-dir that can be written."
        ) from None
    paths = {split: folder / f"instances_{split}.json" for split in splits}
    return CocoData(
        root=data.root,
        images=Path("."),
        train=paths["train"],
        val=paths["val"],
        test=paths.get("test"),
        image_size_px=data.image_size_px,
    )


def _write(
    folder: Path,
    root: Path,
    splits: Mapping[str, Sequence[LabeledImage]],
    names: tuple[str, ...] | None,
    read: Read,
) -> None:
    """Write a COCO file a split, and their lengths.

    Args:
        folder: where they go.
        root: folder that names of images start from.
        splits: the images.
        names: names of the classes; None: those that occur in any split, sorted.
        read: reads one image.
    """
    problems = Problems(root)
    images: dict[str, list[ReadImage]] = {}
    for split, labeled_images in splits.items():
        images[split] = []
        for labeled in labeled_images:
            try:
                images[split].append(read(labeled))
            except DataError as error:
                problems.add(str(error))
    problems.raise_if_any()
    if names is None:
        found = {each.name for of_split in images.values() for image in of_split for each in image.objects}
        names = tuple(sorted(found))
    lengths = {}
    for split, of_split in images.items():
        path = folder / f"instances_{split}.json"
        write_json_atomically(path, _coco_set(of_split, names, root))
        lengths[path.name] = path.stat().st_size
    write_json_atomically(folder / META_FILE, {"files": lengths})


def _coco_set(images: Sequence[ReadImage], names: tuple[str, ...], root: Path) -> dict[str, list[dict[str, Any]]]:
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        height, width = image.size
        name = Path(os.path.relpath(image.image, root)).as_posix()
        entries.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for each in image.objects:
            x1, y1, x2, y2 = each.corners_px
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": names.index(each.name) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": entries, "annotations": annotations, "categories": categories}


def _is_sound(folder: Path) -> bool:
    meta = read_meta(folder)
    try:
        return meta is not None and all((folder / n).stat().st_size == size for n, size in meta["files"].items())
    except (OSError, KeyError, AttributeError):
        return False
