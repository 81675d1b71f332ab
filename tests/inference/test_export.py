"""``autokd export``: each file finds what the detector finds, and says its classes and how to prepare an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import autokd
from autokd.cli import app
from autokd.config import Detector, TorchvisionDetector
from autokd.detectors import build_detector, framework_of
from autokd.detectors.inference_graph import ABSENT_LABEL, suppressed
from autokd.errors import DetectorError
from autokd.inference import export_model, load_trained
from autokd.inference.comparison import Differences, compare
from tests.support.mmdet_cases import section as mmdet_section
from tests.support.trained_samples import CLASSES, SIZE_PX, spread_scores, write_images, write_run
from tests.support.transformers_cases import section as transformers_section

TORCHVISION = ("fcos", "retinanet", "faster_rcnn")
MMDET = ("gfl", "atss", "faster_rcnn", "deformable_detr")
TRANSFORMERS = ("detr", "deformable_detr", "yolos", "rt_detr_v2", "d_fine")
UNEVEN_PX = (90, 120)
"""No multiple of what the models pad to."""
MORE_OF_MMDET = ("retinanet", "fcos", "tood", "reppoints", "cascade_rcnn", "detr", "dino")


def small(architecture: str) -> Detector:
    return TorchvisionDetector(
        architecture=architecture, backbone={"blocks": (1, 1, 1, 1), "width": 8}, fpn_channels=16
    )


def images(count: int, size_px: tuple[int, int] = SIZE_PX) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size_px, generator=generator) for _ in range(count)]


def graph_differences(section: Detector, num_images: int = 2, image_size_px: tuple[int, int] = SIZE_PX) -> Differences:
    """Compare the graph of a detector with random weights with the detector."""
    torch.manual_seed(0)
    detector = build_detector(section, len(CLASSES), SIZE_PX, CLASSES).eval()
    spread_scores(detector)
    graph = framework_of(section).inference_graph(section, detector, SIZE_PX).eval()

    def of_graph(image_1CHW: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            found = graph(image_1CHW)
        there = found.scores > 0
        assert bool((found.labels[~there] == ABSENT_LABEL).all())
        return {"boxes": found.boxes[there], "scores": found.scores[there], "labels": found.labels[there]}

    return compare(lambda image: detector.detect(image)[0], of_graph, images(num_images, image_size_px))


@pytest.mark.parametrize("architecture", TORCHVISION)
def test_graph_of_torchvision_finds_the_same(architecture: str):
    found = graph_differences(small(architecture))
    assert found.num_boxes > 20
    assert found.num_unmatched == 0
    assert found.max_box_px < 1e-3
    assert found.max_score < 1e-5


@pytest.mark.parametrize(
    "architecture", [*MMDET, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_OF_MMDET)]
)
def test_graph_of_mmdet_finds_the_same(architecture: str):
    pytest.importorskip("mmdet", reason="MMDetection is not installed")
    found = graph_differences(mmdet_section(architecture), num_images=1)
    assert found.num_boxes > 5
    assert found.num_unmatched == 0
    assert found.max_box_px < 1e-3
    assert found.max_score < 1e-5


@pytest.mark.parametrize("model_type", TRANSFORMERS)
def test_graph_of_transformers_finds_the_same(model_type: str):
    pytest.importorskip("transformers", reason="transformers is not installed")
    found = graph_differences(transformers_section(model_type), num_images=1, image_size_px=UNEVEN_PX)
    assert found.num_boxes > 5
    assert found.num_unmatched == 0
    assert found.max_box_px < 1e-3
    assert found.max_score < 1e-5


def test_a_head_without_a_fixed_form_is_refused_with_what_to_do():
    pytest.importorskip("mmdet", reason="MMDetection is not installed")
    section = mmdet_section("yolox")
    detector = build_detector(section, len(CLASSES), SIZE_PX, CLASSES).eval()
    with pytest.raises(DetectorError, match=r"YOLOXHead has no form.*safetensors"):
        framework_of(section).inference_graph(section, detector, SIZE_PX)


def test_suppression_is_greedy_by_label_and_of_a_fixed_size():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [1, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.3, -1.0])
    found = suppressed(boxes, scores, torch.tensor([0, 0, 1, 0, 0]), iou_threshold=0.5, max_detections=4)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.3, 0.0])
    assert found.labels.tolist() == [0, 1, 0, ABSENT_LABEL]
    assert found.boxes[:3].tolist() == boxes[[0, 2, 3]].tolist()


def test_comparison_sees_a_moved_box_another_score_and_a_missing_one():
    one = {"boxes": torch.tensor([[0.0, 0, 50, 50], [60, 60, 90, 90]]), "scores": torch.tensor([0.9, 0.5])}
    one["labels"] = torch.tensor([0, 1])
    moved = {**one, "boxes": one["boxes"] + torch.tensor([0.25, 0, 0, 0]), "scores": torch.tensor([0.9, 0.49])}
    found = compare(lambda _: one, lambda _: moved, [torch.zeros(3, 8, 8)])
    assert found.max_box_px == pytest.approx(0.25)
    assert found.max_score == pytest.approx(0.01)
    assert not found.is_within_tolerance
    other_label = {**one, "labels": torch.tensor([0, 2])}
    assert compare(lambda _: one, lambda _: other_label, [torch.zeros(3, 8, 8)]).num_unmatched == 2
    assert compare(lambda _: one, lambda _: one, [torch.zeros(3, 8, 8)]).is_within_tolerance


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_run(folder / "run", small("fcos"))
    write_images(folder / "photos")
    return folder / "run"


def exported(run: Path, name: str, tmp_path: Path) -> Any:
    trained = load_trained(run, cache_dir=tmp_path, device=torch.device("cpu"))
    return export_model(trained, name, tmp_path / f"out.{name}", images(2), repeats=1)  # type: ignore[arg-type]


@pytest.mark.slow
def test_onnx_is_run_by_onnxruntime_alone(run: Path, tmp_path: Path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    found = exported(run, "onnx", tmp_path)
    assert found.differences.num_boxes > 10
    assert found.differences.is_within_tolerance
    assert found.size_bytes == (tmp_path / "out.onnx").stat().st_size
    about = {row.key: row.value for row in onnx.load(found.path).metadata_props}
    assert json.loads(about["classes"]) == list(CLASSES)
    assert json.loads(about["image_size_px"]) == list(SIZE_PX)
    session = onnxruntime.InferenceSession(str(found.path), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["boxes", "scores", "labels"]
    boxes, scores, labels = session.run(None, {"image": images(1)[0][None].numpy()})
    assert boxes.shape == (len(scores), 4)
    assert set(labels[scores > 0].tolist()) <= {0, 1, 2}


def test_torchscript_is_loaded_by_torch_alone(run: Path, tmp_path: Path):
    found = exported(run, "torchscript", tmp_path)
    assert found.differences.num_boxes > 10
    assert found.differences.is_within_tolerance
    extra = {"autokd.json": ""}
    torch.jit.load(str(found.path), _extra_files=extra)
    assert json.loads(json.loads(extra["autokd.json"])["classes"]) == list(CLASSES)


@pytest.mark.slow
def test_torchscript_of_a_model_of_transformers_is_loaded_by_torch_alone(tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    write_run(tmp_path / "run", transformers_section("rt_detr_v2"))
    found = exported(tmp_path / "run", "torchscript", tmp_path)
    assert found.differences.num_boxes > 5
    assert found.differences.is_within_tolerance
    torch.jit.load(str(found.path))


def test_safetensors_hold_weights_and_card(run: Path, tmp_path: Path):
    pytest.importorskip("safetensors")
    done = CliRunner().invoke(
        app,
        [
            "export",
            str(run),
            "--format=safetensors",
            f"--out={tmp_path}",
            "--json",
            f"--images={run.parent / 'photos'}",
        ],
    )
    assert done.exit_code == 0, done.output
    (model,) = json.loads(done.stdout)["models"]
    assert model["differences"]["max_box_px"] == model["differences"]["max_score"] == 0
    assert model["differences"]["num_images"] == 3
    alone = load_trained(model["path"], cache_dir=tmp_path)
    assert alone.classes == CLASSES
    found = autokd.predict(model["path"], [run.parent / "photos"], tmp_path / "p", cache_dir=tmp_path, forms=["csv"])
    assert found["boxes"] > 0
