"""The report of a split: counts of its irregularities, and what is done about each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

WARNINGS: dict[str, str] = {
    "degenerate_boxes": "boxes without width or height, dropped",
    "outside_boxes": "boxes wholly outside their image, dropped",
    "clipped_boxes": "boxes reaching more than a pixel outside their image, clipped to it",
    "too_small_boxes": "boxes under half a pixel at image_size_px, not trained on, kept for the evaluation",
    "scaled_images": "images stored larger or smaller than their JSON says, at the same aspect ratio, scaled",
    "orientation_ignored": "images with an EXIF orientation whose JSON size fits them as stored, not rotated",
    "missing_iscrowd": "annotations without 'iscrowd', taken as 0",
    "missing_areas": "annotations without a usable 'area', width x height taken",
    "missing_sizes": "images without width and height in the JSON, read from the file",
    "alpha_images": "images with transparency, it is dropped",
    "deep_images": "images of 16 bits a channel, reduced to 8",
}
"""Field of ``DataReport`` -> what it counts and what is done about it; these fields make a warning."""

NOTES: dict[str, str] = {
    "crowd_regions": "crowd regions, ignored in training, kept for the evaluation",
    "images_without_boxes": "images without boxes, kept, as background",
    "rotated_images": "images rotated as their EXIF orientation says, since the JSON's size fits only then",
    "gray_images": "grayscale images, made RGB",
}
"""The same for irregularities that are common in sound sets."""


@dataclass(frozen=True)
class DataReport:
    """Counts of one split. ``WARNINGS`` and ``NOTES`` state what is done about each irregularity.

    Six counts need the image files and are 0 until ``DetectionDataset.check`` has opened them: ``scaled_images``,
    ``rotated_images``, ``orientation_ignored``, ``gray_images``, ``alpha_images`` and ``deep_images``.

    Attributes:
        split: name of the split.
        source: path of the annotation file.
        num_images: images of the split, those without boxes included.
        num_boxes: boxes that are neither dropped nor crowd regions; ``too_small_boxes`` are among them.
        num_classes: classes of the set, K.
        non_contiguous_ids: whether the category ids are neither 0..K-1 nor 1..K. Labels are 0..K-1 in any case.
        classes_without_boxes: names of the classes that no box of ``num_boxes`` has.
        degenerate_boxes: boxes without width or height.
        outside_boxes: boxes wholly outside their image.
        clipped_boxes: boxes that reach more than one pixel outside their image.
        too_small_boxes: boxes of ``num_boxes`` with a side under half a pixel of the network's input.
        scaled_images: images stored at another size than the JSON gives, at the same aspect ratio.
        orientation_ignored: images with an EXIF orientation that is not applied.
        missing_iscrowd: annotations without ``iscrowd``.
        missing_areas: annotations whose ``area`` is missing or no positive finite number.
        missing_sizes: images without ``width`` or ``height`` in the JSON.
        alpha_images: images with transparency.
        deep_images: images of more than 8 bits a channel.
        crowd_regions: boxes with ``iscrowd`` 1 that are not dropped.
        images_without_boxes: images without a box of ``num_boxes``.
        rotated_images: images that are rotated by their EXIF orientation.
        gray_images: grayscale images.
        hints: suspicions about the numbers, a sentence each, which count as warnings.
        remarks: readings of the set that are no fault, a sentence each.
    """

    split: str
    source: str
    num_images: int = 0
    num_boxes: int = 0
    num_classes: int = 0
    non_contiguous_ids: bool = False
    classes_without_boxes: tuple[str, ...] = ()
    degenerate_boxes: int = 0
    outside_boxes: int = 0
    clipped_boxes: int = 0
    too_small_boxes: int = 0
    scaled_images: int = 0
    orientation_ignored: int = 0
    missing_iscrowd: int = 0
    missing_areas: int = 0
    missing_sizes: int = 0
    alpha_images: int = 0
    deep_images: int = 0
    crowd_regions: int = 0
    images_without_boxes: int = 0
    rotated_images: int = 0
    gray_images: int = 0
    hints: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def adding(self, **counts: int) -> DataReport:
        """Return the report with some counts set; a count that it has already is replaced, not added to.

        Args:
            **counts: name of a field -> its count.
        """
        unknown = set(counts) - {field.name for field in fields(self)}
        assert not unknown, f"no such counts: {unknown}"
        return replace(self, **counts)  # type: ignore[arg-type]

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each kind of fault that was found: "boxes without width or height, dropped: 3"."""
        lines = [*self._lines(WARNINGS), *self.hints]
        if self.classes_without_boxes:
            lines.append(f"classes without a box: {', '.join(self.classes_without_boxes)}")
        return tuple(lines)

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each kind of irregularity that is no fault."""
        lines = [*self._lines(NOTES), *self.remarks]
        if self.non_contiguous_ids:
            lines.append("category ids have gaps: labels are their ranks, and results carry the ids again")
        return tuple(lines)

    def summary(self) -> str:
        """Return the report as text, one line a fact."""
        head = (
            f"{self.split}: {self.num_images} images, {self.num_boxes} boxes of {self.num_classes} classes "
            f"({self.source})"
        )
        return "\n".join(
            [head, *(f"  warning: {line}" for line in self.warnings()), *(f"  {line}" for line in self.notes())]
        )

    def _lines(self, table: dict[str, str]) -> Iterator[str]:
        for name, meaning in table.items():
            count = getattr(self, name)
            if count:
                yield f"{meaning}: {count}"
