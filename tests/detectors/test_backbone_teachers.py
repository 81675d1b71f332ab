"""Backbones alone as teachers: their maps by stride, at an image size of their own, without detections."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import mobilenet_v2

import autokd
from autokd.config import BackboneTeacher, load_config
from autokd.detectors import build_detector, framework_of
from autokd.errors import ConfigError, DetectorError

transformers = pytest.importorskip("transformers")

SIZE_PX = (64, 96)
_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "mlp_ratio": 1}
CONFIGS = {
    "dinov2": {**_VIT, "patch_size": 14, "image_size": 56},
    "dinov3_vit": {**_VIT, "patch_size": 16, "image_size": 64},
    "swin": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 64},
    "convnext": {"hidden_sizes": [4, 8, 8, 16], "depths": [1, 1, 1, 1], "num_stages": 4},
}
STRIDES = {"dinov2": {"p4": 16}, "dinov3_vit": {"p4": 16}, "swin": {"p5": 32}, "convnext": {"p5": 32}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model type -> folder of a small model."""
    found = {}
    for model_type, keys in CONFIGS.items():
        torch.manual_seed(0)
        found[model_type] = tmp_path_factory.mktemp(model_type)
        config = transformers.AutoConfig.for_model(model_type, **keys)
        transformers.AutoBackbone.from_config(config).save_pretrained(found[model_type])
    return found


def _built(folder, **keys):
    given = BackboneTeacher(framework="backbone", name=str(folder), **keys)
    return build_detector(given, 6, SIZE_PX).eval()


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_maps_are_the_models_own(model_type, folders):
    teacher, images = _built(folders[model_type]), torch.rand(2, 3, *SIZE_PX)
    outputs = teacher(images)
    assert outputs.strides == STRIDES[model_type]
    assert outputs.taps() == ("fpn",)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images - mean[:, None, None]) / std[:, None, None]
    if model_type == "dinov2":  # cells of 14 px become cells of 16
        pixels = F.interpolate(pixels, (56, 84), mode="bilinear", antialias=True)
    config = transformers.AutoConfig.from_pretrained(folders[model_type])
    plain = transformers.MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(folders[model_type]).eval()
    (map_BCHW,) = outputs.pyramid.values()
    torch.testing.assert_close(map_BCHW, plain(pixel_values=pixels).feature_maps[-1], atol=1e-5, rtol=1e-4)


def test_stages_give_several_maps(folders):
    outputs = _built(folders["convnext"], stages=[2, 3, 4])(torch.rand(1, 3, *SIZE_PX))
    assert outputs.strides == {"p3": 8, "p4": 16, "p5": 32}
    assert [map_BCHW.shape[1] for map_BCHW in outputs.pyramid.values()] == [8, 8, 16]
    with pytest.raises(DetectorError, match=r"has the stages 1 to 4, not \[5\]"):
        _built(folders["convnext"], stages=[5])


def test_a_larger_image_gives_finer_cells_and_one_that_gives_none_is_refused(folders):
    outputs = _built(folders["dinov3_vit"], image_size_px=[128, 192])(torch.rand(1, 3, *SIZE_PX))
    assert outputs.strides == {"p3": 8}
    assert outputs.pyramid["p3"].shape[-2:] == (8, 12)
    with pytest.raises(DetectorError, match=r"must be one whole number\. Give \[64, 96\], at which it is 16"):
        _built(folders["dinov3_vit"], image_size_px=[100, 160])


def test_a_backbone_of_torchvision_teaches_with_weights_of_a_file(tmp_path):
    torch.manual_seed(0)
    torch.save(mobilenet_v2(weights=None).state_dict(), tmp_path / "weights.pth")
    given = BackboneTeacher(framework="backbone", name="mobilenet_v2", weights=str(tmp_path / "weights.pth"))
    outputs = build_detector(given, 6, SIZE_PX).eval()(torch.rand(1, 3, *SIZE_PX))
    assert outputs.strides == {"p3": 8, "p4": 16, "p5": 32}
    assert all(map_BCHW.isfinite().all() for map_BCHW in outputs.pyramid.values())


def test_it_has_no_losses_and_no_detections(folders):
    teacher, images = _built(folders["dinov3_vit"]), torch.rand(1, 3, *SIZE_PX)
    with pytest.raises(DetectorError, match="finds no objects, so that it has no AP"):
        teacher.detect(images)
    with pytest.raises(DetectorError, match="has no losses"):
        teacher(images, [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}])


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "found no name"),
        ({"name": "resnet18"}, "would teach random numbers"),
        ({"name": "x/y", "weights": "IMAGENET1K_V1"}, "come with its name"),
        ({"name": "resnet18", "weights": "DEFAULT", "train": {}}, "no loss to be trained by"),
        ({"name": "resnet18", "weights": "DEFAULT", "stages": [3, 2]}, "fine to coarse"),
    ],
)
def test_sections_that_cannot_be_meant_are_refused(keys, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        BackboneTeacher(framework="backbone", **keys)


def test_pickled_weights_are_refused(tmp_path):
    transformers.AutoConfig.for_model("dinov2", **CONFIGS["dinov2"]).save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DetectorError, match="pickled weights alone"):
        _built(tmp_path)


FILE = """\
data: {{format: shapes, image_size_px: [64, 64], num_train: 8, num_val: 4, num_test: 4}}
teacher: {{framework: backbone, name: {folder}}}
student: {{backbone: {{width: 4}}, fpn_channels: 8, head_convs: 1}}
space: {{terms: 1, sources: [feature_map], distances: [cosine, l2]}}
search: {{trials: 2, finalists: 1, finalist_seeds: [1], enqueue: [feature_kd], sampler: random}}
proxy: {{epochs: 1, subset: 1.0}}
full: {{epochs: 1, batch_size: 4, seeds: [0], baselines: [none, lightly]}}
runtime: {{workers: 0}}
"""


@pytest.mark.slow
def test_it_teaches_a_search_from_file_to_report(folders, tmp_path):
    results = autokd.search(
        FILE.format(folder=folders["dinov3_vit"]), run_dir=tmp_path / "run", cache_dir=tmp_path / "cache"
    )
    assert {entry.name for entry in results.entries} == {"none", "lightly", "searched"}
    assert results.teacher.val_ap is None
    assert results.teacher.test_ap is None
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_distiller_of_predictions_and_a_backbone_as_a_student_are_refused(folders):
    from autokd.detectors import check_trainable
    from autokd.presets import load_preset

    config = load_config(FILE.format(folder=folders["dinov3_vit"]))
    with pytest.raises(ConfigError, match="the teacher's class_logits"):
        check_trainable(config, load_preset("kd"))
    text = FILE.format(folder=folders["dinov3_vit"])
    student = re.sub("student: .*", f"student: {{framework: backbone, name: {folders['swin']}}}", text)
    with pytest.raises(ConfigError, match="finds no objects and teaches alone"):
        load_config(student)


def test_caches_know_the_weights_by_content(folders, tmp_path):
    one, other = (BackboneTeacher(framework="backbone", name=str(folders[name])) for name in ("swin", "convnext"))
    assert framework_of(one).structure(one) != framework_of(other).structure(other)
