"""The regions that region-based sources compare, and their vectors on pyramid levels.

Legend: B images, M regions of an image, S = B * M samples, C channels, R proposals of an image, L levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.geometry.region_means import region_means
from autokd.distill.geometry.regions import Boxes, Instances
from autokd.distill.geometry.roi_align import roi_align_at_levels, roi_align_on_levels
from autokd.distill.term_inputs import TermInputs
from autokd.errors import DistillError

SAME_OBJECT_IOU = 0.5
"""Regions that overlap more belong to one object (G-DetKD, arXiv:2108.07482, sections 3.2 and 3.3)."""
_NEGATIVES_PER_POSITIVE = 3
_SAMPLES_OF_A_MEAN = 14
"""Per side: two for each of 7 cells. A region has at most 28 cells per side on its own level (more only if it is too
large for the coarsest), and a point reads two: each of its cells is read."""
_CANONICAL_SIZE_PX, _CANONICAL_STRIDE = 56, 4
"""A region of this size belongs to this stride, of twice the size to twice the stride."""


@dataclass(frozen=True, eq=False)
class RegionSet:
    """The regions of a batch: boxes (B, M, 4) xyxy px, 0 if absent, and the same as samples."""

    boxes_BM4: Tensor
    instances: Instances
    num_truth: int
    """Number of an image's first regions that are ground truth (padded); the others are proposals."""

    def truth(self, x_SX: Tensor) -> Tensor:
        """Return the rows of ground-truth boxes, (B * num_truth, ...), of a tensor over all regions."""
        num_images, num_regions = self.boxes_BM4.shape[:2]
        return x_SX.unflatten(0, (num_images, num_regions))[:, : self.num_truth].flatten(0, 1)


def regions_of(inputs: TermInputs) -> RegionSet:
    """Return ground-truth boxes, and the student's own proposals if it gives any; computed once in a step.

    Proposals whose IoU with every ground-truth box is at most 0.5 are background (class -1): the best of them are
    taken, three for each other region of the image. G-DetKD, section 3.3.
    """
    return inputs.shared("regions", lambda: _regions_of(inputs))


def _regions_of(inputs: TermInputs) -> RegionSet:
    truth = inputs.boxes
    proposals_BR4 = inputs.student.proposals
    if proposals_BR4 is None or proposals_BR4.shape[1] == 0:
        return RegionSet(truth.padded_BM4.nan_to_num(0.0), inputs.instances, truth.padded_BM4.shape[1])
    proposals_BR4 = proposals_BR4.detach().to(truth.padded_BM4)
    taken_BR, labels_BR = _choose(proposals_BR4, truth.padded_BM4, truth.labels_BM, truth.present_BM)
    boxes_BM4 = torch.cat([truth.padded_BM4, torch.where(taken_BR[..., None], proposals_BR4, torch.nan)], 1)
    present_BM = torch.cat([truth.present_BM, taken_BR], 1)
    labels_BM = torch.cat([truth.labels_BM, labels_BR], 1)
    boxes_BM4 = torch.where(present_BM[..., None], boxes_BM4, 0.0)
    images_BM = torch.arange(len(boxes_BM4), device=boxes_BM4.device)[:, None].expand(present_BM.shape)
    instances = Instances(boxes_BM4.flatten(0, 1), labels_BM.flatten(), images_BM.flatten(), present_BM.flatten())
    return RegionSet(boxes_BM4, instances, truth.padded_BM4.shape[1])


