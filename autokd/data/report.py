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
    """Counts of one split; ``WARNINGS`` and ``NOTES`` explain the fields that are not explained here."""

    split: str
    source: str
    """The annotation file."""
    num_images: int = 0
    num_boxes: int = 0
    """Boxes that can be trained on."""
    num_classes: int = 0
    non_contiguous_ids: bool = False
    """Category ids are not 1..K or 0..K-1: labels are their ranks."""
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

    def adding(self, **counts: int) -> DataReport:
        """Return the report with these counts set."""
        unknown = set(counts) - {field.name for field in fields(self)}
        assert not unknown, f"no such counts: {unknown}"
        return replace(self, **counts)  # type: ignore[arg-type]

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each kind of fault that was found: "boxes without width or height, dropped: 3"."""
        lines = [*self._lines(WARNINGS)]
        if self.classes_without_boxes:
            lines.append(f"classes without a box: {', '.join(self.classes_without_boxes)}")
        return tuple(lines)

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each kind of irregularity that is no fault."""
        lines = [*self._lines(NOTES)]
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
