"""Weights from files: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from autokd.config import TorchvisionDetector
from autokd.detectors import build_detector, load_weights
from autokd.errors import DetectorError


def _equal(detector, weights):
    return all(torch.equal(value, weights[name]) for name, value in detector.plain_state_dict().items())


@pytest.mark.parametrize("form", ["plain", "model", "state_dict", "model_state_dict", "module.", "detector"])
def test_the_usual_forms_of_checkpoints_load(architecture, make_detector, tmp_path, form):
    source, target = make_detector(architecture), make_detector(architecture)
    weights = source.plain_state_dict()
    content = {
        "plain": weights,
        "module.": {f"module.{name}": value for name, value in weights.items()},
        "detector": source.state_dict(),
    }.get(form, {form: weights, "epoch": 3})
    torch.save(content, tmp_path / "weights.pt")
    assert not _equal(target, weights)
    load_weights(target, tmp_path / "weights.pt")
    assert _equal(target, weights)


def _other(weights):
    """Weights of another detector of the same names."""
    return {name: value * 0 + 7 for name, value in weights.items()}


@pytest.mark.parametrize(
    "form", ["_orig_mod.", "net.", "model.module.", "module._orig_mod.", "architecture.", "student.", "ema", "averaged"]
)
def test_what_wrappers_put_around_weights_comes_off(make_detector, tmp_path, form):
    """torch.compile, Lightning, DataParallel inside a wrapper, MMRazor, an average beside the weights."""
    source, target = make_detector(), make_detector()
    weights = source.plain_state_dict()
    prefixed = {form + name: value for name, value in weights.items()}
    teacher = {f"teacher.{name}": value for name, value in _other(weights).items()}
    content = {
        "architecture.": {"state_dict": teacher | prefixed},
        "student.": {"state_dict": prefixed | teacher},
        "ema": {"ema": {"module": weights, "updates": 5}, "model": _other(weights), "epoch": 3},
        # torchvision's references: AveragedModel counts its updates in a tensor.
        "averaged": {
            "model": _other(weights),
            "model_ema": {"n_averaged": torch.tensor(3)} | {f"module.{name}": v for name, v in weights.items()},
        },
    }.get(form, {"state_dict": prefixed})
    torch.save(content, tmp_path / "wrapped.pt")
    load_weights(target, tmp_path / "wrapped.pt")
    assert _equal(target, weights)


@pytest.mark.parametrize("is_archive", [True, False])
def test_arguments_and_numbers_of_numpy_beside_the_weights_are_read_past(make_detector, tmp_path, is_archive):
    source, target = make_detector(), make_detector()
    weights = source.plain_state_dict()
    best = {"ap": np.float64(0.3), "curve": np.arange(3.0), "when": datetime.datetime(2024, 1, 1)}
    args = argparse.Namespace(lr=0.01, out=Path("runs"))
    content = {"model": weights, "args": args, "best": best, "loss": torch.tensor(0.5)}
    torch.save(content, tmp_path / "references.pth", _use_new_zipfile_serialization=is_archive)
    load_weights(target, tmp_path / "references.pth")
    assert _equal(target, weights)


@pytest.mark.parametrize("architecture", ["fcos", "retinanet"])
def test_an_unused_background_in_front_of_a_dense_heads_classes_is_left_out(architecture, tmp_path, images_BCHW):
    """torchvision's own detectors count classes from 1 also where no row of the head is ever the background."""
    section = TorchvisionDetector(architecture=architecture, backbone={"width": 8}, fpn_channels=32)
    wide, narrow = (build_detector(section, num_classes, (96, 128)).eval() for num_classes in (6, 5))
    torch.save(wide.plain_state_dict(), tmp_path / "with_background.pt")
    load_weights(narrow, tmp_path / "with_background.pt")
    found, everything = narrow(images_BCHW), wide(images_BCHW)
    torch.testing.assert_close(found.class_logits, everything.class_logits[..., 1:])
    torch.testing.assert_close(found.boxes, everything.boxes)


def test_a_program_is_refused_and_not_loaded(make_detector, tmp_path):
    torch.jit.script(torch.nn.Conv2d(3, 4, 1)).save(str(tmp_path / "program.pt"))
    with pytest.raises(DetectorError, match=r"program\.pt: refused, since it is a TorchScript program"):
        load_weights(make_detector(), tmp_path / "program.pt")


