"""Preparation: the teacher, its AP, its taps and the warm start, each made once and kept by content."""

from __future__ import annotations

import pytest
import torch

from autokd.data import load_datasets
from autokd.detectors import build_detector
from autokd.errors import AutoKDError, ConfigError
from autokd.training import PrecisionMeter, prepare
from autokd.training.assets import TrainingAssets
from autokd.training.loop import train
from autokd.training.weights import weights_digest
from tests.support.training_samples import taps_bytes

CPU = torch.device("cpu")


class Watched:
    """Records the reports of progress."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, int, int, dict]] = []

    def __call__(self, stage, done, total, metrics) -> None:
        self.reports.append((stage, done, total, dict(metrics)))

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for stage, *_ in self.reports))


def test_a_second_preparation_makes_nothing(tiny_config, tiny_data, tiny_cache):
    prepare(tiny_config, tiny_data, tiny_cache)
    watched = Watched()
    prepare(tiny_config, tiny_data, tiny_cache, on_progress=watched)
    assert watched.reports == []
    # fpn 16 channels on 8 x 8, 4 x 4 and 2 x 2 cells, two bytes; 8 images in 2 views and 6 in one.
    assert taps_bytes(TrainingAssets(tiny_config, tiny_cache, CPU, tiny_data)) == 2 * 16 * (64 + 16 + 4) * (8 * 2 + 6)


def test_progress_tells_every_stage_to_its_end(tiny_config, tiny_data, tmp_path):
    watched = Watched()
    made = prepare(tiny_config, tiny_data, tmp_path, seeds=(0, 1), on_progress=watched)
    assert watched.stages == [
        "teacher",
        "teacher AP",
        "teacher taps, validation",
        "teacher taps, training",
        "warm start, seed 0",
        "warm start, seed 1",
    ]
    last = {stage: (done, total) for stage, done, total, _ in watched.reports}
    assert all(done == total for done, total in last.values())
    assert watched.reports[2][3]["train_loss"] > 0
    [*_, (_, _, _, scores)] = [entry for entry in watched.reports if entry[0] == "teacher AP"]
    assert scores == {"val_ap": made.score.val_ap, "test_ap": made.score.test_ap}


def test_the_teachers_score_is_its_ap_and_belongs_to_the_data(tiny_config, tiny_data, tiny_cache):
    made = prepare(tiny_config, tiny_data, tiny_cache)
    teacher = TrainingAssets(tiny_config, tiny_cache, CPU, tiny_data).teachers.first
    model = teacher.build(CPU)
    for dataset, ap in ((tiny_data.val, made.score.val_ap), (tiny_data.test, made.score.test_ap)):
        assert PrecisionMeter(dataset).measure(model, batch_size=4, device=CPU).map_50_95 == pytest.approx(ap)
    assert weights_digest(model.state_dict()) == teacher.digest
    assert not model.training


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": {"train": {"epochs": 1, "batch_size": 4}}},
        {"teacher": {"train": {"epochs": 2, "batch_size": 4, "seed": 1}}},
        {"teacher": {"fpn_channels": 8}},
        {"data": {"num_train": 7}},
    ],
)
def test_another_recipe_detector_or_data_set_is_another_teacher(make_tiny_config, tiny_cache, change):
    def folder(config):
        return TrainingAssets(config, tiny_cache, CPU).teachers.first.folder

    assert folder(make_tiny_config(**change)) != folder(make_tiny_config())


def test_a_checkpoint_is_loaded_and_not_trained(make_tiny_config, tiny_config, tiny_data, tiny_cache, tmp_path):
    trained = prepare(tiny_config, tiny_data, tiny_cache)
    path = tmp_path / "teacher.pth"
    teacher = TrainingAssets(tiny_config, tiny_cache, CPU, tiny_data).teachers.first
    torch.save(teacher.build(CPU).plain_state_dict(), path)
    config = make_tiny_config(teacher={"train": None, "checkpoint": path})
    watched = Watched()
    made = prepare(config, tiny_data, tmp_path / "cache", on_progress=watched)
    assert "teacher" not in watched.stages
    assert made.score.val_ap == trained.score.val_ap
    moved = config.teacher.model_copy(update={"checkpoint": path.rename(tmp_path / "moved.pth")})
    watched.reports.clear()
    prepare(config.model_copy(update={"teacher": moved}), tiny_data, tmp_path / "cache", on_progress=watched)
    assert watched.reports == []


def test_a_checkpoint_with_a_recipe_is_where_the_training_starts(make_tiny_config, tiny_config, tiny_data, tmp_path):
    """At a vanishing rate the trained teacher has the parameters of its checkpoint."""
    path = tmp_path / "start.pth"
    start = build_detector(tiny_config.teacher, len(tiny_data.train.classes), (64, 64))
    torch.save(start.plain_state_dict(), path)
    recipe = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-12}
    config = make_tiny_config(teacher={"train": recipe, "checkpoint": path})
    teacher = TrainingAssets(config, tmp_path / "cache", CPU, tiny_data).teachers.first
    assert teacher.is_trained_here
    trained = dict(teacher.build(CPU).named_parameters())
    for name, parameter in start.named_parameters():
        torch.testing.assert_close(trained[name], parameter, atol=1e-6, rtol=1e-6)
    # Another start is another teacher, whatever its path.
    torch.save({name: value * 2 for name, value in start.plain_state_dict().items()}, path)
    again = TrainingAssets(config, tmp_path / "cache", CPU, tiny_data).teachers.first
    assert again.folder != teacher.folder


def test_a_teacher_from_nowhere_is_refused_with_the_remedy(make_tiny_config, tiny_data, tmp_path):
    with pytest.raises(ConfigError, match=r"neither a checkpoint nor a recipe.*train: \{\}"):
        prepare(make_tiny_config(teacher={"train": None}), tiny_data, tmp_path)
    missing = make_tiny_config(teacher={"train": None, "checkpoint": tmp_path / "no.pth"})
    with pytest.raises(AutoKDError, match=r"no\.pth"):
        prepare(missing, tiny_data, tmp_path)


def test_the_warm_start_is_the_beginning_of_the_full_training(tiny_config, tiny_data, tiny_cache):
    assets = TrainingAssets(tiny_config, tiny_cache, CPU, tiny_data)
    student = assets.students.new(seed=0)
    training = train(student, assets.data.training_loader("full"), tiny_config.full, seed=0)
    next(training)  # one epoch of two
    warm = assets.students.warm(seed=0)
    assert weights_digest(warm.state_dict()) == weights_digest(student.state_dict())
    found = TrainingAssets(tiny_config, tiny_cache, CPU, tiny_data).students.warm(seed=0)
    assert weights_digest(found.state_dict()) == weights_digest(student.state_dict())


def test_warm_starts_differ_by_seed_and_vanish_when_switched_off(make_tiny_config, tiny_config, tiny_cache):
    assets = TrainingAssets(tiny_config, tiny_cache, CPU)
    digests = {weights_digest(assets.students.warm(seed).state_dict()) for seed in (0, 1)}
    assert len(digests) == 2
    for off in (None, {"epochs": 0}):
        cold = TrainingAssets(make_tiny_config(proxy={"warm_start": off}), tiny_cache, CPU)
        new = cold.students.new(0)
        assert weights_digest(cold.students.warm(0).state_dict()) == weights_digest(new.state_dict())


def test_without_a_test_file_test_is_val(make_tiny_config, tiny_config, tmp_path):
    from autokd.data import write_shapes

    root = write_shapes(tiny_config.data, tmp_path)
    data = {"format": "coco", "root": root, "train": "instances_train.json", "val": "instances_val.json"}
    config = tiny_config.model_validate({**tiny_config.model_dump(), "data": {**data, "image_size_px": (64, 64)}})
    score = prepare(config, load_datasets(config.data, tmp_path), tmp_path).score
    assert (score.test_ap, score.test_per_class) == (score.val_ap, score.val_per_class)
