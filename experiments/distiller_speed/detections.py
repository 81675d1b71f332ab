"""Outputs of two detectors for one batch of 640 x 640 images, made of random numbers: what the presets look at.

Five pyramid levels of 256 channels, 20 objects an image. A dense head with one candidate a cell: where a candidate's
cell lies in the middle of an object, the boxes are close to it, elsewhere anywhere, so that about a thousand candidates
of an image see an object. Every tap of the student is a leaf, so that what is measured ends at the taps, where the
detector's own backward would begin.

Legend: B images, C channels, H x W cells, A candidate boxes of an image, K classes, M objects of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autokd.detector_outputs import DetectorOutputs, HeadMaps

IMAGE_SIZE_PX = 640
STRIDES = {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}
CHANNELS, NUM_CLASSES, NUM_BINS, NUM_PROPOSALS = 256, 80, 17, 32
"""As in COCO; bins as in LD; proposals as the detectors of this package expose them."""


@dataclass(frozen=True)
class Scene:
    """One batch: both detectors' outputs, and the targets."""

    student: DetectorOutputs
    teacher: DetectorOutputs
    targets: list[dict[str, Tensor]]

    def leaves(self) -> list[Tensor]:
        """The student's taps that take a gradient."""
        taps = [*self.student.pyramid.values(), self.student.class_logits, self.student.boxes, self.student.edge_logits]
        maps = self.student.head_maps or {}
        return [tap for tap in (*taps, *(x for pair in maps.values() for x in pair)) if tap is not None]


class FixedHead(nn.Module):
    """The frozen rest of a dense head: predictors of ``kernel`` x ``kernel``, behind a block of the tower if asked.

    kernel 1 costs next to nothing, so that what is measured is the distiller and not the teacher's head; a real head
    has 3 x 3 predictors behind one 3 x 3 block.
    """

    def __init__(self, is_real: bool = False) -> None:
        super().__init__()
        kernel = 3 if is_real else 1

        def convolution(width: int) -> nn.Conv2d:
            return nn.Conv2d(CHANNELS, width, kernel, padding=kernel // 2)

        def branch(width: int) -> nn.Sequential:
            block = (convolution(CHANNELS), nn.GroupNorm(32, CHANNELS), nn.ReLU()) if is_real else ()
            return nn.Sequential(*block, convolution(width))

        self.classes, self.sides = branch(NUM_CLASSES), branch(4)
        self.requires_grad_(False)

    def begin(self, pyramid: Mapping[str, Tensor]) -> HeadMaps:
        return {level: (map_BCHW.relu(), map_BCHW.relu()) for level, map_BCHW in pyramid.items()}

    def finish(self, head_maps: HeadMaps, input_size_px: tuple[int, int]) -> tuple[Tensor, Tensor]:
        logits, boxes = [], []
        for level, (class_BCHW, box_BCHW) in head_maps.items():
            logits.append(self.classes(class_BCHW).flatten(2).transpose(1, 2))
            sides_BA4 = self.sides(box_BCHW).flatten(2).transpose(1, 2).exp() * STRIDES[level]
            centers_A2 = _centers(STRIDES[level]).to(sides_BA4)
            boxes.append(torch.cat([centers_A2 - sides_BA4[..., :2], centers_A2 + sides_BA4[..., 2:]], -1))
        return torch.cat(logits, 1), torch.cat(boxes, 1)


def make_scene(
    num_images: int, num_objects: int, device: torch.device, seed: int = 0, has_real_head: bool = False
) -> Scene:
    """A batch with ``num_objects`` objects in each image, sides of 16 to 320 px."""
    torch.manual_seed(seed)
    side_BM2 = 16 * torch.rand(num_images, num_objects, 2).mul(torch.tensor(20.0).log()).exp()
    low_BM2 = torch.rand(num_images, num_objects, 2) * (IMAGE_SIZE_PX - side_BM2)
    objects_BM4 = torch.cat([low_BM2, low_BM2 + side_BM2], -1)
    labels_BM = torch.randint(NUM_CLASSES, (num_images, num_objects))
    centers_A2 = torch.cat([_centers(stride) for stride in STRIDES.values()])
    offset_BAM2 = (centers_A2[:, None] - (low_BM2 + side_BM2 / 2)[:, None]).abs()
    inside_BAM = (offset_BAM2 < side_BM2[:, None] / 4).all(-1)
    is_inside_BA, which_BA = inside_BAM.any(-1), inside_BAM.byte().argmax(-1)
    seen_BA4 = objects_BM4.gather(1, which_BA[..., None].expand(-1, -1, 4))
    anywhere_BA4 = torch.cat([centers_A2 - 20, centers_A2 + 20], -1).expand_as(seen_BA4)
    boxes_BA4 = torch.where(is_inside_BA[..., None], seen_BA4, anywhere_BA4)
    is_class_BAK = nn.functional.one_hot(labels_BM.gather(1, which_BA), NUM_CLASSES) * is_inside_BA[..., None]
    head = FixedHead(has_real_head).to(device)
    student, teacher = (_outputs(boxes_BA4, 5.0 * is_class_BAK - 4, device, is_student) for is_student in (True, False))
    maps_t = head.begin(teacher["pyramid"])
    proposals = torch.cat([objects_BM4, anywhere_BA4[:, :NUM_PROPOSALS]], 1)[:, :NUM_PROPOSALS].to(device)
    return Scene(
        DetectorOutputs(**student, strides=STRIDES, proposals=proposals, head_maps=_maps(num_images, device)),
        DetectorOutputs(**teacher, strides=STRIDES, head_maps=maps_t, head=head),
        [{"boxes": boxes.to(device), "labels": labels.to(device)} for boxes, labels in zip(objects_BM4, labels_BM)],
    )


def _outputs(boxes_BA4: Tensor, logits_BAK: Tensor, device: torch.device, is_student: bool) -> dict[str, Any]:
    """Taps of one detector, noise around what there is to see."""
    num_images, num_candidates = logits_BAK.shape[:2]

    def noisy(x: Tensor, scale: float) -> Tensor:
        return (x + scale * torch.randn(x.shape)).to(device).requires_grad_(is_student)

    cells = {level: IMAGE_SIZE_PX // stride for level, stride in STRIDES.items()}
    return {
        "pyramid": {level: noisy(torch.zeros(num_images, CHANNELS, n, n), 1.0) for level, n in cells.items()},
        "class_logits": noisy(logits_BAK, 1.0),
        "boxes": noisy(boxes_BA4, 1.0),
        "edge_logits": noisy(torch.zeros(num_images, num_candidates, 4, NUM_BINS), 1.0),
    }


def _maps(num_images: int, device: torch.device) -> HeadMaps:
    """The student's maps at the cut of its head: leaves."""
    shapes = {level: (num_images, CHANNELS, *[IMAGE_SIZE_PX // stride] * 2) for level, stride in STRIDES.items()}

    def made(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape).relu().to(device).requires_grad_()

    return {level: (made(shape), made(shape)) for level, shape in shapes.items()}


def _centers(stride: int) -> Tensor:
    """(A, 2): x and y of the cells' centers, pixels, row by row."""
    axis = (torch.arange(IMAGE_SIZE_PX // stride) + 0.5) * stride
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)
