"""Cheaper proxies: chosen images, frozen parts, fewer measurements, steps that are no whole epochs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autokd.config import Recipe
from autokd.detectors import build_detector
from autokd.errors import DataError, DetectorError
from autokd.jobs import Job, WorkerResources
from autokd.presets import load_preset
from autokd.spec import DistillerSpec
from autokd.training import PrecisionMeter, Schedule, StudentExtras, TrainingEvaluatorFactory, prepare, train
from autokd.training.assets import TrainingAssets
from autokd.training.jobs.build_distillation import build_distillation
from autokd.training.optim.averaging import WeightAverage
from autokd.training.optim.frozen import parts_of
from autokd.training.optim.optimizer import rate_factor
from autokd.training.seeds import stream_seed

CPU = torch.device("cpu")


@pytest.fixture
def run_proxy(make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job):
    def run(spec=None, **proxy):
        config = make_tiny_config(proxy=proxy)
        evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "run", tiny_data)(WorkerResources())
        return run_job(evaluator, Job("t", spec, "proxy"))

    return run


@pytest.fixture
def assets_of(make_tiny_config, tiny_data, tiny_cache):
    return lambda **proxy: TrainingAssets(make_tiny_config(proxy=proxy), tiny_cache, CPU, tiny_data)


# -------------------------------------------------------------------------------------- averaged weights


def test_the_average_is_that_of_its_definition_and_leaves_the_weights_alone():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    average, expected = WeightAverage(student, 0.5), None
    for n in range(30):
        with torch.no_grad():
            for tensor in (*student.parameters(), student[1].running_mean):
                tensor.normal_()
            student[1].num_batches_tracked += 1
        now = {name: tensor.double().clone() for name, tensor in student.state_dict().items()}
        decay = min(0.5, n / (n + 9))
        expected = now if n == 0 else {k: decay * expected[k] + (1 - decay) * now[k] for k in now}
        average.update()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with average.in_place():
        for name, tensor in student.state_dict().items():
            wanted = before[name].double() if "num_batches" in name else expected[name]
            torch.testing.assert_close(tensor.double(), wanted, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_an_average_needs_a_decay_between_0_and_1(decay):
    with pytest.raises(ValueError, match="between 0 and 1"):
        WeightAverage(nn.Linear(1, 1), decay)


def test_a_proxy_measures_the_average_and_trains_as_without(run_proxy):
    plain, averaged = run_proxy(), run_proxy(weight_average=0.9)
    for ours, theirs in zip(averaged[0], plain[0], strict=True):
        assert ours.metrics["train_loss"] == theirs.metrics["train_loss"], "the training is the same"
        assert ours.metrics["val_loss"] != theirs.metrics["val_loss"]
    assert averaged[1].status == "finished"


def test_ratios_that_drift_are_those_of_the_first_steps(run_proxy):
    """The third step is the last that is measured anyway; from the fourth on the trainings part."""
    spec = load_preset("fitnet").with_gradient_ratio(40.0)
    kept, drifting = (run_proxy(spec, recalibrate_every=every, epochs=3) for every in (1, None))
    ours, theirs = ([report.metrics["train_loss"] for report in run[0]] for run in (kept, drifting))
    assert ours[0] == theirs[0]
    assert ours[2] != theirs[2]


# ---------------------------------------------------------------------------------------------- images


def seen_images(loader, seed: int, epochs=(1, 2)) -> list[set[int]]:
    return [{image for batch in loader.epoch(seed, epoch) for image, _ in batch.pairs} for epoch in epochs]


def test_a_stratified_proxy_sees_every_class_and_the_same_images_in_every_epoch(assets_of, tiny_data):
    assets = assets_of(subset=0.5, subset_rule="stratified")
    loader = assets.proxy_loader()
    labels = [set(tiny_data.train.target(index)["labels"].tolist()) for index in range(8)]
    for seed in range(3):
        first, second = seen_images(loader, seed)
        assert first == second
        assert len(first) == 4
        assert set().union(*(labels[index] for index in first)) == set().union(*labels)
    assert loader.steps_per_epoch(0) == 1
    assert assets.data.training_loader("full").steps_per_epoch(0) == 2


def test_a_proxy_of_k_centers_sees_images_far_apart_in_the_teachers_eyes(assets_of):
    assets = assets_of(subset=0.5, subset_rule="k_center")
    loader = assets.proxy_loader()
    [chosen] = seen_images(loader, 0, epochs=(1,))
    # The teacher's own forward of every view, pooled and compared here.
    teacher, features = assets.teachers.first.build(CPU), []
    with torch.no_grad():
        for image in range(8):
            [batch] = loader.of_pairs([[(image, 0), (image, 1)]])
            features.append(teacher(batch.images_BCHW, taps=("fpn",)).pyramid["p5"].mean(dim=(0, 2, 3)).numpy())
    distances_NN = np.linalg.norm(np.stack(features)[:, None] - np.stack(features)[None], axis=2)

    def traversal(first: int) -> set[int]:
        found = [first]
        while len(found) < 4:
            found.append(int(distances_NN[found].min(axis=0).argmax()))
        return set(found)

    assert chosen in [traversal(first) for first in chosen]


def test_a_random_part_is_chosen_as_ever(assets_of):
    plain, ruled = assets_of(subset=0.5), assets_of(subset=0.5, subset_rule="random")
    parts = [seen_images(p.proxy_loader(), 3) for p in (plain, ruled)]
    assert parts[0] == parts[1]
    assert ruled.proxy_loader().choose is None


@pytest.mark.parametrize("rule", ["stratified", "k_center"])
def test_all_images_are_all_images_by_any_rule(assets_of, rule):
    assets = assets_of(subset_rule=rule)
    assert seen_images(assets.proxy_loader(), 0) == [set(range(8))] * 2


def test_a_part_too_small_for_every_class_is_refused_before_anything_is_trained(make_tiny_config, tiny_data, tmp_path):
    config = make_tiny_config(proxy={"subset": 0.1, "subset_rule": "stratified"})
    with pytest.raises(DataError, match=r"proxy\.subset is 0\.1: 1 of 8 images"):
        prepare(config, tiny_data, tmp_path)
    assert not (tmp_path / "teachers").exists()


# -------------------------------------------------------------------------------------------- frozen


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("spec", [None, load_preset("fitnet")])
@pytest.mark.parametrize(("part", "prefixes"), [("backbone", ("",)), ("stem", ("conv1.", "bn1."))])
def test_frozen_parts_are_bit_equal_after_training_and_the_rest_has_moved(assets_of, spec, part, prefixes):
    assets = assets_of(frozen=(part,))
    recipe = assets.config.proxy
    student, loader = assets.students.warm(0), assets.proxy_loader()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    distillation = build_distillation(spec, student, loader, assets, "proxy", 0) if spec else None
    for _ in train(
        student, loader, recipe, seed=0, distillation=distillation, extras=StudentExtras(parts_of(student, (part,)))
    ):
        student.eval().train()  # as measuring does
    changed = moved(before, student.state_dict())
    body = "model.backbone.body."
    frozen = {name for name in before if name.startswith(tuple(body + prefix for prefix in prefixes))}
    assert len(frozen) >= 6
    assert any("running_mean" in name for name in frozen)
    assert not changed & frozen
    assert changed >= {name for name, _ in student.named_parameters()} - frozen
    if part == "stem":
        assert "model.backbone.body.layer1.0.bn1.running_mean" in changed
    assert all(parameter.grad is None for name, parameter in student.named_parameters() if name in frozen)


def test_nothing_frozen_is_the_training_as_ever(assets_of, run_proxy, tiny_config, tiny_data, tiny_cache):
    assets = assets_of()
    student = assets.students.warm(0)
    loader = assets.proxy_loader()
    *_, last = train(student, loader, assets.config.proxy, seed=stream_seed(0, "proxy"))
    assert run_proxy()[1].metrics["train_loss"] == last.task_loss


def test_a_frozen_proxy_is_another_training_and_later_ones_are_as_ever(
    make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job, run_proxy
):
    plain = run_proxy()[1].metrics["val_loss"]
    config = make_tiny_config(proxy={"frozen": ("backbone",)})
    evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path, tiny_data)(WorkerResources())
    losses = [run_job(evaluator, Job("t", None, "proxy"))[1].metrics["val_loss"] for _ in range(2)]
    assert losses[0] == losses[1] != plain
    assert all(parameter.requires_grad for parameter in evaluator.assets.students.warm(0).parameters())


def test_full_trainings_and_warm_starts_freeze_nothing(assets_of, make_tiny_config, tiny_data, tmp_path, run_job):
    frozen, plain = assets_of(frozen=("backbone",)), assets_of()
    assert frozen.students.warm_start_key(0) == plain.students.warm_start_key(0)
    results = []
    for proxy in ({"frozen": ("backbone",)}, {}):
        factory = TrainingEvaluatorFactory(make_tiny_config(proxy=proxy), frozen.data.cache_dir, tmp_path, tiny_data)
        results.append(run_job(factory(WorkerResources()), Job("t", None, "full"))[1].metrics["val_loss"])
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", ["retinanet", "rtmdet", "yolox"])
def test_students_of_mmdetection_have_stem_and_backbone(architecture):
    pytest.importorskip("mmdet")
    from autokd.config import MmdetDetector

    path = Path(__file__).parents[1] / "detectors" / "mmdet" / "configs" / f"{architecture}.py"
    student = build_detector(MmdetDetector(framework="mmdet", config=str(path)), 3, (96, 96))
    [body] = parts_of(student, ("backbone",))
    assert body is student.model.backbone
    stem = {id(p) for part in parts_of(student, ("stem",)) for p in part.parameters()}
    owned = {id(p) for p in body.parameters()}
    assert stem < owned
    first = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    assert id(first.weight) in stem


def test_a_body_without_a_known_stem_is_refused_with_the_remedy(assets_of):
    student = assets_of().students.new(0)
    student.model.backbone.body = nn.Sequential(nn.Conv2d(3, 3, 1))
    with pytest.raises(DetectorError, match=r"proxy\.frozen.*Sequential of 0.*Freeze 'backbone'"):
        parts_of(student, ("stem",))


# ------------------------------------------------------------------------------------------ measuring


@pytest.fixture
def found_anew(tiny_data, monkeypatch):
    """Detections on val: four of five true boxes, shifted more for higher classes; and the AP of each (class, IoU)."""
    from pycocotools.cocoeval import COCOeval

    truth = tiny_data.val.ground_truth()
    found = []
    for i, row in enumerate(truth.dataset["annotations"]):
        x, y, width, height = row["bbox"]
        shift = 0.03 * tiny_data.val.category_ids.index(row["category_id"])
        box = [x + shift * width, y + shift * height, width, height]
        if i % 5:
            found.append({**row, "bbox": box, "score": 1 - i / 99})
    calls, score = [], PrecisionMeter.score
    monkeypatch.setattr(
        PrecisionMeter, "score", lambda self, _, indices=None: calls.append(1) or score(self, found, indices)
    )
    evaluation = COCOeval(truth, truth.loadRes([dict(row) for row in found]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision_TRK = evaluation.eval["precision"][:, :, :, 0, 2]
    present_K = (precision_TRK > -1).any(axis=(0, 1))
    return precision_TRK[:, :, present_K].mean(axis=1).T, calls


def test_ap_50_and_the_worst_class_come_of_the_one_measuring(run_proxy, found_anew):
    of_classes_KT, calls = found_anew
    _, outcome = run_proxy(reward=("ap_50", "ap_worst_class"), epochs=1)
    assert len(calls) == 1
    assert outcome.metrics["ap_50"] == pytest.approx(of_classes_KT[:, 0].mean())
    assert outcome.metrics["ap_worst_class"] == pytest.approx(of_classes_KT.mean(axis=1).min())
    assert 0 < outcome.metrics["ap_worst_class"] < outcome.metrics["ap_50"] < 1
    assert "ap" not in outcome.metrics


def test_every_part_of_ap_at_once(run_proxy, found_anew):
    _, outcome = run_proxy(reward=("ap", "ap_50", "ap_worst_class", "cka"), epochs=1)
    assert outcome.metrics["ap"] == pytest.approx(found_anew[0].mean())
    assert outcome.metrics["ap_worst_class"] < outcome.metrics["ap"] < outcome.metrics["ap_50"]


def test_measured_at_the_end_only_the_end_is_the_same(run_proxy):
    every, whole = run_proxy(load_preset("fitnet"), epochs=3)
    once, outcome = run_proxy(load_preset("fitnet"), epochs=3, measure="last_epoch")
    assert [report.epoch for report in once] == [1, 2, 3]
    for early in once[:2]:
        assert set(early.metrics) == {"train_loss", "train_seconds", "distill_loss"}
    for early, full in zip(once, every):
        assert early.metrics["train_loss"] == full.metrics["train_loss"]
    for name in ("val_loss", "cka"):
        assert outcome.metrics[name] == whole.metrics[name]


# ---------------------------------------------------------------------------------------------- steps


class Rates:
    """The learning rates of a training's steps, as its optimizer gets them. A limit by measured steps adds theirs."""

    def __init__(self, monkeypatch) -> None:
        from autokd.training.optim.update import UpdateRule

        self.found: list[float] = []
        set_rate = UpdateRule.set_rate
        monkeypatch.setattr(UpdateRule, "set_rate", lambda this, rate: self.found.append(rate) or set_rate(this, rate))


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (2, 1), (3, 2), (4, 2), (9, 2)])
def test_a_proxy_ends_after_its_steps_and_its_schedule_with_them(run_proxy, assets_of, monkeypatch, steps, epochs):
    """Two epochs of two steps; 9 steps are more than these."""
    assets_of().students.warm(0)
    rates = Rates(monkeypatch)
    reports, outcome = run_proxy(epochs=2, steps=steps, timeout_factor=None)
    recipe, taken = Recipe(epochs=2, batch_size=4), min(steps, 4)
    assert rates.found == [recipe.learning_rate * rate_factor(step, taken, recipe) for step in range(taken)]
    assert [report.epoch for report in reports] == list(range(1, epochs + 1))
    assert outcome.metrics["val_loss"] > 0


