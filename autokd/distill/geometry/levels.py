"""The pairs of pyramid levels that are compared, and the adapters between them.

Levels are paired by stride: a cell of equal strides covers an equal part of the image. If the maps of a pair differ in
size, they were padded or rounded differently at the right and below, and their top left parts agree cell by cell: both
are cropped to what they share (interpolation would shift them against each other).

Legend: B images, C channels, H x W cells.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autokd.detector_outputs import DetectorOutputs
from autokd.errors import DistillError, name_list
from autokd.spec.terms import Adapter


@dataclass(frozen=True, slots=True)
class LevelPair:
    """A student's level and the teacher's level of the same stride (pixels of the input per cell)."""

    student: str
    teacher: str
    stride: int
    student_channels: int
    teacher_channels: int

    @property
    def channels(self) -> int:
        """Channels of both sides once the student's map has passed the adapter."""
        return self.teacher_channels


def pair_levels(student: DetectorOutputs, teacher: DetectorOutputs, must_share: bool = True) -> tuple[LevelPair, ...]:
    """Pair the pyramids by stride.

    Args:
        student, teacher: outputs of the two, for names, strides and channels of their levels.
        must_share: whether no common stride is an error.

    Returns:
        A pair for each common stride, fine to coarse.

    Raises:
        DistillError: if no stride is common and ``must_share``.
    """
    # Reversed, so that of two levels of one stride the first wins.
    of_stride = {stride: level for level, stride in reversed(list(teacher.strides.items()))}
    pairs = tuple(
        LevelPair(
            level,
            of_stride[stride],
            stride,
            student.pyramid[level].shape[1],
            teacher.pyramid[of_stride[stride]].shape[1],
        )
        for level, stride in student.strides.items()
        if stride in of_stride
    )
    if not pairs and must_share:
        raise DistillError(
            f"no level of the student (strides {_strides(student)}) has the stride of one of the teacher "
            f"(strides {_strides(teacher)}). Choose a pair whose pyramids share a stride."
        )
    return pairs


def cropped_alike(student_BCHW: Tensor, teacher_BCHW: Tensor, pair: LevelPair) -> tuple[Tensor, Tensor]:
    """Crop both maps to the top left part that they share.

    Raises:
        DistillError: if that is less than half of a map along an axis: padding never differs by so much.
    """
    sizes = student_BCHW.shape[-2:], teacher_BCHW.shape[-2:]
    if sizes[0] == sizes[1]:
        return student_BCHW, teacher_BCHW
    height, width = min(size[0] for size in sizes), min(size[1] for size in sizes)
    if any(2 * height < size[0] or 2 * width < size[1] for size in sizes):
        raise DistillError(
            f"level {pair.student!r} (stride {pair.stride}): the student's map is {tuple(sizes[0])} cells and the "
            f"teacher's {tuple(sizes[1])}. Show both detectors the same image at the same size."
        )
    return student_BCHW[..., :height, :width], teacher_BCHW[..., :height, :width]


def make_adapters(
    pairs: tuple[LevelPair, ...], read: Collection[int] | None = None, *, kind: Adapter = "linear"
) -> nn.ModuleList:
    """Return a module for each pair, which brings the student's map to the teacher's channels.

    Args:
        pairs: the paired levels.
        read: indices of the pairs that a term reads; the others need no parameters, which no gradient would reach.
            None: all.
        kind: ``linear``, a 1x1 convolution if the channels differ, else the identity: FitNets, arXiv:1412.6550,
            section 2.2 (a regressor on the student's side). ``mlp``, two 1x1 convolutions with a ReLU between them,
            also if the channels agree: the projector of Ultralytics' distillation (2026).
    """
    make = {"linear": _linear_adapter, "mlp": _mlp_adapter}[kind]
    return nn.ModuleList(
        make(pair) if read is None or level in read else nn.Identity() for level, pair in enumerate(pairs)
    )


def _linear_adapter(pair: LevelPair) -> nn.Module:
    if pair.student_channels == pair.teacher_channels:
        return nn.Identity()
    with own_random_numbers(f"adapter {pair.stride}"):
        return _pointwise(pair.student_channels, pair.teacher_channels, 1.0)


def _mlp_adapter(pair: LevelPair) -> nn.Module:
    with own_random_numbers(f"mlp adapter {pair.stride}"):
        return nn.Sequential(
            _pointwise(pair.student_channels, pair.teacher_channels, 1.0),
            nn.ReLU(),
            # Half of the second moment is behind the ReLU.
            _pointwise(pair.teacher_channels, pair.teacher_channels, 2.0),
        )


def _pointwise(num_in: int, num_out: int, gain: float) -> nn.Conv2d:
    convolution = nn.Conv2d(num_in, num_out, kernel_size=1)
    # Variance gain / C keeps the variance of what passes, so a term starts at the scale that its weight was tuned for.
    nn.init.normal_(convolution.weight, std=gain**0.5 * num_in**-0.5)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


@contextmanager
def own_random_numbers(name: str) -> Iterator[None]:
    """Seed torch's generator by ``name`` for the duration, and restore it afterwards.

    Every candidate begins with the same adapters, and a distiller does not change the training's other random numbers.
    A module must be made on the CPU inside: only the CPU's generator is seeded.

    Args:
        name: what is made. It is part of every recorded training: another name, another initialization.
    """
    state = torch.default_generator.get_state()
    # crc32 and not hash(): Python salts the hash of a text anew in each process.
    torch.default_generator.manual_seed(zlib.crc32(name.encode()))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def _strides(outputs: DetectorOutputs) -> str:
    return name_list(f"{level}: {stride}" for level, stride in outputs.strides.items())
