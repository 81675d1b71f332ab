"""Annotations of a split, cleaned as COCO's own tools expect them, and the ground truth for the evaluation.

Legend: boxes are xyxy pixels of the image's frame (``images``); n boxes of an image; label k is ``classes[k]``.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from autokd.data.annotation_file import read_annotation_file
from autokd.data.geometry import Boxes, Size, box_areas, clip_boxes
from autokd.data.image_names import require_inside
from autokd.data.images import read_header
from autokd.data.report import DataReport
from autokd.errors import DataError

_CLIP_NOTICED_PX = 1.0
"""Pixels outside the image beyond which a clipped box is counted; rounding alone makes many boxes a little too wide."""


_LARGEST_AREA = 1e18
"""Square pixels above which an area is none: JSON has whole numbers that no float holds."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageRecord:
    """One image and its n objects. Crowd regions are among the boxes, marked; training leaves them out."""

    image_id: int
    file_name: str
    size: Size
    """(height, width) in pixels of the frame that the boxes refer to."""
    boxes_xyxy_px: Boxes
    """(n, 4)."""
    labels: NDArray[np.int64]
    """(n,), positions in ``classes``."""
    is_crowd: NDArray[np.bool_]
    """(n,)."""
    areas: NDArray[np.float64]
    """(n,) square pixels of the object's region if the set gives it, else of its box. By them the evaluation groups
    objects into small, medium and large."""


@dataclass(frozen=True, eq=False)
class AnnotatedSplit:
    """One annotation file, read and cleaned. Images are in the order of their ids."""

    name: str
    annotation_path: Path
    images_dir: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: tuple[ImageRecord, ...]
    report: DataReport

    def ground_truth(self) -> COCO:
        """Return the cleaned boxes for pycocotools' evaluation.

        Returns:
            Boxes, crowd regions included, in pixels of the frame of the JSON.
        """
        annotations: list[dict[str, Any]] = []
        for record in self.records:
            boxes_xywh = np.concatenate(
                [record.boxes_xyxy_px[:, :2], record.boxes_xyxy_px[:, 2:] - record.boxes_xyxy_px[:, :2]], axis=1
            )
            rows = zip(boxes_xywh.tolist(), record.labels.tolist(), record.is_crowd.tolist(), record.areas.tolist())
            for box, label, is_crowd, area in rows:
                annotations.append(
                    {
                        # From 1 on: pycocotools' evaluation takes a matched annotation of id 0 for an unmatched one.
                        "id": len(annotations) + 1,
                        "image_id": record.image_id,
                        "category_id": self.category_ids[label],
                        "bbox": box,
                        "area": area,
                        "iscrowd": int(is_crowd),
                    }
                )
        images = [
            {"id": record.image_id, "file_name": record.file_name, "height": record.size[0], "width": record.size[1]}
            for record in self.records
        ]
        categories = [{"id": key, "name": name} for key, name in zip(self.category_ids, self.classes)]
        return index_coco({"info": {}, "images": images, "annotations": annotations, "categories": categories})


