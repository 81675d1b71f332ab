"""Configs: found by path or name, overridden by data, fitted to the classes, refused before anything trains."""

from __future__ import annotations

import pytest
import torch

from autokd.config import MmdetDetector
from autokd.detectors import build_detector, describe
from autokd.detectors.mmdet import config_text, mmdet_taps, read_config, resolve_config
from autokd.detectors.mmdet.config_file import find_config
from autokd.errors import DetectorError
from tests.support.mmdet_cases import CONFIGS, section

SIZE_PX = (96, 128)
NO_DOWNLOAD = {"model.backbone.init_cfg": None}


def _section(config, **settings):
    return MmdetDetector(framework="mmdet", config=str(config), **settings)


def _changed(folder, name, text):
    """Return a section of a config of the user's own, based on one of the tests'."""
    path = folder / "changed.py"
    path.write_text(f"_base_ = {str(CONFIGS / f'{name}.py')!r}\n{text}\n")
    return _section(path)


def test_a_config_is_found_by_path_and_by_its_name_in_the_zoo():
    assert find_config(str(CONFIGS / "fcos.py")) == CONFIGS / "fcos.py"
    by_name = find_config("retinanet_r50_fpn_1x_coco")
    assert by_name.name == "retinanet_r50_fpn_1x_coco.py"
    assert by_name == find_config("retinanet/retinanet_r50_fpn_1x_coco.py")


def test_a_name_that_nobody_has_is_refused_with_a_suggestion():
    with pytest.raises(DetectorError, match="Did you mean 'retinanet_r50_fpn_1x_coco'"):
        find_config("retinanet_r50_fpn_1x_cocoo")
    for name in ("./nowhere/config.py", "~nosuch/config.py", "x" * 10_000):
        with pytest.raises(DetectorError, match="is no file"):
            find_config(name)


def test_a_config_that_fails_is_refused_with_its_error(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("model = dict(type='RetinaNet'\n")
    with pytest.raises(DetectorError, match=r"broken\.py: running this config failed with SyntaxError"):
        read_config(_section(broken))
    broken.write_text("_base_ = './nowhere.py'\n")
    with pytest.raises(DetectorError, match="its bases are seen from its own folder"):
        read_config(_section(broken))
    broken.write_text("optimizer = 3\n")
    with pytest.raises(DetectorError, match="has no 'model'"):
        read_config(_section(broken))


def test_options_override_keys_and_misspelled_ones_are_refused():
    options = {"model.bbox_head.stacked_convs": 2, "model.neck.num_outs": 5}
    config = read_config(section("fcos", options=options))
    assert config.model.bbox_head.stacked_convs == 2
    assert config.model.neck.out_channels == 16
    with pytest.raises(DetectorError, match="Did you mean 'bbox_head'"):
        read_config(section("fcos", options={"model.box_head.stacked_convs": 2}))
    with pytest.raises(DetectorError, match="Did you mean 'model'"):
        read_config(section("fcos", options={"modle": 3}))
    with pytest.raises(DetectorError, match="has 2 entries, counted from 0; no '2'"):
        read_config(section("cascade_rcnn", options={"model.roi_head.bbox_head.2.num_classes": 2}))


def test_an_option_takes_the_place_of_a_plain_value_alone():
    for options, said in (
        ({"model.neck": None}, "has a whole part there.*Name a key inside it"),
        ({"model.bbox_head.depth_of_nothing": 3}, "has no place"),
        ({"model.test_cfg.unknown": 3}, "has no place"),
        ({"model.backbone.depth": "word"}, "Give a number"),
        ({"model.backbone.plugins": "word"}, "has no place"),  # a parameter of ResNet without a plain default
    ):
        with pytest.raises(DetectorError, match=said):
            read_config(section("fcos", options=options))
    # A parameter that the config leaves out has its default's place: ResNet has `deep_stem`, and says False.
    assert read_config(section("fcos", options={"model.backbone.deep_stem": True})).model.backbone.deep_stem is True


def test_every_head_gets_the_number_of_classes():
    assert resolve_config(section("retinanet"), 3).model.bbox_head.num_classes == 3
    cascade = resolve_config(section("cascade_rcnn"), 3).model
    assert [head.num_classes for head in cascade.roi_head.bbox_head] == [3, 3]
    assert "num_classes" not in cascade.rpn_head
    masked = resolve_config(section("mask_rcnn"), 3).model
    assert masked.roi_head.bbox_head.num_classes == masked.roi_head.mask_head.num_classes == 3


def test_the_text_of_a_config_changes_with_its_content_not_with_its_place(tmp_path):
    copy = tmp_path / "elsewhere.py"
    resolve_config(section("fcos"), 80).dump(str(copy))
    assert config_text(_section(copy)) == config_text(section("fcos"))
    changed = section("fcos", options={"model.bbox_head.stacked_convs": 2})
    assert config_text(changed) != config_text(section("fcos"))


def test_a_model_that_cannot_be_built_or_run_is_refused_with_the_reason():
    with pytest.raises(DetectorError, match="MMDetection cannot build this model"):
        build_detector(section("retinanet", options={"model.backbone.depth": 19}), 3, SIZE_PX)
    with pytest.raises(DetectorError, match="does not run up to its pyramid"):
        build_detector(section("retinanet", options={"model.neck.in_channels": [8, 17, 32, 64]}), 3, SIZE_PX)
    with pytest.raises(DetectorError, match=r"does not run for images of 96 x 128 pixels .*queries"):
        build_detector(section("dino", options={"model.num_queries": 5000}), 3, SIZE_PX)


def test_an_absent_operator_is_refused_before_training(tmp_path):
    layer = "dict(_delete_=True, type='PrRoIPool', output_size=7)"
    changed = f"model = dict(roi_head=dict(bbox_roi_extractor=dict(roi_layer={layer})))"
    with pytest.raises(DetectorError, match="prroi_pool_forward"):
        build_detector(_changed(tmp_path, "faster_rcnn", changed), 3, SIZE_PX)


def test_a_model_that_does_not_prepare_its_images_is_refused(tmp_path):
    with pytest.raises(DetectorError, match="Give it a DetDataPreprocessor"):
        build_detector(_changed(tmp_path, "retinanet", "model = dict(data_preprocessor=None)"), 3, SIZE_PX)


def test_frozen_random_layers_are_warned_of(caplog):
    build_detector(section("retinanet"), 3, SIZE_PX)
    assert "frozen" not in caplog.text
    build_detector(section("retinanet", options={"model.backbone.frozen_stages": 1}), 3, SIZE_PX)
    assert "frozen_stages: -1" in caplog.text


@pytest.mark.parametrize("name", ["solo_r50_fpn_1x_coco", "rpn_r50_fpn_1x_coco"])
def test_a_detector_of_something_else_than_boxes_of_classes_is_refused(name):
    with pytest.raises(DetectorError, match="none of MMDetection's one-stage, two-stage or query-based"):
        mmdet_taps(_section(name))


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("gfl_r50_fpn_1x_coco", ("fpn", "class_logits", "boxes", "proposals", "edge_logits", "head_maps", "head")),
        ("faster-rcnn_r50_fpn_1x_coco", ("fpn", "proposals")),
        ("dino-4scale_r50_8xb2-12e_coco", ("fpn", "class_logits", "boxes", "proposals")),
        ("ddq-detr-4scale_r50_8xb2-12e_coco", ("fpn",)),
        ("centernet_r18_8xb16-crop512-140e_coco", ("fpn",)),
    ],
)
def test_the_zoo_says_its_taps_without_a_model(name, taps):
    assert mmdet_taps(_section(name)) == taps


