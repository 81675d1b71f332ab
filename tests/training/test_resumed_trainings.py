"""A training interrupted at any step and resumed ends as if it had not been: losses, weights, memories, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autokd.errors import CheckpointError, NonFiniteError
from autokd.jobs import JobPreempted
from autokd.presets import load_preset
from autokd.training import CheckpointFile
from autokd.training.assets import TrainingAssets
from autokd.training.checkpoint.checkpoints import NO_CHECKPOINTS, Checkpoints
from autokd.training.checkpoint.state import TrainingState
from autokd.training.jobs.build_distillation import build_distillation
from autokd.training.loop import EpochResult, Schedule, StudentExtras, train
from autokd.training.optim.averaging import WeightAverage
from autokd.training.optim.frozen import parts_of
from tests.support.training_samples import make_config

CPU = torch.device("cpu")
ENDLESS = {
    "num_views": "endless", "color_jitter": 0.5, "mosaic_probability": 0.5, "batch_scale_range": (0.6, 1.0)
}  # fmt: skip

CASES: dict[str, dict[str, Any]] = {
    "alone": {},
    "adapters, relative weights": {"preset": "fitnet"},
    "a queue of negatives": {"preset": "g_detkd"},
    "prototypes": {"preset": "global_knowledge"},
    "generators that draw masks": {"preset": "mgd", "ratio": None},
    "two momenta": {"preset": "pkd", "recipe": {"optimizer": "dot"}},
    "sgd by epochs": {"recipe": {"optimizer": "sgd", "schedule": "cosine", "changes_by": "epoch"}},
    "endless views, a live teacher": {"preset": "fitnet", "recipe": ENDLESS},
    "sampled regions": {"architecture": "faster_rcnn", "preset": "pkd"},
    "a moving average, frozen parts": {"preset": "fitnet", "average": True, "frozen": ("stem",)},
    "steps that end within an epoch": {"preset": "fitnet", "schedule": Schedule(max_steps=5)},
}
NUM_STEPS = 6
"""8 images in batches of 3, 2 epochs."""


class Case:
    """One training, built anew for each process that works on it."""

    def __init__(self, settings: dict[str, Any], cache: Path) -> None:
        self.settings = settings
        recipe = {"epochs": 2, "batch_size": 3, "recalibrate_every": 2, **settings.get("recipe", {})}
        config = make_config(student={"architecture": settings.get("architecture", "fcos")}, full=recipe)
        self.assets = TrainingAssets(config, cache, CPU)

    def start(self, checkpoints: Checkpoints = NO_CHECKPOINTS, **changes: Any):
        """Return (iterator of epochs, function that returns all that the training has changed)."""
        settings, assets = self.settings, self.assets
        student = assets.students.new(0)
        loader = assets.data.training_loader("full")
        distillation = None
        if "preset" in settings:
            spec = load_preset(settings["preset"])
            if (ratio := settings.get("ratio", 20.0)) is not None:
                spec = spec.with_gradient_ratio(ratio)
            distillation = build_distillation(spec, student, loader, assets, "full", seed=0)
        average = WeightAverage(student, 0.9) if settings.get("average") else None
        extras = StudentExtras(parts_of(student, settings.get("frozen", ())), average)
        torch.rand(11)  # what the process drew before must not matter
        schedule = changes.get("schedule", settings.get("schedule", Schedule()))
        epochs = train(
            student, loader, assets.config.full, seed=0, distillation=distillation, schedule=schedule, extras=extras,
            checkpoints=checkpoints,
        )  # fmt: skip

        def end() -> dict[str, Any]:
            distiller = distillation.distiller.state_dict() if distillation else {}
            return {
                "student": student.state_dict(),
                "distiller": distiller,
                "average": average.get_state() if average else None,
            }

        return epochs, end


class Interrupting(CheckpointFile):
    """Checkpoints of a process that is asked to end during one of its steps."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(path, "key", every_s=3600.0)
        self._steps_left = step

    def after_step(self, snapshot) -> None:
        self._steps_left -= 1
        if self._steps_left == 0:
            self.termination.request()
        super().after_step(snapshot)


