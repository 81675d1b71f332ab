"""Checkpoints of MMDetection: what loads, what is refused and what the refusal says; classes matched by name."""

from __future__ import annotations

import logging
import os
import pickle

import pytest
import torch

from autokd.config import MmdetDetector
from autokd.detectors.mmdet import build_mmdet_detector, build_mmdet_model
from autokd.errors import DetectorError
from tests.support.mmdet_cases import CONFIGS, section

SIZE_PX = (96, 128)
NAMES = ("red", "white", "platelet", "stain", "glass")


def _save(path, weights, classes=NAMES, **more):
    meta = {"dataset_meta": {"classes": classes}} if classes else {}
    torch.save({"state_dict": weights, "meta": meta, **more}, path)
    return path


def _load(name, path, num_classes=5, classes=None, **settings):
    return build_mmdet_detector(section(name, checkpoint=path, **settings), num_classes, SIZE_PX, classes)


@pytest.mark.parametrize("form", ["mmengine", "mmcv 1", "plain", "module."])
def test_the_usual_forms_of_checkpoints_load(form, make, tmp_path):
    weights = make("retinanet").plain_state_dict()
    path = tmp_path / "teacher.pth"
    content = {
        "mmengine": {"state_dict": weights, "meta": {"dataset_meta": {"classes": NAMES}, "epoch": 12}},
        "mmcv 1": {"state_dict": weights, "meta": {"CLASSES": NAMES}, "optimizer": {"param_groups": []}},
        "plain": weights,
        "module.": {"state_dict": {f"module.{key}": value for key, value in weights.items()}},
    }[form]
    torch.save(content, path)
    loaded = _load("retinanet", path, classes=NAMES).plain_state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.items())


def test_the_student_of_an_mmrazor_distillation_loads(make, tmp_path):
    """MMRazor keeps the student under ``architecture.``, and the teacher, whose names are the same, beside it."""
    weights = make("retinanet").plain_state_dict()
    both = {f"teacher.{key}": value * 0 for key, value in weights.items()}
    both |= {f"architecture.{key}": value for key, value in weights.items()}
    loaded = _load("retinanet", _save(tmp_path / "razor.pth", both), classes=NAMES).plain_state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.items())


def test_a_checkpoint_of_an_old_torch_loads(make, tmp_path):
    """Before version 1.6 torch wrote a row of pickles instead of an archive; many of the zoo's files are such."""
    weights = make("retinanet").plain_state_dict()
    content = {"state_dict": weights, "meta": {"CLASSES": NAMES}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = _load("retinanet", tmp_path / "old.pth", num_classes=1, classes=("glass",))
    assert loaded.model_classes == NAMES
    assert all(torch.equal(value, weights[key]) for key, value in loaded.plain_state_dict().items())


def test_a_checkpoint_as_a_runner_saves_it_loads(make, tmp_path):
    """mmengine keeps its log of the training beside the weights: histories of numbers."""
    from mmengine.logging import MessageHub

    hub = MessageHub("a training of the checkpoint test")
    hub.update_scalar("train/loss", 1.5)
    hub.update_scalar("train/loss", torch.tensor(1.25))
    hub.update_info("epoch", 3)
    weights = make("retinanet").plain_state_dict()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9).state_dict()
    path = _save(tmp_path / "epoch_3.pth", weights, message_hub=hub.state_dict(), optimizer=optimizer)
    loaded = _load("retinanet", path).plain_state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.items())


def test_a_teacher_of_more_classes_speaks_of_the_data_sets_by_name(make, images_BCHW, targets, tmp_path):
    teacher = make("retinanet")
    path = _save(tmp_path / "teacher.pth", teacher.plain_state_dict())
    detector = _load("retinanet", path, num_classes=2, classes=("platelet", "red")).eval()
    teacher.model.load_state_dict(detector.model.state_dict())
    teacher.eval()
    assert detector.num_classes == 2
    whole, part = teacher(images_BCHW), detector(images_BCHW)
    assert torch.equal(part.class_logits, whole.class_logits[..., [2, 0]])
    known = {2: 0, 0: 1}
    for everything, found in zip(teacher.detect(images_BCHW), detector.detect(images_BCHW)):
        kept = torch.tensor([int(label) in known for label in everything["labels"]])
        assert torch.equal(found["boxes"], everything["boxes"][kept])
        assert found["labels"].tolist() == [known[int(label)] for label in everything["labels"][kept]]
    of_whole = [{"boxes": t["boxes"], "labels": torch.full_like(t["labels"], 2)} for t in targets]
    of_part = [{"boxes": t["boxes"], "labels": torch.zeros_like(t["labels"])} for t in targets]
    torch.testing.assert_close(detector(images_BCHW, of_part).task_loss, teacher(images_BCHW, of_whole).task_loss)


def test_names_are_taken_from_the_section_where_the_checkpoint_has_none(make, tmp_path):
    path = _save(tmp_path / "teacher.pth", make("retinanet").plain_state_dict(), classes=None)
    named = section("retinanet", checkpoint=path, classes=NAMES)
    detector = build_mmdet_detector(named, 1, SIZE_PX, ("glass",))
    assert detector.num_classes == 1


def test_classes_that_a_teacher_lacks_are_named(make, tmp_path):
    path = _save(tmp_path / "teacher.pth", make("retinanet").plain_state_dict())
    with pytest.raises(DetectorError, match=r"teacher\.pth: does not know 'needle'"):
        _load("retinanet", path, 2, ("red", "needle"))


