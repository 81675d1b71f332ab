"""A learned memory: the student's cells as mixtures of vectors that the teacher's began.

Legend: S samples, C channels, H x W cells, N = H * W, M exemplars, L levels, R rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.products import mixed
from autokd.distill.statistics import Weights
from autokd.distill.term_inputs import TermInputs

_MOST_ROWS = 4096
"""Vectors from which exemplars are made: enough for 1024, and their distances to these fit into 16 MiB."""
_LLOYD_STEPS = 4
_LEAST_SPREAD = 1e-5
"""Deviation of the teacher's vectors, as a part of their size, below which they differ by float32's rounding alone."""


class MemoryRecall(Transform):
    """sum_m w_m k_m for each cell of the student, w = softmax_m(-||s - k_m||^2 / (temperature C v)).

    Layout map -> map, regions -> regions. These shares w have the greatest sum_m w_m a_m + temperature H(w), with a_m =
    -||s - k_m||^2 / (C v), H the entropy, v the variance of the teacher's vectors: the temperature is the weight of the
    entropy. The teacher's side stays as it is: were both recalled, equal exemplars would make every term 0.

    Each level has exemplars k of its own. They are drawn at random until the first step of training that shows the
    level cells that count and differ; there they become the centers of a k-means clustering of the teacher's vectors
    (farthest points first, so nothing is drawn), and learn from then on. Several processes take those of the first.
    MemKD ("Remembering Normality: Memory-guided Knowledge Distillation for Unsupervised Anomaly Detection"), ICCV 2023,
    where the student's features recall normal patterns before they are compared.
    """

    def __init__(self, context: BuildContext, exemplars: int, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature
        self.exemplars = nn.ParameterList(nn.Parameter(torch.randn(exemplars, pair.channels)) for pair in context.pairs)
        self.variance_L: Tensor
        self.register_buffer("variance_L", torch.ones(len(context.pairs)))
        self.is_filled = [False] * len(context.pairs)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        if inputs.is_training and not self.is_filled[features.level]:
            self._fill(features.teacher_SCHW, features.members_SHW, features.level)
        return features.with_maps(self._recall(features.student_SCHW, features.level), features.teacher_SCHW)

    def _recall(self, x_SCHW: Tensor, level: int) -> Tensor:
        memory_MC = self.exemplars[level]
        # ||s||^2 is the same for all exemplars: the softmax does not see it.
        nearness_SMN = mixed(2 * memory_MC, x_SCHW.flatten(2), -memory_MC.square().sum(1))
        shares_SMN = (nearness_SMN / (self.temperature * x_SCHW.shape[1] * self.variance_L[level])).softmax(1)
        return mixed(memory_MC.T, shares_SMN).view_as(x_SCHW)

    @torch.no_grad()
    def _fill(self, teacher_SCHW: Tensor, members_SHW: Weights, level: int) -> None:
        """Set a level's exemplars from the teacher's vectors at the cells that count, if there are any."""
        rows_RC = teacher_SCHW.movedim(1, -1).flatten(0, 2)
        if members_SHW is not None:
            rows_RC = rows_RC[members_SHW.flatten() > 0]
        memory_MC = self.exemplars[level].data
        found = torch.cat([memory_MC.flatten(), self.variance_L[level, None], memory_MC.new_zeros(1)])
        rows_RC = rows_RC[:: max(1, -(-len(rows_RC) // _MOST_ROWS))]
        variance = rows_RC.var(0, unbiased=False).mean() if len(rows_RC) else memory_MC.new_zeros(())
        # Equal exemplars have equal shares and equal gradients: they would stay equal, and the term constant.
        if len(rows_RC) and bool(variance > _LEAST_SPREAD**2 * rows_RC.square().mean()):
            found = torch.cat([centers(rows_RC, len(memory_MC)).flatten(), variance[None], variance.new_ones(1)])
        if distributed.is_available() and distributed.is_initialized():
            # Each process sees other images, and their parameters must be the same.
            distributed.broadcast(found, 0)
        memory_MC.copy_(found[:-2].view_as(memory_MC))
        self.variance_L[level] = found[-2]
        self.is_filled[level] = bool(found[-1] > 0)

    def get_extra_state(self) -> dict[str, Any]:
        """Return which levels' exemplars come from the teacher, for a checkpoint."""
        return {"is_filled": list(self.is_filled)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` returned."""
        self.is_filled = list(state["is_filled"])


def centers(rows_RC: Tensor, number: int) -> Tensor:
    """Return the centers of a k-means clustering that begins with farthest points; the same for equal rows.

    Gonzalez, Theor. Comput. Sci. 38, 1985 (farthest points); Lloyd, IEEE Trans. Inf. Theory 28(2), 1982.

    Args:
        rows_RC: at least one vector.
        number: of centers M; of fewer different rows, some centers are equal.

    Returns:
        (M, C).
    """
    chosen = [rows_RC[(rows_RC - rows_RC.mean(0)).square().sum(1).argmin()]]
    nearest_R = (rows_RC - chosen[0]).square().sum(1)
    for _ in range(number - 1):
        chosen.append(rows_RC[nearest_R.argmax()])
        nearest_R = torch.minimum(nearest_R, (rows_RC - chosen[-1]).square().sum(1))
    centers_MC = torch.stack(chosen)
    for _ in range(_LLOYD_STEPS):
        belongs_RM = nn.functional.one_hot(torch.cdist(rows_RC, centers_MC).argmin(1), number).to(rows_RC)
        count_M1 = belongs_RM.sum(0)[:, None]
        centers_MC = torch.where(count_M1 > 0, belongs_RM.T @ rows_RC / count_M1.clamp_min(1), centers_MC)
    return centers_MC
