"""One split of a detection set, as the network sees it.

Legend: N images, C = 3 channels (RGB), H x W pixels of the network's input, n boxes of an image.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from torch import Tensor

from autokd.data.annotations import AnnotatedSplit
from autokd.data.decoded_images import obtain_images
from autokd.data.depth import FULL_DEPTH_SHIFT
from autokd.data.geometry import BoxMap, Size, letterbox_maps, visible_boxes
from autokd.data.image_files import ImageFiles
from autokd.data.images import broken_image, read_header
from autokd.data.mixing import draw_mosaic, mixture, mosaic_placements
from autokd.data.orientation import Frames
from autokd.data.pixel_readers import HostReader, PixelReader
from autokd.data.report import DataReport
from autokd.data.sample import Sample, Target, original_boxes
from autokd.data.views import IDENTITY, Placement, View, apply_view, blank_canvas, place
from autokd.errors import DataError, NonFiniteError
from autokd.files import content_digest

logger = logging.getLogger("autokd.data")

MEMORY_LIMIT_BYTES = 2 * 2**30
"""Memory of a split's decoded images above which they are decoded on demand instead of kept."""
_FINGERPRINT_VERSION = "2"
_ON_HOST = HostReader()


class DetectionDataset:
    """Images scaled and padded to one size, their boxes, and the way back to COCO results.

    Indices of images run from 0 in the order of the image ids.

    Attributes:
        classes: label k is ``classes[k]``.
        category_ids: COCO id of each label.
        image_ids: COCO id of each image.
        image_size_px: (H, W) of the network's input.
        frames: (H, W) for each image: ``image_size_px``, or the same turned.
        keeps_images: whether decoded images stay in memory, as uint8.
        deep_shift: bits by which images of more than 8 bits a channel are reduced, the same in all splits of a set.
        reader: reads images that are not kept in memory.
        decode_threads: threads that load batches ahead; None: as many as the device asks for.
    """

    reader: PixelReader = _ON_HOST
    decode_threads: int | None = None

    def __init__(
        self,
        split: AnnotatedSplit,
        image_size_px: Size,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        deep_shift: int = FULL_DEPTH_SHIFT,
        frames: Frames | None = None,
    ) -> None:
        """Make a data set; no image is read yet.

        Args:
            split: the cleaned annotations.
            image_size_px: (H, W) of the network's input.
            memory_limit_bytes: size of all decoded images up to which they are kept in memory.
            deep_shift: bits by which images of more than 8 bits a channel are reduced.
            frames: the frame of each image; None: ``image_size_px``.
        """
        self.split = split
        self.image_size_px = (int(image_size_px[0]), int(image_size_px[1]))
        self.name = split.name
        self.classes = split.classes
        self.category_ids = split.category_ids
        self.annotation_path = split.annotation_path
        self.image_ids: tuple[int, ...] = tuple(split.columns.image_ids.tolist())
        self.deep_shift = deep_shift
        self.frames = frames or Frames.one(self.image_size_px, self.num_images)
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
        return len(self.split)

    @property
    def num_classes(self) -> int:
        """Classes of the set."""
        return len(self.classes)

    @cached_property
    def report(self) -> DataReport:
        """Counts of what was found in the annotations and, after ``check``, in the images."""
        return self.split.report.adding(too_small_boxes=self._count_too_small())

    @property
    def files(self) -> ImageFiles:
        """Sizes, kinds and samples of the image files; they are looked at when this is first asked for."""
        return self.split.image_files(read_header)

    def at_size(self, image_size_px: Size) -> DetectionDataset:
        """Return the same split for another size of the network's input.

        AP stays comparable, since boxes are evaluated in pixels of the original images.

        Args:
            image_size_px: (H, W) of the network's input.
        """
        frames = self.frames.at_size((int(image_size_px[0]), int(image_size_px[1])))
        same = DetectionDataset(self.split, image_size_px, self._memory_limit_bytes, self.deep_shift, frames)
        same.reader, same.decode_threads = self.reader, self.decode_threads
        return same

    def image_path(self, index: int) -> Path:
        """Return the file of one image.

        Args:
            index: position of the image.

        Raises:
            DataError: if it leads out of the folder of the images, or is no regular file.
        """
        return self.split.image_path(index)

    def original_size(self, index: int) -> Size:
        """Return (height, width) in pixels of the frame that COCO results refer to.

        Args:
            index: position of the image.
        """
        return self.split.size(index)

    def load(self, index: int, view: View = IDENTITY) -> Sample:
        """Return one image in one view.

        Args:
            index: position of the image.
            view: the view; the default leaves the letterboxed image as it is.

        Raises:
            DataError: if the file cannot be read; it is named.
        """
        box_map = self.input_from_original(index, view)
        pixels_CHW, target = self._shown(self.frames.of(index), index, view), self.target(index, view)
        return Sample(pixels_CHW, target, index, self.image_ids[index], self.split.size(index), box_map, view)

    def target(self, index: int, view: View = IDENTITY) -> Target:
        """Return the boxes that ``load`` returns, without reading the image.

        Args:
            index: position of the image.
            view: view that the boxes are mapped and clipped to.
        """
        return self._target_in(self.frames.of(index), index, view)

    def _target_in(self, frame: Size, index: int, view: View) -> Target:
        targets = [self._target(member, placement) for member, placement in self._placements(frame, index, view)]
        if view.mixed_with is not None:
            targets.append(self._target_in(frame, *self._fitted(frame, *view.mixed_with)))
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
        box = self.frames.letterbox(index, self.split.size(index))
        return box.box_map.then(place(view, box.content_size, self.frames.of(index)).box_map)

    def boxes_by_class(self) -> NDArray[np.int64]:
        """Return the number of boxes of each class in each image, (N, K); crowd regions do not count."""
        split = self.split
        cells = (split.image_of * self.num_classes + split.labels)[~split.columns.is_crowd]
        return np.bincount(cells, minlength=self.num_images * self.num_classes).reshape(-1, self.num_classes)

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
        """Look at every image file, so that a broken one is found before anything is trained; log the report.

        Returns:
            The report with the counts of the images added.

        Raises:
            DataError: with a list of the images that are missing, broken or of another aspect ratio than their JSON.
        """
        report = self.examine()
        logger.log(logging.WARNING if report.warnings() else logging.INFO, "%s", report.summary())
        return report

    def examine(self) -> DataReport:
        """Look at every image file, as ``check`` does, and log nothing.

        Headers that another process or an earlier run has read, of files that have not changed, are not opened again.

        Returns:
            The report with the counts of the images added.

        Raises:
            DataError: as ``check`` does.
        """
        self.report = self.report.adding(**self.files.counts(self.split.columns.sizes))
        if self.report.deep_images and self.deep_shift != FULL_DEPTH_SHIFT:
            remark = (
                f"16-bit images of this set use a part of their range, with {self.files.peak} as the brightest value "
                f"of this split: they are divided by {2**self.deep_shift} instead of {2**FULL_DEPTH_SHIFT}"
            )
            self.report = replace(self.report, remarks=(*self.split.report.remarks, remark))
        return self.report

    def whole_digest(self) -> str:
        """Return a digest of the annotations and of every byte of the image files, which takes a while.

        Equal digests on two machines mean equal sets, where ``fingerprint`` compares a sample of each file.

        Raises:
            DataError: if a file cannot be read.
        """
        digest = hashlib.blake2b(self.split.columns.content.encode(), digest_size=16)
        for index in range(self.num_images):
            path = self.image_path(index)
            try:
                digest.update(content_digest(path).encode())
            except OSError as error:
                raise broken_image(path, error) from None
        return digest.hexdigest()

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

        That is classes, image list, frames, boxes, ``image_size_px``, and of each file its length and 4 KiB of its
        start, middle and end. Names of folders, layout of the JSON and times of files do not count.
        """
        head = (_FINGERPRINT_VERSION, self.classes, self.category_ids, self.image_size_px, self.split.columns.content)
        digest = hashlib.blake2b(repr(head).encode(), digest_size=8)
        if self.deep_shift != FULL_DEPTH_SHIFT:
            digest.update(f"deep images by {self.deep_shift} bits".encode())
        if self.frames.has_two:
            digest.update(b"turned frames" + np.packbits(self.frames.turned_N).tobytes())
        digest.update(self.files.samples.tobytes())
        return digest.hexdigest()

    def _letterboxed(self, index: int) -> Tensor:
        """Return the image scaled and padded, (3, H, W) uint8; from memory if images are kept."""
        if not self.keeps_images:
            reader = self.reader
            canvas_CHW = torch.empty((3, *self.frames.of(index)), dtype=torch.uint8, device=reader.device)
            self._decode_into(index, canvas_CHW, reader)
            return canvas_CHW
        if self._images_NCHW is None:
            self._images_NCHW = self._open_images()
        # The turned frame has as many pixels: the memory of one is that of the other.
        canvas_CHW = self._images_NCHW[index].view(3, *self.frames.of(index))
        if not self._decoded[index]:
            self._decode_into(index, canvas_CHW)
            self._decoded[index] = True
        return canvas_CHW

    def _open_images(self) -> Tensor:
        """Return the decoded images that the machine's processes share, or empty memory of this process."""
        if self.split.cache_dir is not None:
            # An image that cannot be read is an error of the one who loads it, not of all the others.
            with contextlib.suppress(DataError):
                images_NCHW = obtain_images(
                    self.split.cache_dir, self.fingerprint, self.num_images, self.image_size_px, self._decode_into
                )
                self._decoded[:] = True
                return images_NCHW
        return torch.empty((self.num_images, 3, *self.image_size_px), dtype=torch.uint8)

    def _decode_into(self, index: int, canvas_CHW: Tensor, reader: PixelReader = _ON_HOST) -> None:
        """Write an image, scaled and padded, into as many bytes as (3, H, W) uint8 has."""
        canvas_CHW = canvas_CHW.view(3, *self.frames.of(index))
        canvas_CHW.copy_(blank_canvas(self.frames.of(index)))
        size = self.split.size(index)
        rows, columns = self._content_size(index)
        canvas_CHW[:, :rows, :columns] = reader(self.image_path(index), size, (rows, columns), self.deep_shift)

    def _shown(self, frame: Size, index: int, view: View) -> Tensor:
        """Return the pixels of a view, (3, *frame) uint8."""
        if view.mosaic is None:
            pixels_CHW = apply_view(self._letterboxed(index), self._content_size(index), view, frame)
        else:
            members = [member for member, _ in view.mosaic.parts]
            pixels_CHW = draw_mosaic(
                [self._letterboxed(member) for member in members],
                [single for _, single in view.mosaic.parts],
                [self._content_size(member) for member in members],
                [placement for _, placement in self._placements(frame, index, view)],
                frame,
            )
        if view.mixed_with is None:
            return pixels_CHW
        return mixture(pixels_CHW, self._shown(frame, *self._fitted(frame, *view.mixed_with)))

    def _fitted(self, frame: Size, index: int, view: View) -> tuple[int, View]:
        """Return the other image of a mixture; in a frame that is not its own, scaled to fit it."""
        if self.frames.of(index) == frame:
            return index, view
        height, width = self._content_size(index)
        return index, replace(view, scale=view.scale * min(frame[0] / height, frame[1] / width))

    def _placements(self, frame: Size, index: int, view: View) -> list[tuple[int, Placement]]:
        """Return the placement of each image of a view with its index; the other image of a mixture is left out."""
        if view.mosaic is None:
            return [(index, place(view, self._content_size(index), frame))]
        members, views = zip(*view.mosaic.parts)
        sizes = [self._content_size(member) for member in members]
        placements = mosaic_placements(views, sizes, view.mosaic.center, frame)
        return list(zip(members, placements))

    def _content_size(self, index: int) -> Size:
        """Return the part of the input that a letterboxed image fills, (h, w)."""
        return self.frames.letterbox(index, self.split.size(index)).content_size

    def _target(self, index: int, placement: Placement) -> Target:
        box = self.frames.letterbox(index, self.split.size(index))
        boxes_xyxy_px, labels = self.split.trained_objects(index)
        whole = box.box_map.then(placement.box_map).apply(boxes_xyxy_px)
        boxes, visible = visible_boxes(whole, placement.paste_start, placement.visible_size)
        return {
            "boxes": torch.from_numpy(boxes[visible].astype(np.float32)),
            "labels": torch.from_numpy(labels[visible]),
        }

    def _count_too_small(self) -> int:
        split = self.split
        scales, contents = letterbox_maps(split.columns.sizes, self.frames.limits_N2)
        boxes = split.columns.boxes_xyxy_px * scales[split.image_of][:, [1, 0, 1, 0]]
        _, visible = visible_boxes(boxes, (0, 0), contents[split.image_of].T)
        return int((~visible & ~split.columns.is_crowd).sum())
