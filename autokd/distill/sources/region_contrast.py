"""Sources of contrastive distillation: similarities of the student's regions to the teacher's.

Legend: S regions of a batch, C channels, D numbers of a projection, Q places of the queue.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.grid import Grid
from autokd.distill.geometry.regions import Given, Instances
from autokd.distill.operators import BuildContext, Source
from autokd.distill.region_sets import (
    SAME_OBJECT_IOU,
    common_channels,
    pairwise_iou,
    region_vectors,
    regions_of,
)
from autokd.distill.statistics import unit
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import CONTRAST

_PROJECTION = 128


class Contrastive(Source):
    """Similarities of each region's vector to its partner (first) and to negatives, for student and teacher.

    Vectors: RoIAlign on the level of the region's size, averaged over its cells, projected by two linear layers,
    length 1. Negatives: teacher vectors of the other regions of the batch, but of those of the same image that
    overlap by more than 0.5, and a first-in-first-out queue of ``queue`` earlier ones, kept in a buffer.
    G-DetKD (ICCV 2021), arXiv:2108.07482, section 3.3, eqs. 4 and 5.
    """

    queue_QD: Tensor
    num_queued: Tensor

    def __init__(self, context: BuildContext, queue: int) -> None:
        super().__init__(context)
        student_channels = common_channels(context.student, "student", "contrastive")
        teacher_channels = common_channels(context.teacher, "teacher", "contrastive")
        assert context.student is not None
        assert context.teacher is not None
        self.places = queue
        self._student_strides = dict(context.student.strides)
        self._teacher_strides = dict(context.teacher.strides)
        self.project_student = _Projection(student_channels)
        self.project_teacher = _Projection(teacher_channels)
        # One place more than the queue has: rows that are not kept are written there, so that the number of rows
        # written does not depend on the data, which would wait for the device.
        self.register_buffer("queue_QD", torch.zeros(queue + 1, _PROJECTION))
        self.register_buffer("num_queued", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        instances = regions_of(inputs).instances
        student_SC = region_vectors(inputs, inputs.student_maps, self._student_strides, "student")
        teacher_SC = region_vectors(inputs, inputs.teacher_maps, self._teacher_strides, "teacher")
        student_SD, teacher_SD = (
            unit(self.project_student(student_SC), (1,)),
            unit(self.project_teacher(teacher_SC), (1,)),
        )
        # A copy: the queue is written below, and the graph would read the new vectors.
        queue_QD = self.queue_QD[: self.places].clone().to(teacher_SD)
        pair = similarities(student_SD, teacher_SD, queue_QD), similarities(teacher_SD, teacher_SD, queue_QD).detach()
        weights_SN = self._counts(instances)
        if inputs.is_training:  # after the similarities: a region is no negative of its own
            self._enqueue(teacher_SD.detach(), instances.there_S)
        student_S11N, teacher_S11N = (side_SN[:, None, None] for side_SN in pair)
        grid = Grid(1, student_S11N.shape[-1])
        return (FeaturePair(student_S11N, teacher_S11N, grid, Given(weights_SN[:, None]), CONTRAST),)

    def _counts(self, instances: Instances) -> Tensor:
        """(S, 1 + S + Q): 1 for the partner and for each negative of a region that is there, else 0."""
        boxes_S4, images_S, there_S = instances.boxes_S4, instances.images_S, instances.there_S
        same_object_SS = (pairwise_iou(boxes_S4[None], boxes_S4[None])[0] > SAME_OBJECT_IOU) & (
            images_S[:, None] == images_S
        )
        same_object_SS |= torch.eye(len(boxes_S4), dtype=torch.bool, device=boxes_S4.device)
        is_filled_Q = torch.arange(self.places, device=boxes_S4.device) < self.num_queued
        columns = [torch.ones_like(there_S)[:, None], ~same_object_SS & there_S]
        columns.append(is_filled_Q.expand(len(boxes_S4), -1))
        return (torch.cat(columns, 1) & there_S[:, None]).to(boxes_S4)

    @torch.no_grad()
    def _enqueue(self, teacher_SD: Tensor, there_S: Tensor) -> None:
        """Put the vectors of present regions into the queue in place of the oldest."""
        if self.places == 0:
            return
        order_S = there_S.cumsum(0) - 1
        fits_S = there_S & (order_S >= order_S[-1:] + 1 - self.places)  # of more than fit, the last
        place_S = torch.where(fits_S, (self.num_queued + order_S) % self.places, self.places)
        self.queue_QD.index_copy_(0, place_S, teacher_SD.to(self.queue_QD))
        self.num_queued += there_S.sum()


def similarities(anchors_SD: Tensor, teacher_SD: Tensor, queue_QD: Tensor) -> Tensor:
    """Return inner products of each anchor with its own partner, the whole batch and the whole queue.

    G-DetKD, arXiv:2108.07482, eq. 5: partner and negatives of the loss; vectors have length 1.

    Returns:
        (S, 1 + S + Q), the partner first.
    """
    partner_S1 = (anchors_SD * teacher_SD).sum(1, keepdim=True)
    return torch.cat([partner_S1, anchors_SD @ teacher_SD.T, anchors_SD @ queue_QD.T], 1)


class _Projection(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, _PROJECTION)
        self.second = nn.Linear(_PROJECTION, _PROJECTION)

    def forward(self, vectors_SC: Tensor) -> Tensor:
        return self.second(functional.relu(self.first(vectors_SC)))