def timeless(results: list[EpochResult]) -> list[EpochResult]:
    return [replace(result, seconds=0.0) for result in results]


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for place, pair in enumerate(zip(one, other)):
            assert_equal(*pair, f"{where}.{place}")
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def uninterrupted(tiny_cache):
    """Case's name -> (case, results, end), each computed once."""
    known: dict[str, Any] = {}

    def get(name: str):
        if name not in known:
            case = Case(CASES[name], tiny_cache)
            epochs, end = case.start()
            known[name] = case, timeless(list(epochs)), end()
        return known[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_a_training_resumed_ends_as_the_uninterrupted_one(uninterrupted, tmp_path, name):
    """Three processes: the second begins in the middle of an epoch, the third at the end of one."""
    case, results, end = uninterrupted(name)
    path, found = tmp_path / "a.checkpoint", []
    for steps in (1, 2):  # after the first step of all, then after the last one of the first epoch
        epochs, _ = case.start(Interrupting(path, steps))
        with pytest.raises(JobPreempted):
            found.extend(epochs)
    assert found == [], "the first epoch has not ended for its caller"
    epochs, resumed_end = case.start(CheckpointFile(path, "key", 3600.0))
    found += epochs
    assert timeless(found) == results
    assert_equal(resumed_end(), end)


@pytest.mark.parametrize("step", range(1, NUM_STEPS))
@pytest.mark.parametrize("name", ["a queue of negatives", "prototypes"])
def test_every_step_is_a_place_to_go_on_from(uninterrupted, tmp_path, name, step):
    case, results, end = uninterrupted(name)
    path, found = tmp_path / "a.checkpoint", []
    epochs, _ = case.start(Interrupting(path, step))
    with pytest.raises(JobPreempted):
        found.extend(epochs)
    epochs, resumed_end = case.start(CheckpointFile(path, "key", 3600.0))
    found += epochs
    assert timeless(found) == results
    assert_equal(resumed_end(), end)


def test_a_state_restored_says_of_itself_what_was_saved(uninterrupted, tmp_path):
    """Optimizer and random state too, which the student's weights show only later."""
    case, *_ = uninterrupted("prototypes")
    path = tmp_path / "a.checkpoint"
    epochs, _ = case.start(Interrupting(path, 4))
    with pytest.raises(JobPreempted):
        list(epochs)
    saved = CheckpointFile(path, "key", 3600.0).saved
    assert saved is not None
    assert saved["position"] | {"seconds": 0} == {"epoch": 2, "step": 4, "steps_in_epoch": 1, "seconds": 0}
    state = restored_state(case, saved)
    assert_equal(state.snapshot(), {name: value for name, value in saved.items() if name != "losses"})


def restored_state(case: Case, saved: Any) -> TrainingState:
    from autokd.training.optim.update import make_update_rule

    student = case.assets.students.new(3)  # other weights than those of the training
    spec = load_preset("global_knowledge").with_gradient_ratio(20.0)
    loader = case.assets.data.training_loader("full")
    distiller = build_distillation(spec, student, loader, case.assets, "full", seed=3).distiller
    rule = make_update_rule(student, distiller, case.assets.config.full, CPU)
    state = TrainingState(student, distiller, rule, None, CPU)
    state.restore(saved)
    return state


def test_a_training_killed_between_checkpoints_goes_on_from_the_last(uninterrupted, tmp_path):
    """A kill leaves what was written by then; what was computed since is computed again."""
    case, results, end = uninterrupted("adapters, relative weights")
    path, copies = tmp_path / "a.checkpoint", []

    class Copying(CheckpointFile):
        def after_step(self, snapshot) -> None:
            super().after_step(snapshot)
            self._wait()
            copies.append(path.read_bytes())

    list(case.start(Copying(path, "key", every_s=0.0))[0])
    assert len(copies) == NUM_STEPS
    for content in (copies[0], copies[3]):
        path.write_bytes(content)
        epochs, resumed_end = case.start(CheckpointFile(path, "key", 3600.0))
        found = timeless(list(epochs))
        assert found == results[-len(found) :]
        assert_equal(resumed_end(), end)


def test_a_training_cut_off_is_continued_to_another_epoch(uninterrupted, tmp_path):
    """So successive halving trains nothing twice: the state at the end of a part is kept, a longer part goes on."""
    case, results, end = uninterrupted("prototypes")
    first, second = tmp_path / "first.checkpoint", tmp_path / "second.checkpoint"
    keeping = CheckpointFile(first, "key", 3600.0, keeps_last=True)
    epochs, _ = case.start(keeping, schedule=Schedule(stop_after=1))
    found = list(epochs)
    keeping.delete()
    kept = first.read_bytes()
    continuing = CheckpointFile(second, "key", 3600.0, continue_from=first)
    epochs, resumed_end = case.start(continuing)
    found += epochs
    assert timeless(found) == results
    assert_equal(resumed_end(), end)
    continuing.delete()
    assert first.read_bytes() == kept
    assert not second.exists()


def test_a_training_that_has_ended_yields_nothing_more(uninterrupted, tmp_path):
    case, _, end = uninterrupted("alone")
    path = tmp_path / "a.checkpoint"
    list(case.start(CheckpointFile(path, "key", 3600.0, keeps_last=True))[0])
    epochs, again = case.start(CheckpointFile(path, "key", 3600.0))
    assert list(epochs) == []
    assert_equal(again(), end)


def test_the_state_of_another_distiller_is_refused_before_anything_is_loaded(uninterrupted, tmp_path):
    case, *_ = uninterrupted("prototypes")
    path = tmp_path / "a.checkpoint"
    epochs, _ = case.start(Interrupting(path, 1))
    with pytest.raises(JobPreempted):
        list(epochs)
    other, *_ = uninterrupted("adapters, relative weights")
    epochs, end = other.start(CheckpointFile(path, "key", 3600.0))
    before = {name: value.clone() for name, value in end()["student"].items()}
    with pytest.raises(CheckpointError, match="distiller differs"):
        list(epochs)
    assert_equal(dict(end()["student"]), before)


def test_a_state_with_losses_that_are_not_finite_is_never_saved(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr("autokd.training.loop.GPU_CHECK_STEPS", 1)
    case, *_ = uninterrupted("alone")
    path = tmp_path / "a.checkpoint"
    student = case.assets.students.new(0)
    with torch.no_grad():
        next(student.parameters()).fill_(float("nan"))
    epochs = train(
        student, case.assets.data.training_loader("full"), case.assets.config.full, seed=0,
        checkpoints=CheckpointFile(path, "key", 0.0),
    )  # fmt: skip
    with pytest.raises(NonFiniteError):
        list(epochs)
    assert not path.exists()
