"""Proxies on smaller images: their own warm starts and teacher's taps, and the numbers of a set of that size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autokd.config import TorchvisionDetector
from autokd.data import load_datasets
from autokd.detectors import build_detector, prediction_layout_of, unpaired_taps
from autokd.jobs import Job, WorkerResources
from autokd.presets import load_preset
from autokd.training import LiveTeacher, TrainingEvaluatorFactory, prepare
from autokd.training.assets import TrainingAssets
from autokd.training.weights import weights_digest
from tests.support.training_samples import taps_bytes

CPU = torch.device("cpu")
SMALL = (32, 48)


@pytest.fixture
def small_config(make_tiny_config):
    return make_tiny_config(proxy={"image_size_px": SMALL, "reward": ("val_loss", "cka", "ap")})


def test_a_proxy_is_bitwise_that_of_a_set_of_the_smaller_size(
    small_config, make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job
):
    """The same files read at the smaller size, with the same teacher from a checkpoint."""
    evaluator = TrainingEvaluatorFactory(small_config, tiny_cache, tmp_path / "a", tiny_data)(WorkerResources())
    _, found = run_job(evaluator, Job("t", load_preset("fitnet"), "proxy"))
    checkpoint = tmp_path / "teacher.pth"
    torch.save(
        TrainingAssets(small_config, tiny_cache, CPU, tiny_data).teachers.first.build(CPU).plain_state_dict(),
        checkpoint,
    )
    root = Path(tiny_data.train.annotation_path).parent
    names = {split: f"instances_{split}.json" for split in ("train", "val", "test")}
    config = make_tiny_config(
        teacher={"train": None, "checkpoint": checkpoint}, proxy={"reward": ("val_loss", "cka", "ap")}
    )
    data = {"format": "coco", "root": root, **names, "image_size_px": SMALL}
    config = config.model_validate({**config.model_dump(), "data": data})
    other = TrainingEvaluatorFactory(config, tmp_path / "cache", tmp_path / "b")(WorkerResources())
    _, expected = run_job(other, Job("t", load_preset("fitnet"), "proxy"))
    names = ("train_loss", "distill_loss", "val_loss", "cka", "ap")
    assert [found.metrics[name] for name in names] == [expected.metrics[name] for name in names]


def test_full_trainings_see_the_whole_size(small_config, tiny_data, tiny_cache):
    assets = TrainingAssets(small_config, tiny_cache, CPU, tiny_data)
    for recipe, size in (("proxy", SMALL), ("full", (64, 64))):
        [batch] = assets.data.training_loader(recipe).of_pairs([[(0, 1)]])
        assert batch.images_BCHW.shape[-2:] == size
        assert assets.data.of(recipe).val.image_size_px == size
    assert assets.data.validation_loader().dataset.image_size_px == (64, 64)


def test_the_teachers_taps_are_those_of_the_smaller_images(small_config, tiny_config, tiny_data, tiny_cache):
    assets = TrainingAssets(small_config, tiny_cache, CPU, tiny_data)
    taps = assets.teachers.training_cache("proxy")
    [batch] = assets.proxy_loader().of_pairs([[(2, 0), (5, 1)]])
    cached, live = taps(batch), LiveTeacher(assets.teachers.first.build(CPU))(batch)
    assert cached.pyramid["p3"].shape[-2:] == (4, 8)  # 32 x 64 after padding to whole cells of p5
    for level, map_BCHW in live.pyramid.items():
        torch.testing.assert_close(cached.pyramid[level], map_BCHW, rtol=2e-3, atol=2e-3)
    plain = TrainingAssets(tiny_config, tiny_cache, CPU, tiny_data)
    assert assets.teachers.training_cache("full").folder == plain.teachers.training_cache("full").folder
    assert assets.teachers.training_cache("full").folder != taps.folder


def test_the_warm_start_is_of_that_size_and_kept_apart(small_config, tiny_config, tiny_data, tiny_cache):
    small, plain = (TrainingAssets(config, tiny_cache, CPU, tiny_data) for config in (small_config, tiny_config))
    digests = [weights_digest(assets.students.warm(0).state_dict()) for assets in (small, plain)]
    assert digests[0] != digests[1]
    again = TrainingAssets(small_config, tiny_cache, CPU, tiny_data)
    assert weights_digest(again.students.warm(0).state_dict()) == digests[0]


def test_the_datas_own_size_is_as_no_size(make_tiny_config, tiny_config, tiny_data, tiny_cache):
    own = TrainingAssets(make_tiny_config(proxy={"image_size_px": (64, 64)}), tiny_cache, CPU, tiny_data)
    plain = TrainingAssets(tiny_config, tiny_cache, CPU, tiny_data)
    assert own.data.proxy is tiny_data
    assert own.students.warm_start_key(0) == plain.students.warm_start_key(0)


def test_preparation_makes_what_proxies_need_and_a_second_one_nothing(small_config, tiny_data, tmp_path):
    reports: list[list[str]] = [[], []]
    for stages in reports:
        prepare(small_config, tiny_data, tmp_path, on_progress=lambda stage, *_, s=stages: s.append(stage))
    assert list(dict.fromkeys(reports[0])) == [
        "teacher",
        "teacher AP",
        "teacher taps, validation, 32 x 48 px",
        "teacher taps, validation",
        "teacher taps, training, 32 x 48 px",
        "teacher taps, training",
        "warm start, seed 0, 32 x 48 px",
    ]
    assert reports[1] == []
    # 16 channels of two bytes; small: 32 x 64 px of cells; 8 images in 2 views and 6 in one.
    assets = TrainingAssets(small_config, tmp_path, CPU, tiny_data)
    assert taps_bytes(assets) == 2 * 16 * (64 + 16 + 4 + 32 + 8 + 2) * (8 * 2 + 6)


@pytest.mark.parametrize("architecture", ["fcos", "retinanet", "faster_rcnn"])
def test_a_student_built_for_large_images_learns_from_small_ones(architecture):
    config = TorchvisionDetector(architecture=architecture, backbone={"width": 4}, fpn_channels=16)
    detector = build_detector(config, 3, (352, 416)).train()
    target = {"boxes": torch.tensor([[10.0, 12.0, 40.0, 44.0]]), "labels": torch.tensor([1])}
    outputs = detector(torch.rand(2, 3, 96, 110), [target, target])
    outputs.task_loss.backward()
    assert bool(torch.isfinite(outputs.task_loss))
    rows = prediction_layout_of(config, (352, 416), (96, 110))
    assert rows is None if architecture == "faster_rcnn" else rows.number == outputs.class_logits.shape[1]


@pytest.mark.filterwarnings("ignore")
def test_predictions_leave_the_space_where_padding_parts_the_rows_of_the_proxys_images(make_tiny_config):
    """torchvision pads to 128 px here, MMDetection's config to 32: 384 x 512 px suit both, 352 x 416 px do not."""
    pytest.importorskip("mmdet")
    path = Path(__file__).parents[1] / "detectors" / "mmdet" / "configs" / "gfl.py"

    def unpaired(size):
        config = make_tiny_config(data={"image_size_px": (384, 512)}, proxy={"image_size_px": size})
        return unpaired_taps(
            config.model_validate({**config.model_dump(), "student": {"framework": "mmdet", "config": str(path)}})
        )

    assert "class_logits" not in unpaired(None)
    assert "class_logits" not in unpaired((256, 384))
    assert "prediction layouts do not match" in unpaired((352, 416))["class_logits"]


