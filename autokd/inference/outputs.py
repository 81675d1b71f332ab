"""Predictions as files: pictures with boxes, one COCO JSON, one CSV."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from autokd.files import write_json_atomically
from autokd.inference.predictions import Prediction
from autokd.report import draw_box, open_image
from autokd.storage import StudentCard

OutputName = Literal["pictures", "coco", "csv"]
OUTPUTS: tuple[OutputName, ...] = get_args(OutputName)
COCO_FILE = "predictions.json"
CSV_FILE = "predictions.csv"
CSV_COLUMNS = ("file", "frame", "label", "class", "score", "x0", "y0", "x1", "y1")
_COLORS = (
    (56, 189, 248), (251, 146, 60), (74, 222, 128), (244, 114, 182), (250, 204, 21), (167, 139, 250), (248, 113, 113),
    (45, 212, 191),
)  # fmt: skip


class Output(ABC):
    """A form of predictions. ``close`` writes what is written at the end.

    Args:
        folder: where files go.
        card: names of the classes.
    """

    def __init__(self, folder: Path, card: StudentCard) -> None:
        self.folder = folder
        self.card = card

    @abstractmethod
    def add(self, prediction: Prediction) -> None:
        """Take the prediction of one more frame.

        Args:
            prediction: the boxes.
        """

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file or folder that is written."""

    def close(self) -> None:  # noqa: B027 - most outputs have nothing left to write
        """Write the rest."""


class Pictures(Output):
    """A JPEG a frame, with its boxes; files of equal names from several folders get numbers."""

    def __init__(self, folder: Path, card: StudentCard) -> None:
        super().__init__(folder, card)
        self._names: set[str] = set()

    def add(self, prediction: Prediction) -> None:
        """Write the picture of a frame."""
        frame = prediction.frame
        canvas = frame.content if frame.content is not None else open_image(frame.source, prediction.size_px)
        canvas = canvas.convert("RGB")
        scale = max(1.0, 360 / canvas.width)  # as in the report: small images are enlarged, so that words are legible
        canvas = canvas.resize((round(canvas.width * scale), round(canvas.height * scale)))
        rows = list(zip(prediction.boxes_xyxy_px, prediction.scores, prediction.labels))
        for box, score, label in reversed(rows):  # the surest last, so that their words lie on top
            words = f"{self.card.classes[label]} {score:.2f}"
            draw_box(canvas, box, scale, _COLORS[label % len(_COLORS)], words)
        canvas.save(self.folder / self._name(prediction), "JPEG", quality=90)

    @property
    def path(self) -> Path:
        return self.folder

    def _name(self, prediction: Prediction) -> str:
        frame = prediction.frame
        stem = frame.source.stem if frame.number is None else f"{frame.source.stem}_{frame.number:06d}"
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return f"{name}.jpg"


class CocoJson(Output):
    """One COCO data set: images, categories, and annotations with a score."""

    def __init__(self, folder: Path, card: StudentCard) -> None:
        super().__init__(folder, card)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, prediction: Prediction) -> None:
        """Keep the boxes of a frame."""
        image_id = len(self._images) + 1
        height, width = prediction.size_px
        frame = prediction.frame
        about: dict[str, Any] = {"id": image_id, "file_name": str(frame.source), "width": width, "height": height}
        if frame.number is not None:
            about["frame"] = frame.number
        self._images.append(about)
        for (x0, y0, x1, y1), score, label in zip(prediction.boxes_xyxy_px, prediction.scores, prediction.labels):
            box = [x0, y0, x1 - x0, y1 - y0]
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": self.card.category_ids[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "score": score,
                }
            )

    @property
    def path(self) -> Path:
        return self.folder / COCO_FILE

    def close(self) -> None:
        """Write the file."""
        categories = [
            {"id": category, "name": name} for category, name in zip(self.card.category_ids, self.card.classes)
        ]
        data = {"images": self._images, "annotations": self._annotations, "categories": categories}
        write_json_atomically(self.path, data)


class Csv(Output):
    """One row a box; a frame without boxes has no row."""

    def __init__(self, folder: Path, card: StudentCard) -> None:
        super().__init__(folder, card)
        self._file = self.path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(CSV_COLUMNS)

    def add(self, prediction: Prediction) -> None:
        """Write the rows of a frame."""
        frame = prediction.frame
        number = "" if frame.number is None else frame.number
        for box, score, label in zip(prediction.boxes_xyxy_px, prediction.scores, prediction.labels):
            corners = [f"{value:.2f}" for value in box]
            name = self.card.classes[label]
            self._writer.writerow([str(frame.source), number, label, name, f"{score:.6f}", *corners])

    @property
    def path(self) -> Path:
        return self.folder / CSV_FILE

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_KINDS: dict[OutputName, type[Output]] = {"pictures": Pictures, "coco": CocoJson, "csv": Csv}


@contextmanager
def open_outputs(names: Sequence[OutputName], folder: Path, card: StudentCard) -> Iterator[list[Output]]:
    """Yield the outputs of some names, and close each at the end.

    Args:
        names: forms of the predictions.
        folder: where files go; made if it is absent.
        card: names of the classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        outputs = [_KINDS[name](folder, card) for name in dict.fromkeys(names)]
        for output in outputs:
            stack.callback(output.close)
        yield outputs