def _choose(proposals_BR4: Tensor, truth_BM4: Tensor, labels_BM: Tensor, present_BM: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each proposal is taken (B, R), and its class (-1: background)."""
    exists_BR = proposals_BR4.isfinite().all(-1)
    if truth_BM4.shape[1] == 0:
        return torch.zeros_like(exists_BR), torch.full(exists_BR.shape, -1, device=exists_BR.device)
    overlap_BRM = pairwise_iou(proposals_BR4.nan_to_num(0.0), truth_BM4.nan_to_num(0.0))
    best_BR, which_BR = overlap_BRM.masked_fill(~present_BM[:, None], 0.0).max(-1)
    is_positive_BR = exists_BR & (best_BR > SAME_OBJECT_IOU)
    is_negative_BR = exists_BR & ~is_positive_BR
    budget_B1 = _NEGATIVES_PER_POSITIVE * (is_positive_BR.sum(1, keepdim=True) + present_BM.sum(1, keepdim=True))
    # Proposals are sorted by score, so the first negatives are the detector's most confident errors.
    is_negative_BR &= is_negative_BR.cumsum(1) <= budget_B1
    labels_BR = torch.where(is_positive_BR, labels_BM.gather(1, which_BR), -1)
    return is_positive_BR | is_negative_BR, labels_BR


def pairwise_iou(first_BN4: Tensor, second_BM4: Tensor) -> Tensor:
    """Return the intersection over union of each two boxes, (B, N, M); 0 if both boxes are empty."""
    low = torch.maximum(first_BN4[:, :, None, :2], second_BM4[:, None, :, :2])
    high = torch.minimum(first_BN4[:, :, None, 2:], second_BM4[:, None, :, 2:])
    common_BNM = (high - low).clamp_min(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1) for boxes in (first_BN4, second_BM4)]
    union_BNM = areas[0][:, :, None] + areas[1][:, None] - common_BNM
    return torch.where(union_BNM > 0, common_BNM / union_BNM.clamp_min(1e-12), 0.0)


def region_levels(boxes_S4: Tensor, strides: Mapping[str, int], canonical_stride: int = _CANONICAL_STRIDE) -> Tensor:
    """Assign each region to the level of its size.

    log2(stride) = floor(log2(sqrt(area) / 56)) + log2(canonical_stride), or the nearest stride that there is. FPN,
    arXiv:1612.03144, eq. 1; Distilling Object Detectors with Global Knowledge, section 4.1.

    Args:
        boxes_S4: xyxy pixels of the network's input.
        strides: level -> pixels per cell.
        canonical_stride: stride to which regions of 56 px belong.

    Returns:
        (S, L), one-hot.
    """
    sides = (boxes_S4[:, 2:] - boxes_S4[:, :2]).clamp_min(0)
    size_S = sides.prod(-1).sqrt().clamp_min(1e-6)
    wanted_S = torch.log2(size_S / _CANONICAL_SIZE_PX).floor() + torch.log2(size_S.new_tensor(canonical_stride))
    have_L = torch.log2(size_S.new_tensor(list(strides.values())))
    nearest_S = (wanted_S[:, None] - have_L).abs().argmin(1)
    return torch.nn.functional.one_hot(nearest_S, len(strides)).to(boxes_S4)


def own_levels(inputs: TermInputs) -> Tensor:
    """Return the index of the paired level of each ground-truth box's size, (B, M); computed once in a step.

    floor(log2(side / 56)), counted from the finest paired level on: the released code of Global Knowledge takes it as
    an index, whatever the finest stride is (4 of Faster R-CNN, 8 of RetinaNet).
    """

    def compute() -> Tensor:
        strides = {pair.student: pair.stride for pair in inputs.pairs}
        levels_SL = region_levels(inputs.instances.boxes_S4, strides, min(strides.values()))
        return levels_SL.argmax(1).view(inputs.boxes.present_BM.shape)

    return inputs.shared("own levels", compute)


def boxes_at_own_level(inputs: TermInputs, level: int) -> Boxes:
    """Return the ground-truth boxes whose size belongs to a paired level; the others count as absent."""
    return inputs.shared(("boxes at own level", level), lambda: inputs.boxes.keeping(own_levels(inputs) == level))


def truth_means(inputs: TermInputs, map_BCHW: Tensor, stride: float) -> Tensor:
    """Return the mean vector of each ground-truth box on one map, (S, C)."""
    boxes_BM4 = inputs.boxes.padded_BM4.nan_to_num(0.0)
    return region_means(map_BCHW, boxes_BM4, stride, size=1).flatten(1)


def regions_on_levels(
    inputs: TermInputs, maps: Mapping[str, Tensor], strides: Mapping[str, int], size: int, side: str, samples: int
) -> Tensor:
    """Return RoIAlign of every region on every one of several maps, (L, S, C, size, size).

    Computed once in a step for these levels of a side. The maps have equal channels.
    """
    boxes_BM4 = regions_of(inputs).boxes_BM4
    of_maps = [strides[level] for level in maps]
    return inputs.shared(
        ("regions on levels", side, tuple(maps), size, samples),
        lambda: roi_align_on_levels(list(maps.values()), boxes_BM4, of_maps, size, samples),
    )


def regions_at_own_level(
    inputs: TermInputs,
    maps: Mapping[str, Tensor],
    strides: Mapping[str, int],
    size: int,
    side: str,
    samples_per_cell: int,
) -> Tensor:
    """Return RoIAlign of every region on its own level, (S, C, size, size); computed once in a step for a side."""
    regions = regions_of(inputs)

    def compute() -> Tensor:
        levels_S = region_levels(regions.instances.boxes_S4, strides).argmax(1)
        levels_BM = levels_S.view(regions.boxes_BM4.shape[:2])
        of_maps = [strides[level] for level in maps]
        return roi_align_at_levels(list(maps.values()), regions.boxes_BM4, of_maps, levels_BM, size, samples_per_cell)

    return inputs.shared(("regions at own level", side, size, samples_per_cell), compute)


def region_vectors(inputs: TermInputs, maps: Mapping[str, Tensor], strides: Mapping[str, int], side: str) -> Tensor:
    """Return the mean of each region on its own level, (S, C), equal to the mean of 7 x 7 cells of RoIAlign."""
    # One cell of 14 x 14 points in place of 7 x 7 cells of 2 x 2: the same points, and no map of 49 cells to average.
    return regions_at_own_level(inputs, maps, strides, 1, side, samples_per_cell=_SAMPLES_OF_A_MEAN).flatten(1)


def common_channels(outputs: DetectorOutputs | None, side: str, source: str) -> int:
    """Return the channels that all levels of a detector have.

    Args:
        outputs: of the detector.
        side: "student" or "teacher", for the error.
        source: the source that treats levels alike, for the error.

    Raises:
        DistillError: if levels differ in channels, or there are no outputs.
    """
    if outputs is None:
        raise DistillError(f"source '{source}' is made for a pair of detectors; give their outputs.")
    channels = {level: map_BCHW.shape[1] for level, map_BCHW in outputs.pyramid.items()}
    if len(set(channels.values())) > 1:
        raise DistillError(
            f"source '{source}' treats the regions of all levels alike, but the {side}'s levels have {channels} "
            "channels. Use a detector whose pyramid has equal channels, or source 'instance'."
        )
    return next(iter(channels.values()))