def test_a_proxy_of_a_longer_schedule_is_cut_off_and_measured_where_it_ends(run_proxy, assets_of, monkeypatch):
    """Two epochs of two steps, of a schedule of five epochs."""
    assets_of().students.warm(0)
    rates = Rates(monkeypatch)
    reports, _ = run_proxy(epochs=2, of_epochs=5, measure="last_epoch", timeout_factor=None)
    recipe = Recipe(epochs=5, batch_size=4)
    assert rates.found == [recipe.learning_rate * rate_factor(step, 10, recipe) for step in range(4)]
    assert ["val_loss" in report.metrics for report in reports] == [False, True]


def test_a_proxy_tells_the_parts_of_its_validation_loss(run_proxy):
    metrics = run_proxy(epochs=1)[1].metrics
    parts = [value for name, value in metrics.items() if name.startswith("val_loss/")]
    assert len(parts) == 3  # classification, boxes, centerness of FCOS
    assert sum(parts) == pytest.approx(metrics["val_loss"])


def test_as_many_steps_as_there_are_change_nothing(run_proxy):
    plain, capped = run_proxy(load_preset("fitnet"))[1], run_proxy(load_preset("fitnet"), steps=4)[1]
    names = ("train_loss", "distill_loss", "val_loss", "cka")
    assert [plain.metrics[name] for name in names] == [capped.metrics[name] for name in names]


