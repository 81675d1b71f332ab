"""One split of a detection set, as the network sees it.

Legend: N images, C = 3 channels (RGB), H x W pixels of the network's input, n boxes of an image.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from torch import Tensor

from autokd.data.annotation_file import Problems
from autokd.data.annotations import AnnotatedSplit, ImageRecord
from autokd.data.geometry import Boxes, BoxMap, Size, box_areas, letterbox
from autokd.data.image_names import require_inside
from autokd.data.images import fit_to_frame, read_header, read_pixels, require_fit
from autokd.data.mixing import draw_mosaic, mixture, mosaic_placements
from autokd.data.report import DataReport
from autokd.data.sample import Sample, Target, original_boxes
from autokd.data.views import IDENTITY, Placement, View, apply_view, blank_canvas, place
from autokd.errors import DataError, NonFiniteError

logger = logging.getLogger("autokd.data")

MEMORY_LIMIT_BYTES = 2 * 2**30
"""Memory of a split's decoded images above which they are decoded on demand instead of kept."""
MIN_SIDE_PX = 0.5
"""Shortest side of a box in the network's input that is trained on."""
MIN_VISIBLE_FRACTION = 0.3
"""Least part of a box in a view's window with which it is trained on in that view."""
_HASHED_BYTES = 2**18
"""Bytes of a file that its fingerprint reads: half of them from the start, half from the end."""
_FINGERPRINT_VERSION = "1"


