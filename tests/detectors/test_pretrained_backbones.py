"""Backbones that start from weights of ImageNet: structure, norms, what is trained, where files come from."""

from __future__ import annotations

import hashlib
import urllib.error
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d

from autokd.config import Recipe, TorchvisionDetector
from autokd.config.torchvision_section import BackboneName
from autokd.detectors import (
    Detector,
    build_detector,
    framework_of,
    load_weights,
    plain_torchvision_source,
    structure_text,
)
from autokd.detectors.torchvision import pretrained
from autokd.detectors.torchvision.bodies import plan_of_official
from autokd.errors import DetectorError
from autokd.testing.frameworks import DetectorCase, DetectorConformance
from autokd.training.optim.frozen import parts_of
from autokd.training.optim.update import make_update_rule
from tests.support.pretrained_samples import WEIGHTS, enliven, require_mobilenet_v2

SIZE_PX = (96, 128)
SMALL = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "convnext_tiny", "efficientnet_b0", "swin_t", "swin_v2_t")
"""One backbone of each kind."""


def _section(name: str, architecture: str = "fcos", **settings: Any) -> TorchvisionDetector:
    return TorchvisionDetector(architecture=architecture, backbone={"name": name} | settings, fpn_channels=32)


def _mobilenet(**settings: Any) -> Detector:
    torch.manual_seed(0)
    section = _section("mobilenet_v2", weights=str(require_mobilenet_v2()), **settings)
    return build_detector(section, 3, SIZE_PX)


@pytest.mark.parametrize("name", get_args(BackboneName))
def test_every_backbone_has_four_stages_of_the_strides_4_to_32(name):
    """Against torchvision's own tool that traces a classifier, on the meta device."""
    plan = plan_of_official(name)
    with torch.device("meta"):
        body = get_model(name, weights=None)
        body = getattr(body, "features", body).eval()
        map_BCHW, shapes = torch.empty(1, 3, 64, 64), {}
        for child, module in body.named_children():
            if child == "avgpool":
                break
            shapes[child] = (map_BCHW := module(map_BCHW)).shape
    for stage, channels, stride in zip(plan.stages, plan.channels, (4, 8, 16, 32)):
        shape = shapes[stage[-1]]
        assert tuple(shape[1:]) in ((channels, 64 // stride, 64 // stride), (64 // stride, 64 // stride, channels))
    assert [*plan.stem, *(child for stage in plan.stages for child in stage)] == list(shapes)


class TestNamedBackbones(DetectorConformance):
    """The public suite over backbones whose maps and norms differ from a ResNet's."""

    @pytest.fixture(params=["mobilenet_v2", "mobilenet_v3_small"], ids=str)
    def case(self, request: pytest.FixtureRequest) -> DetectorCase:
        section = _section(request.param, norm="frozen", trainable_stages=3)
        return DetectorCase(request.param, section, head_of=lambda detector: detector.model.head)


@pytest.mark.parametrize("name", SMALL)
def test_a_body_starts_from_a_classifiers_weights_and_loads_in_plain_torchvision(name, tmp_path, monkeypatch):
    torch.manual_seed(1)
    classifier = get_model(name, weights=None).eval()
    torch.save({"model": classifier.state_dict(), "args": Path("a")}, tmp_path / "imagenet.pth")
    section = _section(name, weights=str(tmp_path / "imagenet.pth"))
    detector = build_detector(section, 5, SIZE_PX).eval()
    # The maps are those of the classifier, which is run child by child.
    images = torch.rand(2, 3, *SIZE_PX)
    padded = detector.normalize_and_pad(images)
    wanted, map_BCHW = {}, padded
    with torch.no_grad():
        for child, module in getattr(classifier, "features", classifier).named_children():
            if child == "avgpool":
                break
            wanted[child] = map_BCHW = module(map_BCHW)
        found = detector.body(padded)
    for stage, map_BCHW in zip(plan_of_official(name).stages[1:], found.values()):
        other = wanted[stage[-1]]
        other = other.permute(0, 3, 1, 2) if name.startswith("swin") else other
        torch.testing.assert_close(map_BCHW, other, atol=1e-3, rtol=1e-3)
    enliven(detector.model.head)
    torch.save(detector.plain_state_dict(), tmp_path / "student.pt")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(plain_torchvision_source(section, 5, SIZE_PX), "rebuild.py", "exec"), names)
    assert names["model"].load_state_dict(detector.plain_state_dict()).missing_keys == []
    with torch.no_grad():
        pyramid = names["model"].to(memory_format=detector.memory_format).backbone(padded)
    for level, map_BCHW in detector(images, taps=("fpn",)).pyramid.items():
        torch.testing.assert_close(map_BCHW, pyramid[level], atol=1e-4, rtol=1e-4)


def test_torchvisions_file_of_mobilenet_is_read_by_name_and_by_path():
    """The file's SHA-256 begins as its name says, so it is found and taken as IMAGENET1K_V1."""
    by_path = _mobilenet()
    section = _section("mobilenet_v2", weights="IMAGENET1K_V1").model_copy(update={"weights_dir": WEIGHTS})
    by_name = build_detector(section, 3, SIZE_PX)
    saved = torch.load(require_mobilenet_v2(), weights_only=True)
    for detector in (by_path, by_name):
        weights = detector.body.state_dict()
        assert len(weights) > 200
        assert all(torch.equal(value, saved[f"features.{name}"]) for name, value in weights.items())


def test_pretrained_backbones_are_as_torchvision_has_them_unless_told_otherwise():
    detector = _mobilenet()
    assert any(isinstance(module, FrozenBatchNorm2d) for module in detector.body.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.body.modules())
    frozen = {name.split(".")[0] for name, p in detector.body.named_parameters() if not p.requires_grad}
    assert frozen == {"0", "1", "2", "3"}  # the stem and the stage of stride 4
    scratch = build_detector(_section("mobilenet_v2"), 3, SIZE_PX)
    assert any(isinstance(module, nn.BatchNorm2d) for module in scratch.body.modules())
    assert all(parameter.requires_grad for parameter in scratch.parameters())


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("frozen", FrozenBatchNorm2d), ("group", nn.GroupNorm)]
)
def test_norms_are_chosen_and_keep_affine_weights(norm, kind, tmp_path, monkeypatch):
    detector = _mobilenet(norm=norm)
    norms = [module for module in detector.body.modules() if isinstance(module, kind)]
    assert len(norms) == 52
    saved = torch.load(require_mobilenet_v2(), weights_only=True)
    assert torch.equal(norms[0].weight, saved["features.0.1.weight"])
    section = _section("mobilenet_v2", weights=str(require_mobilenet_v2()), norm=norm)
    torch.save(detector.plain_state_dict(), tmp_path / "student.pt")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(plain_torchvision_source(section, 3, SIZE_PX), "rebuild.py", "exec"), names)  # loads strictly


