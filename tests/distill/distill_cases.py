"""Pairs of outputs, targets and pieces of knowledge for the tests of ``autokd.distill``.

Legend: B images, S samples, C channels, H x W cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from autokd.distill.batch import Batch
from autokd.distill.grid import Grid
from autokd.distill.knowledge import Knowledge
from autokd.distill.levels import LevelPair, make_adapters
from autokd.distill.operators import BuildContext, Distance, make_operator
from autokd.distill.statistics import log_softmax_over_cells
from autokd.errors import SpecError
from autokd.outputs import DetectorOutputs
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, DistillerSpec, FlowState, Operator, Step, TermSpec, Weight, flow
from autokd.spec.vocabulary import MAP, Kind, Layout

torch.set_num_threads(1)

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
    """Random maps that require a gradient; the task loss is a mildly curved function of all of them."""
    generator = torch.Generator().manual_seed(seed)
    maps = {
        name: torch.randn(num_images, channels, *size, generator=generator).to(dtype).requires_grad_()
        for name, (size, _) in levels.items()
    }
    losses = {"task": sum((map_BCHW.float() ** 2).sum() for map_BCHW in maps.values()) / 50} if with_loss else None
    return DetectorOutputs(maps, {name: stride for name, (_, stride) in levels.items()}, losses=losses,
                           image_size_px=size_px)  # fmt: skip


def like(given: DetectorOutputs, change: object) -> DetectorOutputs:
    """The outputs with each map replaced by ``change(map)``, a fresh leaf."""
    assert callable(change)
    maps = {name: change(map_BCHW.detach().clone()).requires_grad_() for name, map_BCHW in given.pyramid.items()}
    return replace(given, pyramid=maps, losses=None)


def boxes(*lists: Sequence[Sequence[float]]) -> list[dict[str, Tensor]]:
    """Targets of one image a list of xyxy boxes."""
    return [{"boxes": torch.tensor(list(rows), dtype=torch.float32).reshape(-1, 4),
             "labels": torch.zeros(len(rows), dtype=torch.int64)} for rows in lists]  # fmt: skip


TARGETS = boxes([[10, 8, 70, 60], [60, 50, 120, 90]], [[20, 20, 100, 80]])


def spec_of(source: str, transforms: Sequence[str | Step], distance: str | Step, weight: Weight) -> DistillerSpec:
    steps = tuple(step if isinstance(step, Step) else Step.of(step) for step in transforms)
    last = distance if isinstance(distance, Step) else Step.of(distance)
    return DistillerSpec((TermSpec(Step.of(source), steps, last, weight),))


def operator(kind: Kind, name: str, **params: float) -> nn.Module:
    return make_operator(kind, Step.of(name, **params), BuildContext((), 3))


def piece(
    student_SCHW: Tensor, teacher_SCHW: Tensor, weights_SHW: Tensor | None = None, layout: Layout = MAP
) -> Knowledge:
    """Knowledge on a grid of its own size, with given weights."""
    region = None if weights_SHW is None else FixedRegion(weights_SHW)
    return Knowledge(student_SCHW, teacher_SCHW, Grid(*student_SCHW.shape[-2:]), region=region, layout=layout)


class HalfL2(Distance):
    """A distance as another package would bring it."""

    def forward(self, knowledge: Knowledge, batch: Batch) -> Tensor:
        return (knowledge.student_SCHW - knowledge.teacher_SCHW).square().mean() / 2


class FixedRegion:
    """Weights that are written down, for steps that keep the grid."""

    def __init__(self, weights_SHW: Tensor) -> None:
        self._weights_SHW = weights_SHW

    def weights_SHW(self, grid: Grid) -> Tensor:
        assert not grid.steps
        return self._weights_SHW


def batch_of(
    student: DetectorOutputs, teacher: DetectorOutputs, targets: Sequence[Mapping[str, Tensor]] = TARGETS
) -> Batch:
    pairs = tuple(
        LevelPair(name, name, stride, student.pyramid[name].shape[1], teacher.pyramid[name].shape[1])
        for name, stride in student.strides.items()
    )
    return Batch(student, teacher, targets, pairs, make_adapters(pairs))


NO_BATCH = batch_of(outputs(), outputs(seed=1))
"""For operators that do not look at the batch."""


def as_layout(x_SCHW: Tensor, layout: Layout, weights_SHW: Tensor | None = None) -> Tensor:
    """Any numbers as a value of ``layout`` on the cells of weight > 0."""
    if layout == "cell_distribution":
        return log_softmax_over_cells(x_SCHW, weights_SHW)
    return x_SCHW.log_softmax(1) if layout == "channel_distribution" else x_SCHW


def well_typed_forms(max_transforms: int) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Every (source, transforms, distance) that the signatures allow, by walking the tables."""
    for length in range(max_transforms + 1):
        for source, names, distance in itertools.product(
            SOURCES.values(), itertools.product(TRANSFORMS.values(), repeat=length), DISTANCES.values()
        ):
            if follows(source, *names, distance):
                yield source.name, tuple(row.name for row in names), distance.name


def follows(*rows: Operator) -> bool:
    """Whether these operators may stand in this order."""
    state = FlowState()
    try:
        for row in rows:
            state = flow(state, row)
    except SpecError:
        return False
    return True
