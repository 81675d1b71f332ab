"""Annotations of a split, cleaned as COCO's own tools expect them, and the ground truth for the evaluation.

Legend: boxes are xyxy pixels of the image's frame (``images``); n boxes of an image; label k is ``classes[k]``; N
images, M boxes of all images.
"""

from __future__ import annotations

import contextlib
import io
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from autokd.data.box_form import CROWD_CAUSE
from autokd.data.columns import AnnotationColumns, read_columns
from autokd.data.geometry import Boxes, Size
from autokd.data.image_files import ImageFiles, ReadHeader, look_at_files
from autokd.data.image_folder import ImageFolder, find_image_folder
from autokd.data.report import DataReport
from autokd.errors import DataError


class AnnotatedSplit:
    """One annotation file, read and cleaned. Images are in the order of their ids.

    The annotations are columns that all processes of a machine share.

    Attributes:
        name: name of the split.
        annotation_path: the annotation file.
        folder: where the images lie.
        classes: label k is ``classes[k]``.
        category_ids: id of each label in this file.
        columns: all annotations.
        labels: (M,) label of each box.
        report: counts of the annotations.
        cache_dir: folder of the cache; None: nothing of the split is kept.
    """

    def __init__(
        self,
        name: str,
        annotation_path: Path,
        folder: ImageFolder,
        classes: tuple[str, ...] | None,
        columns: AnnotationColumns,
        *,
        cache_dir: Path | None = None,
        files: ImageFiles | None = None,
    ) -> None:
        """Take the columns as those of a split.

        Args:
            name: name of the split.
            annotation_path: the annotation file.
            folder: where the images lie.
            classes: classes in the order of the labels, those of the training split. None: the file's own, by id.
            columns: its annotations.
            cache_dir: folder of the cache, in which what the image files are is kept; None: it is not kept.
            files: what the image files are, if that is known.

        Raises:
            DataError: if the file has other classes, or no usable box.
        """
        own = columns.class_names
        classes = own if classes is None else classes
        if set(own) != set(classes):
            raise _other_classes(annotation_path, own, classes)
        self.name, self.annotation_path, self.folder = name, annotation_path, folder
        self.classes, self.columns = classes, columns
        self.category_ids = tuple(columns.category_ids[own.index(class_name)] for class_name in classes)
        # Equal orders share the column of the store.
        label_of_rank = np.array([classes.index(class_name) for class_name in own], dtype=np.int64)
        self.labels = columns.ranks if own == classes else label_of_rank[columns.ranks]
        self.report = self._report()
        self.cache_dir, self._files = cache_dir, files

    def __len__(self) -> int:
        return self.columns.num_images

    @cached_property
    def image_of(self) -> NDArray[np.int64]:
        """Position of each box's image, (M,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.columns.box_starts))

    def trained_objects(self, index: int) -> tuple[Boxes, NDArray[np.int64]]:
        """Return boxes (n, 4) and labels (n,) of one image, crowd regions left out.

        Args:
            index: position of the image.
        """
        columns = self.columns
        rows = slice(int(columns.box_starts[index]), int(columns.box_starts[index + 1]))
        kept = ~columns.is_crowd[rows]
        return columns.boxes_xyxy_px[rows][kept], self.labels[rows][kept]

    def size(self, index: int) -> Size:
        """Return (height, width) in pixels of the frame of one image.

        Args:
            index: position of the image.
        """
        height, width = self.columns.sizes[index].tolist()
        return height, width

    def image_path(self, index: int) -> Path:
        """Return the file of one image.

        Args:
            index: position of the image.

        Raises:
            DataError: if it leads out of the folder of the images, or to something else than a file.
        """
        return self.folder.safe_file(self.columns.file_name(index))

    def image_files(self, read_header: ReadHeader) -> ImageFiles:
        """Return what the image files are; they are looked at once.

        Args:
            read_header: reader of one file's header.

        Raises:
            DataError: with a list of the images that are missing, broken or of another aspect ratio than their JSON.
        """
        if self._files is None:
            self._files = look_at_files(self.columns, self.folder, self.annotation_path, self.cache_dir, read_header)
        return self._files

    def ground_truth(self) -> COCO:
        """Return the cleaned boxes for pycocotools' evaluation.

        Returns:
            Boxes, crowd regions included, in pixels of the frame of the JSON.
        """
        columns = self.columns
        boxes = columns.boxes_xyxy_px
        boxes_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        ids_of_labels = np.array(self.category_ids, dtype=np.int64)
        image_ids = columns.image_ids
        rows = zip(
            image_ids[self.image_of].tolist(),
            ids_of_labels[self.labels].tolist(),
            boxes_xywh.tolist(),
            columns.areas.tolist(),
            columns.is_crowd.astype(int).tolist(),
        )
        # From 1 on: pycocotools' evaluation takes a matched annotation of id 0 for an unmatched one.
        annotations: list[dict[str, Any]] = [
            {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}
            for number, (image, category, box, area, crowd) in enumerate(rows, start=1)
        ]
        images = [
            {"id": image_id, "file_name": name, "height": size[0], "width": size[1]}
            for image_id, name, size in zip(image_ids.tolist(), columns.file_names(), columns.sizes.tolist())
        ]
        categories = [{"id": key, "name": name} for key, name in zip(self.category_ids, self.classes)]
        return index_coco({"info": {}, "images": images, "annotations": annotations, "categories": categories})

    def _report(self) -> DataReport:
        columns, num_classes = self.columns, len(self.classes)
        trained = np.bincount(self.labels[~columns.is_crowd], minlength=num_classes)
        contiguous = (list(range(num_classes)), list(range(1, num_classes + 1)))
        report = DataReport(
            split=self.name,
            source=str(self.annotation_path),
            num_images=columns.num_images,
            num_boxes=int(trained.sum()),
            num_classes=num_classes,
            non_contiguous_ids=sorted(self.category_ids) not in contiguous,
            classes_without_boxes=tuple(self.classes[label] for label in np.flatnonzero(trained == 0)),
            hints=columns.hints,
            remarks=self.folder.remarks(),
        ).adding(**columns.counts)
        if report.num_boxes == 0:
            cause = CROWD_CAUSE if report.crowd_regions else "Check that the annotations were exported with the images."
            crowds = f": all {report.crowd_regions} boxes are crowd regions" if report.crowd_regions else ""
            raise DataError(
                f"{self.annotation_path}: none of the {report.num_images} images has a usable box{crowds}. {cause}"
            )
        return report


def index_coco(data: dict[str, Any]) -> COCO:
    """Return a COCO detection set as pycocotools' object, without the lines that pycocotools prints."""
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def read_split(
    annotation_path: Path,
    images_dir: Path,
    name: str,
    classes: tuple[str, ...] | None = None,
    cache_dir: Path | None = None,
) -> AnnotatedSplit:
    """Read and clean the annotations of a split.

    Boxes without extent or wholly outside the image are dropped, boxes that reach outside are clipped, crowd regions
    are marked, and missing ``iscrowd``, ``area``, ``width`` and ``height`` are filled in. The report counts all of it.

    Args:
        annotation_path: the JSON file.
        images_dir: folder of the images.
        name: name of the split.
        classes: classes in the order of the labels, those of the training split. None: the file's own, by id.
        cache_dir: folder of the cache, which keeps the cleaned annotations for other processes; None: it does not.

    Returns:
        The split; its images are in the order of their ids.

    Raises:
        DataError: if the file is broken, has other classes, or no usable box, or if its numbers have another form.
    """
    columns = read_columns(annotation_path, images_dir, cache_dir)
    folder = find_image_folder(images_dir, annotation_path, columns.file_names())
    return AnnotatedSplit(name, annotation_path, folder, classes, columns, cache_dir=cache_dir)


def _other_classes(path: Path, found: tuple[str, ...], wanted: tuple[str, ...]) -> DataError:
    missing = sorted(set(wanted) - set(found))
    extra = sorted(set(found) - set(wanted))
    parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has besides {', '.join(extra)}"] * bool(extra)
    return DataError(
        f"{path}: the categories are not those of the training file: it {' and '.join(parts)}. Every split lists "
        "the same names in 'categories' (ids and order may differ; a class may have no box)."
    )
