"""Sources of predictions that the teacher's head makes from the student's maps (CrossKD).

The student's maps inside its head, before an activation and standardized to the teacher's statistics, pass through the
rest of the teacher's frozen head, which begins with that activation; its predictions are compared with the teacher's
own. So the student's own head is trained by the task alone, and may have other classes, anchors or channels than the
teacher's.

Legend: B images, C channels, H x W cells, A candidate boxes of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autokd.detector_outputs import CrossHead, DetectorOutputs, HeadMaps
from autokd.distill.candidates import candidate_pair, top_scores
from autokd.distill.feature_pair import FeaturePair
from autokd.distill.geometry.levels import own_random_numbers
from autokd.distill.geometry.regions import Given
from autokd.distill.operators import BuildContext, Source
from autokd.distill.statistics import centered
from autokd.distill.term_inputs import TermInputs
from autokd.errors import DistillError
from autokd.spec.operator import BOXES, LOGITS
from autokd.tensors import full_precision

_EPSILON = 1e-6


class CrossedLogits(Source):
    """Class logits that the teacher's head gives to the student's head maps, against the teacher's own.

    Layout logits; candidates have equal weights. CrossKD, arXiv:2306.11369, sections 3.2 and 3.3.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        self.crossing = context.part("crossing", lambda: Crossing(context))

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        crossed_BAK = crossed_predictions(self.crossing, inputs)[0]
        return (candidate_pair(crossed_BAK, _teachers(inputs, "class_logits", crossed_BAK), LOGITS),)


class CrossedBoxes(Source):
    """Boxes that the teacher's head decodes from the student's head maps, against the teacher's own.

    Layout boxes, weighted by the teacher's top class probability (sigmoid). CrossKD, arXiv:2306.11369, section 3.3.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__(context)
        self.crossing = context.part("crossing", lambda: Crossing(context))

    def forward(self, inputs: TermInputs) -> tuple[FeaturePair, ...]:
        crossed_BAK, crossed_BA4 = crossed_predictions(self.crossing, inputs)
        scores_B1A = top_scores(_teachers(inputs, "class_logits", crossed_BAK))[:, None]
        return (candidate_pair(crossed_BA4, _teachers(inputs, "boxes", crossed_BA4), BOXES, Given(scores_B1A)),)


def crossed_predictions(crossing: Crossing, inputs: TermInputs) -> tuple[Tensor, Tensor]:
    """Return the teacher's head's predictions for the student's maps: logits (B, A, K), boxes (B, A, 4)."""
    return inputs.shared(crossing, lambda: crossing(inputs))


class Crossing(nn.Module):
    """Brings the student's head maps to the teacher's channels and statistics, and runs them through its frozen head.

    It holds 1x1 convolutions for the class branch and the box branch of each level whose channels differ. The head
    comes with the teacher's outputs and is no submodule: no optimizer trains it, no checkpoint of the student holds it.
    """

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.levels: tuple[tuple[str, str], ...] = ()
        """(teacher's level, student's level) in the teacher's order."""
        self.adapters = nn.ModuleList()
        """Two a level, in that order: class branch, box branch."""
        student, teacher = context.student, context.teacher
        if student is None or teacher is None or student.head_maps is None or teacher.head is None:
            raise DistillError(
                "crossing heads needs example outputs of a student with head_maps and of a teacher with a head. "
                "Build the distiller with build_distiller, for detectors with dense heads."
            )
        maps_t = _teachers_maps(teacher.head, teacher.pyramid, teacher)
        self.levels = _levels_by_stride(student, student.head_maps, teacher, maps_t)
        for name_t, name_s in self.levels:
            for branch, x_s, x_t in zip(("class", "box"), student.head_maps[name_s], maps_t[name_t]):
                self.adapters.append(_adapter(f"{branch} {teacher.strides[name_t]}", x_s.shape[1], x_t.shape[1]))

    def forward(self, inputs: TermInputs) -> tuple[Tensor, Tensor]:
        head, maps_s = inputs.teacher.head, inputs.student.head_maps
        if head is None or maps_s is None:
            lack = "teacher's outputs have no head" if head is None else "student's outputs have no head_maps"
            raise DistillError(f"the {lack}, which this distiller was built for.")
        maps_t = _teachers_maps(head, inputs.teacher_maps, inputs.teacher)
        entering: dict[str, tuple[Tensor, Tensor]] = {}
        for (name_t, name_s), adapters in zip(self.levels, self._adapters_by_level()):
            class_map, box_map = (
                _aligned(adapter(full_precision(x_s)), x_t.detach(), name_t)
                for adapter, x_s, x_t in zip(adapters, maps_s[name_s], maps_t[name_t])
            )
            entering[name_t] = class_map, box_map
        class_logits_BAK, boxes_BA4 = head.finish(entering, inputs.teacher.input_size_px)
        return class_logits_BAK, boxes_BA4

    def _adapters_by_level(self) -> list[tuple[nn.Module, nn.Module]]:
        return list(zip(self.adapters[::2], self.adapters[1::2]))