def test_a_head_of_other_classes_is_refused_and_starts_anew_only_if_asked(make, tmp_path, caplog):
    weights = make("faster_rcnn").plain_state_dict()
    path = _save(tmp_path / "teacher.pth", weights)
    with pytest.raises(DetectorError) as caught:
        _load("faster_rcnn", path, num_classes=3)
    assert "fc_cls.weight: (6, 32) instead of (4, 32)" in str(caught.value)
    assert "new_head: true" in str(caught.value)
    with caplog.at_level(logging.WARNING):
        loaded = _load("faster_rcnn", path, num_classes=3, new_head=True).plain_state_dict()
    assert "roi_head.bbox_head.fc_cls.weight" in caplog.text
    assert "start anew" in caplog.text
    assert loaded["roi_head.bbox_head.fc_cls.weight"].shape == (4, 32)
    assert torch.equal(loaded["backbone.conv1.weight"], weights["backbone.conv1.weight"])
    assert torch.equal(
        loaded["roi_head.bbox_head.shared_fcs.0.weight"], weights["roi_head.bbox_head.shared_fcs.0.weight"]
    )


def test_weights_of_another_model_are_refused_with_a_report(make, tmp_path):
    path = _save(tmp_path / "other.pth", make("yolox").plain_state_dict())
    with pytest.raises(DetectorError) as caught:
        _load("retinanet", path)
    message = str(caught.value)
    assert "other.pth: the weights of another model" in message
    assert "missing (backbone.conv1.weight" in message
    assert "unexpected (backbone.stem.conv.conv.weight" in message
    assert "Name the config with which the checkpoint was made" in message


def test_a_missing_layer_is_refused_even_with_a_new_head(make, tmp_path):
    weights = make("retinanet").plain_state_dict()
    del weights["neck.lateral_convs.0.conv.weight"]
    path = _save(tmp_path / "cut.pth", weights)
    with pytest.raises(DetectorError, match=r"1 missing \(neck\.lateral_convs\.0\.conv\.weight\)"):
        _load("retinanet", path, new_head=True)


def test_weights_without_a_place_are_told_and_left_out(make, tmp_path, caplog):
    weights = make("mask_rcnn").plain_state_dict()
    path = _save(tmp_path / "with_masks.pth", weights)
    with caplog.at_level(logging.WARNING):
        _load("faster_rcnn", path)
    assert "roi_head.mask_head" in caplog.text


class _Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_checkpoint_never_executes_code(tmp_path):
    trap = tmp_path / "executed"
    for is_archive in (True, False):
        content = {"state_dict": _Malice(str(trap))}
        torch.save(content, tmp_path / "malice.pth", _use_new_zipfile_serialization=is_archive)
        with pytest.raises(DetectorError, match="no checkpoint of MMDetection"):
            _load("retinanet", tmp_path / "malice.pth")
    (tmp_path / "malice.pth").write_bytes(pickle.dumps(_Malice(str(trap)), protocol=2))
    with pytest.raises(DetectorError, match=r"malice\.pth"):
        _load("retinanet", tmp_path / "malice.pth")
    assert not trap.exists()


def test_hostile_additions_to_sound_weights_do_nothing(make, tmp_path):
    """Weights load although beside them stands what another reader would have run."""
    trap = tmp_path / "executed"
    weights = make("retinanet").plain_state_dict()
    path = _save(tmp_path / "teacher.pth", weights, message_hub=_Malice(str(trap)))
    loaded = _load("retinanet", path).plain_state_dict()
    assert torch.equal(loaded["backbone.conv1.weight"], weights["backbone.conv1.weight"])
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello", "not a checkpoint that torch can read"),
        ({"meta": {}}, "no checkpoint of MMDetection"),
        ({}, "no checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(content, said, tmp_path):
    path = tmp_path / "odd.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(DetectorError, match=said):
        _load("retinanet", path)


def test_a_missing_checkpoint_and_diverged_weights_are_refused(make, tmp_path):
    with pytest.raises(DetectorError, match="there is no such checkpoint"):
        _load("retinanet", tmp_path / "nowhere.pth")
    weights = make("retinanet").plain_state_dict()
    weights["backbone.conv1.weight"][0] = float("nan")
    with pytest.raises(DetectorError, match=r"1 tensors hold NaN or infinity \(backbone\.conv1\.weight\)"):
        _load("retinanet", _save(tmp_path / "spoiled.pth", weights))


def _with_pretrained(folder, weights):
    """Return a section whose backbone is initialized from a file or an address."""
    config = folder / "pretrained.py"
    init = f"dict(type='Pretrained', checkpoint={str(weights)!r})"
    config.write_text(f"_base_ = {str(CONFIGS / 'retinanet.py')!r}\nmodel = dict(backbone=dict(init_cfg={init}))\n")
    return config


def test_a_checkpoint_spares_the_download_of_the_backbone(tmp_path, make):
    config = str(_with_pretrained(tmp_path, tmp_path / "nowhere.pth"))
    with pytest.raises(DetectorError, match=r"model\.backbone\.init_cfg: null"):
        build_mmdet_model(MmdetDetector(framework="mmdet", config=config), 5)
    left_out = MmdetDetector(framework="mmdet", config=config, options={"model.backbone.init_cfg": None})
    assert build_mmdet_model(left_out, 5).backbone.depth == 18
    path = _save(tmp_path / "teacher.pth", make("retinanet").plain_state_dict())
    loaded = build_mmdet_detector(MmdetDetector(framework="mmdet", config=config, checkpoint=path), 5, SIZE_PX)
    assert loaded.num_classes == 5