def index_coco(data: dict[str, Any]) -> COCO:
    """Return a COCO detection set as pycocotools' object, without the lines that pycocotools prints."""
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def read_split(
    annotation_path: Path, images_dir: Path, name: str, classes: tuple[str, ...] | None = None
) -> AnnotatedSplit:
    """Read and clean the annotations of a split.

    Boxes without extent or wholly outside the image are dropped, boxes that reach outside are clipped, crowd regions
    are marked, and missing ``iscrowd``, ``area``, ``width`` and ``height`` are filled in. The report counts all of it.

    Args:
        annotation_path: the JSON file.
        images_dir: folder of the images.
        name: name of the split.
        classes: classes in the order of the labels, those of the training split. None: the file's own, by id.

    Returns:
        The split; its images are in the order of their ids.

    Raises:
        DataError: if the file is broken, has other classes, or no usable box.
    """
    coco = index_coco(read_annotation_file(annotation_path))
    name_of_id = {key: coco.cats[key]["name"] for key in sorted(coco.cats)}
    own = tuple(name_of_id.values())
    classes = own if classes is None else classes
    if set(own) != set(classes):
        raise _other_classes(annotation_path, own, classes)
    id_of_name = {class_name: key for key, class_name in name_of_id.items()}
    category_ids = tuple(id_of_name[class_name] for class_name in classes)
    counts: Counter[str] = Counter()
    records = tuple(
        _record(coco.imgs[image_id], coco.imgToAnns.get(image_id, []), images_dir, category_ids, counts)
        for image_id in sorted(coco.imgs)
    )
    trained = np.bincount(
        np.concatenate([record.labels[~record.is_crowd] for record in records]), minlength=len(classes)
    )
    report = DataReport(
        split=name,
        source=str(annotation_path),
        num_images=len(records),
        num_boxes=int(trained.sum()),
        num_classes=len(classes),
        non_contiguous_ids=sorted(category_ids) not in (list(range(len(own))), list(range(1, len(own) + 1))),
        classes_without_boxes=tuple(classes[label] for label in np.flatnonzero(trained == 0)),
    ).adding(**counts)
    if report.num_boxes == 0:
        raise DataError(
            f"{annotation_path}: none of the {report.num_images} images has a usable box. "
            "Check that the annotations were exported with the images."
        )
    return AnnotatedSplit(name, annotation_path, images_dir, classes, category_ids, records, report)


def _record(
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    images_dir: Path,
    category_ids: tuple[int, ...],
    counts: Counter[str],
) -> ImageRecord:
    size = _frame(image, images_dir, counts)
    boxes_xywh = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    boxes = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    clipped = clip_boxes(boxes, size)
    degenerate = (boxes_xywh[:, 2:] <= 0).any(axis=1)
    outside = ~degenerate & (box_areas(clipped) == 0)
    kept = ~(degenerate | outside)
    reach = np.abs(boxes - clipped).max(axis=1, initial=0.0)
    is_crowd = np.array([annotation.get("iscrowd") == 1 for annotation in annotations], dtype=bool)
    given = np.array([_area(annotation) for annotation in annotations], dtype=np.float64)
    areas = np.where(np.isnan(given), box_areas(clipped), given)
    label_of_id = {category_id: label for label, category_id in enumerate(category_ids)}
    labels = np.array([label_of_id[annotation["category_id"]] for annotation in annotations], dtype=np.int64)
    counts["degenerate_boxes"] += int(degenerate.sum())
    counts["outside_boxes"] += int(outside.sum())
    counts["clipped_boxes"] += int((kept & (reach > _CLIP_NOTICED_PX)).sum())
    counts["crowd_regions"] += int((kept & is_crowd).sum())
    counts["missing_iscrowd"] += sum(annotation.get("iscrowd") is None for annotation in annotations)
    counts["missing_areas"] += int(np.isnan(given).sum())
    counts["images_without_boxes"] += int(not (kept & ~is_crowd).any())
    return ImageRecord(image["id"], image["file_name"], size, clipped[kept], labels[kept], is_crowd[kept], areas[kept])


def _frame(image: dict[str, Any], images_dir: Path, counts: Counter[str]) -> Size:
    """Return (height, width) in pixels from the JSON; from the image file if the JSON gives none."""
    if image.get("width") is not None and image.get("height") is not None:
        return int(image["height"]), int(image["width"])
    counts["missing_sizes"] += 1
    return read_header(require_inside(images_dir / image["file_name"], images_dir)).stored_size


def _area(annotation: dict[str, Any]) -> float:
    """Return the annotation's area in square pixels; NaN if it is no positive finite number."""
    area = annotation.get("area")
    usable = isinstance(area, (int, float)) and not isinstance(area, bool) and 0 < area < _LARGEST_AREA
    return float(area) if usable and area is not None else float("nan")


def _other_classes(path: Path, found: tuple[str, ...], wanted: tuple[str, ...]) -> DataError:
    missing = sorted(set(wanted) - set(found))
    extra = sorted(set(found) - set(wanted))
    parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has besides {', '.join(extra)}"] * bool(extra)
    return DataError(
        f"{path}: the categories are not those of the training file: it {' and '.join(parts)}. Every split lists "
        "the same names in 'categories' (ids and order may differ; a class may have no box)."
    )