def test_statistics_of_frozen_stages_and_frozen_norms_stay_in_training():
    detector = _mobilenet(norm="batch", trainable_stages=2).train()
    before = {name: value.clone() for name, value in detector.body.state_dict().items()}
    target = {"boxes": torch.tensor([[10.0, 12, 90, 70]]), "labels": torch.tensor([2])}
    losses = detector(torch.rand(2, 3, *SIZE_PX), [target, target]).losses
    sum(losses.values()).backward()
    moved = {
        name.split(".")[0]
        for name, value in detector.body.state_dict().items()
        if name.endswith("running_mean") and not torch.equal(value, before[name])
    }
    assert moved == set(map(str, range(7, 19)))  # the stages of stride 16 and 32
    assert {name.split(".")[0] for name, p in detector.body.named_parameters() if p.grad is not None} == moved


def test_the_stem_is_known_for_proxies_that_freeze_it():
    detector = build_detector(_section("mobilenet_v2"), 3, SIZE_PX)
    (first, second) = parts_of(detector, ("stem",))
    assert first is detector.body["0"]
    assert second is detector.body["1"]


def test_the_backbones_rate_has_a_factor_in_every_step():
    """SGD without momentum: a step is the rate times the gradient."""
    recipe = Recipe(optimizer="sgd", momentum=0, weight_decay=0, backbone_lr_factor=0.1, gradient_clip_norm=None)
    detector = _mobilenet()
    rule = make_update_rule(detector, None, recipe, torch.device("cpu"))
    rule.set_rate(0.5)
    before = [parameter.detach().clone() for parameter in detector.parameters()]
    for parameter in detector.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    rule.step()
    body = set(detector.body.parameters())
    for parameter, value in zip(detector.parameters(), before):
        step = 0.0 if not parameter.requires_grad else 0.05 if parameter in body else 0.5
        torch.testing.assert_close(value - parameter, torch.full_like(value, step), atol=1e-5, rtol=1e-4)


def test_colors_are_normalized_as_the_weights_ask(tmp_path):
    torch.save(get_model("efficientnet_v2_l", weights=None).features.state_dict(), tmp_path / "large.pth")
    detector = build_detector(_section("efficientnet_v2_l", weights=str(tmp_path / "large.pth")), 3, SIZE_PX)
    images = torch.rand(1, 3, *SIZE_PX)
    torch.testing.assert_close(detector.normalize_and_pad(images), (images - 0.5) / 0.5)