@pytest.fixture
def mmdet_config(make_tiny_config):
    pytest.importorskip("mmdet")
    path = Path(__file__).parents[1] / "detectors" / "mmdet" / "configs" / "gfl.py"
    student = {"framework": "mmdet", "config": str(path)}

    def make(size):
        config = make_tiny_config(data={"image_size_px": (96, 96)}, proxy={"epochs": 1, "image_size_px": size})
        return config.model_validate({**config.model_dump(), "student": student})

    return make


@pytest.mark.filterwarnings("ignore")
def test_a_student_of_mmdetection_is_judged_on_small_images(mmdet_config, tmp_path, run_job):
    config = mmdet_config((64, 48))
    data = load_datasets(config.data, tmp_path)
    prepare(config, data, tmp_path)
    evaluator = TrainingEvaluatorFactory(config, tmp_path, tmp_path / "run", data)(WorkerResources())
    _, outcome = run_job(evaluator, Job("t", load_preset("cwd"), "proxy"))
    assert (outcome.status, outcome.message) == ("finished", "")
    assert 0 < outcome.metrics["cka"] < 1


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_cannot_work_on_the_small_images_is_refused_before_the_teacher_is_trained(
    mmdet_config, tmp_path, monkeypatch
):
    from autokd.detectors.mmdet.adapter import MmdetAdapter
    from autokd.errors import DetectorError

    def check(self, size):
        if size != (96, 96):
            raise DetectorError("no cells are left")

    monkeypatch.setattr(MmdetAdapter, "check_runs", check)
    config = mmdet_config((33, 34))
    data = load_datasets(config.data, tmp_path)
    with pytest.raises(DetectorError, match=r"proxy\.image_size_px is \[33, 34\].*no cells"):
        prepare(config, data, tmp_path)
    assert not (tmp_path / "teachers").exists()
