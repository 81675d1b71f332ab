"""Detectors of transformers: classes, colors, what is refused, the exported folder, pairs across frameworks."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from autokd.config import CocoData, TorchvisionDetector, TransformersDetector
from autokd.data import load_datasets
from autokd.data.views import PAD_RGB
from autokd.detector_outputs import TAPS
from autokd.detectors import build_detector, framework_of
from autokd.distill import build_distiller
from autokd.errors import DetectorError
from autokd.presets import load_preset
from autokd.spec import DistillerSpec
from tests.support.transformers_cases import section

transformers = pytest.importorskip("transformers")

NAMES = ("red", "white", "platelet", "stain", "glass")
SIZE_PX = (96, 128)
RT_DETR = "rt_detr_v2"


@cache
def _built(name: str = RT_DETR):
    torch.manual_seed(0)
    return build_detector(section(name), 5, SIZE_PX, NAMES)


def _detector(name: str = RT_DETR):
    return deepcopy(_built(name)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with its classes and its image processor, as ``save_pretrained`` writes it."""
    target = tmp_path_factory.mktemp("model")
    detector = _detector()
    detector.model.save_pretrained(target)
    detector.processor.save_pretrained(target)
    return target


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the folder for a test that changes it."""
    import shutil

    shutil.copytree(folder, tmp_path / "model")
    return tmp_path / "model"


def _named(path, **settings) -> TransformersDetector:
    return TransformersDetector(framework="transformers", name=str(path), **settings)


# ------------------------------------------------------------------------------------------ classes, colors


def test_a_folder_gives_the_same_model_and_its_classes_are_found_by_name(folder):
    images = torch.rand(2, 3, *SIZE_PX)
    mine = ("glass", "red")
    found = build_detector(_named(folder), 2, SIZE_PX, mine).eval()
    outputs, own = found(images), _detector()(images)
    torch.testing.assert_close(outputs.boxes, own.boxes)
    torch.testing.assert_close(outputs.class_logits, own.class_logits[..., [4, 0]])
    assert found.model_classes == NAMES
    for ours, every in zip(found.detect(images), _detector().detect(images)):
        kept = (every["labels"] == 4) | (every["labels"] == 0)
        torch.testing.assert_close(ours["scores"], every["scores"][kept])


def test_losses_are_what_the_plain_model_computes(folder):
    images = torch.rand(2, 3, *SIZE_PX)
    targets = [{"boxes": torch.tensor([[10.0, 12.0, 30.0, 40.0]]), "labels": torch.tensor([3])}] * 2
    plain = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()
    labels = [{"class_labels": torch.tensor([3]), "boxes": torch.tensor([[20 / 128, 26 / 96, 20 / 128, 28 / 96]])}] * 2
    wanted = plain(pixel_values=images, labels=labels).loss
    torch.testing.assert_close(_detector()(images, targets).task_loss, wanted)


def test_colors_are_normalized_as_the_image_processor_says():
    images = torch.rand(1, 3, 70, 90)
    detector = _detector("detr")
    pixels = detector._pixels(images)
    wanted = detector.processor(
        (images[0] * 255).round().to(torch.uint8), return_tensors="pt", do_resize=False, do_pad=False
    ).pixel_values
    assert pixels.shape[-2:] == (96, 96)
    torch.testing.assert_close(pixels[..., :70, :90], wanted, atol=0.5 / 255 / 0.22, rtol=0)
    assert not pixels[..., 70:, :].any()


def test_a_new_head_takes_a_model_of_other_classes(folder):
    found = build_detector(_named(folder, new_head=True), 3, SIZE_PX, ("a", "b", "c"))
    old, new = _detector().model.state_dict(), found.model.state_dict()
    heads = [name for name in new if new[name].shape != old[name].shape]
    assert heads
    assert all(re.search("class_embed|score_head", name) for name in heads)
    kept = [name for name in new if not re.search("class_embed|score_head", name)]
    assert all(torch.equal(new[name], old[name]) for name in kept)
    assert found(torch.rand(1, 3, *SIZE_PX)).class_logits.shape[-1] == 3


# --------------------------------------------------------------------------------------------- bad input


def _refused(given: TransformersDetector, *words: str, classes=NAMES) -> None:
    with pytest.raises(DetectorError) as caught:
        build_detector(given, len(classes), SIZE_PX, classes)
    for word in words:
        assert word in str(caught.value)


def test_pickled_weights_are_refused(copy):
    torch.save({}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    _refused(_named(copy), "pickled weights alone", "whose reading may run code", "save_pretrained(FOLDER)")


def test_a_folder_without_weights_or_configuration_is_refused(copy, tmp_path):
    (copy / "model.safetensors").unlink()
    _refused(_named(copy), "there is no model.safetensors")
    _refused(_named(tmp_path / "absent"), "there is no such folder")


def test_classes_without_names_or_of_another_data_set_are_refused(copy):
    content = json.loads((copy / "config.json").read_text())
    _refused(_named(copy), "does not know 'blue'", "new_head: true", classes=("red", "blue"))
    content["id2label"] = {str(k): f"LABEL_{k}" for k in range(5)}
    content["label2id"] = {f"LABEL_{k}": k for k in range(5)}
    (copy / "config.json").write_text(json.dumps(content))
    _refused(_named(copy), "names no classes", "as 'classes'")
    found = build_detector(_named(copy, classes=NAMES), 5, SIZE_PX, NAMES)
    assert found.num_classes == 5
    _refused(_named(copy, classes=("red",)), "'classes' has 1 names, and the model 5 classes")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"do_center_crop": True}, "crops images to their center"),
        ({"do_pad": True, "pad_size": {"height": 640, "width": 640}}, "Set 'data: {image_size_px: [640, 640]}'"),
    ],
)
def test_an_image_processor_that_pads_otherwise_is_refused(copy, rules, words):
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | rules))
    _refused(_named(copy), words)


def test_a_name_on_the_hub_without_a_network_is_refused(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _refused(_named("nobody/no-such-model"), "nor a model on the hub", "hf download nobody/no-such-model", "as 'name'")


def test_a_model_that_is_no_detector_and_unknown_keys_are_refused(tmp_path):
    transformers.AutoConfig.for_model("bert").save_pretrained(tmp_path)
    _refused(_named(tmp_path), "type bert is no object detector", "rt_detr_v2")
    given = TransformersDetector(framework="transformers", config={"model_type": "rtdetr"})
    _refused(given, "Did you mean 'rt_detr'")
    _refused(section(RT_DETR, config={"num_querys": 3}), "config.num_querys", "Did you mean 'num_queries'")
    _refused(section(RT_DETR, config={"backbone_config.depth": 3}), "Did you mean 'depths'")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "neither a name nor a model_type"),
        ({"name": "x", "config": {"model_type": "detr"}}, "says the type already"),
        ({"config": {"model_type": "detr", "num_labels": 3}}, "follows from the data set's classes"),
        ({"config": {"model_type": "detr", "backbone": "resnet50"}}, "names weights or code elsewhere"),
        ({"config": {"model_type": "detr", "x": "a/b"}}, "an option is a number, a word"),
        ({"config": {"model_type": "detr"}, "new_head": True}, "random weights have a new head anyway"),
    ],
)
def test_sections_that_cannot_be_meant_are_refused(keys, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        TransformersDetector(framework="transformers", **keys)


def test_images_with_fewer_cells_than_queries_are_refused():
    with pytest.raises(DetectorError, match=r"images of 32 x 32 pixels have 21 cells, of which 30 .* are chosen"):
        build_detector(section(RT_DETR, config={"num_queries": 30}), 5, SIZE_PX, NAMES)(torch.rand(1, 3, 32, 32))


# ------------------------------------------------------------------------------------------------ export


@pytest.fixture
def photograph(tmp_path):
    """A data set of one PNG of 150 x 205 pixels (height x width), which fits into 96 x 128 with a margin."""
    noise = np.random.default_rng(0).integers(0, 256, (15, 21, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(noise).resize((205, 150), Image.Resampling.BICUBIC).save(tmp_path / "images" / "one.png")
    content = {
        "images": [{"id": 1, "file_name": "one.png", "width": 205, "height": 150}],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 90, 80], "area": 7200, "iscrowd": 0}
        ],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("name", [RT_DETR, "detr", "yolos"])
def test_plain_transformers_finds_the_same_boxes_in_the_same_file(name, photograph, tmp_path):
    data = CocoData(root=photograph, train="all.json", val="all.json", image_size_px=SIZE_PX)
    dataset = load_datasets(data, tmp_path / "cache").val
    detector = _detector(name)
    sample = dataset.load(0)
    (found,) = detector.detect(sample.image[None])
    files = framework_of(section(name)).export(
        section(name), lambda: detector, NAMES, SIZE_PX, tmp_path, pad_rgb=PAD_RGB, original_sizes=()
    )
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= {
        path.name for path in files
    }
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "student" / "README.md").read_text(), re.DOTALL)
    names = {"FOLDER": str(tmp_path / "student")}
    exec(code, names)  # as a reader of the folder would run it
    with Image.open(photograph / "images" / "one.png") as image:
        plain = names["detect"](image, threshold=0.0)
    order = plain["scores"].argsort(descending=True, stable=True)
    torch.testing.assert_close(plain["scores"][order], found["scores"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(plain["boxes"][order], sample.to_original(found["boxes"]).float(), atol=1e-2, rtol=1e-3)
    assert names["model"].config.id2label == dict(enumerate(NAMES))


# ------------------------------------------------------------------------------------ across frameworks


def _torchvision(width: int = 8):
    torch.manual_seed(1)
    given = TorchvisionDetector(architecture="fcos", backbone={"width": width}, fpn_channels=16, head_convs=1)
    return build_detector(given, 5, SIZE_PX, NAMES)


@pytest.mark.parametrize("student_is_transformers", [True, False])
@pytest.mark.parametrize("preset", ["fitnet", "feature_kd", "lightly"])
def test_maps_teach_across_frameworks_both_ways(preset, student_is_transformers):
    detectors = [_detector(), _torchvision()]
    student, teacher = detectors if student_is_transformers else detectors[::-1]
    images = torch.rand(2, 3, *SIZE_PX)
    targets = [{"boxes": torch.tensor([[10.0, 12.0, 30.0, 40.0]]), "labels": torch.tensor([3])}] * 2
    outputs = student.train()(images, targets)
    with torch.no_grad():
        taught = teacher.eval()(images)
    total = build_distiller(load_preset(preset), outputs, taught, 5)(outputs, taught, targets).total
    total.backward()
    assert total > 0
    assert any(weight.grad is not None and weight.grad.any() for weight in student.body.parameters())


@pytest.mark.parametrize("preset", ["kd_detr", "d_fine_localization"])
def test_queries_teach_queries(preset):
    images, targets = torch.rand(2, 3, *SIZE_PX), [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}] * 2
    student, teacher = _detector("d_fine"), _detector("d_fine" if preset == "d_fine_localization" else RT_DETR)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.02)
        taught = teacher.eval()(images, taps=TAPS)
    outputs = student.train()(images, targets, taps=TAPS)
    distiller = build_distiller(load_preset(preset), outputs, taught, 5)
    distiller(outputs, taught, targets).total.backward()
    decoder = student.model.model.decoder  # its last layers of edges begin at zero
    assert any(weight.grad is not None and weight.grad.any() for weight in decoder.parameters())
    assert distiller(taught, taught, targets).total.abs() < 1e-4


def test_queries_teach_a_dense_head_by_matching():
    student, teacher, images = _torchvision(), _detector(), torch.rand(2, 3, *SIZE_PX)
    text = """
