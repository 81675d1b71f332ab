"""Validation: the task loss, the representation gap, both in one pass."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn

from autokd.detector_outputs import DetectorOutputs
from autokd.detectors import build_detector
from autokd.errors import NonFiniteError
from autokd.training.loader import Loader, identity_plan
from autokd.training.measure.average_precision import PrecisionMeter, detect_split
from autokd.training.measure.validation import validate
from autokd.training.seeds import random_stream
from autokd.training.teacher.cache import LiveTeacher

CPU = torch.device("cpu")


@pytest.fixture
def loader(tiny_data) -> Loader:
    return Loader(tiny_data.val, identity_plan(tiny_data.val), 4, CPU)


@pytest.fixture
def student(tiny_config, tiny_data):
    with random_stream(CPU, 0, "weights"):
        return build_detector(tiny_config.student, tiny_data.num_classes, (64, 64))


class Counting(nn.Module):
    """Loss 1 for the first image of a batch, 2 for the second ...: their mean over a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.num_forwards = 0

    def forward(self, images_BCHW, targets=None, taps=()):
        assert not self.training
        self.num_forwards += 1
        loss = torch.arange(1.0, len(images_BCHW) + 1).mean()
        return DetectorOutputs({"p3": images_BCHW}, {"p3": 1}, losses={"a": loss, "b": loss * 2})


def test_the_loss_is_the_mean_over_images_and_takes_one_forward_a_batch(loader):
    model = Counting().train()
    found = validate(model, loader, LiveTeacher(Counting()))
    # Batches of 4 and 2 images: means 2.5 and 1.5.
    assert found.losses == pytest.approx({"a": (2.5 * 4 + 1.5 * 2) / 6, "b": (5 * 4 + 3 * 2) / 6})
    assert found.val_loss == pytest.approx(sum(found.losses.values()))
    assert (model.num_forwards, model.training) == (2, True)
    assert found.cka == pytest.approx(1.0)


def test_validation_changes_nothing_and_gives_the_same_twice(student, loader):
    before = {name: value.clone() for name, value in student.state_dict().items()}
    state = torch.random.get_rng_state()
    first = validate(student, loader, LiveTeacher(student))
    assert first == validate(student, loader, LiveTeacher(student))
    assert first.cka == pytest.approx(1.0)
    assert list(first.cka_levels) == list(student.level_names)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_detections_come_of_the_same_passes_and_are_those_of_detecting_alone(student, loader, tiny_data):
    num_passes = 0

    def count(*arguments):
        nonlocal num_passes
        num_passes += 1

    alone = detect_split(student, tiny_data.val, batch_size=4, device=CPU)
    plain = validate(student, loader, LiveTeacher(student))
    hook = student.model.backbone.register_forward_hook(count)
    found = validate(student, loader, wants_detections=True)
    hook.remove()
    assert num_passes == 2, "batches of 4 and 2 images"
    assert alone
    assert list(found.detections) == alone
    assert found.losses == plain.losses
    assert plain.detections == ()


def test_without_a_teacher_there_is_no_gap(student, loader):
    assert validate(student, loader).cka is None


def test_a_loss_that_is_not_finite_is_named(loader):
    class Broken(Counting):
        def forward(self, images_BCHW, targets=None, taps=()):
            outputs = super().forward(images_BCHW)
            return DetectorOutputs(outputs.pyramid, outputs.strides, losses={"a": outputs.losses["a"] * math.inf})

    with pytest.raises(NonFiniteError, match="validation loss a is inf"):
        validate(Broken(), loader)


def test_deadlines_hold_while_measuring(student, loader, tiny_data):
    with pytest.raises(TimeoutError):
        validate(student, loader, deadline=time.monotonic())
    with pytest.raises(TimeoutError):
        PrecisionMeter(tiny_data.val).measure(student, batch_size=4, device=CPU, deadline=time.monotonic())


def test_a_detector_that_returns_the_ground_truth_has_ap_one_in_original_pixels(tiny_config, tmp_path):
    from autokd.data import load_split, write_shapes

    root = write_shapes(tiny_config.data, tmp_path)
    # The network sees the 64 x 64 images enlarged and padded: results must come back to 64 x 64.
    val = load_split(root / "instances_val.json", root / "images", (128, 160), name="val")

    class Oracle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.index = 0

        def detect(self, images_BCHW):
            found = []
            for _ in images_BCHW:
                target = val.target(self.index)
                found.append({**target, "scores": torch.ones(len(target["labels"]))})
                self.index += 1
            return found

    precision = PrecisionMeter(val).measure(Oracle(), batch_size=4, device=CPU)
    assert precision.map_50_95 == pytest.approx(1.0)
    assert min(precision.per_class.values()) == pytest.approx(1.0)
