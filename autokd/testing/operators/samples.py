"""Outputs of small detectors, targets and feature pairs on which operators are tried.

Legend: B images, S samples, C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.levels import LevelPair, make_adapters
from autokd.distill.geometry.regions import Instances, Region
from autokd.distill.operators import BuildContext, make_operator
from autokd.distill.statistics import log_softmax_over_cells
from autokd.distill.term_inputs import TermInputs
from autokd.spec import Step
from autokd.spec.operator import MAP, Kind, Layout

NUM_CLASSES, NUM_BINS = 3, 8

LEVELS = {"p3": ((12, 16), 8), "p4": ((6, 8), 16), "p5": ((3, 4), 32)}
"""Name -> (cells, stride) of an ordinary pyramid of a 96 x 128 image."""


def outputs(
    channels: int = 6,
    num_images: int = 2,
    seed: int = 0,
    levels: Mapping[str, tuple[tuple[int, int], int]] = LEVELS,
    size_px: tuple[int, int] = (96, 128),
    with_loss: bool = False,
    dtype: torch.dtype = torch.float32,
) -> DetectorOutputs:
    """Return outputs of a small detector: random maps that require a gradient, and predictions made from them.

    Args:
        channels: of every level.
        num_images: of the batch.
        seed: of the maps.
        levels: (cells, stride) of each level.
        size_px: (height, width) of the network's input.
        with_loss: whether there is a task loss, a mildly curved function of all maps.
        dtype: of the maps.
    """
    generator = torch.Generator().manual_seed(seed)
    maps = {
        name: torch.randn(num_images, channels, *size, generator=generator).to(dtype).requires_grad_()
        for name, (size, _) in levels.items()
    }
    first, *others = ((map_BCHW.float() ** 2).sum() for map_BCHW in maps.values())
    losses = {"task": sum(others, start=first) / 50} if with_loss else None
    bare = DetectorOutputs(maps, {name: stride for name, (_, stride) in levels.items()}, losses=losses,
                           image_size_px=size_px)  # fmt: skip
    return with_predictions(bare)


def like(given: DetectorOutputs, change: Callable[[Tensor], Tensor]) -> DetectorOutputs:
    """Return the outputs with each map replaced by ``change(map)``, a new leaf, and predictions made from those."""
    maps = {name: change(map_BCHW.detach().clone()).requires_grad_() for name, map_BCHW in given.pyramid.items()}
    return with_predictions(replace(given, pyramid=maps, losses=None))


def with_predictions(given: DetectorOutputs) -> DetectorOutputs:
    """Return the outputs with every other tap, made from the pyramid by a small head: one candidate box a cell."""
    head = TinyHead(next(iter(given.pyramid.values())).shape[1], given.strides)
    head_maps = head.begin(given.pyramid)
    class_logits, boxes_px = head.finish(head_maps, given.input_size_px)
    best = class_logits.amax(-1).argsort(1, descending=True)[:, :6, None].expand(-1, -1, 4)
    edges = head.edges(given.pyramid)
    return replace(given, class_logits=class_logits, boxes=boxes_px, edge_logits=edges,
                   layer_edge_logits=torch.stack([edges / 2, edges], 1),
                   shared_logits=class_logits[:, :5], shared_boxes=boxes_px[:, :5],
                   proposals=boxes_px.detach().gather(1, best), head_maps=head_maps, head=head)  # fmt: skip


class TinyHead(nn.Module):
    """A dense head cut in two: fixed random 1x1 maps, the same for equal numbers of channels."""

    def __init__(self, channels: int, strides: Mapping[str, int]) -> None:
        super().__init__()
        self.strides = strides
        self.cls: Tensor
        self.box: Tensor
        self.logits: Tensor
        self.sides: Tensor
        self.edges_: Tensor
        generator = torch.Generator().manual_seed(channels)
        shapes = {"cls": (channels, channels), "box": (channels, channels), "logits": (NUM_CLASSES, channels),
                  "sides": (4, channels), "edges_": (4 * NUM_BINS, channels)}  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.randn(shape, generator=generator) * channels**-0.5)

    def begin(self, pyramid: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the maps inside the head, (class branch, box branch), of each level."""
        return {name: (self._mix(x, self.cls).tanh(), self._mix(x, self.box).tanh()) for name, x in pyramid.items()}

    def finish(
        self, head_maps: Mapping[str, tuple[Tensor, Tensor]], input_size_px: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return class logits (B, A, K) and boxes (B, A, 4), xyxy pixels, from maps inside the head."""
        logits, found = [], []
        for name, (cls_BCHW, box_BCHW) in head_maps.items():
            stride = self.strides[name]
            logits.append(self._mix(cls_BCHW, self.logits).flatten(2).transpose(1, 2))
            sides_BA4 = (self._mix(box_BCHW, self.sides).exp() * stride).flatten(2).transpose(1, 2)
            height, width = cls_BCHW.shape[-2:]
            y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
            center_A2 = (torch.stack([x, y], -1).flatten(0, 1) * stride).to(sides_BA4)
            found.append(torch.cat([center_A2 - sides_BA4[..., :2], center_A2 + sides_BA4[..., 2:]], -1))
        return torch.cat(logits, 1), torch.cat(found, 1)

    def edges(self, pyramid: Mapping[str, Tensor]) -> Tensor:
        """Return the bins' logits of each candidate's edges, (B, A, 4, bins)."""
        maps = [self._mix(x, self.edges_).flatten(2).transpose(1, 2) for x in pyramid.values()]
        return torch.cat(maps, 1).unflatten(2, (4, NUM_BINS))

    @staticmethod
    def _mix(x_BCHW: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", weight.to(x_BCHW), x_BCHW)


def boxes(*lists: Sequence[Sequence[float]]) -> list[dict[str, Tensor]]:
    """Return targets: for each image its xyxy boxes in pixels, with classes in turn."""
    return [{"boxes": torch.tensor(list(rows), dtype=torch.float32).reshape(-1, 4),
             "labels": torch.arange(len(rows)) % NUM_CLASSES} for rows in lists]  # fmt: skip


TARGETS = boxes([[10, 8, 70, 60], [60, 50, 120, 90]], [[20, 20, 100, 80]])
OF_ALL_CLASSES = boxes(
    [[10, 8, 70, 60], [60, 50, 120, 90], [5, 40, 50, 90], [70, 5, 125, 45]], [[20, 20, 100, 80], [0, 0, 60, 50]]
)
"""Every class, two of them more than once."""


def operator(kind: Kind, name: str, channels: int = 4, **params: float) -> nn.Module:
    """Return the operator for a pair of one level of stride 8.

    Args:
        kind, name: of the operator.
        channels: of both sides.
        params: the operator's parameters; those left out have their defaults.
    """
    pair = LevelPair("p3", "p3", 8, channels, channels)
    student, teacher = (outputs(channels, seed=seed) for seed in (0, 1))
    return make_operator(kind, Step.of(name, **params), BuildContext((pair,), NUM_CLASSES, student, teacher))


def piece(
    student_SCHW: Tensor, teacher_SCHW: Tensor, weights_SHW: Tensor | None = None, layout: Layout = MAP
) -> FeaturePair:
    """Return a feature pair with given weights of cells; pairs of regions have boxes, pairs of logits have labels."""
    region = None if weights_SHW is None else FixedRegion(weights_SHW)
    features = FeaturePair(student_SCHW, teacher_SCHW, Grid(*student_SCHW.shape[-2:]), region=region, layout=layout)
    if layout == "regions":
        present_S = torch.ones(len(student_SCHW), dtype=torch.bool)
        if weights_SHW is not None:
            present_S = weights_SHW.flatten(1).any(1)
        return replace(features, instances=instances(present_S))
    if layout == "logits":
        return replace(features, labels_SHW=teacher_SCHW.argmax(1) if teacher_SCHW.numel() else None)
    return features


def instances(present_S: Tensor) -> Instances:
    """Return regions of two images, every other one of class 0, with boxes in a row that do not overlap."""
    index_S = torch.arange(len(present_S))
    left_S = (index_S * 20.0)[:, None]
    boxes_S4 = torch.cat([left_S, torch.zeros_like(left_S), left_S + 10, torch.full_like(left_S, 10.0)], 1)
    return Instances(
        boxes_S4, torch.where(present_S, torch.tensor([0, 1, 0, 2])[index_S % 4], -1), index_S % 2, present_S
    )


class FixedRegion(Region):
    """Given weights, for steps that keep the grid."""

    def __init__(self, weights_SHW: Tensor) -> None:
        super().__init__()
        self._given_SHW = weights_SHW

    def make_SHW(self, grid: Grid) -> Tensor:
        assert not grid.steps
        return self._given_SHW


def inputs_of(
    student: DetectorOutputs, teacher: DetectorOutputs, targets: Sequence[Mapping[str, Tensor]] = TARGETS
) -> TermInputs:
    """Return the inputs of terms for a batch of two detectors with levels of equal names."""
    pairs = tuple(
        LevelPair(name, name, stride, student.pyramid[name].shape[1], teacher.pyramid[name].shape[1])
        for name, stride in student.strides.items()
    )
    return TermInputs(student, teacher, targets, pairs, make_adapters(pairs))


NO_INPUTS = inputs_of(outputs(), outputs(seed=1))
"""For operators that do not read the batch."""


FLAT = ("logits", "boxes", "contrast")
"""Layouts whose cells are in one row."""


def as_layout(x_SCHW: Tensor, layout: Layout, weights_SHW: Tensor | None = None) -> Tensor:
    """Return any numbers as a value of ``layout`` on the cells of weight above 0; differentiable."""
    if layout == "cell_distribution":
        return log_softmax_over_cells(x_SCHW, weights_SHW)
    if layout == "channel_distribution":
        return x_SCHW.log_softmax(1)
    if layout == "scalar_map":
        return x_SCHW[:, :1]
    if layout in FLAT:
        x_SCHW = x_SCHW.flatten(2)[:, :, None]
    if layout == "boxes":  # four numbers of the first channel's cell: a corner and two positive sides
        x1, y1 = x_SCHW[:, :1], x_SCHW[:, :1] * 0.5
        width, height = (1 + x_SCHW[:, :1].abs()), (2 + x_SCHW[:, :1].tanh())
        return torch.cat([x1, y1, x1 + width, y1 + height], 1)
    return x_SCHW[:, :1].tanh() if layout == "contrast" else x_SCHW


def weights_as(layout: Layout, weights_SHW: Tensor | None) -> Tensor | None:
    """Return weights of cells in the order that ``layout`` has them; the partner of a contrast always counts."""
    if weights_SHW is None or layout not in FLAT:
        return weights_SHW
    weights_S1A = weights_SHW.flatten(1)[:, None].clone()
    if layout == "contrast" and weights_S1A.numel():
        weights_S1A[..., 0] = weights_S1A.amax(-1)
    return weights_S1A