schema: 2
terms:
- {source: matched_logits, transforms: [sigmoid], distance: binary_kl, weight: {absolute: 1}}
- {source: matched_boxes, transforms: [], distance: giou, weight: {absolute: 1}}
"""
    outputs, taught = student(images), teacher(images)
    result = build_distiller(DistillerSpec.from_yaml(text), outputs, taught, 5)(outputs, taught, None)
    result.total.backward()
    assert all(term.raw > 0 for term in result.terms.values())


def test_shared_queries_ask_both_decoders_for_the_same_boxes():
    from autokd.detectors.transformers.shared_queries import NUM_POINTS, shared_points

    points = torch.tensor(shared_points())
    assert points.shape == (NUM_POINTS, 4)
    assert ((points > 0) & (points < 1)).all()
    counts = torch.histogramdd(points[:, :2].double(), bins=[2, 2], range=[0.0, 1.0, 0.0, 1.0]).hist
    assert (counts >= 20).all()  # even in the plane: a quarter each is 25
    for name in (RT_DETR, "d_fine"):
        asked = []
        detector = _detector(name)
        detector.model.model.decoder.register_forward_pre_hook(
            lambda _module, _args, kwargs, asked=asked: asked.append(kwargs["reference_points"]), with_kwargs=True
        )
        outputs = detector(torch.rand(2, 3, *SIZE_PX), taps=("shared_logits", "shared_boxes"))
        assert outputs.shared_logits.shape == (2, NUM_POINTS, 5)
        assert outputs.shared_boxes.shape == (2, NUM_POINTS, 4)
        torch.testing.assert_close(asked[-1][1].sigmoid(), points, atol=1e-5, rtol=0)