class DetectionDataset:
    """Images scaled and padded to one size, their boxes, and the way back to COCO results.

    Indices of images run from 0 in the order of the image ids.

    Attributes:
        classes: label k is ``classes[k]``.
        category_ids: COCO id of each label.
        image_ids: COCO id of each image.
        image_size_px: (H, W) of the network's input.
        report: counts of what was found in the annotations and, after ``check``, in the images.
        keeps_images: whether decoded images stay in memory, as uint8.
    """

    def __init__(
        self, split: AnnotatedSplit, image_size_px: Size, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
    ) -> None:
        """Make a data set; no image is read yet.

        Args:
            split: the cleaned annotations.
            image_size_px: (H, W) of the network's input.
            memory_limit_bytes: size of all decoded images up to which they are kept in memory.
        """
        self.split = split
        self.image_size_px = (int(image_size_px[0]), int(image_size_px[1]))
        self.name = split.name
        self.classes = split.classes
        self.category_ids = split.category_ids
        self.annotation_path = split.annotation_path
        self.image_ids = tuple(record.image_id for record in split.records)
        self.report = split.report.adding(too_small_boxes=self._count_too_small())
        height, width = self.image_size_px
        self._memory_limit_bytes = memory_limit_bytes
        self.keeps_images = self.num_images * 3 * height * width <= memory_limit_bytes
        self._images_NCHW: Tensor | None = None
        self._decoded = np.zeros(self.num_images, dtype=bool)

    def __len__(self) -> int:
        return self.num_images

    def __repr__(self) -> str:
        return f"<DetectionDataset {self.name}: {self.num_images} images, {len(self.classes)} classes>"

    @property
    def num_images(self) -> int:
        """Images of the split."""
        return len(self.split.records)

    @property
    def num_classes(self) -> int:
        """Classes of the set."""
        return len(self.classes)

    def at_size(self, image_size_px: Size) -> DetectionDataset:
        """Return the same split for another size of the network's input.

        AP stays comparable, since boxes are evaluated in pixels of the original images.

        Args:
            image_size_px: (H, W) of the network's input.
        """
        return DetectionDataset(self.split, image_size_px, self._memory_limit_bytes)

    def image_path(self, index: int) -> Path:
        """Return the file of one image.

        Args:
            index: position of the image.

        Raises:
            DataError: if it leads out of the folder of the images, or is no regular file.
        """
        return require_inside(self.split.images_dir / self.split.records[index].file_name, self.split.images_dir)

    def original_size(self, index: int) -> Size:
        """Return (height, width) in pixels of the frame that COCO results refer to.

        Args:
            index: position of the image.
        """
        return self.split.records[index].size

    def load(self, index: int, view: View = IDENTITY) -> Sample:
        """Return one image in one view.

        Args:
            index: position of the image.
            view: the view; the default leaves the letterboxed image as it is.

        Raises:
            DataError: if the file cannot be read; it is named.
        """
        record = self.split.records[index]
        box_map = self.input_from_original(index, view)
        return Sample(
            self._shown(index, view), self.target(index, view), index, record.image_id, record.size, box_map, view
        )

    def target(self, index: int, view: View = IDENTITY) -> Target:
        """Return the boxes that ``load`` returns, without reading the image.

        Args:
            index: position of the image.
            view: view that the boxes are mapped and clipped to.
        """
        targets = [
            self._target(self.split.records[member], placement) for member, placement in self._placements(index, view)
        ]
        if view.mixed_with is not None:
            targets.append(self.target(*view.mixed_with))
        if len(targets) == 1:
            return targets[0]
        return {
            "boxes": torch.cat([target["boxes"] for target in targets]),
            "labels": torch.cat([target["labels"] for target in targets]),
        }

    def input_from_original(self, index: int, view: View = IDENTITY) -> BoxMap:
        """Return the map from pixels of the original image to pixels of the network's input.

        Args:
            index: position of the image.
            view: view that the input shows.
        """
        box = letterbox(self.split.records[index].size, self.image_size_px)
        return box.box_map.then(place(view, box.content_size, self.image_size_px).box_map)

    def boxes_by_class(self) -> NDArray[np.int64]:
        """Return the number of boxes of each class in each image, (N, K); crowd regions do not count."""
        labels = (record.labels[~record.is_crowd] for record in self.split.records)
        return np.stack([np.bincount(of_image, minlength=self.num_classes) for of_image in labels])

    def to_coco_results(
        self, index: int, detections: Mapping[str, Tensor], view: View = IDENTITY
    ) -> list[dict[str, Any]]:
        """Turn detections of one image into COCO result rows.

        Args:
            index: position of the image.
            detections: ``boxes`` (n, 4) xyxy pixels of the network's input, ``scores`` (n,), ``labels`` (n,) 0-based.
            view: view in which the image was detected.

        Returns:
            A row a detection, its box clipped to the image, in pixels of the original image.

        Raises:
            NonFiniteError: if a box or a score is NaN or infinite.
        """
        boxes, scores = detections["boxes"], detections["scores"]
        if not (bool(torch.isfinite(boxes).all()) and bool(torch.isfinite(scores).all())):
            raise NonFiniteError(f"detections of image {self.image_path(index)}: a box or a score is not finite.")
        corners = original_boxes(boxes, self.input_from_original(index, view), self.original_size(index)).numpy()
        boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        image_id = self.image_ids[index]
        return [
            {"image_id": image_id, "category_id": self.category_ids[label], "bbox": box, "score": score}
            for label, box, score in zip(detections["labels"].tolist(), boxes_xywh.tolist(), scores.tolist())
        ]

    def ground_truth(self) -> COCO:
        """Return the cleaned annotations, crowd regions included, for pycocotools' evaluation."""
        return self.split.ground_truth()

    def check(self) -> DataReport:
        """Open every image's header, so that a broken file is found before anything is trained; log the report.

        Returns:
            The report with the counts of the images added.

        Raises:
            DataError: with a list of the images that are missing, broken or of another aspect ratio than their JSON.
        """
        counts: Counter[str] = Counter()
        problems = Problems(self.annotation_path)
        for index, record in enumerate(self.split.records):
            try:
                path = self.image_path(index)
                header = read_header(path)
                if fit_to_frame(header.stored_size, header.orientation, record.size) is None:
                    # A PNG may have its EXIF orientation behind its pixels, where only decoding finds it.
                    header = read_header(path, decode=True)
                fit = require_fit(path, header, record.size)
            except DataError as error:
                problems.add(f"image {record.image_id}: {error}")
                continue
            counts["scaled_images"] += fit.scale
            counts["rotated_images"] += fit.rotate
            counts["orientation_ignored"] += header.orientation != 1 and not fit.rotate
            counts["gray_images"] += header.kind == "gray"
            counts["alpha_images"] += header.kind == "alpha"
            counts["deep_images"] += header.kind == "deep"
        problems.raise_if_any()
        self.report = self.report.adding(**counts)
        logger.log(logging.WARNING if self.report.warnings() else logging.INFO, "%s", self.report.summary())
        return self.report

    def preload(self, indices: Iterable[int] | None = None) -> None:
        """Decode images into memory; do nothing if the split does not keep its images.

        Args:
            indices: positions of the images; None: all.
        """
        if self.keeps_images:
            for index in range(self.num_images) if indices is None else indices:
                self._letterboxed(index)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of everything that ``load`` depends on.

        That is classes, image list, frames, boxes, ``image_size_px`` and the files' bytes (of a file over 256 KiB its
        length, its first and its last 128 KiB). Names of folders, layout of the JSON and times of files do not count.
        """
        digest = hashlib.blake2b(digest_size=8)
        head = (_FINGERPRINT_VERSION, self.classes, self.category_ids, self.image_size_px)
        digest.update(repr(head).encode())
        for index, record in enumerate(self.split.records):
            digest.update(repr((record.image_id, record.file_name, record.size, len(record.labels))).encode())
            for values in (record.boxes_xyxy_px, record.labels, record.is_crowd, record.areas):
                digest.update(np.ascontiguousarray(values).tobytes())
            _hash_file(self.image_path(index), digest)
        return digest.hexdigest()

    def _letterboxed(self, index: int) -> Tensor:
        """Return the image scaled and padded, (3, H, W) uint8; from memory if images are kept."""
        if not self.keeps_images:
            canvas_CHW = blank_canvas(self.image_size_px)
            self._decode_into(index, canvas_CHW)
            return canvas_CHW
        if self._images_NCHW is None:
            self._images_NCHW = torch.empty((self.num_images, 3, *self.image_size_px), dtype=torch.uint8)
        canvas_CHW = self._images_NCHW[index]
        if not self._decoded[index]:
            canvas_CHW.copy_(blank_canvas(self.image_size_px))
            self._decode_into(index, canvas_CHW)
            self._decoded[index] = True
        return canvas_CHW

    def _decode_into(self, index: int, canvas_CHW: Tensor) -> None:
        record = self.split.records[index]
        rows, columns = letterbox(record.size, self.image_size_px).content_size
        pixels = read_pixels(self.image_path(index), record.size, (rows, columns))
        canvas_CHW[:, :rows, :columns] = torch.from_numpy(pixels)

    def _shown(self, index: int, view: View) -> Tensor:
        """Return the pixels of a view, (3, H, W) uint8."""
        if view.mosaic is None:
            pixels_CHW = apply_view(self._letterboxed(index), self._content_size(index), view)
        else:
            members = [member for member, _ in view.mosaic.parts]
            pixels_CHW = draw_mosaic(
                [self._letterboxed(member) for member in members],
                [single for _, single in view.mosaic.parts],
                [self._content_size(member) for member in members],
                [placement for _, placement in self._placements(index, view)],
                self.image_size_px,
            )
        if view.mixed_with is None:
            return pixels_CHW
        return mixture(pixels_CHW, self._shown(*view.mixed_with))

    def _placements(self, index: int, view: View) -> list[tuple[int, Placement]]:
        """Return the placement of each image of a view with its index; the other image of a mixture is left out."""
        if view.mosaic is None:
            return [(index, place(view, self._content_size(index), self.image_size_px))]
        members, views = zip(*view.mosaic.parts)
        sizes = [self._content_size(member) for member in members]
        placements = mosaic_placements(views, sizes, view.mosaic.center, self.image_size_px)
        return list(zip(members, placements))

    def _content_size(self, index: int) -> Size:
        """Return the part of the input that a letterboxed image fills, (h, w)."""
        return letterbox(self.split.records[index].size, self.image_size_px).content_size

    def _target(self, record: ImageRecord, placement: Placement) -> Target:
        box = letterbox(record.size, self.image_size_px)
        whole = box.box_map.then(placement.box_map).apply(record.boxes_xyxy_px[~record.is_crowd])
        boxes, visible = visible_boxes(whole, placement.paste_start, placement.visible_size)
        labels = record.labels[~record.is_crowd]
        return {
            "boxes": torch.from_numpy(boxes[visible].astype(np.float32)),
            "labels": torch.from_numpy(labels[visible]),
        }

    def _count_too_small(self) -> int:
        return sum(
            int((~record.is_crowd).sum()) - len(self.target(index)["labels"])
            for index, record in enumerate(self.split.records)
        )


def visible_boxes(boxes: Boxes, start: Size, size: Size) -> tuple[Boxes, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Clip boxes to a window.

    Args:
        boxes: (n, 4) xyxy pixels.
        start: (y, x) of the window's first pixel.
        size: (h, w) of the window.

    Returns:
        The clipped boxes, (n, 4), and whether each is large and visible enough to be trained on, (n,).
    """
    (top, left), (rows, columns) = start, size
    low, high = np.array([left, top, left, top]), np.array([left + columns, top + rows] * 2)
    clipped = boxes.clip(low, high)
    wide_enough = ((clipped[:, 2:] - clipped[:, :2]) >= MIN_SIDE_PX).all(axis=1)
    return clipped, wide_enough & (box_areas(clipped) >= MIN_VISIBLE_FRACTION * box_areas(boxes))


def _hash_file(path: Path, digest: Any) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES // 2 if size > _HASHED_BYTES else _HASHED_BYTES))
        if size > _HASHED_BYTES:
            file.seek(size - _HASHED_BYTES // 2)
            digest.update(file.read())
