"""A check, before anything is trained, for terms that are the same for every student.

Well-typed steps can leave nothing to compare on a particular pair: a region of 4 x 4 cells, pooled and cut into patches
of one cell, has a softmax over cells that is always 1. Such a term would waste its trial.

Legend: B images, C channels, H x W cells.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.distiller import Distiller
from autokd.distill.geometry.levels import own_random_numbers
from autokd.distill.term_inputs import TermInputs
from autokd.errors import DistillError

_NUM_IMAGES = 3
"""Two samples of one cell always correlate perfectly; three do not."""
_LEAST_SENSITIVITY = 1e-8
"""Least |gradient| * |maps| / value: about 1 for a term that depends on the student, about 1e-16 for rounding alone."""


def refuse_constant_terms(
    distiller: Distiller, student: DetectorOutputs, teacher: DetectorOutputs, num_classes: int
) -> None:
    """Check every term that reads the pyramid alone on random maps of this pair's sizes.

    Raises:
        DistillError: naming the term, if its gradient is 0 up to rounding.
    """
    with own_random_numbers("probe"):
        outputs_s, outputs_t = _random_pyramid(student), _random_pyramid(teacher)
    height, width = student.input_size_px
    size = torch.tensor([width, height, width, height])
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.25, 0.25, 0.5, 0.75]]) * size
    others = [min(i + 1, num_classes - 1) for i in range(_NUM_IMAGES)]  # one class has three boxes, the others one
    targets = [{"boxes": boxes, "labels": torch.tensor([0, other])} for other in others]
    # A copy, so that memories and random numbers of the distiller stay as they are; in float64, so that rounding
    # (about 1e-16) is far from an honest gradient (about 1), which float32 would not show.
    exact = copy.deepcopy(distiller).double()
    inputs = TermInputs(outputs_s, outputs_t, targets, exact.pairs, exact.adapters, mlp_adapters=exact.mlp_adapters)
    for name, term in exact.named_terms():
        if term.taps == {"fpn"} and _sensitivity(term, inputs) < _LEAST_SENSITIVITY:
            sizes = [f"{pair.student}: {tuple(student.pyramid[pair.student].shape[-2:])}" for pair in exact.pairs]
            raise DistillError(
                f"term {name} does not depend on the student, on this pair with maps of {', '.join(sizes)} cells: its "
                "steps leave a single cell, or nothing, to compare. Pool or cut less, or give an instance more cells."
            )


def _sensitivity(term: nn.Module, inputs: TermInputs) -> float:
    """|gradient| * |maps| / value: by what part the value changes when the student's maps change by all."""
    taps = list(inputs.student.pyramid.values())
    with torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
        value = term(inputs)
        if not value.requires_grad or value == 0:
            return 0.0
        gradients = torch.autograd.grad(value, taps, retain_graph=True, allow_unused=True)
    steepness = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
    size = torch.stack([tap.detach().norm() for tap in taps]).norm()
    return float(steepness * size / value.detach())


def _random_pyramid(outputs: DetectorOutputs) -> DetectorOutputs:
    """The same levels with random numbers, so that no accident of given maps hides what a term does."""
    maps = {
        level: torch.randn(_NUM_IMAGES, *map_BCHW.shape[1:], dtype=torch.float64).to(map_BCHW.device).requires_grad_()
        for level, map_BCHW in outputs.pyramid.items()
    }
    return DetectorOutputs(maps, outputs.strides, image_size_px=outputs.image_size_px)