def test_a_neck_that_needs_even_maps_is_padded_for_where_the_config_does_not():
    unpadded = {"model.data_preprocessor.pad_size_divisor": 1}
    assert build_detector(section("rtmdet", options=unpadded), 3, (70, 91)).pad_multiple_px == 32
    assert build_detector(section("fcos", options=unpadded), 3, (70, 91)).pad_multiple_px == 1


def test_levels_stand_fine_to_coarse_whatever_the_neck_says():
    yolo = build_detector(_section("yolov3_mobilenetv2_8xb24-320-300e_coco", options=NO_DOWNLOAD), 3, (64, 64))
    outputs = yolo(torch.rand(1, 3, 64, 64), taps=("fpn",))
    assert outputs.strides == {"p3": 8, "p4": 16, "p5": 32}
    assert [map_BCHW.shape[-1] for map_BCHW in outputs.pyramid.values()] == [8, 4, 2]


def test_build_detector_and_describe_take_sections_of_mmdet():
    description = describe(build_detector(section("retinanet"), 3, SIZE_PX))
    assert description.strides == {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}
    assert description.channels == 16
    assert description.pad_multiple_px == 32
    assert description.num_classes == 3


def test_names_must_be_as_many_as_classes():
    with pytest.raises(DetectorError, match="num_classes is 3, but 2 names are given"):
        build_detector(section("retinanet"), 3, SIZE_PX, classes=("a", "b"))


def test_a_torchvision_teacher_teaches_a_student_of_mmdet(make, images_BCHW, targets):
    import autokd
    from autokd.config import Backbone, TorchvisionDetector

    teacher = build_detector(TorchvisionDetector(backbone=Backbone(width=8), fpn_channels=32), 5, SIZE_PX).eval()
    with torch.no_grad():
        taught = teacher(images_BCHW)
    for name in ("retinanet", "faster_rcnn", "deformable_detr"):
        student = make(name).train()
        outputs = student(images_BCHW, targets)
        distiller = autokd.build_distiller(autokd.load_preset("pkd"), student=outputs, teacher=taught, num_classes=5)
        result = distiller(outputs, taught, targets)
        (outputs.task_loss + result.total).backward()
        assert result.total.isfinite()
        assert result.total > 0
        gradient = next(p.grad for key, p in student.named_parameters() if "backbone" in key and p.grad is not None)
        assert gradient.isfinite().all()