def _teachers_maps(head: CrossHead, pyramid: Mapping[str, Tensor], teacher: DetectorOutputs) -> HeadMaps:
    """The teacher's own maps at the cut: those it exposes; computed from its pyramid if its taps come from a cache."""
    if teacher.head_maps is not None:
        return teacher.head_maps
    with torch.no_grad():
        return head.begin(pyramid)


def _levels_by_stride(
    student: DetectorOutputs, maps_s: HeadMaps, teacher: DetectorOutputs, maps_t: HeadMaps
) -> tuple[tuple[str, str], ...]:
    of_stride = {student.strides[name]: name for name in maps_s}
    strides_t = {name: teacher.strides[name] for name in maps_t}
    if set(of_stride) != set(strides_t.values()):
        raise DistillError(
            f"the student's head reads levels of the strides {sorted(of_stride)}, the teacher's at "
            f"{sorted(strides_t.values())}: the teacher's head needs a map of the student for each of its own levels. "
            "Use detectors whose heads read the same strides, or a distiller that reads feature maps."
        )
    return tuple((name, of_stride[stride]) for name, stride in strides_t.items())


def _adapter(name: str, student_channels: int, teacher_channels: int) -> nn.Module:
    if student_channels == teacher_channels:
        return nn.Identity()
    with own_random_numbers(f"crossing {name}"):
        adapter = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)
        nn.init.normal_(adapter.weight, std=student_channels**-0.5)  # as of pyramid adapters: the variance is kept
    assert adapter.bias is not None
    nn.init.zeros_(adapter.bias)
    return adapter


def _aligned(student_BCHW: Tensor, teacher_BCHW: Tensor, level: str) -> Tensor:
    """The student's map with each channel's mean and deviation, over batch and cells, those of the teacher's map."""
    if student_BCHW.shape != teacher_BCHW.shape:
        raise DistillError(
            f"head maps of level {level!r}: the student's has shape {tuple(student_BCHW.shape)} and the teacher's "
            f"{tuple(teacher_BCHW.shape)}. Show both detectors the same images at the same size."
        )
    # Section 3.2 of CrossKD: without the teacher's statistics its head would see maps far from those it was trained on.
    difference, deviation, varies = centered(student_BCHW, None)
    teacher_BCHW = teacher_BCHW.to(student_BCHW)
    _, deviation_t, _ = centered(teacher_BCHW, None)
    scale_1C11 = torch.where(varies, deviation_t / (deviation + _EPSILON), 0.0)
    return (difference * scale_1C11).add_(teacher_BCHW.mean((0, 2, 3), keepdim=True))


def _teachers(inputs: TermInputs, name: str, crossed: Tensor) -> Tensor:
    """The teacher's own prediction, detached; DistillError if its head gives others than the teacher has exposed."""
    tap: Tensor | None = getattr(inputs.teacher, name)
    if tap is None:
        raise DistillError(f"the teacher's outputs have no {name!r}, which this distiller was built for.")
    if tap.shape != crossed.shape:
        raise DistillError(
            f"{name}: the teacher's head gives shape {tuple(crossed.shape)} for the student's maps, but the teacher's "
            f"tap has {tuple(tap.shape)}. The head must be the teacher's own, for the same images at the same size."
        )
    return tap.detach().to(crossed)
