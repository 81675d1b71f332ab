"""A student of MMDetection with its teacher and distiller, as one model for mmengine's ``Runner``.

Legend: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.dist import all_reduce
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from torch import Tensor

from autokd.detectors.mmdet import adapter_of
from autokd.detectors.mmdet.capabilities import detector_family_of_model
from autokd.distill import Distiller, DistillResult, build_distiller
from autokd.mmdet_training.extra_state import as_tensor, from_tensor
from autokd.mmdet_training.live_teacher import LiveTeacher
from autokd.presets import load_distiller
from autokd.training.teacher.required_taps import student_taps, teacher_taps

STUDENT = "student."
"""Prefix of the student's weights in a checkpoint."""
_EXTRA = "_extra_state"
_PROBE_PX = 256
"""Side of the images that show the shapes of both detectors' taps while the distiller is built."""


@MODELS.register_module(force=True)
class DistilledDetector(BaseModel):
    """The student with a distiller beside it; detection is the student's alone.

    A training forward returns the student's own losses as mmdet computes them, ``distill/loss``, which mmengine adds to
    them, and every weighted term as ``distill/<term>``, for the log. The distiller's parameters are this model's, so
    that optimizer, EMA and checkpoints include them. The teacher's weights are not: it runs in evaluation mode, without
    gradient, on the pixels that the student's pipeline drew, normalized and padded as its own config says.

    Args:
        student: the ``model`` of the student's config, unchanged.
        teacher: a section as in AutoKD's config file (``config``, ``options``, ``checkpoint``, ``classes``; or another
            ``framework``).
        distiller: a file, or the name of a preset; one with families has the terms of the student's.
        classes: names of the data set's classes, by which those of the teacher's checkpoint are found; None: both must
            have the same classes in the same order.
        probe_size_px: (height, width) of the images on which both run while the distiller is built.

    Raises:
        DetectorError: if the teacher or the student cannot be used.
        ConfigError: if the section of the teacher is wrong.
    """

    def __init__(
        self,
        student: Mapping[str, Any],
        teacher: Mapping[str, Any],
        distiller: str,
        classes: Sequence[str] | None = None,
        probe_size_px: tuple[int, int] = (_PROBE_PX, _PROBE_PX),
    ) -> None:
        super().__init__()
        self.student = MODELS.build(student)
        self.data_preprocessor = self.student.data_preprocessor
        reader = adapter_of(self.student, "student")
        spec = load_distiller(str(Path(distiller).expanduser()), detector_family_of_model(student, "student"))
        num_classes = reader.num_classes
        # The teacher and the distiller draw random numbers: without the fork, the student would start with other
        # weights than in a training without distillation.
        with torch.random.fork_rng():
            live = LiveTeacher(teacher, num_classes, probe_size_px, classes, teacher_taps(spec))
            pixels_BCHW = torch.randint(0, 256, (2, 3, *probe_size_px)).float()
            self._taps = student_taps(spec)
            with torch.no_grad():
                reader.eval()
                outputs_s = reader(pixels_BCHW.flip(1) / 255, taps=self._taps)
                reader.train()
            self.distiller: Distiller = build_distiller(
                spec,
                outputs_s,
                live(pixels_BCHW, [probe_size_px] * 2),
                num_classes,
                sum_over_processes=_summed_over_processes,
            )
        # In a tuple, where ``nn.Module`` finds no submodules: the reader's weights are the student's, which are
        # registered already, and the teacher's must not enter checkpoints, EMA or the optimizer.
        self._hidden = (reader, live)
        self._epoch: int | None = None
        self.register_load_state_dict_pre_hook(_before_loading)

    @property
    def teacher(self) -> LiveTeacher:
        """The teacher, frozen, which is no submodule: its weights are in no checkpoint."""
        return self._hidden[1]

    def init_weights(self) -> None:
        """Initialize the student as its config says."""
        self.student.init_weights()

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Run in one of the modes of mmdet's detectors: ``loss``, ``predict`` or ``tensor``."""
        if mode != "loss":
            return self.student(inputs, data_samples, mode=mode)
        return self._loss(inputs, data_samples)

    def _loss(self, inputs_BCHW: Tensor, samples: list[Any]) -> dict[str, Any]:
        reader, teacher = self._hidden
        self._follow_the_runner()
        outputs_s, losses = reader.read(inputs_BCHW, samples, self._taps)
        sizes_px = [tuple(sample.img_shape[:2]) for sample in samples]
        outputs_t = teacher(_pixels(self.data_preprocessor, inputs_BCHW), sizes_px)
        result = self.distiller(outputs_s, outputs_t, [_target(sample) for sample in samples])
        return losses | _named(result)

    def _follow_the_runner(self) -> None:
        """Pass the runner's epoch and progress to the distiller; outside a runner it stays at the beginning."""
        # mmengine publishes them on the message hub, the one place that a model can read without a hook of its own.
        hub = MessageHub.get_current_instance().runtime_info
        if not hub.get("max_iters"):
            return
        epoch, num_epochs = int(hub.get("epoch", 0)) + 1, max(int(hub.get("max_epochs") or 1), 1)
        if epoch != self._epoch:
            self.teacher.check_classes(hub.get("dataset_meta"))
            self.distiller.begin_epoch(epoch, num_epochs, max(hub["max_iters"] // num_epochs, 1))
            self._epoch = epoch
        self.distiller.progress = min(int(hub.get("iter", 0)) / hub["max_iters"], 1.0)

    def state_dict(self, *arguments: Any, **keywords: Any) -> Any:
        """Return tensors only, since averaged models and mmengine's checkpoints cannot hold other state."""
        state = super().state_dict(*arguments, **keywords)
        for name, value in state.items():
            if name.endswith(_EXTRA) and not isinstance(value, Tensor):
                state[name] = as_tensor(value)
        return state


def _summed_over_processes(squares: Tensor) -> Tensor:
    """Add up squared norms over the processes, as those of parts of one batch.

    mmengine takes the mean of the processes' losses, so that each process holds a part of the batch's gradient.
    """
    all_reduce(squares)
    return squares


def _named(result: DistillResult) -> dict[str, Tensor]:
    """Name the total and the terms for mmengine's log."""
    # mmengine adds up every entry that has "loss" in its name: only the total may have it.
    terms = {f"distill/{name}".replace("loss", "lesson"): value.weighted for name, value in result.terms.items()}
    return {"distill/loss": result.total} | terms


def _pixels(preprocessor: Any, inputs_BCHW: Tensor) -> Tensor:
    """Undo the student's normalization: return the images as its pipeline loaded them, in a new tensor."""
    pixels_BCHW = inputs_BCHW.detach().float()
    if preprocessor._enable_normalize:
        pixels_BCHW = pixels_BCHW * preprocessor.std + preprocessor.mean
    return pixels_BCHW.flip(1) if preprocessor._channel_conversion else pixels_BCHW.clone()


def _target(sample: Any) -> dict[str, Tensor]:
    found = sample.gt_instances
    return {"boxes": getattr(found.bboxes, "tensor", found.bboxes), "labels": found.labels}


def _before_loading(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Turn tensors of ``state_dict`` back into state, and take a plain detector's checkpoint for the student's.

    ``load_from`` of a config may name such a checkpoint.
    """
    own = [name for name in state if name.startswith(prefix)]
    if not any(name.startswith((f"{prefix}{STUDENT}", f"{prefix}distiller.")) for name in own):
        for name in own:
            state[f"{prefix}{STUDENT}{name[len(prefix) :]}"] = state.pop(name)
    for name in own:
        if name.endswith(_EXTRA) and isinstance(state.get(name), Tensor):
            state[name] = from_tensor(state[name])
