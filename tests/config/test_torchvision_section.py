"""Pretrained starts in a config file: which weights belong to what, and what the mistakes are called."""

from __future__ import annotations

import os

import pytest

from autokd.config import complete_recipes, config_data, config_digest, config_yaml, load_config
from autokd.errors import ConfigError

FILE = """\
data: {format: shapes}
teacher: {architecture: fcos_resnet50_fpn, weights: COCO_V1}
student: {architecture: fcos, backbone: {name: mobilenet_v2, weights: IMAGENET1K_V1}}
"""


def _load(teacher: str = "", student: str = ""):
    text = FILE
    if teacher:
        text = text.replace("{architecture: fcos_resnet50_fpn, weights: COCO_V1}", teacher)
    if student:
        text = text.replace("{architecture: fcos, backbone: {name: mobilenet_v2, weights: IMAGENET1K_V1}}", student)
    return load_config(text)


def test_a_teacher_of_torchvision_needs_no_training():
    config = _load()
    assert config.teachers[0].has_weights
    assert config.student.backbone.weights == "IMAGENET1K_V1"
    assert not config.student.has_weights


def test_a_resolved_file_reads_back_and_leaves_out_what_a_builder_fixes():
    config = complete_recipes(_load())
    again = complete_recipes(load_config(config_yaml(config)))
    assert again == config
    assert "fpn_channels" not in config_data(config)["teacher"]
    assert config_data(config)["student"]["fpn_channels"] == 64


def test_sections_without_pretrained_weights_have_the_keys_and_the_digest_that_they_had():
    """Runs and recorded tables of earlier versions go on: their configurations have no such keys."""
    config = complete_recipes(_load("{train: {}}", "{}"))
    data = config_data(config)
    known = ("framework", "architecture", "backbone", "fpn_channels", "head_convs", "box_init", "checkpoint", "train")
    assert tuple(data["student"]) == known
    assert tuple(data["student"]["backbone"]) == ("name", "blocks", "width")
    assert "backbone_lr_factor" not in data["full"]
    changed = complete_recipes(load_config(FILE + "full: {backbone_lr_factor: 0.1}\n"))
    assert config_data(changed)["full"]["backbone_lr_factor"] == 0.1
    assert changed.proxy.backbone_lr_factor == 0.1


def test_the_folder_of_weights_changes_no_digest(tmp_path):
    plain = complete_recipes(_load())
    moved = complete_recipes(_load(f"{{architecture: fcos_resnet50_fpn, weights: COCO_V1, weights_dir: {tmp_path}}}"))
    assert moved.teachers[0].weights_dir == tmp_path
    assert config_digest(plain) == config_digest(moved)


def test_files_are_checkpoints_and_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTS", "pretrained")
    os.mkdir("pretrained")
    for name in ("teacher.pth", "body.pth"):
        (tmp_path / "pretrained" / name).write_bytes(b"")
    config = _load(
        "{architecture: fcos_resnet50_fpn, weights: $WEIGHTS/teacher.pth}",
        "{backbone: {name: resnet18, weights: pretrained/body.pth}}",
    )
    assert config.teachers[0].checkpoint == tmp_path / "pretrained" / "teacher.pth"
    assert config.teachers[0].weights is None
    assert config.student.backbone.weights == str(tmp_path / "pretrained" / "body.pth")


@pytest.mark.parametrize(
    ("teacher", "place", "said"),
    [
        ("{architecture: fcos_resnet50_fpn, weights: no.pth}", "2: teacher.weights", "no such file"),
        ("{backbone: {name: resnet18, weights: no.pth}, train: {}}", "2: teacher.backbone.weights", "no such file"),
        ("{weights: COCO_V1}", "2: teacher", "torchvision's own detectors.*fcos_resnet50_fpn.*backbone"),
        ("{backbone: {weights: IMAGENET1K_V1}, train: {}}", "2: teacher", "without backbone.name.*resnet50"),
        ("{backbone: {name: swin_t, norm: frozen}, train: {}}", "2: teacher.backbone", "swin_t has layer norms"),
        ("{backbone: {name: resnet51}, train: {}}", "2: teacher.backbone.name", "Did you mean 'resnet101'|resnet50'"),
        ("{architecture: fcos_resnet50, train: {}}", "2: teacher.architecture", "Did you mean 'fcos_resnet50_fpn'"),
        ("{architecture: fcos_resnet50_fpn, fpn_channels: 32, train: {}}", "2: teacher", "found fpn_channels, which"),
        (
            "{architecture: fcos_resnet50_fpn, backbone: {width: 8}, train: {}}",
            "2: teacher",
            "found backbone.width, which torchvision's fcos_resnet50_fpn fixes",
        ),
        (
            "{architecture: fcos_resnet50_fpn, weights: COCO_V1, checkpoint: x.pth}",
            "2: teacher",
            "both weights and checkpoint",
        ),
        (
            "{architecture: fcos_resnet50_fpn, weights: COCO_V1, backbone: {weights: IMAGENET1K_V1}}",
            "2: teacher",
            "include those of backbone.weights",
        ),
    ],
)
def test_mistakes_are_named_with_their_line_and_the_way_out(teacher, place, said):
    with pytest.raises(ConfigError, match=rf"(?s)<text>:{place}\b.*(?:{said})"):
        _load(teacher)