def test_the_last_part_of_an_epoch_is_measured_as_its_last(run_proxy):
    reports, _ = run_proxy(epochs=2, steps=3, measure="last_epoch")
    assert ["val_loss" in report.metrics for report in reports] == [False, True]


def test_a_distillers_schedule_ends_with_the_steps(assets_of):
    assets = assets_of()
    recipe = assets.config.proxy
    text = (
        "{schema: 2, terms: [{source: feature_map, transforms: [standardize], distance: l2, "
        "weight: {absolute: 1.0, schedule: linear_decay}}]}"
    )
    student, loader = assets.students.warm(0), assets.proxy_loader()
    distillation = build_distillation(DistillerSpec.from_yaml(text), student, loader, assets, "proxy", 0)
    progress = []
    distillation.distiller.register_forward_pre_hook(lambda module, *_: progress.append(module.progress))
    results = list(train(student, loader, recipe, seed=0, distillation=distillation, schedule=Schedule(max_steps=3)))
    np.testing.assert_allclose(progress, [0, 1 / 3, 2 / 3], rtol=1e-12)
    assert [(result.epoch, result.num_epochs) for result in results] == [(1, 2), (2, 2)]


def test_the_images_of_a_part_of_an_epoch_are_its_first(assets_of):
    assets = assets_of()
    loader = assets.proxy_loader()
    whole, part = (list(loader.epoch(5, 1, max_steps)) for max_steps in (None, 1))
    assert [batch.pairs for batch in part] == [batch.pairs for batch in whole[:1]]


def test_everything_at_once_prepares_and_trains(make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job):
    config = make_tiny_config(
        proxy={
            "image_size_px": (48, 48), "subset": 0.75, "subset_rule": "k_center", "frozen": ("stem",), "steps": 3,
            "reward": ("val_loss", "cka", "ap", "ap_50", "ap_worst_class"), "measure": "last_epoch",
        }
    )  # fmt: skip
    prepare(config, tiny_data, tiny_cache)
    evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path, tiny_data)(WorkerResources())
    outcomes = [run_job(evaluator, Job("t", load_preset("pkd"), "proxy"))[1] for _ in range(2)]
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    assert set(config.proxy.reward) <= set(outcomes[0].metrics)
    assert outcomes[0].metrics["val_loss"] == outcomes[1].metrics["val_loss"]