def test_a_whole_pickled_model_is_named_as_such(make_detector, tmp_path):
    torch.save(torch.nn.Conv2d(3, 4, 1), tmp_path / "whole.pt")
    with pytest.raises(DetectorError, match=r"a whole pickled object.*model\.state_dict\(\)"):
        load_weights(make_detector(), tmp_path / "whole.pt")


def test_a_checkpoint_without_batch_counters_loads(make_detector, tmp_path):
    detector = make_detector()
    weights = {n: v for n, v in detector.plain_state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "weights.pt")
    load_weights(detector, tmp_path / "weights.pt")


def test_plain_weights_are_copies_and_contiguous(make_detector):
    detector = make_detector()
    weights = detector.plain_state_dict()
    weights["backbone.body.conv1.weight"].zero_()
    assert detector.model.backbone.body.conv1.weight.abs().sum() > 0
    assert all(value.is_contiguous() and not value.requires_grad for value in weights.values())


def test_a_configured_checkpoint_is_loaded_when_the_detector_is_built(tmp_path):
    config = TorchvisionDetector()
    weights = build_detector(config, 3, (96, 96)).plain_state_dict()
    torch.save(weights, tmp_path / "teacher.pt")
    again = build_detector(config.model_copy(update={"checkpoint": tmp_path / "teacher.pt"}), 3, (96, 96))
    assert _equal(again, weights)


def test_weights_that_do_not_fit_are_listed_and_change_nothing(make_detector, tmp_path):
    detector = make_detector()
    before = detector.plain_state_dict()
    weights = {name: value + 1 for name, value in detector.plain_state_dict().items()}
    weights["head.classification_head.cls_logits.weight"] = torch.zeros(7, 32, 3, 3)
    del weights["backbone.body.conv1.weight"]
    weights["stranger"] = torch.zeros(1)
    torch.save(weights, tmp_path / "other.pt")
    with pytest.raises(DetectorError) as caught:
        load_weights(detector, tmp_path / "other.pt")
    message = str(caught.value)
    assert "other.pt" in message
    assert "1 missing (backbone.body.conv1.weight)" in message
    assert "1 unexpected (stranger)" in message
    assert "cls_logits.weight: (7, 32, 3, 3) instead of (5, 32, 3, 3)" in message
    assert "same classes" in message
    assert _equal(detector, before)


def test_many_missing_weights_are_counted_and_the_first_named(make_detector, tmp_path):
    torch.save({"stranger": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(DetectorError, match=r"\d\d missing \(backbone\.body\.conv1\.weight, .* and \d\d more\)"):
        load_weights(make_detector(), tmp_path / "other.pt")


def test_diverged_weights_are_refused(make_detector, tmp_path):
    detector = make_detector()
    weights = detector.plain_state_dict()
    weights["backbone.body.conv1.weight"][0] = float("nan")
    torch.save(weights, tmp_path / "spoiled.pt")
    with pytest.raises(DetectorError, match=r"1 tensors hold NaN or infinity \(backbone.body.conv1.weight\)"):
        load_weights(detector, tmp_path / "spoiled.pt")


class _Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_checkpoint_never_executes_code(make_detector, tmp_path):
    trap = tmp_path / "executed"
    torch.save({"model": _Malice(str(trap))}, tmp_path / "malice.pt")
    (tmp_path / "malice.pkl").write_bytes(pickle.dumps(_Malice(str(trap)), protocol=2))
    for name in ("malice.pt", "malice.pkl"):
        with pytest.raises(DetectorError, match=name):
            load_weights(make_detector(), tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"hello, this is no checkpoint", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_checkpoint_is_refused(make_detector, tmp_path, content):
    (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(DetectorError, match=r"odd\.pt"):
        load_weights(make_detector(), tmp_path / "odd.pt")


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 3}, [], {}, {"model": {"a": 1}}])
def test_a_file_without_a_state_dict_is_refused(make_detector, tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(DetectorError, match="no state dict"):
        load_weights(make_detector(), tmp_path / "odd.pt")


def test_a_missing_file_is_refused(make_detector, tmp_path):
    with pytest.raises(DetectorError, match="there is no such checkpoint"):
        load_weights(make_detector(), tmp_path / "nowhere.pt")