def test_a_detectors_backbone_starts_another_detector(tmp_path):
    source = build_detector(_section("resnet18", "retinanet"), 5, SIZE_PX)
    torch.save(source.plain_state_dict(), tmp_path / "detector.pt")
    other = build_detector(_section("resnet18", weights=str(tmp_path / "detector.pt")), 3, SIZE_PX)
    weights = source.body.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in other.body.state_dict().items())


def test_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(DetectorError, match=r"r18\.pth: not the weights of this backbone.*Set backbone\.name"):
        build_detector(_section("resnet50", weights=str(tmp_path / "r18.pth")), 3, SIZE_PX)


def test_a_backbones_weights_as_a_checkpoint_are_recognized(tmp_path):
    torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "r18.pth")
    detector = build_detector(_section("resnet18"), 3, SIZE_PX)
    with pytest.raises(
        DetectorError, match=r"weights of a backbone alone.*'backbone: \{name: \.\.\., weights: FILE\}'"
    ):
        load_weights(detector, tmp_path / "r18.pth")


def test_keys_of_caches_see_the_content_of_a_file_of_weights(tmp_path):
    texts = []
    for name, value in (("a.pth", 1.0), ("b.pth", 1.0), ("c.pth", 2.0)):
        (tmp_path / name).write_bytes(str(value).encode())
        section = _section("resnet18", weights=str(tmp_path / name))
        texts.append((structure_text(section), framework_of(section).contents(section)))
    assert texts[0] == texts[1] != texts[2]


# --------------------------------------------------------------------------------------- torchvision's files by name


def _entry(tmp_path, monkeypatch, content=b"weights"):
    """MobileNetV2's entry, with torch's own folder in ``tmp_path``, and a file of its name elsewhere."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv(pretrained.WEIGHTS_DIR_VARIABLE, raising=False)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mobilenet_v2-b0353104.pth").write_bytes(content)
    return pretrained.entry_of("mobilenet_v2", "IMAGENET1K_V1"), folder


def test_files_are_searched_in_the_sections_folder_then_the_environments_then_torchs(tmp_path, monkeypatch):
    entry, folder = _entry(tmp_path, monkeypatch)
    monkeypatch.setattr(pretrained, "_is_whole", lambda *file: True)
    assert pretrained.obtain(entry, folder).parent == folder
    monkeypatch.setenv(pretrained.WEIGHTS_DIR_VARIABLE, str(folder))
    assert pretrained.obtain(entry).parent == folder
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (folder / "mobilenet_v2-b0353104.pth").rename(hub / "mobilenet_v2-b0353104.pth")
    assert pretrained.obtain(entry, folder).parent == hub


def test_a_file_that_is_nowhere_is_downloaded_once_into_torchs_folder(tmp_path, monkeypatch):
    entry, _ = _entry(tmp_path, monkeypatch)
    calls = []

    def download(url, target, progress):
        calls.append(url)
        Path(target).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(pretrained, "_is_whole", lambda *file: True)
    found = [pretrained.obtain(entry) for _ in range(2)]
    assert found == [tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"] * 2
    assert calls == ["https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"]


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(tmp_path, monkeypatch):
    _entry(tmp_path, monkeypatch)
    entry = pretrained.entry_of("resnet50", "IMAGENET1K_V2")

    def download(url, target, progress):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(DetectorError) as caught:
        pretrained.obtain(entry, tmp_path / "mine")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/resnet50-11ad3fa6.pth (98 MB)" in message
    assert str(tmp_path / "mine") in message
    assert str(tmp_path / "hub" / "checkpoints") in message
    assert "weights_dir" in message
    assert "AUTOKD_WEIGHTS_DIR" in message
    assert "Name or service not known" in message


def test_a_file_whose_content_is_not_that_of_its_name_is_refused(tmp_path, monkeypatch):
    entry, folder = _entry(tmp_path, monkeypatch)
    assert not hashlib.sha256(b"weights").hexdigest().startswith("b0353104")
    with pytest.raises(DetectorError, match=r"mobilenet_v2-b0353104\.pth: the file is damaged"):
        pretrained.obtain(entry, folder)


def test_a_name_that_torchvision_does_not_have_is_named_with_those_that_it_has():
    with pytest.raises(DetectorError, match=r"'IMAGENET1K_V3' is not one of DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2"):
        build_detector(_section("resnet50", weights="IMAGENET1K_V3"), 3, SIZE_PX)
