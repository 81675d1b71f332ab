"""Seeded batches of a student and a teacher: maps, predictions and objects.

Three images: one with objects of three classes, one with objects of a single class, one without. Sizes are odd, so that
levels end in half windows and patches. A head has one candidate a cell.

Legend: B images, C channels, H x W cells, A candidates of an image, K classes, E bins of an edge, R proposals.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.distill.peers.complex_step import Array

NUM_CLASSES, NUM_BINS = 4, 6
Sizes = Mapping[str, tuple[int, int]]

STRIDES = {"p3": 8, "p4": 16, "p5": 32}
IMAGE_SIZE_PX = (117, 150)

OBJECTS = (
    # The third has a side of 129 px, so that it belongs to the second level; the last one holds no cell's center.
    ([12.0, 9.0, 61.5, 70.25, 0], [40.0, 30.0, 140.0, 110.0, 1], [3.5, 1.0, 148.25, 116.0, 2],
     [70.0, 60.0, 112.0, 101.5, 0], [20.25, 50.5, 33.0, 64.0, 1], [90.5, 20.25, 92.5, 23.0, 2]),
    ([30.0, 20.0, 80.0, 60.0, 1], [35.0, 25.5, 90.0, 70.0, 1], [100.25, 10.0, 145.0, 50.5, 1]),
    (),
)  # fmt: skip
"""Of each image: x1, y1, x2, y2 in pixels, and the class."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What both detectors expose of a batch; equal to itself alone, so that what follows from it can be kept.

    Args:
        student: name -> numbers whose gradient is compared; maps have the names of levels.
        teacher: the same names.
        boxes: of each image (n, 4), xyxy pixels.
        labels: of each image (n,).
        strides: level -> pixels per cell.
        image_size_px: (height, width) of the network's input.
        proposals: (B, R, 4) of the student, best first, then rows of NaN; None: it gives none.
    """

    student: dict[str, Array]
    teacher: dict[str, Array]
    boxes: tuple[Array, ...]
    labels: tuple[Array, ...]
    strides: Mapping[str, int] = field(default_factory=lambda: STRIDES)
    image_size_px: tuple[int, int] = IMAGE_SIZE_PX
    proposals: Array | None = None

    @property
    def num_images(self) -> int:
        return len(self.boxes)

    def size_of(self, level: str) -> tuple[int, int]:
        return self.teacher[level].shape[2], self.teacher[level].shape[3]


def maps_only(
    seed: int = 0,
    student_channels: int = 8,
    teacher_channels: int = 8,
    objects: Sequence[Sequence[Sequence[float]]] = OBJECTS,
    image_size_px: tuple[int, int] = IMAGE_SIZE_PX,
    strides: Mapping[str, int] = STRIDES,
) -> Batch:
    """Return a batch of maps: noise, and in every object's cells a vector of its class besides."""
    random = np.random.default_rng(seed)
    table = [np.array(rows, dtype=float).reshape(-1, 5) for rows in objects]
    of_classes = [np.random.default_rng(99).normal(size=(NUM_CLASSES, x)) for x in (student_channels, teacher_channels)]
    sides: list[dict[str, Array]] = []
    for vectors in of_classes:
        maps = {}
        for level, stride in strides.items():
            height, width = (-(-size // stride) for size in image_size_px)
            map_BCHW = random.normal(size=(len(table), vectors.shape[1], height, width))
            for image, objects_of_image in enumerate(table):
                for x1, y1, x2, y2, label in objects_of_image:
                    rows, columns = (slice(int(a // stride), int(b // stride) + 1) for a, b in ((y1, y2), (x1, x2)))
                    map_BCHW[image, :, rows, columns] += 0.7 * vectors[int(label)][:, None, None]
            maps[level] = map_BCHW
        sides.append(maps)
    boxes, labels = tuple(rows[:, :4] for rows in table), tuple(rows[:, 4].astype(np.int64) for rows in table)
    return Batch(sides[0], sides[1], boxes, labels, strides, image_size_px)


def with_predictions(given: Batch, seed: int = 5) -> Batch:
    """Return the batch with class logits, boxes and logits of the edges' bins on both sides, candidates at the cells.

    Every third of the teacher's boxes lies near an object, if there is one.
    """
    random = np.random.default_rng(seed)
    centers_A2 = np.concatenate([_centers(given.size_of(level), stride) for level, stride in given.strides.items()])
    num = len(centers_A2)
    shape = (given.num_images, num)
    logits = random.normal(size=(*shape, NUM_CLASSES)) * 1.5 - 0.5
    sides = np.exp(random.normal(size=(*shape, 4)) * 0.4 + 3.0)
    boxes = np.concatenate([centers_A2 - sides[..., :2], centers_A2 + sides[..., 2:]], -1)
    for image, (objects, labels) in enumerate(zip(given.boxes, given.labels)):
        for row, candidate in enumerate(range(0, num if len(objects) else 0, 3)):
            which = row % len(objects)
            boxes[image, candidate] = _near(objects[which], random)
            logits[image, candidate, labels[which]] += 2.0
    edges = random.normal(size=(*shape, 4, NUM_BINS)) * 2.0
    teacher = {"class_logits": logits, "boxes": boxes, "edge_logits": edges}
    student = {
        "class_logits": logits + random.normal(size=logits.shape),
        "boxes": np.stack([_near(box, random) for box in boxes.reshape(-1, 4)]).reshape(boxes.shape),
        "edge_logits": edges + random.normal(size=edges.shape),
    }
    return _with(given, given.student | student, given.teacher | teacher)


def with_head_maps(given: Batch, seed: int = 6, student_channels: int = 8, teacher_channels: int = 8) -> Batch:
    """Return the batch with the maps inside a head's two branches: ``class.LEVEL`` and ``box.LEVEL``."""
    random = np.random.default_rng(seed)
    sides = []
    for channels in (student_channels, teacher_channels):
        sides.append({
            f"{branch}.{level}": random.normal(size=(given.num_images, channels, *given.size_of(level))) * 1.3 + 0.2
            for level in given.strides for branch in ("class", "box")
        })  # fmt: skip
    return _with(given, given.student | sides[0], given.teacher | sides[1])


def learned(role: str, *shape: int, scale: float = 0.4) -> Array:
    """Return the weights of a learned part by its role, such as ``fgd.student.p3.attention``; equal on every call."""
    return np.random.default_rng(zlib.crc32(role.encode())).normal(size=shape) * scale


def drawn(role: str, *shape: int) -> Array:
    """Return uniform random numbers by their role, for masks."""
    return np.random.default_rng(zlib.crc32(role.encode())).uniform(size=shape)


def _centers(size: tuple[int, int], stride: int) -> Array:
    y, x = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], -1) * stride


def _near(box: Array, random: np.random.Generator) -> Array:
    sides = np.maximum(np.tile(box[2:] - box[:2], 2), 1.0)
    moved = box + random.uniform(-0.15, 0.15, size=4) * sides
    return np.concatenate([moved[:2], np.maximum(moved[2:], moved[:2] + 0.5)])


def _with(given: Batch, student: dict[str, Array], teacher: dict[str, Array]) -> Batch:
    return Batch(student, teacher, given.boxes, given.labels, given.strides, given.image_size_px, given.proposals)
