"""The inputs of all terms of a distiller in one step: paired maps, boxes, random numbers, and values computed already.

Legend: B images, C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property

import torch
from torch import Tensor, nn

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.geometry.levels import LevelPair, cropped_alike
from autokd.distill.geometry.regions import Boxes, Instances, Targets
from autokd.distill.step_memo import Observer, StepMemo, Value
from autokd.errors import DistillError
from autokd.spec.terms import Adapter
from autokd.tensors import full_precision


class TargetsMissingError(DistillError):
    """A term reads ground truth, and the distiller was called without it."""


class TermInputs:
    """The inputs of all terms in one forward of a distiller; only the graph outlives the step."""

    def __init__(
        self,
        student: DetectorOutputs,
        teacher: DetectorOutputs,
        targets: Targets | None,
        pairs: tuple[LevelPair, ...],
        adapters: nn.ModuleList,
        seed: int = 0,
        progress: float = 0.0,
        is_training: bool = False,
        measures: bool = False,
        observer: Observer | None = None,
        mlp_adapters: nn.ModuleList | None = None,
    ) -> None:
        """Hold the outputs of one batch.

        Args:
            student, teacher: outputs for the same images.
            targets: ground truth of each image, if any term reads it.
            pairs: levels that are compared.
            adapters: a module a pair, which brings the student's map to the teacher's channels; for terms whose
                adapter is "linear".
            seed: of ``generator``, the step's own random numbers.
            progress: part of the training that is over, 0 to 1.
            is_training: whether this is a step of training; memories store what they see only then.
            measures: whether training-free factors are measured in this step.
            observer: called with the key of each shared value when it is computed.
            mlp_adapters: the same for terms whose adapter is "mlp"; None if there is no such term.
        """
        self.student, self.teacher = student, teacher
        self.pairs = pairs
        self.progress = progress
        self.is_training = is_training
        self.measures = measures
        self.read_taps: dict[str, tuple[Tensor, Tensor]] = {}
        """Taps that ``tap`` has returned so far, by name: those that are checked for NaN."""
        self.read_teacher_taps: dict[str, Tensor] = {}
        """Taps that ``teacher_tap`` has returned so far, by name."""
        self.read_student_taps: dict[str, Tensor] = {}
        """Taps that ``student_tap`` has returned so far, by name."""
        self._adapters: dict[Adapter, nn.ModuleList | None] = {"linear": adapters, "mlp": mlp_adapters}
        self._targets, self._seed = targets, seed
        self._memo = StepMemo(observer)

    @cached_property
    def student_maps(self) -> dict[str, Tensor]:
        """The student's pyramid in float32, before the adapters: float16 overflows in a sum of squares."""
        return {level: full_precision(map_BCHW) for level, map_BCHW in self.student.pyramid.items()}

    @cached_property
    def teacher_maps(self) -> dict[str, Tensor]:
        """The teacher's pyramid in float32, detached, on the student's device."""
        return {
            level: full_precision(map_BCHW.detach().to(self.device)) for level, map_BCHW in self.teacher.pyramid.items()
        }

    @property
    def device(self) -> torch.device:
        return device_of(self.student)

    def maps(self, level: int, adapter: Adapter = "linear") -> tuple[Tensor, Tensor]:
        """Return student (adapted) and teacher at a paired level.

        Args:
            level: index among ``pairs``.
            adapter: the adapter of the student's map.

        Returns:
            Two maps of equal shape (B, C, H, W).

        Raises:
            DistillError: if the outputs do not have the levels, channels or images that the distiller was built for.
        """
        return self.shared(("maps", level, adapter), lambda: self._paired_maps(level, adapter))

    def tap(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a tap of both sides other than the pyramid, in float32, the teacher's detached.

        Args:
            name: "class_logits", "boxes", "edge_logits", or a key of ``DetectorOutputs.extras``.

        Raises:
            DistillError: if one side lacks it or their shapes differ.
        """
        if name not in self.read_taps:
            student, teacher = (_tap_of(outputs, name) for outputs in (self.student, self.teacher))
            if student is None or teacher is None:
                side = "student" if student is None else "teacher"
                raise DistillError(f"the {side}'s outputs have no {name!r}, which this distiller was built for.")
            if student.shape != teacher.shape:
                raise DistillError(
                    f"{name}: the student's has shape {tuple(student.shape)} and the teacher's {tuple(teacher.shape)}; "
                    "they must agree in images, candidate boxes and classes. Use detectors with the same head layout, "
                    "or a distiller that reads feature maps."
                )
            self.read_taps[name] = (full_precision(student), full_precision(teacher.detach().to(self.device)))
        return self.read_taps[name]

    def student_tap(self, name: str) -> Tensor:
        """Return a tap of the student alone, in float32.

        Args:
            name: as for ``tap``.

        Raises:
            DistillError: if the student lacks it.
        """
        if name not in self.read_student_taps:
            tap = _tap_of(self.student, name)
            if tap is None:
                raise DistillError(f"the student's outputs have no {name!r}, which this distiller was built for.")
            self.read_student_taps[name] = full_precision(tap)
        return self.read_student_taps[name]

    def teacher_tap(self, name: str) -> Tensor:
        """Return a tap of the teacher alone, in float32, detached.

        Args:
            name: as for ``tap``.

        Raises:
            DistillError: if the teacher lacks it, or it is of another number of images than the student's outputs.
        """
        if name not in self.read_teacher_taps:
            tap = _tap_of(self.teacher, name)
            if tap is None:
                raise DistillError(f"the teacher's outputs have no {name!r}, which this distiller was built for.")
            if len(tap) != num_images_of(self.student):
                raise DistillError(
                    f"{name}: {len(tap)} images of the teacher and {num_images_of(self.student)} of the student. Give "
                    "the outputs of both for the same batch."
                )
            self.read_teacher_taps[name] = full_precision(tap.detach().to(self.device))
        return self.read_teacher_taps[name]

    @cached_property
    def instances(self) -> Instances:
        """The ground-truth boxes as samples, image by image, filled up to the most of an image."""
        boxes = self.boxes
        num_images, most = boxes.present_BM.shape
        images_BM = torch.arange(num_images, device=self.device)[:, None].expand(num_images, most)
        return Instances(
            boxes.padded_BM4.nan_to_num(0.0).flatten(0, 1),
            boxes.labels_BM.flatten(),
            images_BM.flatten(),
            boxes.present_BM.flatten(),
        )

    @cached_property
    def boxes(self) -> Boxes:
        """The ground-truth boxes; DistillError if the distiller was called without targets."""
        if self._targets is None:
            raise TargetsMissingError(
                "this distiller reads ground-truth boxes, but was called without targets. "
                "Call distiller(outputs_s, outputs_t, targets)."
            )
        num_images = num_images_of(self.student)
        return Boxes(self._targets, num_images, self.student.input_size_px, self.device, self._memo)

    @cached_property
    def generator(self) -> torch.Generator:
        """Random numbers of this step, on the device.

        Seeded by the distiller's step alone: a resumed training draws what the first would have drawn, and the
        training's own random numbers (order of images, dropout) are the same with any distiller.
        """
        return torch.Generator(self.device).manual_seed(self._seed)

    def shared(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value of ``key``, which is ``compute()`` at the first call in this step; see ``StepMemo``."""
        return self._memo.get(key, compute)

    def _paired_maps(self, level: int, adapter: Adapter) -> tuple[Tensor, Tensor]:
        pair = self.pairs[level]
        student = _level_of(self.student_maps, pair.student, "student", pair.student_channels)
        teacher = _level_of(self.teacher_maps, pair.teacher, "teacher", pair.teacher_channels)
        if len(student) != len(teacher):
            raise DistillError(
                f"level {pair.student!r}: {len(student)} images of the student and {len(teacher)} of the teacher. "
                "Give the outputs of both for the same batch."
            )
        student, teacher = cropped_alike(student, teacher, pair)
        adapters = self._adapters[adapter]
        assert adapters is not None, f"no term was built with the adapter {adapter!r}"
        return adapters[level](student), teacher


def _tap_of(outputs: DetectorOutputs, name: str) -> Tensor | None:
    tap = outputs.extras[name] if name in outputs.extras else getattr(outputs, name, None)
    return tap if isinstance(tap, Tensor) else None


def device_of(outputs: DetectorOutputs) -> torch.device:
    """Return the device of a detector's taps; DistillError if it has none."""
    return _any_tap(outputs).device


def num_images_of(outputs: DetectorOutputs) -> int:
    """Return the number of images of a batch; DistillError if the outputs hold no tap."""
    return len(_any_tap(outputs))


def _any_tap(outputs: DetectorOutputs) -> Tensor:
    for tap in (*outputs.pyramid.values(), outputs.class_logits, outputs.boxes, *outputs.extras.values()):
        if tap is not None:
            return tap
    raise DistillError("the detector's outputs hold no tap at all. Give a pyramid, class logits or boxes.")


def _level_of(maps: dict[str, Tensor], level: str, side: str, channels: int) -> Tensor:
    if level not in maps:
        raise DistillError(
            f"the {side}'s outputs have the levels {', '.join(maps)}, not {level!r}, which this distiller was built "
            "for. Build it again for this pair."
        )
    if maps[level].shape[1] != channels:
        raise DistillError(
            f"{side} level {level!r} has {maps[level].shape[1]} channels; this distiller was built for {channels}. "
            "Build it again for this pair."
        )
    return maps[level]
